"""Delays and lives of a connection, on virtual time; the transport's own errors come from a real socket."""

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import grpc.aio
import pytest
from structlog.testing import capture_logs

from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import InvalidInput, NodeflowError, Unavailable
from nodeflow_shared.retry import (
    HEALTHY_AFTER_S,
    STARTING_S,
    Backoff,
    as_lost_connection,
    keep_connected,
    reconnect_delays,
)
from nodeflow_testing.virtual_loop import run

ATTEMPTS = 6


def exact_delays() -> itertools.chain[float]:
    return itertools.chain([1.0, 2.0, 4.0], itertools.repeat(8.0))


def test_delays_double_up_to_the_limit_and_stay_within_the_jitter() -> None:
    plain = list(itertools.islice(reconnect_delays(jitter=0), 7))
    assert plain == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    jittered = list(itertools.islice(reconnect_delays(random=Random(1)), 7))
    assert jittered != plain
    assert all(0.8 * exact <= delay <= 1.2 * exact for exact, delay in zip(plain, jittered, strict=True))


def start_times(live: Callable[[Backoff], Awaitable[None]]) -> list[float]:
    """Return the times at which ATTEMPTS lives start, each of which does `live`."""
    starts: list[float] = []

    async def main() -> None:
        backoff = Backoff(exact_delays)

        async def attempt() -> None:
            starts.append(asyncio.get_running_loop().time())
            if len(starts) == ATTEMPTS:
                raise InvalidInput("enough")
            await live(backoff)

        with pytest.raises(InvalidInput, match="enough"):
            await keep_connected("peer", attempt, backoff=backoff)

    run(main)
    return [round(start, 3) for start in starts]


async def test_a_cancellation_counts_although_the_connection_is_lost_at_the_same_moment() -> None:
    """A TaskGroup whose task fails while its own task is cancelled raises the error, and forgets the cancellation."""
    attempts: list[asyncio.Task[None]] = []
    lost = asyncio.Event()

    async def lose() -> None:
        await lost.wait()
        raise Unavailable("down")

    async def attempt() -> None:
        async with asyncio.TaskGroup() as group:
            attempts.append(group.create_task(lose()))
            await asyncio.Event().wait()

    connection = asyncio.ensure_future(keep_connected("peer", attempt, backoff=Backoff(exact_delays)))
    while not attempts:  # noqa: ASYNC110  # a test has no other way in
        await asyncio.sleep(0)
    lost.set()
    attempts[0].add_done_callback(lambda _: connection.cancel())
    async with asyncio.timeout(10):
        await asyncio.wait([connection])
    assert connection.cancelled()
    assert len(attempts) == 1


def test_failing_attempts_back_off() -> None:
    async def live(_: Backoff) -> None:
        raise Unavailable("down")

    assert start_times(live) == [0, 1, 3, 7, 15, 23]


def test_a_stream_that_the_peer_ends_is_opened_again() -> None:
    async def live(_: Backoff) -> None:
        pass

    assert start_times(live) == [0, 1, 3, 7, 15, 23]


def test_a_reset_starts_the_delays_anew() -> None:
    async def live(backoff: Backoff) -> None:
        backoff.reset()
        raise Unavailable("down")

    assert start_times(live) == [0, 1, 2, 3, 4, 5]


def test_a_long_life_starts_the_delays_anew() -> None:
    async def live(_: Backoff) -> None:
        await asyncio.sleep(HEALTHY_AFTER_S + 1)
        raise Unavailable("down")

    assert start_times(live) == [0, 7, 14, 21, 28, 35]


def test_the_peers_wish_for_a_longer_delay_is_granted() -> None:
    async def live(_: Backoff) -> None:
        raise Unavailable("draining", retry_after_s=5)

    assert start_times(live) == [0, 5, 10, 15, 23, 31]


def test_a_group_of_lost_connections_is_a_lost_connection() -> None:
    async def live(_: Backoff) -> None:
        raise ExceptionGroup("reader and writer", [Unavailable("reader"), Unavailable("writer")])

    assert start_times(live)[:2] == [0, 1]


def test_an_outage_is_told_once() -> None:
    lost: list[NodeflowError] = []

    async def main() -> None:
        backoff = Backoff(exact_delays)
        lives = iter(range(7))

        async def attempt() -> None:
            life = next(lives)
            if life in {2, 4}:
                backoff.reset()
            if life == 6:
                raise InvalidInput("enough")
            raise Unavailable(f"life {life}")

        with pytest.raises(InvalidInput):
            await keep_connected("peer", attempt, backoff=backoff, on_lost=lost.append)

    with capture_logs() as logs:
        run(main)
    assert [(log["event"], log["name"], log.get("error")) for log in logs] == [
        ("connected", "peer", None),
        ("connection_lost", "peer", "life 2"),
        ("connected", "peer", None),
        ("connection_lost", "peer", "life 4"),
    ]
    assert [str(error) for error in lost] == ["life 2", "life 4"]


def test_a_peer_that_was_never_reached_is_told_of_once_it_cannot_be_starting_any_more() -> None:
    async def main() -> None:
        begin = asyncio.get_running_loop().time()

        async def attempt() -> None:
            now = round(asyncio.get_running_loop().time() - begin)
            if now > STARTING_S + 5:
                raise InvalidInput("enough")
            raise Unavailable(f"at {now}")

        with pytest.raises(InvalidInput):
            await keep_connected("peer", attempt, backoff=Backoff(exact_delays))

    with capture_logs() as logs:
        run(main)
    # It is called at 0, 1, 3, 7 and 15.
    assert [(log["event"], log["error"]) for log in logs] == [("not_connected", "at 7")]


def test_cancellation_of_the_task_ends_it() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(keep_connected("peer", asyncio.Event().wait))  # type: ignore[arg-type]  # no result
        await asyncio.sleep(100)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_a_cancelled_call_is_lost_but_does_not_end_the_task() -> None:
    async def live(_: Backoff) -> None:
        call: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call.cancel()
        await call

    assert start_times(live)[:3] == [0, 1, 3]


def test_mixed_groups_and_other_errors_are_not_lost_connections() -> None:
    assert as_lost_connection(ValueError("x")) is None
    assert as_lost_connection(ExceptionGroup("both", [Unavailable("x"), ValueError("y")])) is None


async def test_a_peer_that_is_not_there_is_a_lost_connection() -> None:
    with socket.socket() as reserved:  # bound, not listening: connections are refused
        reserved.bind(("127.0.0.1", 0))
        async with open_channel(f"127.0.0.1:{reserved.getsockname()[1]}") as opened:
            channel: Any = opened  # bytes have no serialisers to infer types from
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/any.Service/Method")(b"", timeout=20)
    lost = as_lost_connection(caught.value)
    assert lost is not None
    assert "refused" in str(lost)
