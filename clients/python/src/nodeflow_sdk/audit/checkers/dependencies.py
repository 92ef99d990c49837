"""I3: a task starts only when all that it depends on has a committed result.

Owns what satisfies a dependency. Must not know who decides that a task is ready.
"""

from typing import Final

from nodeflow_sdk.audit.checkers.findings import Checker, Findings
from nodeflow_sdk.audit.history import BEGINNINGS, ExecutionHistory, Fact, Graph, History, Kind


def _look(history: History, findings: Findings) -> None:
    for execution in history.executions:
        if execution.graph is not None:
            _Order(execution, execution.graph, findings).follow()
    _look_at_spans(history, findings)


class _Order:
    """What of one execution is satisfied, as far as its facts have been followed."""

    def __init__(self, execution: ExecutionHistory, graph: Graph, findings: Findings) -> None:
        self._execution = execution
        self._graph = graph
        self._findings = findings
        self._satisfied: set[int] = set()
        self._ended: set[int] = set()
        self._items: dict[int, range] = {}
        self._task_count = len(graph)

    def follow(self) -> None:
        """Take in all facts, and say what is wrong with them."""
        for fact in self._execution.facts:
            if fact.kind in BEGINNINGS:
                self._begin(fact)
            if fact.items is not None:
                self._items[fact.task] = fact.items.tasks
                self._task_count += fact.items.count
            if fact.ends_task:
                self._end(fact)

    def _begin(self, fact: Fact) -> None:
        self._findings.judge("beginnings")
        if fact.task >= self._task_count:
            self._findings.add_fact(self._execution, fact, f"{fact.kind} of an item that there is not yet")
        if fact.task >= len(self._graph):
            return  # An item waits for nothing but its node's list.
        missing = [each for each in self._graph[fact.task].parents if each not in self._satisfied]
        if missing:
            self._findings.add_fact(self._execution, fact, f"{fact.kind} before the results of {missing}")

    def _end(self, fact: Fact) -> None:
        missing = [item for item in self._items.get(fact.task, ()) if item not in self._ended]
        if fact.kind is Kind.TASKS_COMPLETED and missing:
            self._findings.add_fact(self._execution, fact, f"{fact.kind} before its items {missing[:10]}")
        self._ended.add(fact.task)
        if self._satisfies(fact):
            self._satisfied.add(fact.task)

    def _satisfies(self, fact: Fact) -> bool:
        """Whether what depends on a task need no longer wait for it."""
        if fact.kind is Kind.TASK_FAILED:
            return fact.task < len(self._graph) and self._graph[fact.task].allow_failure
        return fact.kind in (Kind.TASKS_COMPLETED, Kind.TASKS_SKIPPED)


def _look_at_spans(history: History, findings: Findings) -> None:
    """Nothing is at work before the log has made it ready."""
    if not history.spans:
        return
    ready = {
        (execution.execution_id, fact.task, fact.attempt): fact
        for execution in history.executions
        for fact in execution.facts
        if fact.kind is Kind.TASKS_QUEUED
    }
    for span in history.spans:
        findings.judge("attempts at work")
        fact = ready.get((span.execution_id, span.task, span.attempt))
        what = f"{span.worker} began attempt {span.attempt}"
        if fact is None:
            findings.add(span.execution_id, f"{what}, and the log has never made it ready", task=span.task)
        elif span.begin_ms + history.clock_error_ms < fact.time_ms:
            early = fact.time_ms - span.begin_ms
            findings.add(span.execution_id, f"{what} {early} ms before the log made it ready", task=span.task)


DEPENDENCIES: Final = Checker(
    promise="I3", says="a task starts only after the committed results of all that it depends on", look=_look
)
