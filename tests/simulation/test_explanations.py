"""What a user is told of a task that waits, from an empty suite to its end."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from nodeflow.common.v1 import lifecycle_pb2 as life
from nodeflow.scheduler.v1 import explanation_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb
from tests.simulation.scenarios import Scenario, simulate
from tests.support.virtual_client import VirtualClient

from nodeflow_testing.virtual_runners import Raised, Scripted, Value
from nodeflow_testing.virtual_suite import VirtualSuite

BACKOFF = {"initial": "30s", "jitter": 0}
NODES = {
    "flaky": {"function": "f:flaky", "retry": {"attempts": 2, "backoff": BACKOFF}, "timeout": "5m"},
    "after": {"function": "f:quick", "needs": ["flaky"]},
}


def flaky(arguments: dict[str, Any], attempt: int) -> tuple[float, Scripted]:
    return 10.0, Raised() if attempt == 1 else Value(1)


def quick(arguments: dict[str, Any], attempt: int) -> tuple[float, Scripted]:
    return 0.01, Value(1)


def run(scenario: Scenario, *, workers: int = 1) -> None:
    simulate({"f:flaky": flaky, "f:quick": quick}, scenario, workers=workers)


async def explain(client: VirtualClient, execution_id: str, node: str) -> explanation_pb2.TaskExplanation:
    request = pb.ExplainTaskRequest(execution_id=execution_id, node=node)
    return (await client.stub.ExplainTask(request, timeout=30)).explanation


def test_a_task_tells_its_way_from_running_over_a_backoff_to_its_result() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit(NODES)
        await client.until(execution_id, life.TASK_STATE_RUNNING, "flaky")
        told = await explain(client, execution_id, "flaky")
        assert told.reason == explanation_pb2.TASK_REASON_RUNNING
        assert (told.attempt_timeout.seconds, told.attempt_limit) == (300, 2)
        waits = await explain(client, execution_id, "after")
        assert waits.reason == explanation_pb2.TASK_REASON_DEPENDENCIES
        assert [(each.node, each.state) for each in waits.nodes] == [("flaky", life.TASK_STATE_RUNNING)]
        await client.until(execution_id, life.TASK_STATE_QUEUED, "flaky")
        told = await explain(client, execution_id, "flaky")
        while told.reason != explanation_pb2.TASK_REASON_BACKOFF:
            await asyncio.sleep(1)
            told = await explain(client, execution_id, "flaky")
        assert (told.failed_count, told.task.HasField("retry_time")) == (1, True)
        await client.finished(execution_id)
        assert (await explain(client, execution_id, "after")).reason == explanation_pb2.TASK_REASON_COMPLETED

    run(scenario)


def test_without_workers_it_says_so_and_an_unknown_node_is_not_found() -> None:
    async def scenario(_suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit(NODES)
        told = await explain(client, execution_id, "flaky")
        assert (told.reason, told.workers.waiting_count) == (explanation_pb2.TASK_REASON_NO_WORKER, 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await explain(client, execution_id, "nothing")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    run(scenario, workers=0)
