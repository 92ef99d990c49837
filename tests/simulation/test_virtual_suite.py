"""Whole workflows on virtual time: hours of work, in the time that the code itself takes."""

import asyncio
import time
from typing import Any

import pytest
from nodeflow.common.v1 import lifecycle_pb2 as life
from tests.simulation.scenarios import (
    HANGS,
    NODES,
    add_up,
    hangs,
    layered_nodes,
    layered_outputs,
    layered_values,
    parents_of,
    raises,
    simulate,
)
from tests.support.virtual_client import VirtualClient, value_of

from nodeflow_sdk.audit.checkers import check
from nodeflow_sdk.audit.history import graph_of_parents
from nodeflow_testing.virtual_loop import run
from nodeflow_testing.virtual_runners import Died, Raised, Scripted, Simulated, Value
from nodeflow_testing.virtual_suite import VirtualSuite


def quick(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
    return 1.0, Value(arguments.get("value"))


def test_a_hundred_nodes_worth_an_hour_take_no_time() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit(layered_nodes(), outputs=layered_outputs())
        execution = await client.finished(execution_id)
        assert asyncio.get_running_loop().time() > 3_600
        assert execution.state == life.EXECUTION_STATE_COMPLETED
        assert value_of(execution.outputs) == layered_values()
        attempts = [1 + raises(node) + hangs(node) for node in NODES]
        assert [each.attempt_number for each in await client.tasks(execution_id)] == attempts
        assert len(suite.executed) == sum(attempts)
        graph = graph_of_parents([parents_of(node) for node in NODES])
        assert check(client.history({execution_id: graph})) == []

    began = time.process_time()
    simulate({"work:add_up": add_up}, scenario)
    assert time.process_time() - began < 1.0


def test_a_map_over_a_list_that_another_node_produced() -> None:
    def square(arguments: dict[str, Any], attempt: int) -> tuple[float, Scripted]:
        number = arguments["number"]
        return (5.0, Raised()) if number == 4 and attempt == 1 else (10.0, Value(number * number))

    def add(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
        return 1.0, Value(sum(arguments["numbers"]))

    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        nodes = {
            "numbers": {"function": "f:quick", "with": {"value": list(range(20))}},
            "square": {
                "map": "${nodes.numbers.output}",
                "function": "f:square",
                "with": {"number": "${item}"},
                "retry": 2,
            },
            "total": {"function": "f:add", "with": {"numbers": "${nodes.square.output}"}},
        }
        execution_id = await client.submit(nodes, outputs={"total": "${nodes.total.output}"})
        execution = await client.finished(execution_id)
        assert value_of(execution.outputs) == {"total": sum(n * n for n in range(20))}
        items = [each for each in await client.tasks(execution_id) if each.HasField("map_index")]
        assert [(each.map_index, each.attempt_number) for each in items] == [(n, 1 + (n == 4)) for n in range(20)]
        assert check(client.history({execution_id: graph_of_parents([[], [0], [1]])})) == []

    simulate({"f:quick": quick, "f:square": square, "f:add": add}, scenario)


def test_a_node_whose_condition_is_false_is_skipped() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        nodes = {
            "count": {"function": "f:quick", "with": {"value": 3}},
            "many": {"function": "f:quick", "when": "nodes.count.output > 5"},
            "few": {"function": "f:quick", "with": {"value": "few"}, "when": "nodes.count.output <= 5"},
        }
        outputs = {"many": "${nodes.many.output}", "few": "${nodes.few.output}"}
        execution = await client.finished(await client.submit(nodes, outputs=outputs))
        assert value_of(execution.outputs) == {"many": None, "few": "few"}
        states = [each.state for each in await client.tasks(execution.execution_id)]
        assert states == [life.TASK_STATE_COMPLETED, life.TASK_STATE_SKIPPED, life.TASK_STATE_COMPLETED]
        assert [function for function, *_ in suite.executed] == ["f:quick", "f:quick"]

    simulate({"f:quick": quick}, scenario)


COMPLETED, FAILED, CANCELLED, SKIPPED = (
    life.TASK_STATE_COMPLETED,
    life.TASK_STATE_FAILED,
    life.TASK_STATE_CANCELLED,
    life.TASK_STATE_SKIPPED,
)


@pytest.mark.parametrize(
    ("policy", "state", "states"),
    [
        ("cancel_dependents", life.EXECUTION_STATE_FAILED, [FAILED, CANCELLED, COMPLETED, COMPLETED]),
        ("fail_fast", life.EXECUTION_STATE_FAILED, [FAILED, CANCELLED, CANCELLED, CANCELLED]),
        ("continue", life.EXECUTION_STATE_COMPLETED, [FAILED, SKIPPED, COMPLETED, COMPLETED]),
    ],
)
@pytest.mark.parametrize("failing", [Raised(), Died()], ids=["raises", "dies"])
def test_what_a_failure_does_to_the_rest(
    policy: str, state: life.ExecutionState.ValueType, states: list[life.TaskState.ValueType], failing: Scripted
) -> None:
    def fail(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
        return 5.0, failing

    def slow(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
        return 60.0, Value("done")

    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        nodes = {
            "fails": {"function": "f:fail", "retry": {"attempts": 2, "backoff": {"initial": "2s"}}},
            "after": {"function": "f:slow", "needs": ["fails"]},
            "beside": {"function": "f:slow"},
            "after_beside": {"function": "f:slow", "needs": ["beside"]},
        }
        execution = await client.finished(await client.submit(nodes, on_failure=policy))
        assert execution.state == state
        tasks = await client.tasks(execution.execution_id)
        assert [each.state for each in tasks] == states
        assert tasks[0].attempt_number == 2

    simulate({"f:fail": fail, "f:slow": slow}, scenario)


def endless(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
    return HANGS, Value(None)


@pytest.fixture
def stoppable() -> dict[str, Simulated]:
    return {"f:quick": quick, "f:endless": endless}


STOPPABLE_NODES: dict[str, dict[str, object]] = {
    "first": {"function": "f:quick"},
    "endless": {"function": "f:endless", "needs": ["first"]},
    "last": {"function": "f:quick", "needs": ["endless"]},
}


def test_a_cancelled_execution_stops_and_frees_its_slots(stoppable: dict[str, Simulated]) -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        ids = [await client.submit(STOPPABLE_NODES) for _ in range(8)]
        for execution_id in ids:  # as many as there are slots
            await client.until(execution_id, life.TASK_STATE_RUNNING, "endless")
        for execution_id in ids:
            cancelled = await client.cancel(execution_id, "enough")
            assert cancelled.cancel_reason == "enough"
            execution = await client.finished(execution_id)
            assert execution.state == life.EXECUTION_STATE_CANCELLED
            assert [each.state for each in await client.tasks(execution_id)] == [COMPLETED, CANCELLED, CANCELLED]
        began = asyncio.get_running_loop().time()
        next_one = await client.finished(await client.submit({"next": {"function": "f:quick"}}))
        assert next_one.state == life.EXECUTION_STATE_COMPLETED
        assert asyncio.get_running_loop().time() - began < 10

    simulate(stoppable, scenario)


def test_an_execution_fails_when_its_time_is_up(stoppable: dict[str, Simulated]) -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        began = asyncio.get_running_loop().time()
        execution = await client.finished(await client.submit(STOPPABLE_NODES, timeout="20m"))
        assert asyncio.get_running_loop().time() - began == pytest.approx(1_200, abs=1)
        assert execution.state == life.EXECUTION_STATE_FAILED
        assert execution.failure.reason == "EXECUTION_TIMEOUT"
        states = [each.state for each in await client.tasks(execution.execution_id)]
        assert states == [COMPLETED, CANCELLED, CANCELLED]

    simulate(stoppable, scenario)


def test_two_runs_with_one_seed_tell_the_same_history() -> None:
    def told(seed: int) -> bytes:
        async def main() -> bytes:
            async with VirtualSuite({"work:add_up": add_up}, seed=seed) as suite:
                client = VirtualClient(suite)
                execution_id = await client.submit(layered_nodes())
                for name in suite.names:
                    await asyncio.sleep(20)
                    await suite.kill(name)
                    await suite.restart(name)
                return b"".join(each.SerializeToString() for each in await client.events(execution_id))

        return run(main, seed=seed)

    first = told(1)
    assert first == told(1)
    assert first != told(2)


@pytest.mark.parametrize("place", [20, 200, 390])
def test_quick_tasks_do_not_wait_behind_one_that_turned_out_to_be_long(place: int) -> None:
    def mostly_quick(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
        return (300.0 if arguments["number"] == place else 0.0002), Value(arguments["number"])

    async def main() -> None:
        async with VirtualSuite({"f:mostly_quick": mostly_quick}, workers=1, slots=4) as suite:
            client = VirtualClient(suite)
            node = {"map": list(range(400)), "function": "f:mostly_quick", "with": {"number": "${item}"}}
            began_s = asyncio.get_running_loop().time()
            execution_id = await client.submit({"all": node})
            await client.finished(execution_id)
            items = [each for each in await client.tasks(execution_id) if each.HasField("map_index")]
            assert [each.attempt_number for each in items] == [1] * 400
            assert len(suite.spans) == 400
            late = [each.task_number for each in suite.spans if each.ended_s > began_s + 1.0]
            assert late == [each.task_number for each in items if each.map_index == place]
            assert check(client.history()) == []

    run(main, seed=0)
