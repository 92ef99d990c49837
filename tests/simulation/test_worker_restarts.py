"""Workers that crash and come back while they execute processes: what had ended counts, what had not is done again."""

import asyncio
import random
from collections import Counter
from typing import Any, Final

import pytest
from nodeflow.common.v1 import lifecycle_pb2 as life
from tests.simulation.scenarios import simulate
from tests.simulation.test_random_faults import disturb
from tests.support.virtual_client import VirtualClient, value_of

from nodeflow_sdk.audit.checkers import check
from nodeflow_sdk.audit.history import graph_of_parents
from nodeflow_testing.virtual_runners import Scripted, Value
from nodeflow_testing.virtual_suite import WORKER_MANAGER, VirtualSuite, address_of

LONG_S: Final = 20.0
AWAY_S: Final = 0.5
LEASE_S: Final = 10.0
ITEMS: Final = 30


def long(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
    return LONG_S, Value("done")


def numbers(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
    return 1.0, Value(list(range(ITEMS)))


def step(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
    number = int(arguments["command"][1])
    return 3.0 + number % 5, Value(2 * number)


def total(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
    return 1.0, Value(sum(arguments["steps"]))


FUNCTIONS: Final = {"long": long, "numbers": numbers, "step": step, "f:total": total}
ONE: Final = {"only": {"process": {"command": ["long"]}}}
MANY: Final[dict[str, dict[str, object]]] = {
    "numbers": {"process": {"command": ["numbers"]}},
    "step": {"map": "${nodes.numbers.output}", "process": {"command": ["step", "${item}"]}},
    "total": {"function": "f:total", "with": {"steps": "${nodes.step.output}"}},
}


async def check_one_result(client: VirtualClient, execution_id: str, attempt_number: int) -> None:
    """The one node has one result, of this attempt."""
    execution = await client.finished(execution_id)
    assert execution.state == life.EXECUTION_STATE_COMPLETED
    assert value_of(execution.outputs) == {"only": "done"}
    history = client.history({execution_id: graph_of_parents([[]])})
    assert check(history) == []
    results = [fact for fact in history.execution(execution_id).facts if fact.kind == "tasks_completed"]
    assert [each.attempt for each in results] == [attempt_number]


async def begin(suite: VirtualSuite, client: VirtualClient) -> tuple[str, float]:
    """Submit the one process; returns the execution and when the process began."""
    execution_id = await client.submit(ONE, outputs={"only": "${nodes.only.output}"})
    await client.until(execution_id, life.TASK_STATE_RUNNING, "only")
    [span] = suite.spans
    return execution_id, span.began_s


async def sleep_until(when: float) -> None:
    await asyncio.sleep(when - asyncio.get_running_loop().time())


def test_what_had_ended_before_the_crash_and_nobody_had_heard_of_is_reported_by_the_next_life() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id, began = await begin(suite, client)
        await sleep_until(began + LONG_S - 1)
        suite.network.partition(address_of("worker-1"), address_of(WORKER_MANAGER))
        await sleep_until(began + LONG_S + 1)
        await suite.kill("worker-1")
        suite.network.heal(address_of("worker-1"), address_of(WORKER_MANAGER))
        await suite.restart("worker-1")
        await check_one_result(client, execution_id, attempt_number=1)
        assert len(suite.executed) == 1
        assert asyncio.get_running_loop().time() < began + LONG_S + 3

    simulate(FUNCTIONS, scenario, workers=1)


def test_so_do_those_of_a_life_that_crashed_before_it_had_said_hello() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id, began = await begin(suite, client)
        await sleep_until(began + LONG_S - 1)
        suite.network.partition(address_of("worker-1"), address_of(WORKER_MANAGER))
        await sleep_until(began + LONG_S + 1)
        for _ in range(3):
            await suite.kill("worker-1")
            await suite.restart("worker-1")
            await asyncio.sleep(0.5)
        suite.network.heal(address_of("worker-1"), address_of(WORKER_MANAGER))
        await check_one_result(client, execution_id, attempt_number=1)
        assert len(suite.executed) == 1

    simulate(FUNCTIONS, scenario, workers=1)


@pytest.mark.parametrize("after_ms", [-1.0, -0.2, 0.2, 1.0, 1.8, 2.1, 2.3, 2.5, 2.8, 3.2, 4.0, 6.0, 50.0])
def test_a_crash_at_any_moment_around_the_end_costs_at_most_another_attempt(after_ms: float) -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id, began = await begin(suite, client)
        await sleep_until(began + LONG_S + after_ms / 1000)
        await suite.kill("worker-1")
        await asyncio.sleep(AWAY_S)
        await suite.restart("worker-1")
        again = after_ms < 2.0  # it takes that long to write the result
        await check_one_result(client, execution_id, attempt_number=2 if again else 1)
        assert len(suite.executed) == (2 if again else 1)
        assert suite.together() == []

    simulate(FUNCTIONS, scenario, workers=1)


def test_what_had_begun_and_not_ended_is_done_again_at_once() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id, began = await begin(suite, client)
        await sleep_until(began + LONG_S / 2)
        await suite.kill("worker-1")
        await asyncio.sleep(AWAY_S)
        await suite.restart("worker-1")
        await check_one_result(client, execution_id, attempt_number=2)
        [first, second] = suite.spans
        assert AWAY_S <= second.began_s - first.ended_s < AWAY_S + 1
        lost = [fact for fact in client.history().execution(execution_id).facts if fact.kind == "attempts_lost"]
        assert len(lost) == 1

    simulate(FUNCTIONS, scenario, workers=1)


def test_a_result_that_comes_after_the_lease_changes_nothing() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id, began = await begin(suite, client)
        [holder] = {each.worker_id for each in await client.tasks(execution_id)}
        await sleep_until(began + LONG_S - 1)
        suite.network.partition(address_of(holder), address_of(WORKER_MANAGER))
        await sleep_until(began + LONG_S + 1)
        await suite.kill(holder)
        await asyncio.sleep(2 * LEASE_S)  # by now another worker has begun it again
        suite.network.heal(address_of(holder), address_of(WORKER_MANAGER))
        await suite.restart(holder)
        await check_one_result(client, execution_id, attempt_number=2)
        assert len(suite.executed) == 2
        assert suite.together() == []

    simulate(FUNCTIONS, scenario)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_processes_end_once_for_all_and_never_run_twice_at_a_time(seed: int) -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        chance = random.Random(seed)
        execution_id = await client.submit(MANY, outputs={"total": "${nodes.total.output}"})
        await disturb(suite, chance)
        execution = await client.finished(execution_id)
        assert value_of(execution.outputs) == {"total": sum(2 * number for number in range(ITEMS))}
        history = client.history({execution_id: graph_of_parents([[], [0], [1]])})
        assert check(history) == []
        results = Counter(fact.task for fact in history.execution(execution_id).facts if fact.kind == "tasks_completed")
        assert results == dict.fromkeys(range(len(MANY) + ITEMS), 1)
        assert suite.together() == []

    simulate(FUNCTIONS, scenario, seed=seed, workers=3)
