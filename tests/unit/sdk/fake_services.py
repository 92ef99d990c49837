"""A scheduler and a worker-manager that answer what a test tells them to, over a real localhost port.

Owns canned answers, and records requests. Must not decide anything that the real services decide.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

import grpc.aio
from nodeflow.common.v1.failure_pb2 import Failure, FailureKind
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.common.v1.payload_pb2 import ArtifactReference, Payload
from nodeflow.scheduler.v1 import scheduler_service_pb2 as api
from nodeflow.scheduler.v1.event_pb2 import Event, EventType, ExecutionChange, NodeExpansion, TaskChange
from nodeflow.scheduler.v1.execution_pb2 import Execution, Task, TaskCounts
from nodeflow.scheduler.v1.explanation_pb2 import TaskExplanation
from nodeflow.scheduler.v1.log_line_pb2 import LogLine
from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import (
    SchedulerServiceServicer,
    add_SchedulerServiceServicer_to_server,
)
from nodeflow.scheduler.v1.workflow_pb2 import DocumentFault, Node, Workflow
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as workers_api
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import (
    WorkerManagerServiceServicer,
    add_WorkerManagerServiceServicer_to_server,
)

from nodeflow_shared.errors import NodeflowError, NotFound, Unavailable
from nodeflow_shared.interceptors import ErrorInterceptor

# Any: the context's type parameters say nothing to a test.
Context = grpc.aio.ServicerContext[Any, Any]

EXECUTION_ID = "0199a7c4-0000-7000-8000-000000000001"
BEGIN_S = 1_700_000_000


def execution(**fields: Any) -> Execution:  # passed on to a message
    """Return a completed execution of word-count, or what `fields` say."""
    base = Execution(
        execution_id=EXECUTION_ID,
        tenant="default",
        workflow="word-count",
        revision="sha256:abc",
        state=ExecutionState.EXECUTION_STATE_COMPLETED,
        task_counts=TaskCounts(total=4, completed=4),
        outputs=Payload(data=b'{"total":28}', content_type="application/json"),
    )
    base.create_time.FromSeconds(BEGIN_S)
    base.finish_time.FromSeconds(BEGIN_S + 3)
    base.MergeFrom(Execution(**fields))
    return base


def failed_execution() -> Execution:
    """Return an execution that failed in its node count."""
    failed = execution(
        state=ExecutionState.EXECUTION_STATE_FAILED,
        failure=Failure(kind=FailureKind.FAILURE_KIND_USER, reason="NODE_FAILED", message="node count failed"),
    )
    failed.ClearField("outputs")
    return failed


def failed_task() -> Task:
    """Return an item that raised on each of its three attempts."""
    return Task(
        execution_id=EXECUTION_ID,
        task_number=3,
        node="count",
        map_index=1,
        state=TaskState.TASK_STATE_FAILED,
        attempt_number=3,
        worker_id="worker-0",
        failure=Failure(
            kind=FailureKind.FAILURE_KIND_USER,
            reason="FUNCTION_RAISED",
            message="no such file: b.txt",
            error_type="FileNotFoundError",
            traceback='Traceback (most recent call last):\n  File "word_count.py", line 10, in count\nNotThere',
        ),
    )


class EventScript:
    """Builds the events of an execution, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def started(self) -> Self:
        return self._add(
            EventType.EVENT_TYPE_EXECUTION_STARTED,
            execution=ExecutionChange(
                state=ExecutionState.EXECUTION_STATE_RUNNING, workflow="word-count", node_count=2
            ),
        )

    def expanded(self, node: str, count: int) -> Self:
        expansion = NodeExpansion(node=node, first_item=2, item_count=count)
        return self._add(EventType.EVENT_TYPE_NODE_EXPANDED, expansion=expansion)

    def task(
        self,
        node: str,
        state: str,
        *,
        index: int | None = None,
        attempt: int = 1,
        worker: str = "",
        failure: Failure | None = None,
    ) -> Self:
        change = TaskChange(
            node=node,
            map_index=index,
            attempt_number=attempt,
            state=TaskState.Value(f"TASK_STATE_{state}"),
            worker_id=worker,
            failure=failure,
        )
        return self._add(EventType.EVENT_TYPE_NODE_STATE_CHANGED, task=change)

    def finished(self, state: str = "COMPLETED") -> Self:
        change = ExecutionChange(state=ExecutionState.Value(f"EXECUTION_STATE_{state}"))
        return self._add(EventType.EVENT_TYPE_EXECUTION_COMPLETED, execution=change)

    def _add(self, kind: EventType.ValueType, **detail: Any) -> Self:  # one of the oneof
        event = Event(execution_id=EXECUTION_ID, sequence=len(self.events) + 1, type=kind, **detail)
        event.event_time.FromMilliseconds(BEGIN_S * 1000 + len(self.events) * 250)
        self.events.append(event)
        return self


