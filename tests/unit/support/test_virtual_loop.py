"""The loop on virtual time: what it costs, what it repeats, and how it tells that nothing can happen any more."""

import asyncio
import random
import time

import pytest

from nodeflow_testing.lives import Life
from nodeflow_testing.virtual_loop import Deadlock, OutOfTime, VirtualLoop, run


def test_waiting_takes_no_time_and_happens_in_order() -> None:
    async def main() -> list[tuple[float, str]]:
        loop = asyncio.get_running_loop()
        told: list[tuple[float, str]] = []

        async def sleeper(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            told.append((loop.time(), name))

        async with asyncio.TaskGroup() as group:
            group.create_task(sleeper("day", 86_000))
            group.create_task(sleeper("minute", 60))
            group.create_task(sleeper("hour", 3_600))
        return told

    began = time.monotonic()
    assert run(main) == [(60.0, "minute"), (3_600.0, "hour"), (86_000.0, "day")]
    assert time.monotonic() - began < 10


def test_a_timeout_fires_on_virtual_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1_000):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run(main) == 1_000.0


def test_a_deadlock_names_who_waits_and_where() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_ever(), name="the one that waits")

    with pytest.raises(Deadlock, match=r"the one that waits at .*wait_for_ever:\d+"):
        run(main)


def test_a_run_that_only_beats_its_heart_is_out_of_time() -> None:
    async def main() -> None:
        beat = asyncio.get_running_loop().create_future()

        def repeat() -> None:
            asyncio.get_running_loop().call_later(2, repeat)

        repeat()
        await beat

    with pytest.raises(OutOfTime, match="after 600 virtual seconds"):
        run(main, horizon_s=600)


def test_a_strike_may_cancel_the_callback_in_whose_place_it_comes() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        told: list[str] = []
        life = Life(loop)
        handle = loop.call_soon(told.append, "it ran", context=life.context)

        def strike() -> None:
            told.append("struck")
            handle.cancel()

        life.strike_after(0, strike)
        await asyncio.sleep(1)
        return told

    assert run(main) == ["struck"]


def test_what_is_left_is_cancelled() -> None:
    ended: list[str] = []

    async def leftover() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(leftover())
        await asyncio.sleep(1)
        return task

    assert run(main).cancelled()
    assert ended == ["cancelled"]


def test_what_a_callback_raises_fails_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1, lambda: 1 // 0)
        await asyncio.sleep(2)

    with pytest.raises(ExceptionGroup) as raised:
        run(main)
    assert raised.group_contains(ZeroDivisionError)


def test_threads_are_refused() -> None:
    async def main() -> None:
        await asyncio.to_thread(time.monotonic)

    with pytest.raises(RuntimeError, match="no threads"):
        run(main)


def test_random_repeats_itself_with_the_seed_and_is_put_back() -> None:
    async def main() -> float:
        return random.random()

    state = random.getstate()
    assert run(main, seed=1) == run(main, seed=1)
    assert run(main, seed=1) != run(main, seed=2)
    assert random.getstate() == state


def test_tasks_in_sets_have_an_order_of_their_own() -> None:
    async def main() -> list[str]:
        tasks = {asyncio.create_task(asyncio.sleep(0), name=f"{number}") for number in range(7)}
        assert isinstance(asyncio.get_running_loop(), VirtualLoop)
        return [task.get_name() for task in tasks]

    assert run(main) == run(main)
