"""The promises of the engine, checked over a history.

Owns one pure function for each: it takes decoded facts and returns what is wrong, nothing if the promise was kept. Must
not know where a history comes from, nor use any code of the engine: a checker that shares its code shares its mistakes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from tests.support.history import NO_TASK, ExecutionHistory, Fact, History

Graph = Sequence[Sequence[int]]
"""For each node of a workflow, by its task number, the nodes that it depends on."""

OVER: Final = frozenset(
    {
        ExecutionState.EXECUTION_STATE_COMPLETED,
        ExecutionState.EXECUTION_STATE_FAILED,
        ExecutionState.EXECUTION_STATE_CANCELLED,
    }
)
BEGINNINGS: Final = frozenset({"tasks_queued", "node_expanded"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that was broken."""

    promise: str
    """Its number in the design: I1 to I11."""
    where: str
    what: str


@dataclass(slots=True)
class _Findings:
    """Collects the violations of one promise at one place."""

    promise: str
    where: str
    found: list[Violation] = field(default_factory=list)

    def add(self, what: str) -> None:
        self.found.append(Violation(promise=self.promise, where=self.where, what=what))


def check_history(history: History, graphs: Mapping[str, Graph]) -> list[Violation]:
    """Check all promises that a history can show; `graphs` by execution id, for every execution in it."""
    found = [*check_offsets(history), *check_tokens(history), *check_times(history), *check_request_ids(history)]
    for execution in history.executions:
        graph = graphs[execution.execution_id]
        for check in CHECKS_OF_EXECUTIONS:
            found += check(execution)
        found += check_dependencies(execution, graph)
        found += check_one_result_per_task(execution, len(graph))
    return found


# ----------------------------------------------------------------------------- shards


def check_offsets(history: History) -> list[Violation]:
    """I8: offsets of a shard count from 0 without a gap, up to where the next event goes."""
    found: list[Violation] = []
    for shard, facts in _by_shard(history):
        findings = _Findings("I8", f"shard {shard}")
        expected = list(range(len(facts)))
        actual = [fact.offset for fact in facts]
        if actual != expected:
            findings.add(f"offsets are {_first_difference(actual, expected)}")
        [row] = [each for each in history.shards if each.shard == shard]
        if row.next_offset != len(facts):
            findings.add(f"the next offset is {row.next_offset} after {len(facts)} events")
        found += findings.found
    return found


def check_tokens(history: History) -> list[Violation]:
    """I2: nothing is committed under a token older than one that was used before it, or never granted."""
    found: list[Violation] = []
    for shard, facts in _by_shard(history):
        findings = _Findings("I2", f"shard {shard}")
        for before, after in pairwise(facts):
            if after.token < before.token:
                findings.add(f"offset {after.offset} has token {after.token}, after token {before.token}")
        [row] = [each for each in history.shards if each.shard == shard]
        if facts and facts[-1].token > row.fencing_token:
            findings.add(f"token {facts[-1].token} was used, {row.fencing_token} was granted last")
        found += findings.found
    return found


def check_times(history: History) -> list[Violation]:
    """A shard's clock never runs backwards."""
    found: list[Violation] = []
    for shard, facts in _by_shard(history):
        findings = _Findings("time", f"shard {shard}")
        for before, after in pairwise(facts):
            if after.time_ms < before.time_ms:
                findings.add(f"offset {after.offset} is {before.time_ms - after.time_ms} ms before the one before it")
        found += findings.found
    return found


def check_request_ids(history: History) -> list[Violation]:
    """I1: a caller's key has started one execution, however often it was sent."""
    used = Counter((each.tenant, each.request_id) for each in history.executions if each.request_id)
    return [
        Violation(promise="I1", where=f"tenant {tenant}", what=f"request_id {key!r} has {count} executions")
        for (tenant, key), count in used.items()
        if count > 1
    ]


# ----------------------------------------------------------------------------- executions


def check_gapless(execution: ExecutionHistory) -> list[Violation]:
    """I8: sequences count from 1 without a gap, in the order of the commits."""
    findings = _Findings("I8", execution.execution_id)
    actual = [fact.sequence for fact in execution.facts]
    expected = list(range(1, len(actual) + 1))
    if actual != expected:
        findings.add(f"sequences are {_first_difference(actual, expected)}")
    return findings.found


