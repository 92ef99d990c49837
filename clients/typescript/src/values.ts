/**
 * Arguments and results: JSON, bytes, and what is too large to travel inline.
 *
 * Owns the forms of values and the artifact calls. Must not know attempts or sessions.
 */
import type { Payload, Payload__Output } from './gen/nodeflow/common/v1/Payload.js';
import type { Assignment__Output as Assignment } from './gen/nodeflow/worker_manager/v1/Assignment.js';
import type { UploadArtifactResponse__Output as Uploaded } from './gen/nodeflow/worker_manager/v1/UploadArtifactResponse.js';
import type { WorkerManagerServiceClient } from './gen/nodeflow/worker_manager/v1/WorkerManagerService.js';

export const JSON_TYPE = 'application/json';
const MANIFEST_TYPE = 'application/vnd.nodeflow.manifest+json';
const BYTES_TYPE = 'application/octet-stream';
const INLINE_LIMIT_BYTES = 64 * 1024;
const PART_BYTES = 1024 * 1024;
const TRANSFER_TIMEOUT_MS = 60_000;

/** An item of a manifest: a value, an artifact, or bytes. */
interface ManifestItem {
  value?: unknown;
  artifact?: { digest: string };
  bytes?: string;
  content_type?: string;
}

export class Values {
  readonly #stub: WorkerManagerServiceClient;

  constructor(stub: WorkerManagerServiceClient) {
    this.#stub = stub;
  }

  /** Returns the arguments by name, those by reference included. */
  async arguments(assignment: Assignment, tenant: string): Promise<Record<string, unknown>> {
    const named = JSON.parse(assignment.arguments.toString() || '{}') as Record<string, unknown>;
    for (const { parameter, payload } of assignment.references) {
      if (payload) named[parameter] = await this.#read(payload, tenant);
    }
    return named;
  }

  /** Returns a result as it travels: inline, or stored if it is large. Throws TypeError if it has no JSON form. */
  async payload(value: unknown, tenant: string): Promise<Payload> {
    const isBytes = value instanceof Uint8Array;
    const contentType = isBytes ? BYTES_TYPE : JSON_TYPE;
    const data = isBytes ? Buffer.from(value) : Buffer.from(JSON.stringify(value) ?? 'null');
    if (data.length <= INLINE_LIMIT_BYTES) return { data, contentType };
    return { artifact: (await this.#upload(data, tenant, contentType)).artifact, contentType };
  }

  async #read(payload: Payload__Output, tenant: string): Promise<unknown> {
    const data = payload.artifact ? await this.#download(payload.artifact.digest, tenant) : payload.data;
    return this.#decode(data ?? Buffer.alloc(0), payload.contentType, tenant);
  }

  async #decode(data: Buffer, contentType: string, tenant: string): Promise<unknown> {
    if (contentType !== MANIFEST_TYPE) return decoded(data, contentType);
    const items = JSON.parse(data.toString()) as ManifestItem[];
    return Promise.all(items.map((item) => this.#item(item, tenant)));
  }

  async #item(item: ManifestItem, tenant: string): Promise<unknown> {
    const contentType = item.content_type ?? '';
    if (item.artifact) return decoded(await this.#download(item.artifact.digest, tenant), contentType);
    return item.bytes === undefined ? item.value : Buffer.from(item.bytes, 'base64');
  }

  async #download(digest: string, tenant: string): Promise<Buffer> {
    const parts: Buffer[] = [];
    const call = this.#stub.downloadArtifact({ tenant, digest }, { deadline: Date.now() + TRANSFER_TIMEOUT_MS });
    for await (const part of call) parts.push((part as { data: Buffer }).data);
    return Buffer.concat(parts);
  }

  #upload(data: Buffer, tenant: string, contentType: string): Promise<Uploaded> {
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + TRANSFER_TIMEOUT_MS;
      const call = this.#stub.uploadArtifact({ deadline }, (error, response) =>
        error ? reject(error) : resolve(response as Uploaded),
      );
      call.write({ header: { tenant, contentType } });
      for (let at = 0; at < data.length; at += PART_BYTES) call.write({ data: data.subarray(at, at + PART_BYTES) });
      call.end();
    });
  }
}

function decoded(data: Buffer, contentType: string): unknown {
  return contentType === '' || contentType === JSON_TYPE ? JSON.parse(data.toString()) : data;
}
