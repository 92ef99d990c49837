"""A user of the virtual suite: submits documents, watches executions over outages, and reads what became of them.

Owns the patience of a client. Must not look into any service; the store is read for the history alone.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import cycle
from math import isinf
from typing import Any, Final

import grpc.aio
from nodeflow.common.v1 import dependency_pb2, lifecycle_pb2, payload_pb2
from nodeflow.scheduler.v1 import execution_pb2, log_line_pb2, workflow_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb
from nodeflow.scheduler.v1.log_pb2 import LogChunk
from tests.support.history import graph_in

from nodeflow_sdk.audit.decoding import execution_state, facts_of
from nodeflow_sdk.audit.history import ExecutionHistory, Graph, History, ShardHistory, Slots
from nodeflow_sdk.audit.history import Span as WorkSpan
from nodeflow_shared.clock import LoopClock
from nodeflow_shared.retry import as_lost_connection
from nodeflow_testing.machine_clock import EPOCH_MS
from nodeflow_testing.virtual_suite import VirtualSuite

RETRY_S = 0.2
STOP_WITHIN_MS: Final = 20_000
"""The lease of a worker, and a scheduler's outage before it tells anyone to stop."""


def document(nodes: Mapping[str, object], **more: object) -> workflow_pb2.WorkflowDocument:
    """Write a workflow document."""
    source = {"apiVersion": "nodeflow/v1", "kind": "Workflow", "name": "simulated", "nodes": nodes, **more}
    return workflow_pb2.WorkflowDocument(source=json.dumps(source).encode(), content_type="application/json")


