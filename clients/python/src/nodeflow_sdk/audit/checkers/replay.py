"""I7: folding the events of an execution gives exactly the state that readers are told, and that the index has.

Owns a replay of its own, written from the meaning of the events and not from the scheduler's code. Must not judge
whether an event was allowed: that is what the other promises are about.
"""

from collections.abc import Iterable
from typing import Final

from nodeflow_sdk.audit.checkers.findings import Checker, Findings
from nodeflow_sdk.audit.history import OVER, ExecutionHistory, Fact, History, Kind, State, Told

_STATE_AFTER: Final = {
    Kind.TASKS_QUEUED: State.QUEUED,
    Kind.TASKS_STARTED: State.RUNNING,
    Kind.TASKS_COMPLETED: State.COMPLETED,
    Kind.ATTEMPTS_LOST: State.QUEUED,
    Kind.TASKS_SKIPPED: State.SKIPPED,
    Kind.TASKS_CANCELLED: State.CANCELLED,
    Kind.NODE_EXPANDED: State.RUNNING,
}


class Replayed:
    """The state of an execution after some of its events."""

    def __init__(self, node_count: int, facts: Iterable[Fact]) -> None:
        self.sequence = 0
        self.state = State.PENDING
        self.value = ""
        self.states = dict.fromkeys(range(node_count), State.PENDING)
        self.attempts = dict.fromkeys(range(node_count), 0)
        for fact in facts:
            self._fold(fact)

    def _fold(self, fact: Fact) -> None:
        self.sequence = fact.sequence
        match fact.kind:
            case Kind.EXECUTION_STARTED:
                self.state = State.RUNNING
            case Kind.EXECUTION_FINISHED:
                self.state, self.value = fact.state or State.RUNNING, fact.value
            case Kind.CANCEL_REQUESTED:
                pass
            case Kind.TASK_FAILED:
                self.states[fact.task] = State.QUEUED if fact.retry_ms else State.FAILED
            case _:
                self.states[fact.task] = _STATE_AFTER[fact.kind]
        if fact.kind is Kind.TASKS_QUEUED:
            self.attempts[fact.task] = fact.attempt
        if fact.items is not None:
            self.states.update(dict.fromkeys(fact.items.tasks, State.PENDING))
            self.attempts.update(dict.fromkeys(fact.items.tasks, 0))


def _look(history: History, findings: Findings) -> None:
    executions = {each.execution_id: each for each in history.executions}
    for execution in history.executions:
        findings.judge("lines of the index")
        _look_at_index(execution, findings)
    for told in history.told:
        found = executions.get(told.execution_id)
        if found is None:
            findings.add(told.execution_id, "a reader was told of it, and there is no such execution")
        else:
            findings.judge("states told")
            _look_at_told(found, told, findings)


def _look_at_index(execution: ExecutionHistory, findings: Findings) -> None:
    replayed = Replayed(len(execution.graph or ()), execution.facts)
    if replayed.state != execution.state:
        findings.add(execution.execution_id, f"the log says {replayed.state}, the index {execution.state}")
    elif execution.state in OVER and execution.graph is not None and execution.task_count != len(replayed.states):
        what = f"the log has {len(replayed.states)} tasks, the index {execution.task_count}"
        findings.add(execution.execution_id, what)


def _look_at_told(execution: ExecutionHistory, told: Told, findings: Findings) -> None:
    name = execution.execution_id
    facts = [fact for fact in execution.facts if fact.sequence <= told.sequence]
    replayed = Replayed(len(execution.graph or ()), facts)
    if replayed.sequence != told.sequence:
        findings.add(name, f"a reader was told of sequence {told.sequence}, and the log ends at {replayed.sequence}")
        return
    if replayed.state != told.state:
        findings.add(name, f"the log gives {replayed.state}, a reader was told {told.state}", sequence=told.sequence)
    if told.value and replayed.value != told.value:
        findings.add(name, "a reader was told other outputs than the log has", sequence=told.sequence)
    if told.tasks is not None and execution.graph is not None:
        _look_at_tasks(name, replayed, told, findings)


def _look_at_tasks(name: str, replayed: Replayed, told: Told, findings: Findings) -> None:
    assert told.tasks is not None, "as the caller has seen"
    if len(told.tasks) != len(replayed.states):
        what = f"the log gives {len(replayed.states)} tasks, a reader was told of {len(told.tasks)}"
        findings.add(name, what, sequence=told.sequence)
    for task in told.tasks:
        findings.judge("tasks told")
        state, attempt = replayed.states.get(task.task), replayed.attempts.get(task.task)
        if state is None:
            findings.add(name, "a reader was told of it, and the log has no such task", task=task.task)
        elif (state, attempt) != (task.state, task.attempt):
            what = f"the log gives {state} at attempt {attempt}, a reader was told {task.state} at {task.attempt}"
            findings.add(name, what, task=task.task, sequence=told.sequence)


REPLAY: Final = Checker(promise="I7", says="the events give exactly the state that readers are told", look=_look)
