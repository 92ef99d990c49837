/**
 * The stubs, loaded from the repository's proto files, with their generated types.
 *
 * Owns how messages look in TypeScript and what is equal for every channel. Must not know what is called.
 */
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { fileURLToPath } from 'node:url';

import type { ProtoGrpcType as Scheduler } from './gen/scheduler_service.js';
import type { ProtoGrpcType as WorkerManager } from './gen/worker_manager_service.js';
import type { SchedulerServiceClient } from './gen/nodeflow/scheduler/v1/SchedulerService.js';
import type { WorkerManagerServiceClient } from './gen/nodeflow/worker_manager/v1/WorkerManagerService.js';

// The types are generated with the same options (package.json, "generate"): 64-bit numbers and enums are strings.
const definition = loadSync(
  ['nodeflow/scheduler/v1/scheduler_service.proto', 'nodeflow/worker_manager/v1/worker_manager_service.proto'],
  {
    includeDirs: [fileURLToPath(new URL('../protos', import.meta.url))],
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  },
);
const { nodeflow } = grpc.loadPackageDefinition(definition) as unknown as Scheduler & WorkerManager;

// gRPC itself repeats unary calls (and streams that have not begun) that fail in passing. Every call here may be repeated:
// a submission always carries a request id.
const SERVICE_CONFIG = JSON.stringify({
  methodConfig: [
    {
      name: [{ service: 'nodeflow.scheduler.v1.SchedulerService' }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: '0.2s',
        maxBackoff: '3s',
        backoffMultiplier: 2.5,
        retryableStatusCodes: ['UNAVAILABLE', 'RESOURCE_EXHAUSTED'],
      },
    },
  ],
});

// A held-up connection is tried again soon: the default waits up to two minutes.
const CHANNEL_OPTIONS: grpc.ChannelOptions = {
  'grpc.service_config': SERVICE_CONFIG,
  'grpc.initial_reconnect_backoff_ms': 200,
  'grpc.max_reconnect_backoff_ms': 2_000,
};

export function schedulerStub(address: string): SchedulerServiceClient {
  const Stub = nodeflow.scheduler.v1.SchedulerService;
  return new Stub(address, grpc.credentials.createInsecure(), CHANNEL_OPTIONS);
}

export function workerManagerStub(address: string): WorkerManagerServiceClient {
  const Stub = nodeflow.worker_manager.v1.WorkerManagerService;
  return new Stub(address, grpc.credentials.createInsecure(), CHANNEL_OPTIONS);
}

/** Whether a call failed, and with which code. */
export function isCode(error: unknown, ...codes: grpc.status[]): error is grpc.ServiceError {
  return error instanceof Error && 'code' in error && codes.includes(error.code as grpc.status);
}
