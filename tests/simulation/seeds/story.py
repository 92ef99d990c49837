"""A failed seed, told to a person: what was asked for, what went wrong with the machines, and what came of it.

Owns the words. Must not judge.
"""

import traceback
from collections.abc import Iterator, Sequence
from typing import Final

from tests.simulation.seeds.life import Life
from tests.simulation.seeds.narrowness import is_hard

from nodeflow_sdk.audit.checkers.findings import Violation
from nodeflow_sdk.audit.history import NO_TASK, Fact
from nodeflow_testing.machine_clock import EPOCH_MS

VIOLATIONS_SHOWN: Final = 5
EVENTS_SHOWN: Final = 15


def reproduction(seed: int) -> str:
    """The one line that lives a seed's life again."""
    return f"make simulate SEEDS=1 FROM={seed}"


def story_of(life: Life, violations: Sequence[Violation]) -> str:
    """Tell it."""
    return "\n".join(_lines(life, violations))


def _lines(life: Life, violations: Sequence[Violation]) -> Iterator[str]:
    yield f"seed {life.seed}: {len(violations)} violations. Again: {reproduction(life.seed)}"
    for violation in violations[:VIOLATIONS_SHOWN]:
        yield f"  {violation}"
    if life.escaped is not None:
        yield from ("  " + line for line in "".join(traceback.format_exception(life.escaped)).splitlines())
    places = {violation.place for violation in violations}
    if is_hard(life.seed):
        yield "It was hard: its services had little room, see tests/simulation/seeds/narrowness.py."
    yield "What happened (virtual seconds):"
    for note in life.diary.notes:
        whose = f" {note.execution_id}" if note.execution_id else ""
        mark = ">" if note.execution_id in places else " "
        yield f" {mark} {note.time_s:9.3f}  {note.who}: {note.what}{whose}"
    for execution in life.history.executions:
        if execution.execution_id in places:
            tasks = {each.task for each in violations if each.place == execution.execution_id and each.task is not None}
            concerned = [fact for fact in execution.facts if not tasks or fact.task in tasks or fact.task == NO_TASK]
            yield f"The last of {len(concerned)} events concerned of {execution.execution_id} ({execution.state}):"
            yield from (f"   {_told(fact)}" for fact in concerned[-EVENTS_SHOWN:])


def _told(fact: Fact) -> str:
    task = f" task {fact.task}" if fact.task != NO_TASK else ""
    attempt = f" attempt {fact.attempt}" if fact.attempt else ""
    worker = f" on {fact.worker}" if fact.worker else ""
    reason = f" {fact.reason}" if fact.reason else ""
    time_s = (fact.time_ms - EPOCH_MS) / 1_000
    return f"{time_s:9.3f}  {fact.sequence:4} {fact.kind}{task}{attempt}{worker}{reason} (token {fact.token})"
