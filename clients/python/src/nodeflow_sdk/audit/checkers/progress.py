"""I4: every execution reaches a final state, or waits for something that has a name.

Owns the course of an execution from its start to its end. Must not know what its tasks do.
"""

from typing import Final

from nodeflow_sdk.audit.checkers.findings import Checker, Findings
from nodeflow_sdk.audit.history import BEGINNINGS, NO_TASK, ExecutionHistory, History, Kind


def _look(history: History, findings: Findings) -> None:
    for execution in history.executions:
        over = any(fact.kind is Kind.EXECUTION_FINISHED for fact in execution.facts)
        findings.judge("executions that are over" if over else "executions that are not over")
        _look_at_course(execution, findings)
        if over:
            _look_for_open_tasks(execution, findings)
        else:
            _look_for_life(history, execution, findings)


def _look_at_course(execution: ExecutionHistory, findings: Findings) -> None:
    """It starts first and once, and finishes last and once."""
    name = execution.execution_id
    kinds = [fact.kind for fact in execution.facts]
    starts = kinds.count(Kind.EXECUTION_STARTED)
    if starts != 1:
        findings.add(name, f"it starts {starts} times")
    elif kinds[0] is not Kind.EXECUTION_STARTED:
        findings.add(name, f"{kinds[0]} comes before its start", sequence=execution.facts[0].sequence)
    finishes = [place for place, kind in enumerate(kinds) if kind is Kind.EXECUTION_FINISHED]
    if len(finishes) > 1:
        findings.add(name, f"it finishes {len(finishes)} times")
    elif finishes:
        for fact in execution.facts[finishes[0] + 1 :]:
            if fact.kind not in BEGINNINGS:  # Those are the business of I5.
                findings.add_fact(execution, fact, f"{fact.kind} follows its end")


def _look_for_open_tasks(execution: ExecutionHistory, findings: Findings) -> None:
    """When it is over, each of its tasks is."""
    if execution.graph is None:
        return
    count = len(execution.graph) + sum(fact.items.count for fact in execution.facts if fact.items is not None)
    ended = {fact.task for fact in execution.facts if fact.ends_task}
    open_tasks = [task for task in range(count) if task not in ended]
    if open_tasks:
        what = f"it is over, and {len(open_tasks)} tasks have not ended: {open_tasks[:10]}"
        findings.add(execution.execution_id, what)


def _look_for_life(history: History, execution: ExecutionHistory, findings: Findings) -> None:
    """When it is not over, an attempt lasts or is due, or something else that it waits for was named."""
    if is_under_way(execution):
        return
    named = [each for each in history.explained if each.execution_id == execution.execution_id and each.reason]
    if not named:
        what = "it is not over, no attempt of it lasts or is due, and nothing says what it waits for"
        findings.add(execution.execution_id, what)


def is_under_way(execution: ExecutionHistory) -> bool:
    """Whether an attempt lasts or is due, as far as the log says."""
    going: dict[int, bool] = {}
    for fact in execution.facts:
        if fact.task != NO_TASK and fact.kind is not Kind.NODE_EXPANDED:
            lost = fact.kind is Kind.ATTEMPTS_LOST  # The next attempt is ready in the same commit.
            going[fact.task] = not (fact.ends_task or lost)
    return any(going.values())


PROGRESS: Final = Checker(
    promise="I4", says="every execution is over, or waits for something that has a name", look=_look
)