def happy_events() -> list[Event]:
    """Return the events of a word count over two files."""
    script = EventScript().started().task("count", "QUEUED").expanded("count", 2)
    for index in (0, 1):
        script.task("count", "RUNNING", index=index, worker="worker-0").task("count", "COMPLETED", index=index)
    script.task("count", "COMPLETED", attempt=0).task("total", "RUNNING", worker="worker-0").task("total", "COMPLETED")
    return script.finished().events


class FakeScheduler(SchedulerServiceServicer):
    """Answers from its attributes, which a test sets."""

    def __init__(self) -> None:
        self.executions = [execution()]
        self.events = happy_events()
        self.tasks: list[Task] = []
        self.faults: list[DocumentFault] = []
        self.artifacts: dict[str, bytes] = {}
        self.transfer_errors: list[NodeflowError] = []
        """What breaks the next uploads and downloads in their middle, before any succeeds."""
        self.explanations: list[TaskExplanation] = []
        self.explained: list[api.ExplainTaskRequest] = []
        self.submit_error: NodeflowError | None = None
        self.submit_errors: list[NodeflowError] = []
        """What the next submissions are answered with, before any succeeds."""
        self.silent_submissions = 0
        """How many of the next submissions are never answered."""
        self.submission_answer = asyncio.Event()
        """What answers to submissions wait for; a test that clears it decides when they come."""
        self.submission_answer.set()
        self.lines: list[LogLine] = []
        self.tails: list[api.TailLogsRequest] = []
        self.exported: list[api.ExportExecutionResponse] = []
        self.break_watch_after: list[int] = []
        """How many events to send before the connection breaks, for each watch; later ones are not broken."""
        self.watch_error = Unavailable("restarting")
        """What a connection breaks with."""
        self.watch_end = asyncio.Event()
        """What a watch waits for after its events; a test that clears it has a running execution."""
        self.watch_end.set()
        self.submitted: list[api.SubmitExecutionRequest] = []
        self.submitted_many: list[api.SubmitExecutionsRequest] = []
        self.cancelled: list[api.CancelExecutionRequest] = []
        self.filters: list[str] = []
        self.workflow = Workflow(
            name="word-count",
            revision="sha256:abc",
            nodes=[
                Node(name="count", summary="word_count:count", mapped=True),
                Node(name="total", summary="word_count:total", dependencies=["count"]),
            ],
            inputs_schema='{"type": "object", "properties": {"paths": {"type": "array"}, "title": {"type": "string"}}}',
        )

    async def ValidateWorkflow(  # noqa: N802
        self, request: api.ValidateWorkflowRequest, context: Context
    ) -> api.ValidateWorkflowResponse:
        return api.ValidateWorkflowResponse(faults=self.faults, workflow=None if self.faults else self.workflow)

    async def GetWorkflow(  # noqa: N802
        self, request: api.GetWorkflowRequest, context: Context
    ) -> api.GetWorkflowResponse:
        return api.GetWorkflowResponse(workflow=self.workflow)

    async def ListWorkflows(  # noqa: N802
        self, request: api.ListWorkflowsRequest, context: Context
    ) -> api.ListWorkflowsResponse:
        return api.ListWorkflowsResponse(workflows=[self.workflow])

    async def SubmitExecution(  # noqa: N802
        self, request: api.SubmitExecutionRequest, context: Context
    ) -> api.SubmitExecutionResponse:
        self.submitted.append(request)
        if self.submit_errors:
            raise self.submit_errors.pop(0)
        if self.silent_submissions:
            self.silent_submissions -= 1
            await asyncio.Event().wait()
        await self.submission_answer.wait()
        if self.submit_error is not None:
            raise self.submit_error
        return api.SubmitExecutionResponse(execution=self.executions[0])

    async def GetExecution(  # noqa: N802
        self, request: api.GetExecutionRequest, context: Context
    ) -> api.GetExecutionResponse:
        return api.GetExecutionResponse(execution=self._find(request.execution_id))

    async def ListExecutions(  # noqa: N802
        self, request: api.ListExecutionsRequest, context: Context
    ) -> api.ListExecutionsResponse:
        self.filters.append(request.filter)
        begin = int(request.page_token or 0)
        # One in each page: so that paging is seen to work.
        more = str(begin + 1) if begin + 1 < len(self.executions) else ""
        return api.ListExecutionsResponse(executions=self.executions[begin : begin + 1], next_page_token=more)

    async def WatchExecution(  # noqa: N802
        self, request: api.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[api.WatchExecutionResponse]:
        self._find(request.execution_id)
        left = self.break_watch_after.pop(0) if self.break_watch_after else None
        for event in self.events[int(request.cursor or 0) :]:
            if left == 0:
                raise self.watch_error
            left = None if left is None else left - 1
            yield api.WatchExecutionResponse(events=[event], cursor=str(event.sequence))
        await self.watch_end.wait()

    async def TailLogs(  # noqa: N802
        self, request: api.TailLogsRequest, context: Context
    ) -> AsyncIterator[api.TailLogsResponse]:
        self._find(request.execution_id)
        self.tails.append(request)
        left = self.break_watch_after.pop(0) if self.break_watch_after else None
        for number, line in enumerate(self.lines[int(request.cursor or 0) :], int(request.cursor or 0) + 1):
            if left == 0:
                raise self.watch_error
            left = None if left is None else left - 1
            yield api.TailLogsResponse(lines=[line], cursor=str(number))

    async def ListTasks(self, request: api.ListTasksRequest, context: Context) -> api.ListTasksResponse:  # noqa: N802
        found = api.ListTasksResponse()
        for task in self.tasks:
            if not request.state or task.state == request.state:
                listed = found.tasks.add()
                listed.CopyFrom(task)
                if not request.with_results:
                    listed.ClearField("output")
                    listed.ClearField("artifacts")
        return found

    async def ExplainTask(  # noqa: N802
        self, request: api.ExplainTaskRequest, context: Context
    ) -> api.ExplainTaskResponse:
        self.explained.append(request)
        if not self.explanations:
            raise NotFound("there is no such node", reason="TASK_NOT_FOUND")
        return api.ExplainTaskResponse(explanation=self.explanations.pop(0))

    async def CancelExecution(  # noqa: N802
        self, request: api.CancelExecutionRequest, context: Context
    ) -> api.CancelExecutionResponse:
        self.cancelled.append(request)
        cancelled = self._find(request.execution_id)
        cancelled.state = ExecutionState.EXECUTION_STATE_CANCELLED
        return api.CancelExecutionResponse(execution=cancelled)

    async def DownloadArtifact(  # noqa: N802
        self, request: api.DownloadArtifactRequest, context: Context
    ) -> AsyncIterator[api.DownloadArtifactResponse]:
        data = self.artifacts[request.digest]
        for begin in range(0, len(data), 10):
            if begin and self.transfer_errors:
                raise self.transfer_errors.pop(0)
            yield api.DownloadArtifactResponse(data=data[begin : begin + 10])

    async def UploadArtifact(  # noqa: N802
        self, request_iterator: AsyncIterator[api.UploadArtifactRequest], context: Context
    ) -> api.UploadArtifactResponse:
        data = b"".join([each.data async for each in request_iterator])
        if self.transfer_errors:
            raise self.transfer_errors.pop(0)
        digest = f"sha256:{sha256(data).hexdigest()}"
        self.artifacts[digest] = data
        return api.UploadArtifactResponse(artifact=ArtifactReference(digest=digest, size_bytes=len(data)))

    async def RegisterWorkflow(  # noqa: N802
        self, request: api.RegisterWorkflowRequest, context: Context
    ) -> api.RegisterWorkflowResponse:
        return api.RegisterWorkflowResponse(workflow=self.workflow, created=True)

    async def SubmitExecutions(  # noqa: N802
        self, request: api.SubmitExecutionsRequest, context: Context
    ) -> api.SubmitExecutionsResponse:
        self.submitted_many.append(request)
        if self.submit_error is not None:
            raise self.submit_error
        return api.SubmitExecutionsResponse(execution_ids=[each.request_id for each in request.submissions])

    async def GetTask(self, request: api.GetTaskRequest, context: Context) -> api.GetTaskResponse:  # noqa: N802
        return api.GetTaskResponse(task=next(each for each in self.tasks if each.task_number == request.task_number))

    async def GetTaskDependencies(  # noqa: N802
        self, request: api.GetTaskDependenciesRequest, context: Context
    ) -> api.GetTaskDependenciesResponse:
        raise AssertionError("the command line asks ExplainTask")

    async def ExportExecution(  # noqa: N802
        self, request: api.ExportExecutionRequest, context: Context
    ) -> AsyncIterator[api.ExportExecutionResponse]:
        self._find(request.execution_id)
        for response in self.exported:
            yield response

    def _find(self, execution_id: str) -> Execution:
        for each in self.executions:
            if execution_id == "@latest" or each.execution_id.startswith(execution_id):
                return each
        raise NotFound(f"no execution {execution_id}", reason="EXECUTION_NOT_FOUND")


class FakeWorkerManager(WorkerManagerServiceServicer):
    """Lists the workers that a test gave it; has nothing else of the API."""

    def __init__(self) -> None:
        self.workers: list[workers_api.Worker] = []

    async def ListWorkers(  # noqa: N802
        self, request: workers_api.ListWorkersRequest, context: Context
    ) -> workers_api.ListWorkersResponse:
        return workers_api.ListWorkersResponse(workers=self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeServices:
    """Both fakes, served at one address."""

    address: str
    scheduler: FakeScheduler
    worker_manager: FakeWorkerManager


@asynccontextmanager
async def serving() -> AsyncIterator[FakeServices]:
    """Serve the fakes while the block runs."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    scheduler = FakeScheduler()
    # The rest of its API is for workers and schedulers: the command line never calls it.
    worker_manager = FakeWorkerManager()  # type: ignore[abstract]
    add_SchedulerServiceServicer_to_server(scheduler, server)
    add_WorkerManagerServiceServicer_to_server(worker_manager, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield FakeServices(address=address, scheduler=scheduler, worker_manager=worker_manager)
    finally:
        await server.stop(0)
