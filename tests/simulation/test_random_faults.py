"""Crashes, slow networks and partitions at random: whatever comes, the promises hold and the work ends.

A seed that fails is the whole reproduction.
"""

import asyncio
import os
import random
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

import pytest
from tests.simulation.scenarios import simulate
from tests.simulation.test_crashes import FUNCTIONS, LONG, LONG_S, NODES, attempts_of, check_completed, submit
from tests.support.virtual_client import VirtualClient

from nodeflow_testing.virtual_loop import run
from nodeflow_testing.virtual_suite import WORKER_MANAGER, VirtualSuite, address_of

FAULTS: Final = 25


async def disturb(suite: VirtualSuite, chance: random.Random) -> None:
    """Let a number of faults happen, and mend all of them at the end."""
    parted: set[tuple[str, str]] = set()
    for _ in range(FAULTS):
        await asyncio.sleep(chance.uniform(0, chance.choice([0.01, 1, 15])))
        alive = [name for name in suite.names if suite.running(name)]
        dead = [name for name in suite.names if not suite.running(name)]
        match chance.randrange(5):
            case 0 | 1 if alive:
                await suite.kill(chance.choice(alive))
            case 2 | 3 if dead:
                await suite.restart(chance.choice(dead))
            case 4:
                one, other = sorted(chance.sample(suite.names, 2))
                change = suite.network.heal if (one, other) in parted else suite.network.partition
                change(address_of(one), address_of(other))
                parted ^= {(one, other)}
            case _:
                pass
    for one, other in sorted(parted):
        suite.network.heal(address_of(one), address_of(other))
    for name in suite.names:
        if not suite.running(name):
            await suite.restart(name)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_happens_the_work_ends_and_the_promises_hold(seed: int) -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        chance = random.Random(seed)
        slowness = chance.choice([0.0002, 0.05, 0.5])
        delays = random.Random(seed)
        suite.network.delay = lambda _source, _target: delays.uniform(0, slowness)
        execution_id = await submit(client)
        await disturb(suite, chance)
        calm = asyncio.get_running_loop().time()
        await check_completed(suite, client, execution_id)
        # At worst the long node begins anew, when every lease has ended.
        assert asyncio.get_running_loop().time() - calm < LONG_S + 60

    simulate(FUNCTIONS, scenario, seed=seed, workers=3)


def test_a_worker_that_is_cut_off_stops_before_another_begins() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await submit(client)
        await asyncio.sleep(30)
        holder = (await client.tasks(execution_id))[LONG].worker_id
        suite.network.partition(address_of(holder), address_of(WORKER_MANAGER))
        await asyncio.sleep(60)
        suite.network.heal(address_of(holder), address_of(WORKER_MANAGER))
        await check_completed(suite, client, execution_id)  # which finds tasks that ran twice at a time
        assert (await attempts_of(client, execution_id))[LONG] == 2

    simulate(FUNCTIONS, scenario)


def fingerprint() -> str:
    """Digest what a watch tells of an execution over crashes of everything."""

    async def main() -> str:
        async with VirtualSuite(FUNCTIONS, seed=5) as suite:
            client = VirtualClient(suite)
            execution_id = await client.submit(NODES)
            for name in suite.names:
                await asyncio.sleep(3)
                await suite.kill(name)
                await suite.restart(name)
            told = b"".join(each.SerializeToString() for each in await client.events(execution_id))
            return sha256(told).hexdigest()

    return run(main, seed=5)


def test_a_run_repeats_itself_in_another_process() -> None:
    """The order of sets of strings differs between processes; no history may depend on it."""
    program = f"from {__name__} import fingerprint; print(fingerprint())"
    # The seeds differ from each other, so at least one differs from this process's own.
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for seed in ("1", "2")
    ]
    assert told == [fingerprint()] * 2
