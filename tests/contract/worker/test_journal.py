"""What holds for every journal of a worker: SQLite on real files, and the one of the simulation."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.worker.making import process_attempt

from nodeflow_testing.memory_journal import Kept, MemoryJournal
from nodeflow_worker.adapters.session_journal import SessionJournal
from nodeflow_worker.domain.events import Recorded
from nodeflow_worker.domain.values import (
    Attempt,
    Ending,
    Failure,
    FailureKind,
    Outcome,
    ProcessIdentity,
    Stored,
)
from nodeflow_worker.ports import Journal, Left

PROCESS = ProcessIdentity(pid=7, start_ticks=70)
FAILURE = Failure(
    kind=FailureKind.USER,
    reason="PROCESS_EXITED",
    message="it ended with code 75",
    retryable=True,
    error_type="e",
    traceback="t",
    cause=Failure(kind=FailureKind.SYSTEM, reason="R", message="m", retryable=False),
)
Lives = Callable[[], Journal]
"""Makes the journal of the next process of a worker."""


@pytest.fixture(params=["sqlite", "memory"])
def lives(request: pytest.FixtureRequest, tmp_path: Path) -> Lives:
    kept = Kept()
    return (lambda: SessionJournal(tmp_path)) if request.param == "sqlite" else (lambda: MemoryJournal(kept))


class Life:
    """One process that keeps a journal, for one session."""

    def __init__(self, journal: Journal, session_id: str) -> None:
        self.journal = journal
        self.recorded: asyncio.Queue[Attempt] = asyncio.Queue()
        journal.listen(self._on_recorded)
        journal.begin(session_id)

    def _on_recorded(self, event: Recorded) -> None:
        for each in event.attempts:
            self.recorded.put_nowait(each)

    async def record(self, *attempts: Attempt) -> None:
        """Record results, and wait until they are."""
        for each in attempts:
            self.journal.record(each)
        async with asyncio.timeout(10):
            assert [await self.recorded.get() for _ in attempts] == list(attempts)


def finished(task: int = 1, number: int = 1, outcome: Outcome = b"1") -> Attempt:
    attempt = process_attempt(task, number)
    attempt.outcome = outcome
    return attempt


async def left_of(journal: Journal, *session_ids: str) -> Left:
    """What a successor takes over, which ends then."""
    left = await Life(journal, "reader").journal.take_over(session_ids)
    await journal.close()
    return left


@pytest.mark.parametrize(
    "outcome",
    [
        b'{"a":1}',
        Stored(content_type="application/octet-stream", data=b"\x00\xff"),
        Stored(digest="sha256:1", size_bytes=100_000),
        Stored(content_type="text/csv", digest="sha256:1", size_bytes=2),
        FAILURE,
        Ending.CANCELLED,
    ],
)
async def test_the_whole_outcome_is_kept(lives: Lives, outcome: Outcome) -> None:
    first = Life(lives(), "one")
    attempt = finished(outcome=outcome)
    attempt.artifacts = (("a", Stored(digest="sha256:a", size_bytes=1)), ("b", Stored(digest="sha256:b")))
    await first.record(attempt)
    await first.journal.close()
    [kept] = (await left_of(lives(), "one")).results
    assert (kept.key, kept.shard, kept.fencing_token) == (attempt.key, attempt.shard, attempt.fencing_token)
    assert (kept.outcome, kept.artifacts) == (outcome, attempt.artifacts)
    assert kept.spec.process is not None


async def test_what_has_not_ended_is_named_with_its_process(lives: Lives) -> None:
    first = Life(lives(), "one")
    begun, ended = process_attempt(1), finished(2)
    first.journal.note(begun, PROCESS)
    first.journal.note(ended, ProcessIdentity(pid=8, start_ticks=80))
    await first.record(ended)
    await first.journal.close()
    left = await left_of(lives(), "one")
    assert (left.unfinished, left.processes) == ((begun.key,), (PROCESS,))
    assert [each.key for each in left.results] == [ended.key]


async def test_what_is_forgotten_is_not_left(lives: Lives) -> None:
    first = Life(lives(), "one")
    gone, begun, stays = finished(1), process_attempt(2), finished(3)
    first.journal.note(begun, PROCESS)
    await first.record(gone)
    first.journal.forget([gone, begun])
    await first.record(stays)
    await first.journal.close()
    left = await left_of(lives(), "one")
    assert ([each.key for each in left.results], left.unfinished) == ([stays.key], ())


async def test_results_of_several_dead_sessions_come_together_older_attempts_first(lives: Lives) -> None:
    for session_id, attempt in (("one", finished(1, 2)), ("two", finished(1, 1)), ("three", finished(2))):
        life = Life(lives(), session_id)
        await life.record(attempt)
        await life.journal.close()
    left = await left_of(lives(), "one", "two", "three")
    assert sorted(each.key for each in left.results) == [("e", 1, 1), ("e", 1, 2), ("e", 2, 1)]
    assert [each.attempt_number for each in left.results] == [1, 1, 2]


async def test_what_was_taken_over_outlives_the_next_process_too(lives: Lives) -> None:
    first = Life(lives(), "one")
    await first.record(finished(1), finished(2))
    await first.journal.close()
    second = Life(lives(), "two")
    left = await second.journal.take_over(["one"])
    second.journal.drop(["one"], lambda: None)
    second.journal.forget(left.results[:1])
    await second.journal.close()
    assert [each.key for each in (await left_of(lives(), "one", "two")).results] == [("e", 2, 1)]


async def test_taking_over_again_changes_nothing(lives: Lives) -> None:
    first = Life(lives(), "one")
    await first.record(finished(1))
    await first.journal.close()
    second = Life(lives(), "two")
    for _ in range(2):
        assert [each.key for each in (await second.journal.take_over(["one"])).results] == [("e", 1, 1)]
    await second.journal.close()
    assert [each.key for each in (await left_of(lives(), "two")).results] == [("e", 1, 1)]


async def test_a_session_that_is_over_leaves_nothing(lives: Lives) -> None:
    first = Life(lives(), "one")
    await first.record(finished(1))
    first.journal.begin("two")
    await first.record(finished(2))
    await first.journal.close()
    left = await left_of(lives(), "one", "two")
    assert [each.key for each in left.results] == [("e", 2, 1)]


async def test_a_session_that_ended_in_order_leaves_nothing(lives: Lives) -> None:
    first = Life(lives(), "one")
    await first.record(finished(1))
    first.journal.drop(["one"], lambda: None)
    await first.journal.close()
    assert await left_of(lives(), "one") == Left()


async def test_a_session_without_processes_leaves_nothing(lives: Lives) -> None:
    await Life(lives(), "one").journal.close()
    assert await left_of(lives(), "one", "never begun") == Left()
