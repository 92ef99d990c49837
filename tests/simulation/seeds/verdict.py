"""What must be true of every life: the promises of the engine, and that each work came as it had to.

Owns one function for each question. Must not repair, sort out or excuse anything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from tests.simulation.seeds.deeds import line_of
from tests.simulation.seeds.foretelling import End, Foretold, digest_of, foretell, outputs_of
from tests.simulation.seeds.life import Life
from tests.simulation.seeds.work import CONTINUE, FAIL_FAST, Work

from nodeflow_sdk.audit.checkers import check
from nodeflow_sdk.audit.checkers.findings import Violation
from nodeflow_sdk.audit.decoding import digest_of as digest_of_payload
from nodeflow_sdk.audit.decoding import execution_state, task_state
from nodeflow_sdk.audit.history import Fact, Kind, State
from nodeflow_testing.machine_clock import EPOCH_MS

ENVIRONMENT: Final = frozenset(
    {
        "WORKER_LOST",
        "RUNNER_LOST",
        "RUNNER_UNAVAILABLE",
        "RESULT_LOST",
        "RESULT_NOT_STORED",
        "ARGUMENT_UNAVAILABLE",
    }
)
"""Reasons of failures that are not the task's own doing."""

STOP_S: Final = 20.0
"""The longest lease (10 s), the grace time of tasks that are stopped (5 s), and time to find out."""

Judge = Callable[[Life], Iterator[Violation]]


def judge(life: Life) -> list[Violation]:
    """Ask every question."""
    if life.escaped is not None:
        return [_violation("run", "the simulation", f"it broke off: {life.escaped!r}")]
    return [violation for question in QUESTIONS for violation in question(life)]


def promises_hold(life: Life) -> Iterator[Violation]:
    """All that the checkers of histories find."""
    yield from check(life.history)


def users_are_content(life: Life) -> Iterator[Violation]:
    """Nobody was told anything that contradicts itself, or refused without reason."""
    for wrong in life.diary.wrongs:
        yield _violation("API", wrong.execution_id, f"{wrong.who}, at {wrong.time_s:.3f} s: {wrong.what}")
    told = {each.execution_id for each in life.diary.acknowledgements}
    for execution in life.history.executions:
        if execution.execution_id not in told:
            yield _violation("I1", execution.execution_id, "nobody was ever told of this execution")


def all_is_at_rest(life: Life) -> Iterator[Violation]:
    """I4: once all was mended, everything came to its end in time."""
    for name in life.unrest:
        reasons = [f"task {each.task}: {each.reason}" for each in life.diary.explained if each.execution_id == name]
        what = f"it is not over, and nothing stands in its way; {'; '.join(reasons) or 'no task is open'}"
        yield _violation("I4", name, what)


def what_is_over_is_left_alone(life: Life) -> Iterator[Violation]:
    """I5: when an execution is over, what still runs of it is stopped soon, as far as nothing is wrong meanwhile."""
    over_ms = {
        execution.execution_id: fact.time_ms
        for execution in life.history.executions
        for fact in execution.facts
        if fact.kind is Kind.EXECUTION_FINISHED
    }
    for span in life.history.spans:
        from_s = (over_ms.get(span.execution_id, span.begin_ms) - EPOCH_MS + life.history.clock_error_ms) / 1_000
        until_s = life.virtual_s if span.end_ms is None else (span.end_ms - EPOCH_MS) / 1_000
        if span.execution_id not in over_ms or until_s - from_s < STOP_S:
            continue
        calm_s = _calm_s(life, from_s, until_s)
        if calm_s > STOP_S:
            what = f"{span.worker} works on attempt {span.attempt} for {calm_s:.1f} s after its execution's end"
            yield _violation("I5", span.execution_id, what, span.task)


def _calm_s(life: Life, from_s: float, until_s: float) -> float:
    """For how long between two moments nothing was wrong."""
    calm_s, at_s = 0.0, from_s
    for began_s, ended_s in sorted(life.diary.troubles):
        calm_s += max(0.0, min(began_s, until_s) - at_s)
        at_s = max(at_s, min(ended_s, until_s))
    return calm_s + max(0.0, until_s - at_s)


def a_replay_tells_the_same(life: Life) -> Iterator[Violation]:
    """I7: a scheduler that has just read the log tells what the one before it told."""
    for execution_id, told in life.told.items():
        again = life.told_again[execution_id]
        if again.execution != told.execution:
            yield _violation("I7", execution_id, f"a replay gives {again.execution}, not {told.execution}")
        for one, other in zip(told.tasks, again.tasks, strict=True):
            if one != other:
                yield _violation("I7", execution_id, f"a replay gives {other}, not {one}", one.task_number)


def watchers_were_told_the_same(life: Life) -> Iterator[Violation]:
    """I8: an event is the same for all who are told of it. (That each has all of them is checked in the history.)"""
    first: dict[tuple[str, int], object] = {}
    for watching in life.diary.watched:
        for response in watching.responses:
            for event in response.events:
                other = first.setdefault((watching.execution_id, event.sequence), event)
                if other != event:
                    yield _violation("I8", watching.execution_id, f"{watching.who} was told {event}, another {other}")


def tails_gave_everything(life: Life) -> Iterator[Violation]:
    """I8: a tail gives each line once, in the order in which lines were stored."""
    for tailing in life.diary.tailed:
        stored = life.output[tailing.execution_id].lines
        for place, line in enumerate(tailing.lines):
            if place >= len(stored) or stored[place] != line:
                other = stored[place] if place < len(stored) else "nothing"
                what = f"line {place} of {tailing.who} is {line}; what is stored there is {other}"
                yield _violation("I8", tailing.execution_id, what)
                break


