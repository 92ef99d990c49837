/** A Node Flow client and a worker on gRPC stubs alone. */
export { Client } from './client.js';
export type { Execution, LogSelection, Payload, SubmitOptions, Tailed, Watched } from './client.js';
export type { TaskContext, TaskFunction, TaskFunctions } from './execution.js';
export { Worker, type WorkerOptions } from './worker.js';
