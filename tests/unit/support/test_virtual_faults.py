"""What the virtual suite's faults do, each by its effect on processes that live through it."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import grpc.aio
import pytest
from nodeflow.common.v1 import lifecycle_pb2 as life
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb
from tests.support.virtual_client import VirtualClient, value_of

from nodeflow_shared.errors import Unavailable
from nodeflow_shared.status import from_rpc_error
from nodeflow_testing.virtual_loop import run
from nodeflow_testing.virtual_runners import Scripted, Value
from nodeflow_testing.virtual_suite import DATABASE, SCHEDULER, STATE_MANAGER, WORKER_MANAGER, VirtualSuite, address_of

STEPS: Final = 6
STEP_S: Final = 5.0
WORKER: Final = "worker-1"
NAMES: Final = (STATE_MANAGER, WORKER_MANAGER, SCHEDULER, WORKER)


def step(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
    return STEP_S, Value(arguments["last"] + 1)


CHAIN: Final[dict[str, dict[str, object]]] = {
    f"s{number}": {"function": "f:step", "with": {"last": f"${{nodes.s{number - 1}.output}}" if number else 0}}
    for number in range(STEPS)
}


# Any: the suite's arguments.
def on_suite(scenario: Callable[[VirtualSuite, VirtualClient, str], Awaitable[None]], **more: Any) -> VirtualSuite:
    """Run a scenario while a chain of six tasks of five seconds runs on one worker; the chain must come to its end."""

    async def main() -> VirtualSuite:
        async with VirtualSuite({"f:step": step}, workers=1, slots=1, **more) as suite:
            client = VirtualClient(suite)
            execution_id = await client.submit(CHAIN, outputs={"last": f"${{nodes.s{STEPS - 1}.output}}"})
            await scenario(suite, client, execution_id)
            execution = await client.finished(execution_id)
            assert execution.state == life.EXECUTION_STATE_COMPLETED
            assert value_of(execution.outputs) == {"last": STEPS}
            assert suite.together() == []
        return suite

    return run(main, seed=more.get("seed", 0))


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("name", NAMES)
def test_a_paused_process_does_nothing_and_goes_on(name: str) -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        await asyncio.sleep(2)
        suite.pause(name)
        assert suite.paused(name)
        await asyncio.sleep(120)
        # What was under way came to its end, and nobody could begin the next but one.
        assert len(suite.executed) <= 2
        suite.resume(name)
        assert not suite.paused(name)

    suite = on_suite(scenario)
    assert suite.faults["pause"] == 1


@pytest.mark.parametrize("runners", [False, True])
def test_runners_go_on_while_their_agent_is_paused(runners: bool) -> None:
    """To their task's end, or to that of the lease; what stands still itself is not at work."""

    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        await asyncio.sleep(2)
        suite.pause(WORKER, runners=runners)
        paused_s = now()
        await asyncio.sleep(60)
        assert len(suite.spans) == 1
        assert (suite.spans[0].ended_s == paused_s) is runners
        assert suite.spans[0].ended_s < paused_s + 10
        suite.resume(WORKER)

    on_suite(scenario)


def test_a_worker_paused_for_longer_than_its_lease_loses_what_it_held() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient, execution_id: str) -> None:
        await asyncio.sleep(2)
        suite.pause(WORKER)
        await asyncio.sleep(60)
        suite.resume(WORKER)
        await asyncio.sleep(30)
        assert (await client.tasks(execution_id))[0].attempt_number == 2

    on_suite(scenario)


def test_a_process_that_is_paused_can_be_killed() -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        for name in NAMES:
            suite.pause(name)
            await suite.kill(name)
            assert not suite.running(name)
            await suite.restart(name)
            assert not suite.paused(name)

    on_suite(scenario)


@pytest.mark.parametrize("name", NAMES)
def test_a_process_is_killed_after_any_of_its_steps(name: str) -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        await asyncio.sleep(2)
        for steps in range(0, 45, 3):
            suite.kill_after(name, steps)
            await suite.ended(name)
            assert not suite.running(name)
            await suite.restart(name)
            await suite.ready(name)

    suite = on_suite(scenario)
    assert suite.faults["kill_after"] == 15


def test_an_order_to_kill_ends_with_the_life_that_it_was_for() -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        suite.kill_after(SCHEDULER, 30)
        await suite.kill(SCHEDULER)
        await suite.restart(SCHEDULER)
        suite.kill_after(SCHEDULER, 30)
        suite.spare(SCHEDULER)

    suite = on_suite(scenario)
    assert (suite.faults["kill"], suite.faults["kill_after"]) == (1, 0)


@pytest.mark.parametrize("name", [*NAMES, DATABASE, None])
@pytest.mark.parametrize("jump_s", [3_600.0, -3_600.0])
def test_a_clock_jumps(name: str | None, jump_s: float) -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        await asyncio.sleep(2)
        then_s = now()
        before = {each: suite.clocks[each].now_ms() for each in (*NAMES, DATABASE)}
        suite.shift_clock(name, jump_s)
        moved = {each for each, then in before.items() if suite.clocks[each].now_ms() - then == jump_s * 1_000}
        assert moved == {
            STATE_MANAGER: {STATE_MANAGER, DATABASE},
            DATABASE: {STATE_MANAGER, DATABASE},
            None: set(before),
        }.get(name, {name})
        assert now() == then_s

    suite = on_suite(scenario)
    assert suite.faults["clock"] == 1


