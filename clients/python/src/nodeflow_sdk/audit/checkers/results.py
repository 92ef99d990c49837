"""I2: a task has at most one result, and only its current attempt is heard.

Owns the order in which attempts of a task may begin, be heard and end. Must not know why a task is ready.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from nodeflow_sdk.audit.checkers.findings import Checker, Findings, facts_by_shard, facts_by_task
from nodeflow_sdk.audit.history import ExecutionHistory, Fact, History, Kind


def _look(history: History, findings: Findings) -> None:
    _look_at_tokens(history, findings)
    for execution in history.executions:
        tasks = facts_by_task(execution)
        findings.judge("tasks", len(tasks))
        for facts in tasks.values():
            _look_at_attempts(execution, facts, findings)
            _look_at_ends(execution, facts, findings)
        if execution.graph is not None:
            _look_for_strangers(execution, len(execution.graph), set(tasks), findings)


def _look_at_tokens(history: History, findings: Findings) -> None:
    """Nothing is committed under a token older than one that was used before it, or never granted."""
    granted = {each.shard: each.fencing_token for each in history.shards}
    for shard, facts in facts_by_shard(history):
        findings.judge("events under their tokens", len(facts))
        for before, after in pairwise(facts):
            if after.token < before.token:
                findings.add(f"shard {shard}", f"offset {after.offset} has token {after.token}, after {before.token}")
        highest = max((fact.token for fact in facts), default=0)
        if shard in granted and highest > granted[shard]:
            findings.add(f"shard {shard}", f"token {highest} was used, {granted[shard]} was granted last")


def _look_at_attempts(execution: ExecutionHistory, facts: list[Fact], findings: Findings) -> None:
    """Attempts count from 1, the next begins when the one before it has ended, only the current one is heard."""
    course = _Course()
    for fact in facts:
        findings.judge("results", fact.kind is Kind.TASKS_COMPLETED)
        for what in course.follow(fact):
            findings.add_fact(execution, fact, f"{fact.kind} of attempt {fact.attempt} {what}")


class _Course:
    """The attempts of one task, as far as its facts have been followed."""

    def __init__(self) -> None:
        self.current = 0
        self.live = self.begun = self.over = False
        self.due_ms = 0

    def follow(self, fact: Fact) -> Iterator[str]:
        """Take in the next fact, and say what is wrong with it. What comes after the end is not judged here."""
        if self.over:
            return
        if fact.kind is Kind.TASKS_QUEUED:
            yield from self._queue(fact)
        elif fact.attempt:  # The rest is of the task itself, not of an attempt.
            yield from self._hear(fact)
        self.over = fact.ends_task

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
        of_lost = fact.kind is Kind.TASK_FAILED and fact.ends_task and not self.live
        if fact.attempt != self.current or not (self.live or of_lost):
            yield f"is heard, while attempt {self.current} {'lasts' if self.live else 'has ended'}"
        if fact.kind is Kind.TASKS_STARTED:
            if self.begun:
                yield "is a second start"
            self.begun = True
            return
        self.live = False
        if fact.kind is Kind.TASK_FAILED:
            self.due_ms = fact.retry_ms


def _look_at_ends(execution: ExecutionHistory, facts: list[Fact], findings: Findings) -> None:
    """A task ends at most once, and nothing happens to it afterwards."""
    ends = [place for place, fact in enumerate(facts) if fact.ends_task]
    if len(ends) > 1:
        again = facts[ends[1]]
        sequences = [facts[place].sequence for place in ends]
        findings.add_fact(execution, again, f"it ends {len(ends)} times, at the sequences {sequences}")
    elif ends and ends[0] != len(facts) - 1:
        after = facts[ends[0] + 1]
        findings.add_fact(execution, after, f"{after.kind} after its end at sequence {facts[ends[0]].sequence}")


def _look_for_strangers(execution: ExecutionHistory, node_count: int, tasks: set[int], findings: Findings) -> None:
    """Every task that the log speaks of is a node, or an item of one."""
    count = node_count + sum(fact.items.count for fact in execution.facts if fact.items is not None)
    strange = sorted(task for task in tasks if task >= count)
    if strange:
        findings.add(execution.execution_id, f"there are {count} tasks, and events of others: {strange[:10]}")


RESULTS: Final = Checker(
    promise="I2", says="a task has one result at most; what is late, stale or repeated changes nothing", look=_look
)
