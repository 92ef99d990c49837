/**
 * A worker: the Connect stream to a worker-manager, its session and its lease. docs/any-language.md tells the protocol.
 *
 * Owns the life of the stream and the timers of heartbeat and lease. Must not know how anything is executed.
 */
import { status, type ClientDuplexStream } from '@grpc/grpc-js';
import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';

import { execute, milliseconds, type TaskFunctions } from './execution.js';
import type { AssignmentBatch__Output as AssignmentBatch } from './gen/nodeflow/worker_manager/v1/AssignmentBatch.js';
import type { AttemptKey } from './gen/nodeflow/worker_manager/v1/AttemptKey.js';
import type { ConnectRequest } from './gen/nodeflow/worker_manager/v1/ConnectRequest.js';
import type { ConnectResponse__Output as ConnectResponse } from './gen/nodeflow/worker_manager/v1/ConnectResponse.js';
import type { WorkerManagerServiceClient } from './gen/nodeflow/worker_manager/v1/WorkerManagerService.js';
import type { Welcome__Output as Welcome } from './gen/nodeflow/worker_manager/v1/Welcome.js';
import { Held, type Attempt } from './held.js';
import { isCode, workerManagerStub } from './protocol.js';
import { Values } from './values.js';

const RECONNECT_DELAY_MS = 300;
const WELCOME_TIMEOUT_MS = 10_000;
// The share of the lease that is kept for stopping, so that attempts always stop before the lease ends elsewhere.
const LEASE_MARGIN = 0.1;

export interface WorkerOptions {
  /** The worker-manager. */
  address?: string;
  /** The worker's lasting name: 1 to 128 of `a-z A-Z 0-9 . _ -`. */
  workerId: string;
  /** By the names that documents use: `module:callable`. */
  functions: TaskFunctions;
  /** How many attempts run at once. */
  slots?: number;
  labels?: Record<string, string>;
}