def test_leases_end_by_the_clock_of_the_database() -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        assert await suite.store.acquire_shards("another", [], 1_000) == []
        suite.shift_clock(SCHEDULER, 60)
        assert await suite.store.acquire_shards("another", [], 1_000) == []
        suite.shift_clock(DATABASE, 60)
        assert len(await suite.store.acquire_shards("another", [], 1_000)) == suite.store.shard_count

    on_suite(scenario)


def test_events_have_the_time_of_their_scheduler_and_never_go_back() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient, execution_id: str) -> None:
        await asyncio.sleep(2 * STEP_S)
        suite.shift_clock(SCHEDULER, 3_600)
        await asyncio.sleep(2 * STEP_S)
        suite.shift_clock(SCHEDULER, -7_200)
        events = [event for response in await client.events(execution_id) for event in response.events]
        times = [event.event_time.ToMilliseconds() for event in events]
        assert times == sorted(times)
        assert times[-1] - times[0] > 3_600_000

    on_suite(scenario)


def test_the_work_goes_on_over_a_slow_disk() -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        suite.disk.sync_s = 1.5
        await asyncio.sleep(STEPS * STEP_S)
        assert len(suite.executed) < STEPS

    assert on_suite(scenario).faults["slow_disk"] > STEPS


def test_a_full_disk_stops_the_work_until_there_is_room() -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        await asyncio.sleep(2)
        suite.disk.full = True
        await asyncio.sleep(120)
        assert len(suite.executed) == 1
        suite.disk.full = False

    assert on_suite(scenario).faults["disk_full"] > 1


@pytest.mark.parametrize("seed", range(3))
def test_what_was_not_synced_is_forgotten_and_what_was_acknowledged_is_not(seed: int) -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient, execution_id: str) -> None:
        chance = random.Random(seed)
        suite.disk.sync_s = 1.0  # so that it is in the middle of one most of the time
        for _round in range(15):
            await asyncio.sleep(chance.uniform(0.2, 4))
            before = client.history().execution(execution_id).facts
            await suite.kill(STATE_MANAGER)
            found = client.history().execution(execution_id).facts
            assert found[: len(before)] == before
            await suite.restart(STATE_MANAGER)
        suite.disk.sync_s = 0.0

    faults = on_suite(scenario, seed=seed).faults
    assert faults["torn_write"] + faults["lost_write"] > 3


# No task starts or ends without these.
PAIRS: Final = [(STATE_MANAGER, SCHEDULER), (WORKER_MANAGER, SCHEDULER), (WORKER_MANAGER, WORKER)]


@pytest.mark.parametrize(("one", "other"), [*PAIRS, (STATE_MANAGER, WORKER_MANAGER)])
@pytest.mark.parametrize("seed", range(3))
def test_connections_break_again_and_again(one: str, other: str, seed: int) -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        for _round in range(40):
            await asyncio.sleep(suite.network.chance.choice([0.001, 0.01, 1.0]))
            suite.network.cut(address_of(one), address_of(other))

    suite = on_suite(scenario, seed=seed)
    assert suite.faults["cut"] > 10


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("turned", [False, True])
def test_connections_are_half_dead_for_a_minute(one: str, other: str, turned: bool) -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        await asyncio.sleep(2)
        source, target = map(address_of, (other, one) if turned else (one, other))
        suite.network.half_open(source, target)
        await asyncio.sleep(60)
        assert len(suite.spans) <= 2
        suite.network.heal(source, target)

    suite = on_suite(scenario)
    assert suite.faults["half_open"] == 1


SECOND: Final = "scheduler-2"


def holders(suite: VirtualSuite) -> dict[str, int]:
    """How many shards each scheduler has, as the database knows it."""
    return {name: len(suite.store.shards_of(name)) for name in (SCHEDULER, SECOND)}


async def fallen_to(suite: VirtualSuite, name: str) -> None:
    """Wait until a scheduler has taken over."""
    async with asyncio.timeout(60):
        while not suite.store.shards_of(name):  # noqa: ASYNC110  -- the database tells nobody
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("how", ["killed", "paused", "cut off", "seized", "its leases ended"])
def test_another_scheduler_takes_over(how: str) -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        assert holders(suite) == {SCHEDULER: suite.store.shard_count, SECOND: 0}
        await asyncio.sleep(2)
        match how:
            case "killed":
                await suite.kill(SCHEDULER)
            case "paused":
                suite.pause(SCHEDULER)
            case "cut off":
                suite.network.partition(address_of(SCHEDULER), address_of(STATE_MANAGER))
            case "seized":
                suite.pause(SCHEDULER)  # or it would be the first to ask
                await suite.seize(SCHEDULER)
            case _:
                suite.pause(SCHEDULER)
                suite.shift_clock(DATABASE, 60)
        await fallen_to(suite, SECOND)
        await asyncio.sleep(10)
        assert holders(suite) == {SCHEDULER: 0, SECOND: suite.store.shard_count}
        assert len(suite.executed) > 1  # the work goes on
        if how == "killed":
            await suite.restart(SCHEDULER)
        suite.resume(SCHEDULER)
        suite.network.heal(address_of(SCHEDULER), address_of(STATE_MANAGER))

    suite = on_suite(scenario, schedulers=2)
    assert [attempt for _, _, _, attempt in suite.executed] == [1] * STEPS  # nothing was done in vain
    assert suite.faults["lost_lease"] == (how == "seized")