def check_course(execution: ExecutionHistory) -> list[Violation]:
    """I1, I4: an execution starts first and once, finishes last and once, and the index says so."""
    findings = _Findings("I4", execution.execution_id)
    kinds = [fact.kind for fact in execution.facts]
    if kinds[:1] != ["execution_started"] or kinds.count("execution_started") != 1:
        findings.add(f"it starts {kinds.count('execution_started')} times, and its first event is {kinds[:1]}")
    finishes = [fact for fact in execution.facts if fact.kind == "execution_finished"]
    if len(finishes) > 1:
        findings.add(f"it finishes {len(finishes)} times")
    if finishes and kinds[-1] != "execution_finished":
        findings.add(f"sequence {execution.facts[-1].sequence} follows its end")
    told = finishes[-1].record.execution_finished.state if finishes else ExecutionState.EXECUTION_STATE_RUNNING
    if told != execution.state:
        findings.add(f"the log says {ExecutionState.Name(told)}, the index {ExecutionState.Name(execution.state)}")
    return findings.found


def check_attempts(execution: ExecutionHistory) -> list[Violation]:
    """I2: attempts count from 1, the next begins when the one before it has ended, only the current one is heard."""
    findings = _Findings("I2", execution.execution_id)
    for task, facts in _by_task(execution):
        course = _Attempts()
        for fact in facts:
            for what in course.follow(fact):
                findings.add(f"task {task}, sequence {fact.sequence}: {fact.kind} of attempt {fact.attempt} {what}")
    return findings.found


class _Attempts:
    """The attempts of one task, as far as its facts have been followed."""

    def __init__(self) -> None:
        self.current = 0
        self.live = self.begun = False
        self.due_ms = 0

    def follow(self, fact: Fact) -> Iterator[str]:
        """Take in the next fact, and say what is wrong with it."""
        if fact.kind == "tasks_queued":
            yield from self._queue(fact)
        elif fact.attempt:  # The rest is of the task itself, not of an attempt.
            yield from self._hear(fact)

    def _queue(self, fact: Fact) -> Iterator[str]:
        if fact.attempt != self.current + 1:
            yield f"follows attempt {self.current}"
        if self.live:
            yield f"comes while attempt {self.current} lasts"
        if fact.time_ms < self.due_ms:
            yield f"comes {self.due_ms - fact.time_ms} ms before it is due"
        self.current, self.live, self.begun, self.due_ms = fact.attempt, True, False, 0

    def _hear(self, fact: Fact) -> Iterator[str]:
        # A task that was lost too often fails by the attempt that was lost, and so has ended already.
        of_lost = fact.kind == "task_failed" and is_end(fact) and not self.live
        if fact.attempt != self.current or not (self.live or of_lost):
            yield f"is heard, while attempt {self.current} {'lasts' if self.live else 'has ended'}"
        if fact.kind == "tasks_started":
            if self.begun:
                yield "is a second start"
            self.begun = True
            return
        self.live = False
        if fact.kind == "task_failed":
            self.due_ms = fact.record.task_failed.retry_unix_ms


def check_cancelled(execution: ExecutionHistory) -> list[Violation]:
    """I5: after a cancellation was asked for, no attempt is made ready."""
    findings = _Findings("I5", execution.execution_id)
    asked = False
    for fact in execution.facts:
        asked = asked or fact.kind == "cancel_requested"
        if asked and fact.kind in BEGINNINGS:
            findings.add(f"task {fact.task}, sequence {fact.sequence}: {fact.kind} after the cancellation")
    return findings.found


