"""Each process crashes in the middle of a workflow and comes back: nothing is lost, and no work is done in vain."""

import asyncio
from collections import Counter
from typing import Any, Final

import pytest
from nodeflow.common.v1 import lifecycle_pb2 as life
from tests.simulation.scenarios import simulate
from tests.support.virtual_client import VirtualClient, value_of

from nodeflow_sdk.audit.checkers import check
from nodeflow_sdk.audit.history import graph_of_parents
from nodeflow_sdk.client import Client
from nodeflow_shared.errors import NodeflowError
from nodeflow_testing.virtual_runners import Scripted, Value
from nodeflow_testing.virtual_suite import SCHEDULER, STATE_MANAGER, WORKER_MANAGER, VirtualSuite, address_of

LONG_S: Final = 300.0

LONG: Final = 0
"""The task number of the long node."""

NODES: Final[dict[str, dict[str, object]]] = {
    "long": {"function": "f:long"},
    "numbers": {"function": "f:numbers"},
    "step": {"map": "${nodes.numbers.output}", "function": "f:step", "with": {"number": "${item}"}},
    "total": {"function": "f:total", "with": {"steps": "${nodes.step.output}"}},
    "end": {"function": "f:total", "with": {"steps": ["${nodes.total.output}", "${nodes.long.output}"]}},
}
GRAPH: Final = graph_of_parents([[], [], [1], [2], [0, 3]])
ITEMS: Final = 40
ANSWER: Final = sum(2 * number for number in range(ITEMS)) + 1_000


