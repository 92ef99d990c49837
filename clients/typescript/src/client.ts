/**
 * The scheduler's API for programs: submit a workflow, watch it to its end, read what it gave and what it wrote.
 *
 * Owns deadlines and the resuming of streams. Must not know how anything is shown.
 */
import { status, type ClientReadableStream } from '@grpc/grpc-js';
import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';

import type { Payload__Output as Payload } from './gen/nodeflow/common/v1/Payload.js';
import type { Execution__Output as Execution } from './gen/nodeflow/scheduler/v1/Execution.js';
import type { SchedulerServiceClient } from './gen/nodeflow/scheduler/v1/SchedulerService.js';
import type { TailLogsRequest } from './gen/nodeflow/scheduler/v1/TailLogsRequest.js';
import type { TailLogsResponse__Output as Tailed } from './gen/nodeflow/scheduler/v1/TailLogsResponse.js';
import type { WatchExecutionResponse__Output as Watched } from './gen/nodeflow/scheduler/v1/WatchExecutionResponse.js';
import type { WorkflowReference } from './gen/nodeflow/scheduler/v1/WorkflowReference.js';
import { isCode, schedulerStub } from './protocol.js';

export type { Execution, Payload, Tailed, Watched };

/** Which lines to read; all of them if nothing is said. */
export type LogSelection = Omit<TailLogsRequest, 'executionId' | 'cursor'>;

const CALL_TIMEOUT_MS = 15_000;
const RESUME_DELAY_MS = 200;
// How long a service that has answered before may be away, say because it is being restarted.
const PATIENCE_MS = 60_000;
// A stream that lasted this long had been had, although nothing came: to connect and be refused takes less.
const HAD_AFTER_MS = 15_000;

export interface SubmitOptions {
  /** By parameter; anything that JSON can say. */
  inputs?: Record<string, unknown>;
  /** A repeat with the same id and content gets the same execution. One is drawn if none is given. */
  requestId?: string;
  labels?: Record<string, string>;
}

/** What a callback of a unary method is called with. */
type Answer<R> = (error: Error | null, response?: R) => void;

export class Client {
  readonly #stub: SchedulerServiceClient;

  /** Connects with the first call. */
  constructor(address = '127.0.0.1:7420') {
    this.#stub = schedulerStub(address);
  }

  close(): void {
    this.#stub.close();
  }

  /** Starts an execution; resolves once it is durable. */
  async submit(workflow: WorkflowReference, options: SubmitOptions = {}): Promise<Execution> {
    const request = {
      workflow,
      inputs: { data: Buffer.from(JSON.stringify(options.inputs ?? {})) },
      requestId: options.requestId ?? randomUUID(),
      labels: options.labels ?? {},
    };
    const response = await unary<{ execution: Execution | null }>((answer, deadline) =>
      this.#stub.submitExecution(request, { deadline }, answer),
    );
    return present(response.execution);
  }

  async get(executionId: string): Promise<Execution> {
    const response = await unary<{ execution: Execution | null }>((answer, deadline) =>
      this.#stub.getExecution({ executionId }, { deadline }, answer),
    );
    return present(response.execution);
  }

  /** Tells what runs to stop, and starts nothing new; resolves once that is durable. */
  async cancel(executionId: string, reason = ''): Promise<Execution> {
    const response = await unary<{ execution: Execution | null }>((answer, deadline) =>
      this.#stub.cancelExecution({ executionId, reason }, { deadline }, answer),
    );
    return present(response.execution);
  }

  /**
   * Yields batches of events, each event once and in order, to the execution's end.
   *
   * Begins after `cursor`, or at the first event. A lost connection is resumed after the last batch that was yielded; to go
   * on in another process, keep that batch's cursor.
   */
  watch(executionId: string, cursor = ''): AsyncGenerator<Watched, void, undefined> {
    return resumed((after) => this.#stub.watchExecution({ executionId, cursor: after }), cursor);
  }

  /**
   * Yields batches of the lines that the attempts of an execution wrote, each line once; with `follow` to the execution's end.
   *
   * `which` chooses among them by node, task, attempt, stream or text. Resumes as `watch` does.
   */
  tailLogs(executionId: string, which: LogSelection = {}, cursor = ''): AsyncGenerator<Tailed, void, undefined> {
    return resumed((after) => this.#stub.tailLogs({ ...which, executionId, cursor: after }), cursor);
  }

  /** Returns the value of a payload, wherever its bytes are: what its JSON says, or the bytes of any other type. */
  async read(payload: Payload): Promise<unknown> {
    const bytes = payload.artifact ? await this.#download(payload.artifact.digest) : (payload.data ?? Buffer.alloc(0));
    const isJson = payload.contentType === '' || payload.contentType === 'application/json';
    return isJson ? JSON.parse(bytes.toString()) : bytes;
  }

  async #download(digest: string): Promise<Buffer> {
    const parts: Buffer[] = [];
    for await (const part of messages(this.#stub.downloadArtifact({ digest }))) parts.push(part.data);
    return Buffer.concat(parts);
  }
}

/** Yields the messages of a stream that tells a cursor; a lost connection is resumed after the last that was yielded. */
async function* resumed<R extends { cursor: string }>(
  open: (cursor: string) => ClientReadableStream<R>,
  cursor: string,
): AsyncGenerator<R, void, undefined> {
  let lostAt: number | undefined;
  for (;;) {
    const triedAt = performance.now();
    try {
      for await (const batch of messages(open(cursor))) {
        yield batch;
        cursor = batch.cursor;
        lostAt = undefined;
      }
      return;
    } catch (error) {
      const now = performance.now();
      if (lostAt === undefined || now - triedAt >= HAD_AFTER_MS) lostAt = now;
      if (!isCode(error, status.UNAVAILABLE) || now - lostAt > PATIENCE_MS) throw error;
      await delay(RESUME_DELAY_MS);
    }
  }
}

/** Makes a call with a deadline; rejects with the ServiceError of gRPC, whose `details` say what is wrong. */
function unary<R>(call: (answer: Answer<R>, deadline: number) => unknown): Promise<R> {
  return new Promise((resolve, reject) => {
    call((error, response) => (error ? reject(error) : resolve(response as R)), Date.now() + CALL_TIMEOUT_MS);
  });
}

/** Yields the messages of a stream; a reader that leaves early ends the call. */
async function* messages<R>(call: ClientReadableStream<R>): AsyncGenerator<R, void, undefined> {
  // The end of a cancelled call is told as an error, when nobody reads any more.
  call.on('error', () => undefined);
  try {
    for await (const message of call) yield message as R;
  } finally {
    call.cancel();
  }
}

/** A message field that a service always sets. */
function present<T>(value: T | null): T {
  if (value === null) throw new Error('the answer is incomplete: is the server of another version?');
  return value;
}
