"""I8: events have their places without a gap: in an execution, in a shard, and in what watchers are told.

Owns what a place is. Must not know what an event says.
"""

from itertools import pairwise
from typing import Final

from nodeflow_sdk.audit.checkers.findings import Checker, Findings, facts_by_shard, first_difference
from nodeflow_sdk.audit.history import ExecutionHistory, History, Kind, Watched


def _look(history: History, findings: Findings) -> None:
    for execution in history.executions:
        findings.judge("events", len(execution.facts))
        _look_at_execution(execution, findings)
    _look_at_shards(history, findings)
    executions = {each.execution_id: each for each in history.executions}
    for watched in history.watched:
        findings.judge("streams")
        found = executions.get(watched.execution_id)
        if found is None:
            findings.add(watched.execution_id, f"{watched.watcher} was told of it, and there is no such execution")
        else:
            _look_at_stream(found, watched, findings)


def _look_at_execution(execution: ExecutionHistory, findings: Findings) -> None:
    """Sequences count from 1 without a gap, and offsets grow, in the order of the commits."""
    actual = [fact.sequence for fact in execution.facts]
    expected = list(range(1, len(actual) + 1))
    if actual != expected:
        findings.add(execution.execution_id, f"sequences are {first_difference(actual, expected)}")
    for before, after in pairwise(execution.facts):
        if after.offset <= before.offset:
            findings.add_fact(execution, after, f"offset {after.offset} comes after offset {before.offset}")


def _look_at_shards(history: History, findings: Findings) -> None:
    """Offsets of a whole shard count from 0 to where the next event goes; of others, none comes twice.

    And a shard's clock never runs backwards.
    """
    next_offset = {each.shard: each.next_offset for each in history.shards}
    for shard, facts in facts_by_shard(history):
        place = f"shard {shard}"
        actual = [fact.offset for fact in facts]
        if shard in next_offset:
            findings.judge("shards")
            expected = list(range(len(facts)))
            if actual != expected:
                findings.add(place, f"offsets are {first_difference(actual, expected)}")
            elif next_offset[shard] != len(facts):
                findings.add(place, f"the next offset is {next_offset[shard]} after {len(facts)} events")
        else:
            twice = [after.offset for before, after in pairwise(facts) if after.offset == before.offset]
            if twice:
                findings.add(place, f"{len(twice)} offsets are there twice, the first of them is {twice[0]}")
        for before, after in pairwise(facts):
            if after.time_ms < before.time_ms:
                late = before.time_ms - after.time_ms
                findings.add(place, f"the event at offset {after.offset} is {late} ms before the one before it")


def _look_at_stream(execution: ExecutionHistory, watched: Watched, findings: Findings) -> None:
    """A watcher is told every event after its beginning once, in order; all of them, if its stream has ended."""
    actual = [sequence for batch in watched.batches for sequence in batch.sequences]
    findings.judge("events told", len(actual))
    expected = [fact.sequence for fact in execution.facts if fact.sequence > watched.after]
    over = any(fact.kind is Kind.EXECUTION_FINISHED for fact in execution.facts)
    if watched.ended and not over:
        findings.add(execution.execution_id, f"the stream of {watched.watcher} has ended, and the execution has not")
    if not watched.ended:
        expected = expected[: len(actual)]
    if actual != expected:
        what = f"{watched.watcher} was told sequences that are {first_difference(actual, expected)}"
        findings.add(execution.execution_id, what)
    places: dict[str, int] = {}
    for batch in watched.batches:
        last = batch.sequences[-1] if batch.sequences else 0
        if batch.cursor and places.setdefault(batch.cursor, last) != last:
            what = f"{watched.watcher} was given one cursor for the sequences {places[batch.cursor]} and {last}"
            findings.add(execution.execution_id, what)


SEQUENCES: Final = Checker(
    promise="I8",
    says="sequences have no gap, in the log and in every stream, nor have the offsets of a shard",
    look=_look,
)
