/**
 * Arguments and results: JSON, bytes, and what is too large to travel inline.
 *
 * Owns the forms of values and the artifact calls. Must not know attempts or sessions.
 */
import { status } from '@grpc/grpc-js';
import { setTimeout as delay } from 'node:timers/promises';

import type { Payload, Payload__Output } from './gen/nodeflow/common/v1/Payload.js';
import type { Assignment__Output as Assignment } from './gen/nodeflow/worker_manager/v1/Assignment.js';
import type { UploadArtifactResponse__Output as Uploaded } from './gen/nodeflow/worker_manager/v1/UploadArtifactResponse.js';
import type { WorkerManagerServiceClient } from './gen/nodeflow/worker_manager/v1/WorkerManagerService.js';
import { isCode } from './protocol.js';

export const JSON_TYPE = 'application/json';
const MANIFEST_TYPE = 'application/vnd.nodeflow.manifest+json';
const BYTES_TYPE = 'application/octet-stream';
const INLINE_LIMIT_BYTES = 64 * 1024;
const PART_BYTES = 1024 * 1024;
const TRANSFER_TIMEOUT_MS = 60_000;
const RETRY_DELAY_MS = 300;

/** An item of a manifest: a value, an artifact, or bytes. */
interface ManifestItem {
  value?: unknown;
  artifact?: { digest: string };
  bytes?: string;
  content_type?: string;
}

/** For whom values travel: an attempt of a tenant, which stops when its signal is aborted. */
export interface Traveller {
  tenant: string;
  signal: AbortSignal;
}

export class Values {
  readonly #stub: WorkerManagerServiceClient;

  constructor(stub: WorkerManagerServiceClient) {
    this.#stub = stub;
  }

  /** Returns the arguments by name, those by reference included. */
  async arguments(assignment: Assignment, traveller: Traveller): Promise<Record<string, unknown>> {
    const named = JSON.parse(assignment.arguments.toString() || '{}') as Record<string, unknown>;
    for (const { parameter, payload } of assignment.references) {
      if (payload) named[parameter] = await this.#read(payload, traveller);
    }
    return named;
  }

  /** Returns a result as it travels: inline, or stored if it is large. Throws TypeError if it has no JSON form. */
  async payload(value: unknown, traveller: Traveller): Promise<Payload> {
    const isBytes = value instanceof Uint8Array;
    const contentType = isBytes ? BYTES_TYPE : JSON_TYPE;
    const data = isBytes ? Buffer.from(value) : Buffer.from(JSON.stringify(value) ?? 'null');
    if (data.length <= INLINE_LIMIT_BYTES) return { data, contentType };
    return { artifact: (await this.#upload(data, traveller, contentType)).artifact, contentType };
  }

  async #read(payload: Payload__Output, traveller: Traveller): Promise<unknown> {
    const data = payload.artifact ? await this.#download(payload.artifact.digest, traveller) : payload.data;
    return this.#decode(data ?? Buffer.alloc(0), payload.contentType, traveller);
  }

  async #decode(data: Buffer, contentType: string, traveller: Traveller): Promise<unknown> {
    if (contentType !== MANIFEST_TYPE) return decoded(data, contentType);
    const items = JSON.parse(data.toString()) as ManifestItem[];
    return Promise.all(items.map((item) => this.#item(item, traveller)));
  }

  async #item(item: ManifestItem, traveller: Traveller): Promise<unknown> {
    const contentType = item.content_type ?? '';
    if (item.artifact) return decoded(await this.#download(item.artifact.digest, traveller), contentType);
    return item.bytes === undefined ? item.value : Buffer.from(item.bytes, 'base64');
  }

  #download(digest: string, { tenant, signal }: Traveller): Promise<Buffer> {
    return persistent(signal, async (deadline) => {
      const parts: Buffer[] = [];
      const call = this.#stub.downloadArtifact({ tenant, digest }, { deadline });
      const stop = () => call.cancel();
      signal.addEventListener('abort', stop);
      try {
        for await (const part of call) parts.push((part as { data: Buffer }).data);
      } finally {
        signal.removeEventListener('abort', stop);
      }
      return Buffer.concat(parts);
    });
  }

  #upload(data: Buffer, { tenant, signal }: Traveller, contentType: string): Promise<Uploaded> {
    return persistent(signal, (deadline) => {
      return new Promise((resolve, reject) => {
        const stop = () => call.cancel();
        const call = this.#stub.uploadArtifact({ deadline }, (error, response) => {
          signal.removeEventListener('abort', stop);
          if (error) reject(error);
          else resolve(response as Uploaded);
        });
        signal.addEventListener('abort', stop);
        call.write({ header: { tenant, contentType } });
        for (let at = 0; at < data.length; at += PART_BYTES) call.write({ data: data.subarray(at, at + PART_BYTES) });
        call.end();
      });
    });
  }
}

/** Transfers, and once more while the worker-manager is away: a value is the same however often it travels. */
async function persistent<T>(signal: AbortSignal, transfer: (deadline: number) => Promise<T>): Promise<T> {
  const deadline = Date.now() + TRANSFER_TIMEOUT_MS;
  for (;;) {
    signal.throwIfAborted();
    try {
      return await transfer(deadline);
    } catch (error) {
      if (!isCode(error, status.UNAVAILABLE) || Date.now() + RETRY_DELAY_MS > deadline) throw error;
      await delay(RETRY_DELAY_MS, undefined, { signal });
    }
  }
}

function decoded(data: Buffer, contentType: string): unknown {
  return contentType === '' || contentType === JSON_TYPE ? JSON.parse(data.toString()) : data;
}