def lines_are_their_attempts(life: Life) -> Iterator[Violation]:
    """I2: an attempt has the lines that it wrote, in their order, and no other."""
    for execution_id, output in life.output.items():
        works = _Judged(life, execution_id)
        nodes = {node.name: place for place, node in enumerate(works.work.nodes)}
        numbers: dict[tuple[int, int], int] = {}
        for line in output.lines:
            attempt = (line.task_number, line.attempt_number)
            number = numbers[attempt] = numbers.get(attempt, 0) + 1
            node = nodes[line.node]
            place = line.map_index if line.HasField("map_index") else None
            expected = line_of(works.work.nodes[node].deed, works.item(node, place), line.attempt_number, number)
            if (line.line_number, line.text) != (number, expected):
                what = f"line {line.line_number} of attempt {line.attempt_number} is {line.text!r}, not {expected!r}"
                yield _violation("I2", execution_id, what, line.task_number)


def everything_came_as_foretold(life: Life) -> Iterator[Violation]:
    """I2, I3: ends and results are those that follow from the document, whatever happened on the way."""
    for execution_id, told in life.told.items():
        judged = _Judged(life, execution_id)
        yield from judged.results()
        state = execution_state(told.execution.state)
        if execution_id in life.unrest:
            continue
        if state is State.CANCELLED:
            if execution_id not in life.cancelled:
                yield _violation("I5", execution_id, "it was cancelled, and nobody asked for that")
        elif told.execution.failure.reason == "EXECUTION_TIMEOUT":
            if judged.work.timeout_s is None:
                yield _violation("I3", execution_id, "its time is up, and it has no timeout")
        else:
            yield from judged.end()


class _Judged:
    """An execution, and what was foretold of it."""

    def __init__(self, life: Life, execution_id: str) -> None:
        self.work: Work = life.works[execution_id]
        self._execution_id = execution_id
        self._told = life.told[execution_id]
        self._facts: Sequence[Fact] = life.history.execution(execution_id).facts
        self._places = {
            task: (fact.task, place)
            for fact in self._facts
            if fact.items is not None
            for place, task in enumerate(fact.items.tasks)
        }
        self._expected: Foretold = foretell(self.work, self._unlucky())

    def item(self, node: int, place: int | None) -> object:
        """The item that a task has, if any."""
        if place is None:
            return None
        items = self._expected.items_of(self.work.nodes[node])
        return items[place] if place < len(items) else None

    def end(self) -> Iterator[Violation]:
        """Of the execution and of its nodes."""
        execution = self._told.execution
        fails = self._expected.fails and self.work.on_failure != CONTINUE
        wanted = State.FAILED if fails else State.COMPLETED
        state = execution_state(execution.state)
        if state is not wanted:
            what = f"it is {state}, not {wanted}: {execution.failure.reason} {execution.failure.message}"
            yield _violation("I3", self._execution_id, what)
        for task in self._told.tasks[: len(self.work.nodes)]:
            end, expected = task_state(task.state), self._expected.ends[task.task_number]
            cut_short = fails and self.work.on_failure == FAIL_FAST and end is State.CANCELLED
            if end.value != expected.value and not cut_short:
                what = f"it is {end}, not {expected}: {task.failure.reason} {task.failure.message}"
                yield _violation("I3", self._execution_id, what, task.task_number)
        if state is State.COMPLETED and digest_of_payload(execution.outputs) != digest_of(
            outputs_of(self.work, self._expected)
        ):
            what = f"outputs are {execution.outputs}, not {outputs_of(self.work, self._expected)}"
            yield _violation("I2", self._execution_id, what)

    def results(self) -> Iterator[Violation]:
        """Each in the log is right, in executions that were cut short as well."""
        for fact in self._facts:
            if fact.kind is not Kind.TASKS_COMPLETED or not fact.attempt:
                continue
            end, result = self._expected_of(*self._places.get(fact.task, (fact.task, None)))
            if end is not End.COMPLETED:
                yield _violation("I3", self._execution_id, f"it completed; it had to be {end}", fact.task)
            elif fact.value != digest_of(result):
                yield _violation("I2", self._execution_id, f"it gave something else than {result!r:.60}", fact.task)

    def _expected_of(self, node: int, place: int | None) -> tuple[End, object]:
        if place is None:
            return self._expected.ends[node], self._expected.results[node]
        items = self._expected.items.get(node, [])
        return items[place] if place < len(items) else (End.CANCELLED, None)

    def _unlucky(self) -> Mapping[tuple[int, int | None], str]:
        """Tasks that failed in the end by no fault of their own."""
        return {
            self._places.get(fact.task, (fact.task, None)): fact.reason
            for fact in self._facts
            if fact.kind is Kind.TASK_FAILED and fact.ends_task and fact.reason in ENVIRONMENT
        }


def _violation(promise: str, place: str, what: str, task: int | None = None) -> Violation:
    return Violation(promise=promise, place=place, what=what, task=task)


QUESTIONS: Final[Sequence[Judge]] = (
    promises_hold,
    users_are_content,
    all_is_at_rest,
    what_is_over_is_left_alone,
    a_replay_tells_the_same,
    watchers_were_told_the_same,
    tails_gave_everything,
    lines_are_their_attempts,
    everything_came_as_foretold,
)
