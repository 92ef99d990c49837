"""What callers are told of executions that a scheduler no longer has in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from nodeflow.common.v1 import lifecycle_pb2 as life
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb
from tests.simulation.scenarios import Scenario, simulate
from tests.support.virtual_client import VirtualClient, document

from nodeflow_scheduler.domain.identity import new_execution_id
from nodeflow_testing.virtual_runners import Scripted, Value
from nodeflow_testing.virtual_suite import SCHEDULER, VirtualSuite

NODES = {"a": {"function": "f:quick"}}
FAR_AHEAD_MS = 60_000
SOON_S = 5


def quick(arguments: dict[str, Any], attempt: int) -> tuple[float, Scripted]:
    return 0.01, Value(1)


def run(scenario: Scenario) -> None:
    simulate({"f:quick": quick}, scenario)


async def submit(client: VirtualClient, *request_ids: str) -> list[str]:
    """Starts executions in one call, again for as long as the scheduler cannot answer."""
    reference = pb.WorkflowReference(document=document(NODES))
    submissions = [pb.Submission(request_id=each) for each in request_ids]
    request = pb.SubmitExecutionsRequest(workflow=reference, submissions=submissions)
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                return list((await client.stub.SubmitExecutions(request, timeout=30)).execution_ids)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.2)


async def forget(suite: VirtualSuite) -> None:
    """Lets the scheduler begin anew: what is over is in the log only."""
    await suite.kill(SCHEDULER)
    await suite.restart(SCHEDULER)
    await suite.ready(SCHEDULER)


def test_a_cancellation_of_what_is_over_and_forgotten_says_that_it_is_over() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        (execution_id,) = await submit(client, "key")
        await client.finished(execution_id)
        await forget(suite)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.cancel(execution_id, "too late")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "is COMPLETED already" in (caught.value.details() or "")

    run(scenario)


def test_a_cancellation_of_what_was_cancelled_and_forgotten_is_answered_as_it_is() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        (execution_id,) = await submit(client, "key")
        await client.cancel(execution_id, "first")
        await forget(suite)
        again = await client.cancel(execution_id, "second")
        assert (again.state, again.cancel_reason) == (life.EXECUTION_STATE_CANCELLED, "first")

    run(scenario)


def test_repeats_in_one_call_find_what_is_over_and_forgotten() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        (execution_id,) = await submit(client, "key")
        await client.finished(execution_id)
        await forget(suite)
        known, new, again = await submit(client, "key", "other", "key")
        assert known == again == execution_id
        assert new != execution_id
        assert (await client.finished(new)).state == life.EXECUTION_STATE_COMPLETED

    run(scenario)


@pytest.mark.parametrize("ahead_ms", [0, 500, FAR_AHEAD_MS])
def test_a_repeat_under_a_key_of_a_clock_that_is_ahead_gets_its_answer(ahead_ms: int) -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        (first,) = await submit(client, "any")
        started = (await client.finished(first)).create_time.ToMilliseconds()
        key = new_execution_id(started + ahead_ms, b"0123456789")
        (execution_id,) = await submit(client, key)
        await client.finished(execution_id)
        await forget(suite)
        assert await submit(client, key) == [execution_id]
        await forget(suite)
        await asyncio.sleep(FAR_AHEAD_MS / 1000 - 2)
        assert await submit(client, key) == [execution_id]

    run(scenario)


def test_the_large_list_of_a_mapped_node_that_nobody_asked_for_can_be_read() -> None:
    def large(arguments: dict[str, Any], attempt: int) -> tuple[float, Scripted]:
        return 0.01, Value("x" * 60_000)

    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit({"many": {"function": "f:large", "map": [1, 2]}})
        await client.finished(execution_id)
        told = await client.stub.GetTask(pb.GetTaskRequest(execution_id=execution_id), timeout=30)
        listed = await client.stub.ListTasks(
            pb.ListTasksRequest(execution_id=execution_id, with_results=True), timeout=30
        )
        assert told.task.output == listed.tasks[0].output
        request = pb.DownloadArtifactRequest(digest=told.task.output.artifact.digest)
        data = b"".join([piece.data async for piece in client.stub.DownloadArtifact(request)])
        assert json.loads(data) == ["x" * 60_000] * 2

    simulate({"f:large": large}, scenario)


def test_tasks_with_large_results_come_in_short_pages_and_none_is_missed() -> None:
    count, letters = 20, "x" * 60_000

    def large(arguments: dict[str, Any], attempt: int) -> tuple[float, Scripted]:
        return 0.01, Value(f"{arguments['n']} {letters}")

    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        nodes = {f"n{n}": {"function": "f:large", "with": {"n": n}} for n in range(count)}
        execution_id = await client.submit(nodes)
        await client.finished(execution_id)
        pages, token = [], ""
        while True:
            request = pb.ListTasksRequest(
                execution_id=execution_id, page_size=1_000, page_token=token, with_results=True
            )
            pages.append(await client.stub.ListTasks(request, timeout=30))
            token = pages[-1].next_page_token
            if not token:
                break
        assert max(page.ByteSize() for page in pages) < 400_000
        results = [task.output.data.partition(b" ")[0] for page in pages for task in page.tasks]
        assert results == [f'"{n}'.encode() for n in range(count)]
        assert not any(task.HasField("output") for task in await client.tasks(execution_id))

    simulate({"f:large": large}, scenario)


def test_texts_without_end_are_refused() -> None:
    """They would be in the log, and in messages that are too large for it: the scheduler would end with each try."""

    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        (execution_id,) = await submit(client, "key")
        cancel = pb.CancelExecutionRequest(execution_id=execution_id, reason="x" * 1_025)
        await refused(client.stub.CancelExecution(cancel, timeout=30), "reason")
        long = document(NODES)
        long.directory = "/x" * 2_049
        await refused(client.stub.RegisterWorkflow(pb.RegisterWorkflowRequest(document=long), timeout=30), "directory")
        reference = pb.WorkflowReference(document=long)
        request = pb.SubmitExecutionRequest(workflow=reference)
        await refused(client.stub.SubmitExecution(request, timeout=30), "directory")

    async def refused(call: Awaitable[object], what: str) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match=f"the {what}.* is too long") as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(scenario)
