"""Both clocks, one on real time, one on virtual time."""

import asyncio
import time

from nodeflow_shared.clock import Clock, LoopClock, SystemClock
from nodeflow_testing.virtual_loop import run


def test_on_a_virtual_loop_wall_time_is_virtual() -> None:
    async def main() -> tuple[list[int], list[float]]:
        clock: Clock = LoopClock(epoch_ms=1_700_000_000_000)
        wall, monotonic = [clock.now_ms()], [clock.monotonic()]
        for seconds in (1.001, 3600.0):
            await asyncio.sleep(seconds)
            wall.append(clock.now_ms())
            monotonic.append(round(clock.monotonic(), 3))
        return wall, monotonic

    started = time.monotonic()
    wall, monotonic = run(main)
    assert wall == [1_700_000_000_000, 1_700_000_001_001, 1_700_003_601_001]
    assert monotonic == [0.0, 1.001, 3601.001]
    assert time.monotonic() - started < 10


async def test_the_system_clock_tells_the_machines_time_and_the_loops() -> None:
    clock: Clock = SystemClock()
    before = time.time_ns() // 1_000_000
    now = clock.now_ms()
    assert before <= now <= time.time_ns() // 1_000_000
    earlier = asyncio.get_running_loop().time()
    assert earlier <= clock.monotonic() <= asyncio.get_running_loop().time()