export class Worker {
  readonly #options: WorkerOptions;
  readonly #stub: WorkerManagerServiceClient;
  readonly #values: Values;
  readonly #running = new Set<Promise<void>>();
  #held: Held;
  #sessionId: string = randomUUID();
  #call: ClientDuplexStream<ConnectRequest, ConnectResponse> | undefined;
  #welcomed = false;
  #draining = false;
  #left = false;
  #beat = 0;
  #sentAt = new Map<string, number>();
  #leaseMs = 0;
  #leaseEndsAt = Infinity;
  #heartbeats: NodeJS.Timeout | undefined;
  #leaseTimer: NodeJS.Timeout | undefined;

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#held = new Held(options.slots ?? 1);
    this.#stub = workerManagerStub(options.address ?? '127.0.0.1:7422');
    this.#values = new Values(this.#stub);
  }

  /** Works until it has drained. Rejects if it is refused for good, or if attempts go on after the lease has ended. */
  async run(): Promise<void> {
    try {
      while (!this.#left) {
        if (performance.now() >= this.#leaseEndsAt) await this.#beginSession();
        await this.#connect();
      }
    } finally {
      clearTimeout(this.#leaseTimer);
      this.#stub.close();
    }
  }

  /** Takes nothing new, finishes what is held, and leaves. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#sendHeartbeat();
    this.#leaveIfDone();
  }

  // The stream.

  async #connect(): Promise<void> {
    const call = (this.#call = this.#stub.connect());
    // Its end is told to the loop below; one that comes after it, when the call is cancelled, to nobody.
    call.on('error', () => undefined);
    const patience = setTimeout(() => call.cancel(), WELCOME_TIMEOUT_MS);
    const helloAt = performance.now();
    call.write({ hello: this.#hello() });
    try {
      for await (const message of call) {
        clearTimeout(patience);
        this.#on(message as ConnectResponse, helloAt);
      }
    } catch (error) {
      if (isCode(error, status.INVALID_ARGUMENT)) throw error;
      if (isCode(error, status.FAILED_PRECONDITION)) await this.#beginSession();
    } finally {
      clearTimeout(patience);
      clearInterval(this.#heartbeats);
      this.#welcomed = false;
      this.#call = undefined;
      call.cancel();
    }
    this.#left = this.#draining && this.#held.isEmpty;
    if (!this.#left) await delay(RECONNECT_DELAY_MS);
  }

  #hello() {
    const { workerId, labels = {} } = this.#options;
    return { workerId, sessionId: this.#sessionId, capacity: this.#capacity(), labels, version: 'nodeflow-client 0.1.0' };
  }

  #capacity() {
    return { slots: this.#held.slots, credits: 0 };
  }

  #on(message: ConnectResponse, helloAt: number): void {
    if (message.welcome) this.#onWelcome(message.welcome, helloAt);
    else if (message.heartbeatReply) this.#onHeartbeatReply(message.heartbeatReply.beat);
    else if (message.assignments) this.#onAssignments(message.assignments);
    else if (message.acknowledgement) this.#onAcknowledged(message.acknowledgement.resultIds);
    else if (message.cancellation) for (const key of message.cancellation.attempts) this.#held.find(key)?.stop('cancel');
    else if (message.reportHeld) this.#send({ held: this.#held.report() });
    else if (message.drain) this.drain();
  }

  #onWelcome(welcome: Welcome, helloAt: number): void {
    this.#welcomed = true;
    this.#leaseMs = welcome.leaseTimeout ? milliseconds(welcome.leaseTimeout) : 0;
    this.#sentAt.clear();
    this.#extendLease(helloAt);
    // First of all: what is still held. It also repeats every result that was not acknowledged.
    this.#send({ held: this.#held.report() });
    this.#sendHeartbeat();
    const intervalMs = welcome.heartbeatInterval ? milliseconds(welcome.heartbeatInterval) : 1_000;
    this.#heartbeats = setInterval(() => this.#sendHeartbeat(), intervalMs);
    this.#leaveIfDone();
  }

  /** Tells the worker-manager. Without a stream nothing is lost, because `held` says it all after the next welcome. */
  #send(message: ConnectRequest): void {
    if (this.#welcomed) this.#call?.write(message);
  }

  // The lease.

  #sendHeartbeat(): void {
    if (!this.#welcomed) return;
    const beat = String(++this.#beat);
    this.#sentAt.set(beat, performance.now());
    this.#send({ heartbeat: { beat, capacity: this.#capacity(), draining: this.#draining } });
  }

  #onHeartbeatReply(beat: string): void {
    const sentAt = this.#sentAt.get(beat);
    if (sentAt === undefined) return;
    this.#sentAt.delete(beat);
    this.#extendLease(sentAt);
  }

  /** The lease lasts from when the heartbeat was sent, so that this side always stops first. */
  #extendLease(sentAt: number): void {
    this.#leaseEndsAt = sentAt + this.#leaseMs;
    clearTimeout(this.#leaseTimer);
    const stopsAt = this.#leaseEndsAt - LEASE_MARGIN * this.#leaseMs;
    this.#leaseTimer = setTimeout(() => this.#onLeaseEnding(), Math.max(0, stopsAt - performance.now()));
  }

  #onLeaseEnding(): void {
    this.#held.dropLive();
    this.#call?.cancel();
  }

  /** Begins anew: what the old session held is tried elsewhere, so it must not go on here. */
  async #beginSession(): Promise<void> {
    this.#held.dropLive();
    await Promise.race([Promise.all(this.#running), delay(LEASE_MARGIN * this.#leaseMs)]);
    if (this.#running.size > 0) throw new Error(`${this.#running.size} attempts do not stop: this process has to end`);
    clearTimeout(this.#leaseTimer);
    this.#held = new Held(this.#held.slots);
    this.#sessionId = randomUUID();
    this.#leaseEndsAt = Infinity;
  }

  // Attempts.

  #onAssignments(batch: AssignmentBatch): void {
    const refused: AttemptKey[] = [];
    for (const assignment of batch.assignments) {
      const spec = batch.specs[assignment.spec];
      if (!spec) throw new Error(`an assignment names spec ${assignment.spec}, which its batch does not have`);
      const attempt = this.#held.take(spec, assignment, this.#draining);
      if (attempt === 'refused') refused.push(assignment);
      else if (attempt) this.#start(attempt);
    }
    if (refused.length > 0) this.#send({ updates: { refused } });
  }

  #start(attempt: Attempt): void {
    const done: Promise<void> = this.#execute(attempt).finally(() => this.#running.delete(done));
    this.#running.add(done);
  }

  async #execute(attempt: Attempt): Promise<void> {
    this.#send({ updates: { started: [attempt.key] } });
    const outcome = await execute(attempt, this.#options.functions, this.#values);
    const result = this.#held.finish(attempt, outcome);
    if (result) this.#send({ updates: { results: [result] } });
  }

  #onAcknowledged(resultIds: readonly string[]): void {
    this.#held.acknowledge(resultIds);
    this.#leaveIfDone();
  }

  #leaveIfDone(): void {
    if (!this.#draining || !this.#held.isEmpty || !this.#welcomed) return;
    this.#send({ goodbye: {} });
    this.#call?.end();
  }
}
