/** A Node Flow client and a worker on gRPC stubs alone. */
export { Client, type Execution, type Payload, type SubmitOptions, type Watched } from './client.js';
export type { TaskContext, TaskFunction, TaskFunctions } from './execution.js';
export { Worker, type WorkerOptions } from './worker.js';
