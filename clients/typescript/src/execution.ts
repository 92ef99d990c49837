/**
 * One attempt from its arguments to its outcome.
 *
 * Owns what each end of a function is called. Must not know streams or leases.
 */
import type { Failure } from './gen/nodeflow/common/v1/Failure.js';
import type { Duration__Output as Duration } from './gen/google/protobuf/Duration.js';
import type { Attempt, Outcome } from './held.js';
import type { Values } from './values.js';

const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** What a function may want to know beside its arguments. */
export interface TaskContext {
  /** Aborted when the attempt has to stop: cancelled, out of time, or the lease is ending. Functions must honour it. */
  signal: AbortSignal;
  executionId: string;
  attemptNumber: number;
}

/** A function that nodes name: its arguments by name, and its result as JSON can say it, or bytes. */
export type TaskFunction = (args: Record<string, unknown>, context: TaskContext) => unknown;
export type TaskFunctions = Readonly<Record<string, TaskFunction>>;

/** Executes an attempt to its end. Never rejects: whatever happens is an outcome. */
export async function execute(attempt: Attempt, functions: TaskFunctions, values: Values): Promise<Outcome> {
  const { spec, assignment, signal } = attempt;
  if (!spec.function) {
    return failed('FAILURE_KIND_PERMANENT', 'EXECUTOR_UNSUPPORTED', 'this worker executes functions only');
  }
  const name = spec.function.function;
  const run = Object.hasOwn(functions, name) ? functions[name] : undefined;
  if (!run) return failed('FAILURE_KIND_PERMANENT', 'FUNCTION_NOT_FOUND', `this worker has no function ${name}`);
  const disarm = spec.attemptTimeout && after(milliseconds(spec.attemptTimeout), () => attempt.stop('timeout'));
  try {
    const traveller = { tenant: spec.tenant, signal };
    const args = await values.arguments(assignment, traveller);
    const { executionId, attemptNumber } = assignment;
    const value = await run(args, { signal, executionId, attemptNumber });
    return { output: await values.payload(value, traveller) };
  } catch (error) {
    return endOf(attempt, name, error);
  } finally {
    disarm?.();
  }
}

/** Calls back after any time: a timer of Node alone ends at once if it is set to more than 24 days. Returns what stops it. */
function after(delayMs: number, callback: () => void): () => void {
  const step = Math.min(delayMs, LONGEST_TIMER_MS);
  const next = () => (delayMs > step ? (stop = after(delayMs - step, callback)) : callback());
  const timer = setTimeout(next, step);
  let stop = () => clearTimeout(timer);
  return () => stop();
}

function endOf(attempt: Attempt, name: string, error: unknown): Outcome {
  if (attempt.signal.reason === 'cancel') return { cancelled: true };
  if (attempt.signal.reason === 'timeout') {
    return failed('FAILURE_KIND_TRANSIENT', 'ATTEMPT_TIMEOUT', `${name} ran out of time and was stopped`, true);
  }
  const raised = error instanceof Error ? error : new Error(String(error));
  const { failure } = failed('FAILURE_KIND_USER', 'FUNCTION_RAISED', raised.message, true);
  return { failure: { ...failure, errorType: raised.name, traceback: raised.stack ?? '' } };
}

function failed(kind: NonNullable<Failure['kind']>, reason: string, message: string, retryable = false) {
  return { failure: { kind, reason, message, retryable } };
}

export function milliseconds(duration: Duration): number {
  return Number(duration.seconds) * 1_000 + duration.nanos / 1e6;
}
