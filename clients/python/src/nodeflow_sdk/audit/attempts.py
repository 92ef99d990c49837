"""The attempts of an execution, derived from its facts.

Owns what begins and what ends an attempt. Must not know what may follow what: facts that fit no attempt are left out.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from nodeflow_sdk.audit.history import Attempt, ExecutionHistory, Fact, Kind

_ENDS = frozenset({Kind.TASKS_COMPLETED, Kind.TASK_FAILED, Kind.ATTEMPTS_LOST, Kind.TASKS_CANCELLED})


def attempts_of(execution: ExecutionHistory) -> Iterator[Attempt]:
    """Yield the attempts of an execution: ended ones in the order of their ends, then those that last, by task."""
    live: dict[int, Attempt] = {}
    for fact in execution.facts:
        current = live.get(fact.task)
        if fact.kind is Kind.TASKS_QUEUED:
            if current is not None:
                yield current
            live[fact.task] = Attempt(
                execution_id=execution.execution_id,
                task=fact.task,
                attempt=fact.attempt,
                token=fact.token,
                queued_ms=fact.time_ms,
            )
        elif current is not None and fact.attempt in (0, current.attempt):
            if fact.kind is Kind.TASKS_STARTED:
                live[fact.task] = replace(current, started_ms=fact.time_ms, worker=fact.worker)
            elif fact.kind in _ENDS:
                yield _ended(live.pop(fact.task), fact)
    yield from (live[task] for task in sorted(live))


def _ended(attempt: Attempt, fact: Fact) -> Attempt:
    return replace(attempt, ended_ms=fact.time_ms, end=fact.kind, value=fact.value)
