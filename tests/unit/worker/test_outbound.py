"""What goes out on the Connect stream, message by message: nothing is too large for one."""

from dataclasses import replace

from tests.unit.worker.making import attempt

from nodeflow_worker.domain.unacknowledged import Unacknowledged
from nodeflow_worker.domain.values import Attempt, Failure, FailureKind, Outcome, State
from nodeflow_worker.outbound import MAX_HELD_BYTES, MAX_UPDATE_BYTES, Waiting
from nodeflow_worker.ports import Beat, Held, Updates

SIZE = 1 << 20


def finished(task: int, outcome: Outcome = bytes(SIZE)) -> Attempt:
    held = attempt(task)
    held.state, held.outcome = State.FINISHED, outcome
    Unacknowledged().add(held)
    return held


def no_beat() -> Beat:
    raise AssertionError


def test_results_that_do_not_fit_into_the_report_are_named_there_and_follow() -> None:
    live, results = attempt(1_000), [finished(task) for task in range(1, 41)]
    waiting = Waiting(lambda: Held(live=[live], unacknowledged=results), no_beat)
    waiting.held = True
    held = waiting.next()
    assert isinstance(held, Held)
    count = len(held.unacknowledged)
    assert MAX_HELD_BYTES - 2 * SIZE < count * SIZE < MAX_HELD_BYTES
    assert list(held.unacknowledged) == results[:count]
    assert list(held.live) == [live, *results[count:]]
    followed: list[Attempt] = []
    while (message := waiting.next()) is not None:
        assert isinstance(message, Updates)
        assert len(message.results) * SIZE <= MAX_UPDATE_BYTES
        followed += message.results
    assert followed == results[count:]


def test_a_report_that_fits_is_left_alone() -> None:
    held = Held(live=[attempt(1)], unacknowledged=[finished(2)])
    waiting = Waiting(lambda: held, no_beat)
    waiting.held = True
    assert waiting.next() is held
    assert waiting.next() is None


def test_a_heartbeat_does_not_wait_for_an_end_of_results() -> None:
    """A busy worker has some at every turn of the writer, and a lease that is not renewed takes all its work away."""
    beat = Beat(beat=1, slots=1, credits=1, draining=False)
    waiting = Waiting(lambda: Held(live=[], unacknowledged=[]), lambda: beat)
    waiting.beat = True
    messages = []
    for task in range(3):
        waiting.add([], [finished(task, b"1")], [])
        messages.append(waiting.next())
    assert beat in messages


def test_what_failures_tell_counts_as_well() -> None:
    """Thousands of tasks may fail with long words while the worker-manager is away."""
    cause = Failure(kind=FailureKind.USER, reason="R", message="m" * 8_000, retryable=True, traceback="t" * 8_000)
    results = [finished(task, replace(cause, cause=cause)) for task in range(2_000)]
    waiting = Waiting(lambda: Held(live=[], unacknowledged=results), no_beat)
    waiting.held = True
    held = waiting.next()
    assert isinstance(held, Held)
    assert len(held.unacknowledged) * 32_000 <= MAX_HELD_BYTES
    followed = waiting.next()
    assert isinstance(followed, Updates)
    assert len(followed.results) * 32_000 <= MAX_UPDATE_BYTES + 32_000