class VirtualClient:
    """Calls of a person who tries again, at the next scheduler, when one cannot be reached or has lost the shard."""

    def __init__(self, suite: VirtualSuite) -> None:
        self._suite = suite
        self._stubs = cycle([suite.client(name) for name in suite.schedulers])
        self.stub = next(self._stubs)

    async def submit(self, nodes: Mapping[str, object], **more: object) -> str:
        """Start an execution; returns its id."""
        request = pb.SubmitExecutionRequest(workflow=pb.WorkflowReference(document=document(nodes, **more)))
        response = await self.stub.SubmitExecution(request, timeout=30)
        return response.execution.execution_id

    async def watch(self, execution_id: str) -> AsyncIterator[pb.WatchExecutionResponse]:
        """Yield all events from the first to the last, going on after every outage."""
        cursor = ""
        last = pb.WatchExecutionResponse()
        while not (last.events and last.events[-1].execution.state in FINAL):
            try:
                request = pb.WatchExecutionRequest(execution_id=execution_id, cursor=cursor)
                async for last in self.stub.WatchExecution(request):
                    cursor = last.cursor
                    yield last
            except grpc.aio.AioRpcError as error:
                if as_lost_connection(error) is None:
                    raise
                self.stub = next(self._stubs)
                await asyncio.sleep(RETRY_S)

    async def logs(self, execution_id: str, **request: Any) -> list[log_line_pb2.LogLine]:
        """Return the lines that a tail tells to its end, going on after every outage."""
        lines: list[log_line_pb2.LogLine] = []
        asked = pb.TailLogsRequest(execution_id=execution_id, **request)
        while True:
            try:
                async for response in self.stub.TailLogs(asked):
                    asked.cursor = response.cursor
                    lines += response.lines
                return lines
            except grpc.aio.AioRpcError as error:
                if as_lost_connection(error) is None:
                    raise
                self.stub = next(self._stubs)
                await asyncio.sleep(RETRY_S)

    async def events(self, execution_id: str) -> list[pb.WatchExecutionResponse]:
        """Wait until an execution is over; returns all that a watch told of it."""
        return [response async for response in self.watch(execution_id)]

    async def finished(self, execution_id: str) -> execution_pb2.Execution:
        """Wait until an execution is over; returns it."""
        await self.events(execution_id)
        response = await self.stub.GetExecution(pb.GetExecutionRequest(execution_id=execution_id), timeout=30)
        return response.execution

    async def until(self, execution_id: str, state: lifecycle_pb2.TaskState.ValueType, node: str) -> None:
        """Wait until a task of a node has come to a state."""
        async for response in self.watch(execution_id):
            if any(event.task.node == node and event.task.state == state for event in response.events):
                return

    async def tasks(self, execution_id: str) -> list[execution_pb2.Task]:
        """List the tasks by number, up to a thousand."""
        request = pb.ListTasksRequest(execution_id=execution_id, page_size=1_000)
        return list((await self.stub.ListTasks(request, timeout=30)).tasks)

    async def dependencies(self, execution_id: str, task: int) -> list[dependency_pb2.TaskDependency]:
        """List what a task depends on, up to a thousand."""
        request = pb.GetTaskDependenciesRequest(execution_id=execution_id, task_number=task, page_size=1_000)
        return list((await self.stub.GetTaskDependencies(request, timeout=30)).dependencies)

    async def cancel(self, execution_id: str, reason: str) -> execution_pb2.Execution:
        """Cancel an execution."""
        request = pb.CancelExecutionRequest(execution_id=execution_id, reason=reason)
        return (await self.stub.CancelExecution(request, timeout=30)).execution

    def history(self, graphs: Mapping[str, Graph] | None = None) -> History:
        """Return what the store holds, and what was at work on the workers.

        `graphs` by execution id take the place of those in the documents that the store has.
        """
        store = self._suite.store
        known = {
            (each.tenant, each.revision): graph_in(each.document, each.content_type, each.directory)
            for each in store.tables.workflows
        }
        return History(
            executions=tuple(
                ExecutionHistory(
                    execution_id=each.record.execution_id,
                    tenant=each.record.tenant,
                    shard=each.record.shard,
                    workflow=each.record.workflow,
                    revision=each.record.revision,
                    request_id=each.record.request_id,
                    state=execution_state(lifecycle_pb2.ExecutionState.ValueType(each.record.state)),
                    task_count=each.record.task_count,
                    graph=(graphs or {}).get(each.record.execution_id, known[each.record.tenant, each.record.revision]),
                    facts=tuple(
                        fact
                        for chunk in each.chunks
                        for fact in facts_of(
                            LogChunk.FromString(chunk.data),
                            first_sequence=chunk.first_sequence,
                            first_offset=chunk.first_offset,
                        )
                    ),
                )
                for each in store.tables.executions.values()
            ),
            shards=tuple(
                ShardHistory(shard=head.shard, fencing_token=head.fencing_token, next_offset=head.next_offset)
                for head in store.tables.heads.shards.values()
            ),
            spans=tuple(self._spans()),
            slots=tuple(Slots(worker=name, slots=self._suite.slots) for name in self._suite.spans_by_worker),
            stop_within_ms=STOP_WITHIN_MS,
            # Facts have their times from whichever scheduler owned the shard.
            clock_error_ms=max(self._suite.clocks[name].error_ms for name in self._suite.schedulers),
        )

    def _spans(self) -> Iterator[WorkSpan]:
        clock = LoopClock(EPOCH_MS)
        for worker, spans in self._suite.spans_by_worker.items():
            for span in spans:
                yield WorkSpan(
                    worker=worker,
                    execution_id=span.execution_id,
                    task=span.task_number,
                    attempt=span.attempt_number,
                    begin_ms=clock.at_ms(span.began_s),
                    end_ms=None if isinf(span.ended_s) else clock.at_ms(span.ended_s),
                )


FINAL = frozenset(
    {
        lifecycle_pb2.EXECUTION_STATE_COMPLETED,
        lifecycle_pb2.EXECUTION_STATE_FAILED,
        lifecycle_pb2.EXECUTION_STATE_CANCELLED,
    }
)


# Any: a value is whatever JSON the workflow under test has.
def value_of(payload: payload_pb2.Payload) -> Any:  # noqa: ANN401
    """Decode an inline JSON value."""
    return json.loads(payload.data)
