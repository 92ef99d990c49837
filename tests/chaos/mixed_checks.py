"""What must hold of a mixed run whatever was done to the suite: one function for each promise to its clients.

Owns the comparisons; each returns what is wrong, nothing if all is right. Must not know what was done to the suite.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from tests.chaos import mixed_document
from tests.chaos.mixed_run import EXECUTIONS, Outcome, Seen, request_id_of

from nodeflow_sdk.audit.checkers import check
from nodeflow_sdk.audit.history import History, Kind


def faults_of_run(history: History, seen: Seen, outcome: Outcome, marks: Path, *, may_lose_lines: bool) -> list[str]:
    """Return all that is wrong. A killed agent takes lines with it that it had not delivered: `may_lose_lines`."""
    return [
        *_submissions(history, seen, outcome),
        *map(str, check(replace(history, told=outcome.told))),
        *_outputs(outcome),
        *_processes(history, seen, marks),
        *_functions(seen, marks),
        *_lines(history, seen, outcome, may_lose_lines=may_lose_lines),
    ]


def _submissions(history: History, seen: Seen, outcome: Outcome) -> Iterator[str]:
    """I1: what was acknowledged exists once, is what a repeat finds, and nothing else exists."""
    if len(seen.acknowledged) != EXECUTIONS:
        yield f"{len(seen.acknowledged)} of {EXECUTIONS} submissions were acknowledged"
    first = {each.request_id: each.execution_id for each in reversed(seen.acknowledgements)}
    if {request_id_of(number): each for number, each in outcome.found.items()} != first:
        yield f"repeats found {outcome.found}, acknowledged was {first}"
    stored = sorted(each.execution_id for each in history.executions)
    if stored != sorted(seen.acknowledged.values()):
        yield f"stored are {stored}, acknowledged was {seen.acknowledged}"


def _outputs(outcome: Outcome) -> Iterator[str]:
    """The results are what they are without any fault."""
    for number, state in outcome.states.items():
        if state != ExecutionState.EXECUTION_STATE_COMPLETED:
            yield f"execution {number} ended as {ExecutionState.Name(state)}"
        elif outcome.outputs[number] != mixed_document.outputs(number):
            yield f"execution {number} gave {outcome.outputs[number]}, not {mixed_document.outputs(number)}"


def accepted_attempts(history: History, execution_id: str) -> dict[int, int]:
    """Return the attempt whose result counts, by task."""
    facts = history.execution(execution_id).facts
    return {fact.task: fact.attempt for fact in facts if fact.kind is Kind.TASKS_COMPLETED and fact.attempt}


def _processes(history: History, seen: Seen, marks: Path) -> Iterator[str]:
    """Each process ran to the end in the attempt that counts, and no two attempts of a task ever at a time."""
    for number, execution_id in seen.acknowledged.items():
        accepted = accepted_attempts(history, execution_id)
        files = sorted(marks.glob(f"job-{execution_id}-*"))
        if len(files) != mixed_document.JOBS:
            yield f"execution {number}: {len(files)} of {mixed_document.JOBS} processes left their mark"
        for file in files:
            told = file.read_text().splitlines()
            attempt = accepted.get(int(file.name.rpartition("-")[2]))
            where = f"execution {number}, {file.name}, attempt {attempt} accepted: {told}"
            if any(line.startswith("overlap") for line in told):
                yield f"two at a time: {where}"
            if told.count(f"begin {attempt}") != 1 or told.count(f"end {attempt}") != 1:
                yield f"not run to its end once: {where}"


def _functions(seen: Seen, marks: Path) -> Iterator[str]:
    """No two attempts of a function at a time either."""
    for number in seen.acknowledged:
        if number % 4 == mixed_document.HOLDS:
            told = (marks / f"hold-{number}").read_text().split()
            if "overlap" in told or "end" not in told:
                yield f"two at a time, or none to the end, of hold of execution {number}: {told}"


def _lines(history: History, seen: Seen, outcome: Outcome, *, may_lose_lines: bool) -> Iterator[str]:
    """Lines of attempts that count are there, each once and in order."""
    for number, execution_id in seen.acknowledged.items():
        accepted = accepted_attempts(history, execution_id)
        told: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        counted: defaultdict[int, list[int]] = defaultdict(list)
        for line in outcome.lines[number]:
            if accepted.get(line.task_number) == line.attempt_number:
                told[line.node, line.map_index].append(line.text)
                counted[line.task_number].append(line.line_number)
        for task, places in counted.items():
            if places != list(range(1, len(places) + 1)):
                yield f"execution {number}, task {task}: its lines are numbered {places}"
        for node, count in (("double", mixed_document.ITEMS), ("job", mixed_document.JOBS)):
            for index in range(count):
                actual, expected = sorted(told[node, index]), mixed_document.lines(number, node, index)
                if actual != expected and not (may_lose_lines and set(actual) < set(expected)):
                    yield f"execution {number}, {node}[{index}] wrote {actual}, not {expected}"
