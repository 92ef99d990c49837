/**
 * What a worker's session holds, from the assignment until the result is acknowledged.
 *
 * Owns which assignments are taken and the numbers of results. Must not know streams, timers, or how anything is executed.
 */
import { setMaxListeners } from 'node:events';

import type { Assignment__Output as Assignment } from './gen/nodeflow/worker_manager/v1/Assignment.js';
import type { AttemptKey } from './gen/nodeflow/worker_manager/v1/AttemptKey.js';
import type { AttemptResult } from './gen/nodeflow/worker_manager/v1/AttemptResult.js';
import type { HeldAttempts } from './gen/nodeflow/worker_manager/v1/HeldAttempts.js';
import type { TaskSpec__Output as TaskSpec } from './gen/nodeflow/worker_manager/v1/TaskSpec.js';

export type Outcome = Pick<AttemptResult, 'output' | 'failure' | 'cancelled'>;
export type Stop = 'cancel' | 'timeout' | 'lease';

/** One attempt under way. `signal` is aborted when it has to stop, and its `reason` is why. */
export class Attempt {
  readonly #controller = new AbortController();

  constructor(
    readonly spec: TaskSpec,
    readonly assignment: Assignment,
    readonly key: AttemptKey,
  ) {
    // Each value on its way listens, and there may be many at once.
    setMaxListeners(0, this.signal);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  stop(why: Stop): void {
    this.#controller.abort(why);
  }
}

export class Held {
  readonly #live = new Map<string, Attempt>();
  readonly #unacknowledged = new Map<string, AttemptResult>();
  readonly #tokens = new Map<number, bigint>();
  #lastResultId = 0;

  constructor(readonly slots: number) {}

  get isEmpty(): boolean {
    return this.#live.size + this.#unacknowledged.size === 0;
  }

  /** Returns the attempt if it is to be executed, `refused` if not, and nothing if it is held already. */
  take(spec: TaskSpec, assignment: Assignment, draining: boolean): Attempt | 'refused' | undefined {
    const token = BigInt(assignment.fencingToken);
    const seen = this.#tokens.get(assignment.shard) ?? 0n;
    if (token < seen) return 'refused';
    this.#tokens.set(assignment.shard, token);
    const key = keyOf(assignment);
    const name = nameOf(key);
    if (this.#live.has(name) || [...this.#unacknowledged.values()].some((each) => nameOf(each) === name)) return;
    if (draining || this.#live.size >= this.slots) return 'refused';
    const attempt = new Attempt(spec, assignment, key);
    this.#live.set(name, attempt);
    return attempt;
  }

  /** Returns the result to report, or nothing if the attempt was dropped meanwhile. */
  finish(attempt: Attempt, outcome: Outcome): AttemptResult | undefined {
    if (this.#live.get(nameOf(attempt.key)) !== attempt) return;
    this.#live.delete(nameOf(attempt.key));
    const result = { ...attempt.key, resultId: String(++this.#lastResultId), ...outcome };
    this.#unacknowledged.set(result.resultId, result);
    return result;
  }

  acknowledge(resultIds: readonly string[]): void {
    for (const resultId of resultIds) this.#unacknowledged.delete(resultId);
  }

  find(key: AttemptKey): Attempt | undefined {
    return this.#live.get(nameOf(key));
  }

  /** Stops all that is unfinished, and forgets it. Results are kept: the session may still be there. */
  dropLive(): void {
    for (const attempt of this.#live.values()) attempt.stop('lease');
    this.#live.clear();
  }

  report(): HeldAttempts {
    const live = [...this.#live.values()].map((each) => each.key);
    return { live, unacknowledged: [...this.#unacknowledged.values()] };
  }
}

/** Which attempt it is, under which token: what every report on it says. */
function keyOf({ executionId, taskNumber, attemptNumber, shard, fencingToken }: Assignment): AttemptKey {
  return { executionId, taskNumber, attemptNumber, shard, fencingToken };
}

function nameOf({ executionId, taskNumber, attemptNumber }: AttemptKey): string {
  return `${executionId}/${taskNumber}/${attemptNumber}`;
}