def check_one_result_per_task(execution: ExecutionHistory, node_count: int) -> list[Violation]:
    """I2: a task ends at most once, and nothing happens to it afterwards; when the execution is over, each has."""
    findings = _Findings("I2", execution.execution_id)
    tasks = dict(_by_task(execution))
    for task, facts in tasks.items():
        ends = [place for place, fact in enumerate(facts) if is_end(fact)]
        if len(ends) > 1:
            findings.add(f"task {task} ends {len(ends)} times: {[facts[place].sequence for place in ends]}")
        elif ends and ends[0] != len(facts) - 1:
            findings.add(f"task {task} goes on after its end at sequence {facts[ends[0]].sequence}")
    expected = node_count + sum(
        len(fact.record.node_expanded.items) for fact in execution.facts if fact.kind == "node_expanded"
    )
    if strange := sorted(task for task in tasks if task >= expected):
        findings.add(f"there are {expected} tasks, and facts of others: {strange[:10]}")
    if execution.state in OVER:
        unended = [task for task in range(expected) if not any(map(is_end, tasks.get(task, ())))]
        if unended:
            findings.add(f"it is over, and {len(unended)} tasks have not ended: {unended[:10]}")
        if execution.task_count != expected:
            findings.add(f"the index counts {execution.task_count} tasks of {expected}")
    return findings.found


def check_dependencies(execution: ExecutionHistory, graph: Graph) -> list[Violation]:
    """I3: a task is made ready after the results of all that it depends on; a mapped node ends after all its items."""
    findings = _Findings("I3", execution.execution_id)
    satisfied: set[int] = set()
    ended: set[int] = set()
    node_of_item: dict[int, int] = {}
    items: dict[int, range] = {}
    for fact in execution.facts:
        here = f"task {fact.task}, sequence {fact.sequence}: {fact.kind}"
        if fact.kind in BEGINNINGS:
            node = node_of_item.get(fact.task, fact.task)
            if node >= len(graph):
                findings.add(f"{here} of an item that there is not")
                continue
            missing = [each for each in graph[node] if each not in satisfied]
            if missing:
                findings.add(f"{here} before the results of {missing}")
        if fact.kind == "node_expanded":
            expanded = fact.record.node_expanded
            items[fact.task] = range(expanded.first_item, expanded.first_item + len(expanded.items))
            node_of_item.update(dict.fromkeys(items[fact.task], fact.task))
        if is_end(fact):
            missing = [item for item in items.get(fact.task, ()) if item not in ended]
            if fact.kind == "tasks_completed" and missing:
                findings.add(f"{here} before its items {missing[:10]}")
            ended.add(fact.task)
            if fact.kind in ("tasks_completed", "tasks_skipped"):
                satisfied.add(fact.task)
    return findings.found


def check_watched(execution: ExecutionHistory, watched: Iterable[int]) -> list[Violation]:
    """I8: who watched an execution to its end has seen every sequence of the log once, in order."""
    findings = _Findings("I8", f"a watcher of {execution.execution_id}")
    actual, expected = list(watched), [fact.sequence for fact in execution.facts]
    if actual != expected:
        findings.add(f"sequences are {_first_difference(actual, expected)}")
    return findings.found


CHECKS_OF_EXECUTIONS: Final[Sequence[Callable[[ExecutionHistory], list[Violation]]]] = (
    check_gapless,
    check_course,
    check_attempts,
    check_cancelled,
)
"""Those that need the execution alone."""


# ----------------------------------------------------------------------------- facts


def is_end(fact: Fact) -> bool:
    """Whether a fact ends its task: with a result, or without one and without another attempt."""
    if fact.kind == "task_failed":
        return not fact.record.task_failed.retry_unix_ms
    return fact.kind in ("tasks_completed", "tasks_skipped", "tasks_cancelled")


def _by_shard(history: History) -> Iterator[tuple[int, list[Fact]]]:
    shards: dict[int, list[Fact]] = {each.shard: [] for each in history.shards}
    for execution in history.executions:
        shards[execution.shard] += execution.facts
    for shard, facts in shards.items():
        yield shard, sorted(facts, key=lambda fact: fact.offset)


def _by_task(execution: ExecutionHistory) -> Iterator[tuple[int, list[Fact]]]:
    tasks: defaultdict[int, list[Fact]] = defaultdict(list)
    for fact in execution.facts:
        if fact.task != NO_TASK:
            tasks[fact.task].append(fact)
    yield from tasks.items()


def _first_difference(actual: Sequence[int], expected: Sequence[int]) -> str:
    """Say where two lists of numbers part."""
    for place, (got, wanted) in enumerate(zip(actual, expected, strict=False)):
        if got != wanted:
            return f"{got} in place of {wanted}, at place {place} of {len(expected)}"
    return f"{len(actual)} in number, not {len(expected)}"
