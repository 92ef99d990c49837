"""I9: what a worker holds is its own until its lease has ended: no loss before that, and nobody works beside it.

Owns what losses and work may not overlap. The log has the losses, not the leases; so a loss before the end of a lease
shows as work that goes on after it.
"""

from collections import defaultdict
from itertools import pairwise
from typing import Final

from nodeflow_sdk.audit.checkers.findings import Checker, Findings
from nodeflow_sdk.audit.history import Fact, History, Kind, Span

Attempts = dict[tuple[str, int, int], list[Span]]


def _look(history: History, findings: Findings) -> None:
    by_attempt: Attempts = defaultdict(list)
    for span in history.spans:
        by_attempt[span.execution_id, span.task, span.attempt].append(span)
    for execution in history.executions:
        for fact in execution.facts:
            if fact.kind is Kind.ATTEMPTS_LOST:
                findings.judge("losses")
                spans = by_attempt.get((execution.execution_id, fact.task, fact.attempt), [])
                _look_at_loss(fact, spans, history.clock_error_ms, findings)
    _look_at_neighbours(history, findings)


def _look_at_loss(fact: Fact, spans: list[Span], clock_error_ms: int, findings: Findings) -> None:
    """Nobody works on what is lost."""
    for span in spans:
        if span.end_ms is not None and span.end_ms <= fact.time_ms + clock_error_ms:
            continue
        until = "without an end" if span.end_ms is None else f"until {span.end_ms - fact.time_ms} ms later"
        what = f"attempt {span.attempt} is lost ({fact.reason}), and {span.worker} works on it {until}"
        findings.add(span.execution_id, what, task=fact.task, sequence=fact.sequence)


def _look_at_neighbours(history: History, findings: Findings) -> None:
    """No task is at work twice at a time, on whatever workers."""
    by_task: defaultdict[tuple[str, int], list[Span]] = defaultdict(list)
    for span in history.spans:
        by_task[span.execution_id, span.task].append(span)
    for spans in by_task.values():
        findings.judge("tasks at work")
        for one, other in pairwise(sorted(spans, key=lambda each: each.begin_ms)):
            if one.end_ms is None or other.begin_ms < one.end_ms:
                what = (
                    f"{other.worker} begins attempt {other.attempt} while {one.worker} works on attempt {one.attempt}"
                )
                findings.add(one.execution_id, what, task=one.task)


LEASES: Final = Checker(
    promise="I9",
    says="what a worker holds is lost only when its lease has ended, and nobody works beside it",
    look=_look,
)