def long(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
    return LONG_S, Value(1_000)


def numbers(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
    return 3.0, Value(list(range(ITEMS)))


def step(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
    return 4.0 + arguments["number"] % 5, Value(2 * arguments["number"])


def total(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
    return 1.0, Value(sum(arguments["steps"]))


FUNCTIONS: Final = {"f:long": long, "f:numbers": numbers, "f:step": step, "f:total": total}

SERVICES: Final = (STATE_MANAGER, WORKER_MANAGER, SCHEDULER)


async def check_completed(suite: VirtualSuite, client: VirtualClient, execution_id: str) -> None:
    """The answer is right, each task has one result, none ran twice at a time, and the log keeps every promise."""
    execution = await client.finished(execution_id)
    assert execution.state == life.EXECUTION_STATE_COMPLETED
    assert value_of(execution.outputs) == {"end": ANSWER}
    history = client.history({execution_id: GRAPH})
    assert check(history) == []
    results = Counter(fact.task for fact in history.execution(execution_id).facts if fact.kind == "tasks_completed")
    assert results == dict.fromkeys(range(len(NODES) + ITEMS), 1)
    assert suite.together() == []


async def submit(client: VirtualClient) -> str:
    return await client.submit(NODES, outputs={"end": "${nodes.end.output}"})


async def attempts_of(client: VirtualClient, execution_id: str) -> list[int]:
    return [each.attempt_number for each in await client.tasks(execution_id)]


def begun_more_than_once(suite: VirtualSuite) -> dict[int, int]:
    """How often tasks were begun. (A task that waited at the scheduler may get a higher attempt without a first.)"""
    begun = Counter(task for _, _, task, _ in suite.executed)
    return {task: times for task, times in begun.items() if times > 1}


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("at_s", [0.001, 0.5, 3.06, 10.0, 50.0])
@pytest.mark.parametrize("away_s", [0.0, 1.0])
def test_workers_keep_what_they_hold_over_a_short_outage(name: str, at_s: float, away_s: float) -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await submit(client)
        await asyncio.sleep(at_s)
        await suite.kill(name)
        await asyncio.sleep(away_s)
        await suite.restart(name)
        await check_completed(suite, client, execution_id)
        assert asyncio.get_running_loop().time() < LONG_S + 30
        assert begun_more_than_once(suite) == {}
        if at_s >= 0.5:  # before that, the assignment may have been on its way
            assert (await attempts_of(client, execution_id))[LONG] == 1

    simulate(FUNCTIONS, scenario)


@pytest.mark.parametrize("name", [STATE_MANAGER, SCHEDULER])
def test_workers_keep_what_they_hold_over_an_outage_longer_than_every_lease(name: str) -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await submit(client)
        await asyncio.sleep(20)
        await suite.kill(name)
        await asyncio.sleep(60)
        await suite.restart(name)
        await check_completed(suite, client, execution_id)
        assert begun_more_than_once(suite) == {}
        assert (await attempts_of(client, execution_id))[LONG] == 1

    simulate(FUNCTIONS, scenario)


def test_when_the_worker_manager_stays_away_workers_stop_and_their_tasks_get_the_next_attempt() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await submit(client)
        await asyncio.sleep(20)
        await suite.kill(WORKER_MANAGER)
        await asyncio.sleep(60)
        await suite.restart(WORKER_MANAGER)
        await check_completed(suite, client, execution_id)
        assert (await attempts_of(client, execution_id))[LONG] == 2

    simulate(FUNCTIONS, scenario)


@pytest.mark.parametrize(("back_after_s", "found_after_s"), [(0.5, 2.0), (None, 12.0)])
def test_what_a_dead_worker_held_gets_the_next_attempt(back_after_s: float | None, found_after_s: float) -> None:
    """At once if the worker comes back and tells so; otherwise when its lease has ended."""

    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await submit(client)
        await client.until(execution_id, life.TASK_STATE_RUNNING, "long")
        holder = (await client.tasks(execution_id))[LONG].worker_id
        await asyncio.sleep(20)
        died = asyncio.get_running_loop().time()
        before = await attempts_of(client, execution_id)
        await suite.kill(holder)
        if back_after_s is not None:
            await asyncio.sleep(back_after_s)
            await suite.restart(holder)
        async for response in client.watch(execution_id):
            again = [each for each in response.events if each.task.node == "long" and each.task.attempt_number == 2]
            if again:
                break
        assert asyncio.get_running_loop().time() - died <= found_after_s
        await check_completed(suite, client, execution_id)
        after = await attempts_of(client, execution_id)
        lost = [task for task in range(len(before)) if after[task] > max(before[task], 1)]
        assert LONG in lost
        assert len(lost) <= 8

    simulate(FUNCTIONS, scenario)


def test_a_watch_in_which_nothing_happens_outlives_every_restart() -> None:
    """Each outage is one of its own, although no event tells when the one before was over."""
    told: list[NodeflowError] = []

    async def watched(client: Client, execution_id: str) -> list[int]:
        responses = client.watch(execution_id, on_lost=told.append)
        return [event.sequence async for response in responses for event in response.events]

    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit({"long": {"function": "f:long"}})
        await client.until(execution_id, life.TASK_STATE_RUNNING, "long")
        watcher = Client(suite.network.connect(address_of(SCHEDULER)))
        watch = asyncio.ensure_future(watched(watcher, execution_id))
        for _ in range(3):
            await asyncio.sleep(70)
            await suite.kill(SCHEDULER)
            await asyncio.sleep(0.5)
            await suite.restart(SCHEDULER)
        sequences = await watch
        assert sequences == list(range(1, len(sequences) + 1))

    simulate(FUNCTIONS, scenario)
    assert len(told) == 3


def test_every_process_crashes_again_and_again() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await submit(client)
        for turn in range(4):
            for name in suite.names:
                await asyncio.sleep(7.3 + turn)
                await suite.kill(name)
                await asyncio.sleep(0.4)
                await suite.restart(name)
        await check_completed(suite, client, execution_id)

    simulate(FUNCTIONS, scenario)


def test_a_drained_worker_finishes_what_it_holds_and_gets_no_more() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await submit(client)
        await asyncio.sleep(0.5)
        await suite.drain("worker-2")
        await check_completed(suite, client, execution_id)

    simulate(FUNCTIONS, scenario)
