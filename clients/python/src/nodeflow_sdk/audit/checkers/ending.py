"""I5: a cancelled or finished execution gets no new attempt, and its running ones stop in time.

Owns what may still happen then. Must not know who stops what.
"""

from typing import Final

from nodeflow_sdk.audit.checkers.findings import Checker, Findings
from nodeflow_sdk.audit.history import BEGINNINGS, ExecutionHistory, History, Kind

_STOPS: Final = {Kind.CANCEL_REQUESTED: "the cancellation", Kind.EXECUTION_FINISHED: "the end of its execution"}


def _look(history: History, findings: Findings) -> None:
    stopped_ms: dict[str, int] = {}
    for execution in history.executions:
        time_ms = _look_for_beginnings(execution, findings)
        if time_ms is not None:
            stopped_ms[execution.execution_id] = time_ms
    if history.stop_within_ms is not None:
        _look_at_spans(history, stopped_ms, history.stop_within_ms, findings)


def _look_for_beginnings(execution: ExecutionHistory, findings: Findings) -> int | None:
    """Nothing is made ready after the stop; returns when that was, if it was."""
    stop_ms: int | None = None
    stopped_by = ""
    for fact in execution.facts:
        if stopped_by and fact.kind in BEGINNINGS:
            findings.add_fact(execution, fact, f"{fact.kind} after {stopped_by}")
        if fact.kind in _STOPS and not stopped_by:
            stop_ms, stopped_by = fact.time_ms, _STOPS[fact.kind]
            findings.judge("executions that were stopped or are over")
    return stop_ms


def _look_at_spans(history: History, stopped_ms: dict[str, int], within_ms: int, findings: Findings) -> None:
    """Whatever was at work then has stopped within its time."""
    for span in history.spans:
        stop_ms = stopped_ms.get(span.execution_id)
        if stop_ms is None:
            continue
        findings.judge("attempts at work")
        what = f"{span.worker} works on attempt {span.attempt}"
        if span.begin_ms > stop_ms + within_ms + history.clock_error_ms:
            late = span.begin_ms - stop_ms
            findings.add(span.execution_id, f"{what} from {late} ms after its execution's end on", task=span.task)
        elif span.end_ms is None:
            findings.add(span.execution_id, f"{what} without an end after its execution's", task=span.task)
        elif span.end_ms > stop_ms + within_ms + history.clock_error_ms:
            late = span.end_ms - stop_ms
            findings.add(span.execution_id, f"{what} until {late} ms after its execution's end", task=span.task)


ENDING: Final = Checker(
    promise="I5", says="what is cancelled or over gets no new attempt, and what runs of it is stopped", look=_look
)
