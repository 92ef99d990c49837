"""What a checker says: how much of a promise it judged, and where the promise was broken.

Owns the form of a judgement. Must not know any promise.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from nodeflow_sdk.audit.history import NO_TASK, ExecutionHistory, Fact, History


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that was broken, and where."""

    promise: str
    """Its number in the design: I1 to I11."""
    place: str
    """An execution's id, or `shard 3`, `worker worker-1`, `tenant a`, `queue x`."""
    task: int | None = None
    sequence: int | None = None
    what: str

    def __str__(self) -> str:
        """Return it as one line for a person."""
        task = f", task {self.task}" if self.task is not None else ""
        sequence = f", sequence {self.sequence}" if self.sequence is not None else ""
        return f"{self.promise} {self.place}{task}{sequence}: {self.what}"


@dataclass(slots=True)
class Findings:
    """What one checker found in one history, or in several."""

    promise: str
    judged: Counter[str] = field(default_factory=Counter)
    """How many of what were judged, by what they are: `events`, `results`, …"""
    violations: list[Violation] = field(default_factory=list)

    def judge(self, what: str, count: int = 1) -> None:
        """Count what is judged."""
        self.judged[what] += count

    def add(self, place: str, what: str, *, task: int | None = None, sequence: int | None = None) -> None:
        """Say that the promise was broken."""
        self.violations.append(Violation(promise=self.promise, place=place, task=task, sequence=sequence, what=what))

    def add_fact(self, execution: ExecutionHistory, fact: Fact, what: str) -> None:
        """Say that the promise was broken by an event."""
        task = fact.task if fact.task != NO_TASK else None
        self.add(execution.execution_id, what, task=task, sequence=fact.sequence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checker:
    """A promise, and the pure function that judges it."""

    promise: str
    says: str
    """The promise in a few words."""
    look: Callable[[History, Findings], None]

    def judge(self, history: History) -> Findings:
        """Return all that it finds."""
        findings = Findings(self.promise)
        self.look(history, findings)
        return findings

    def check(self, history: History) -> list[Violation]:
        """Return where the promise was broken."""
        return self.judge(history).violations


def facts_by_task(execution: ExecutionHistory) -> dict[int, list[Fact]]:
    """Return the facts of each task in the order of their commits."""
    tasks: defaultdict[int, list[Fact]] = defaultdict(list)
    for fact in execution.facts:
        if fact.task != NO_TASK:
            tasks[fact.task].append(fact)
    return tasks


def facts_by_shard(history: History) -> Iterator[tuple[int, list[Fact]]]:
    """Yield the facts of each shard in the order of their offsets; shards without any too, if they are named."""
    shards: dict[int, list[Fact]] = {each.shard: [] for each in history.shards}
    for execution in history.executions:
        shards.setdefault(execution.shard, []).extend(execution.facts)
    for shard, facts in shards.items():
        yield shard, sorted(facts, key=lambda fact: fact.offset)


def first_difference(actual: Sequence[int], expected: Sequence[int]) -> str:
    """Say where two lists of numbers part."""
    for place, (got, wanted) in enumerate(zip(actual, expected, strict=False)):
        if got != wanted:
            return f"{got} in place of {wanted}, at place {place} of {len(expected)}"
    return f"{len(actual)} in number, not {len(expected)}"