def test_a_seized_shard_goes_to_whoever_asks_next() -> None:
    async def scenario(suite: VirtualSuite, _: VirtualClient, __: str) -> None:
        tokens = {head.shard: head.fencing_token for head in suite.store.tables.heads.shards.values()}
        for shard in range(0, suite.store.shard_count, 2):
            await asyncio.sleep(0.1)
            await suite.seize(shard)
        await asyncio.sleep(5)
        for head in suite.store.tables.heads.shards.values():
            assert (head.leased, head.fencing_token) == (True, tokens[head.shard] + (head.shard % 2 == 0))
        assert min(holders(suite).values()) > 0

    assert on_suite(scenario, schedulers=2).faults["lost_lease"] == 32


def test_a_watcher_at_the_wrong_scheduler_is_sent_elsewhere() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient, execution_id: str) -> None:
        await client.until(execution_id, life.TASK_STATE_COMPLETED, "s0")
        request = pb.WatchExecutionRequest(execution_id=execution_id)
        responses: list[pb.WatchExecutionResponse] = []

        async def watch(name: str) -> None:
            async for response in suite.client(name).WatchExecution(request):
                responses.append(response)  # noqa: PERF401  -- to see what came before the error

        async with asyncio.timeout(1):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await watch(SECOND)
        assert (told := from_rpc_error(raised.value)).reason == "SHARD_NOT_HERE"
        assert isinstance(told, Unavailable)
        assert responses[-1].events[-1].sequence >= 1  # with all that was committed

        watching = asyncio.create_task(watch(SCHEDULER))
        await asyncio.sleep(1)
        suite.network.partition(address_of(SCHEDULER), address_of(STATE_MANAGER))
        async with asyncio.timeout(60):
            with pytest.raises(grpc.aio.AioRpcError):
                await watching
        suite.network.heal(address_of(SCHEDULER), address_of(STATE_MANAGER))

    on_suite(scenario, schedulers=2)


def fingerprint() -> str:
    """Digest what a user and the workers see of a run in which every kind of fault strikes."""
    told: list[bytes] = []

    async def scenario(suite: VirtualSuite, client: VirtualClient, execution_id: str) -> None:
        await strike_in_every_way(suite)
        told.extend(each.SerializeToString() for each in await client.events(execution_id))

    suite = on_suite(scenario, schedulers=2, seed=7)
    assert {kind for kind in KINDS if not suite.faults[kind]} == set()
    seen = f"{sorted(suite.faults.items())} {suite.spans}"
    return sha256(b"".join(told) + seen.encode()).hexdigest()


KINDS: Final = (
    *("kill", "kill_after", "pause", "clock", "partition", "half_open", "cut", "lost_lease"),
    *("slow_disk", "disk_full", "torn_write", "dropped_message", "repeated_message", "repeated_call"),
)


async def strike_in_every_way(suite: VirtualSuite) -> None:
    """Have all faults at once, in an order that the seed alone decides, until each kind has struck."""
    chance = suite.network.chance
    services = [STATE_MANAGER, WORKER_MANAGER, SCHEDULER, SECOND]
    suite.disk.sync_s = lambda: chance.choice((0.001, 0.2, 1.0))
    suite.network.delay = lambda _source, _target: chance.uniform(0, 0.2)
    while any(not suite.faults[kind] for kind in KINDS):
        await asyncio.sleep(chance.uniform(0, 1))
        name, (one, other) = chance.choice(services), chance.sample([address_of(each) for each in services], 2)
        match chance.randrange(7):
            case 0:
                await suite.kill(name)
            case 1:
                suite.kill_after(name, chance.randrange(20))
            case 2:
                suite.pause(name)
            case 3:
                suite.shift_clock(name, chance.uniform(-9, 9))
            case 4:
                chance.choice((suite.network.partition, suite.network.half_open))(one, other)
            case 5:
                suite.network.cut(one, other)
            case _:
                suite.disk.full = not suite.disk.full
                await suite.seize(name)
        await asyncio.sleep(chance.uniform(0, 5))
        suite.network.heal(one, other)
        for each in services:
            suite.spare(each)
            if suite.running(each):
                suite.resume(each)
            else:
                await suite.restart(each)
    suite.disk.full, suite.disk.sync_s = False, 0.0


def test_a_run_full_of_faults_repeats_itself_in_another_process() -> None:
    """The order of sets of strings differs between processes; nothing may depend on it."""
    program = f"from {__name__} import fingerprint; print(fingerprint())"
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for seed in ("1", "2")
    ]
    assert told == [fingerprint()] * 2
