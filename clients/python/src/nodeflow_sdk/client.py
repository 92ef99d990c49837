"""Thin typed clients of the API: one method per call, errors as NodeflowError, streams that resume by themselves.

Owns deadlines, retries and cursors. Must not know how anything is shown, nor how services are started.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import IO, Final, Protocol, TypeVar

import grpc.aio
from nodeflow.common.v1.lifecycle_pb2 import TaskState
from nodeflow.common.v1.payload_pb2 import ArtifactReference, Payload
from nodeflow.scheduler.v1 import execution_pb2, scheduler_service_pb2, workflow_pb2
from nodeflow.scheduler.v1.explanation_pb2 import TaskExplanation
from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from nodeflow.worker_manager.v1 import worker_manager_service_pb2
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import WorkerManagerServiceStub
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter
from tenacity.stop import stop_base

from nodeflow_sdk.payloads import to_payload
from nodeflow_sdk.request_ids import new_request_id
from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import DeadlineExceeded, NodeflowError, Overloaded, Unavailable
from nodeflow_shared.retry import as_lost_connection
from nodeflow_shared.status import DETAILS_KEY, from_rpc_error

Q = TypeVar("Q")
R = TypeVar("R")
Q_contra = TypeVar("Q_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

CALL_TIMEOUT_S: Final = 15.0
UPLOAD_TIMEOUT_S: Final = 600.0
DOWNLOAD_TIMEOUT_S: Final = 600.0
EXPORT_TIMEOUT_S: Final = 600.0
PIECE_BYTES: Final = 512 * 1024
# How long a service that has answered before may be away, say because it is being restarted.
PATIENCE_S: Final = 60.0
PAGE_SIZE: Final = 1_000
DISK_FULL: Final = "DISK_FULL"
"""The reason of a service that cannot make anything durable."""


class _Call(Protocol[Q_contra, R_co]):
    """What a method of a stub looks like that is answered once."""

    def __call__(self, request: Q_contra, /, *, timeout: float) -> Awaitable[R_co]: ...


OnWait = Callable[[NodeflowError], None]
"""Told why a call waits, once for each call: the service is full, or its disk is. It is tried again by itself."""


class _Connection:
    """Whether a service has ever answered: one that has is waited for, one that has not is reported at once."""

    def __init__(self, patience_s: float, on_wait: OnWait | None = None) -> None:
        self.patience_s = patience_s
        self.met = False
        self._on_wait = on_wait

    async def call(self, method: _Call[Q, R], request: Q, *, timeout_s: float | None = None) -> R:
        """Make a call that may be repeated without harm, as all of ours may; raises NodeflowError.

        Reads change nothing, and what changes something carries a request_id, or is the same when it is done twice. So
        a call without an answer in time is made again, too.
        """
        retrying = AsyncRetrying(
            sleep=asyncio.sleep,
            retry=retry_if_exception_type((Unavailable, Overloaded, DeadlineExceeded)),
            stop=_StopAfter(self),
            wait=_delay,
            before_sleep=_Waits(self._on_wait) if self._on_wait is not None else None,
            reraise=True,
        )
        return await retrying(self._call_once, method, request, timeout_s or CALL_TIMEOUT_S)

    async def _call_once(self, method: _Call[Q, R], request: Q, timeout_s: float) -> R:
        try:
            response = await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            # The transport's own errors carry no details: what does was said by the service.
            self.met = self.met or any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ())
            raise translate(error) from error
        self.met = True
        return response


class _Waits:
    """Tells once why a call waits, if the service said so itself."""

    def __init__(self, on_wait: OnWait) -> None:
        self._on_wait = on_wait
        self._told = False

    def __call__(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        told = isinstance(error, Overloaded) or (isinstance(error, Unavailable) and error.reason == DISK_FULL)
        if told and not self._told and isinstance(error, NodeflowError):
            self._told = True
            self._on_wait(error)


class _StopAfter(stop_base):
    """Ends retries at once for a service never met, and after its patience otherwise."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def __call__(self, retry_state: RetryCallState) -> bool:
        until = (retry_state.seconds_since_start or 0.0) + retry_state.upcoming_sleep
        return not self._connection.met or until > self._connection.patience_s


_backoff: Final = wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.1)


def _delay(state: RetryCallState) -> float:
    """Return the seconds to the next try: the backoff's, or what the service asked for if that is longer."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, NodeflowError) else None
    return max(_backoff(state), asked or 0.0)


def translate(error: grpc.aio.AioRpcError) -> NodeflowError:
    """Return what a failed call means: a lost connection in any of its guises is Unavailable."""
    told = from_rpc_error(error)
    if isinstance(told, DeadlineExceeded | Overloaded):
        return told
    return as_lost_connection(error) or told


class Client:
    """The scheduler's API; every method raises NodeflowError.

    An id may be a prefix that one execution alone has, or `@latest`.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        patience_s: float = PATIENCE_S,
        draw_request_id: Callable[[], str] = new_request_id,
        on_wait: OnWait | None = None,
    ) -> None:
        self._draw_request_id = draw_request_id
        self._stub = SchedulerServiceStub(channel)
        self._connection = _Connection(patience_s, on_wait)

    async def submit(
        self,
        workflow: workflow_pb2.WorkflowDocument | str,
        inputs: Mapping[str, object] | None = None,
        *,
        request_id: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> execution_pb2.Execution:
        """Start an execution of a document, or of a registered workflow by name or `sha256:` revision.

        Without a `request_id` one is drawn, so that a retry of this very call cannot start a second execution.
        """
        request = scheduler_service_pb2.SubmitExecutionRequest(
            workflow=_reference(workflow),
            inputs=to_payload(dict(inputs or {})),
            request_id=request_id or self._draw_request_id(),
            labels=labels or {},
        )
        return (await self._connection.call(self._stub.SubmitExecution, request)).execution

    async def upload_file(self, path: Path, content_type: str) -> ArtifactReference:
        """Store a file's bytes as an artifact; begun again when the connection is lost. Raises OSError."""

        async def upload(source: Path, /, *, timeout: float) -> scheduler_service_pb2.UploadArtifactResponse:  # noqa: ASYNC109
            with source.open("rb") as file:  # pieces of a file take no time
                return await self._stub.UploadArtifact(_pieces(file, content_type), timeout=timeout)

        return (await self._connection.call(upload, path, timeout_s=UPLOAD_TIMEOUT_S)).artifact

    async def submit_many(
        self,
        workflow: workflow_pb2.WorkflowDocument | str,
        submissions: Iterable[scheduler_service_pb2.Submission],
    ) -> list[str]:
        """Start up to 10,000 executions of one workflow; returns their ids in order. Missing request ids are drawn."""
        request = scheduler_service_pb2.SubmitExecutionsRequest(workflow=_reference(workflow), submissions=submissions)
        for submission in request.submissions:
            submission.request_id = submission.request_id or self._draw_request_id()
        return list((await self._connection.call(self._stub.SubmitExecutions, request)).execution_ids)

    async def watch(
        self,
        execution_id: str,
        cursor: str = "",
        *,
        on_lost: Callable[[NodeflowError], None] | None = None,
    ) -> AsyncGenerator[scheduler_service_pb2.WatchExecutionResponse, None]:
        """Yield batches of events, each once, to the execution's end; begin after `cursor`, or at the first event.

        A lost connection is resumed from the last cursor; `on_lost` is called once for each outage.
        """
        request = scheduler_service_pb2.WatchExecutionRequest(execution_id=execution_id, cursor=cursor)
        async with aclosing(_resumed(self._connection, self._stub.WatchExecution, request, on_lost)) as responses:
            async for response in responses:
                yield response

    async def logs(
        self,
        request: scheduler_service_pb2.TailLogsRequest,
        *,
        on_lost: Callable[[NodeflowError], None] | None = None,
    ) -> AsyncGenerator[scheduler_service_pb2.TailLogsResponse, None]:
        """Yield lines that tasks wrote, each once, as the request says. Resumed as `watch` is."""
        asked = scheduler_service_pb2.TailLogsRequest()
        asked.CopyFrom(request)
        async with aclosing(_resumed(self._connection, self._stub.TailLogs, asked, on_lost)) as responses:
            async for response in responses:
                yield response

    async def get(self, execution_id: str) -> execution_pb2.Execution:
        """Return an execution with its inputs and outputs."""
        request = scheduler_service_pb2.GetExecutionRequest(execution_id=execution_id)
        return (await self._connection.call(self._stub.GetExecution, request)).execution

    async def export(self, execution_id: str) -> list[scheduler_service_pb2.ExportExecutionResponse]:
        """Return all that the log holds of an execution; begun again when the connection is lost."""
        request = scheduler_service_pb2.ExportExecutionRequest(execution_id=execution_id)
        return await self._connection.call(self._exported, request, timeout_s=EXPORT_TIMEOUT_S)

    def _exported(
        self, request: scheduler_service_pb2.ExportExecutionRequest, /, *, timeout: float
    ) -> Awaitable[list[scheduler_service_pb2.ExportExecutionResponse]]:
        return _all_of(self._stub.ExportExecution(request, timeout=timeout))

    async def executions(self, filter_text: str = "", *, limit: int = 100) -> list[execution_pb2.Execution]:
        """Return up to `limit` executions that pass the filter, newest first."""
        return [execution async for execution in self.every_execution(filter_text, limit=limit)]

    async def every_execution(
        self, filter_text: str = "", *, limit: int | None = None
    ) -> AsyncIterator[execution_pb2.Execution]:
        """Yield the executions that pass the filter, newest first, a page at a time; all of them, or up to `limit`."""
        left = limit
        token = ""
        while left is None or left > 0:
            request = scheduler_service_pb2.ListExecutionsRequest(
                page_size=PAGE_SIZE if left is None else min(left, PAGE_SIZE), page_token=token, filter=filter_text
            )
            page = await self._connection.call(self._stub.ListExecutions, request)
            for execution in page.executions:
                yield execution
            if left is not None:
                left -= len(page.executions)
            token = page.next_page_token
            if not token:
                return

    async def tasks(
        self,
        execution_id: str,
        *,
        node: str = "",
        state: TaskState.ValueType = TaskState.TASK_STATE_UNSPECIFIED,
        with_results: bool = False,
    ) -> AsyncGenerator[execution_pb2.Task, None]:
        """Yield an execution's tasks by number; only those of a node, or in a state, if given."""
        token = ""
        while True:
            request = scheduler_service_pb2.ListTasksRequest(
                execution_id=execution_id,
                page_size=PAGE_SIZE,
                page_token=token,
                node=node,
                state=state,
                with_results=with_results,
            )
            page = await self._connection.call(self._stub.ListTasks, request)
            for task in page.tasks:
                yield task
            token = page.next_page_token
            if not token:
                return

    async def task(self, execution_id: str, task_number: int) -> execution_pb2.Task:
        """Return a task with its result."""
        request = scheduler_service_pb2.GetTaskRequest(execution_id=execution_id, task_number=task_number)
        return (await self._connection.call(self._stub.GetTask, request)).task

    async def explain(self, execution_id: str, task: int | str, map_index: int | None = None) -> TaskExplanation:
        """Return why a task is where it is: by its number, or by its node and, for an item, its place in the list."""
        request = scheduler_service_pb2.ExplainTaskRequest(execution_id=execution_id, map_index=map_index)
        if isinstance(task, int):
            request.task_number = task
        else:
            request.node = task
        return (await self._connection.call(self._stub.ExplainTask, request)).explanation

    async def cancel(self, execution_id: str, reason: str = "") -> execution_pb2.Execution:
        """Cancel an execution; returns it as it is once that is durable."""
        request = scheduler_service_pb2.CancelExecutionRequest(execution_id=execution_id, reason=reason)
        return (await self._connection.call(self._stub.CancelExecution, request)).execution

    async def register(self, document: workflow_pb2.WorkflowDocument) -> workflow_pb2.Workflow:
        """Register a document as a revision of its workflow."""
        request = scheduler_service_pb2.RegisterWorkflowRequest(document=document)
        return (await self._connection.call(self._stub.RegisterWorkflow, request)).workflow

    async def validate(self, document: workflow_pb2.WorkflowDocument) -> scheduler_service_pb2.ValidateWorkflowResponse:
        """Return the faults of a document, or the workflow that it describes."""
        request = scheduler_service_pb2.ValidateWorkflowRequest(document=document)
        return await self._connection.call(self._stub.ValidateWorkflow, request)

    async def workflow(self, name: str, revision: str = "") -> workflow_pb2.Workflow:
        """Return a workflow with its nodes, at a revision or at its newest."""
        request = scheduler_service_pb2.GetWorkflowRequest(name=name, revision=revision)
        return (await self._connection.call(self._stub.GetWorkflow, request)).workflow

    async def workflows(self, name: str = "", *, limit: int = PAGE_SIZE) -> list[workflow_pb2.Workflow]:
        """Return registered workflows by name, or the revisions of one, newest first."""
        found: list[workflow_pb2.Workflow] = []
        token = ""
        while len(found) < limit:
            request = scheduler_service_pb2.ListWorkflowsRequest(
                page_size=min(limit - len(found), PAGE_SIZE), page_token=token, name=name
            )
            page = await self._connection.call(self._stub.ListWorkflows, request)
            found.extend(page.workflows)
            token = page.next_page_token
            if not token:
                break
        return found

    async def download(self, digest: str) -> AsyncIterator[bytes]:
        """Yield the bytes of an artifact in order. Not resumed: an error in the middle is raised."""
        request = scheduler_service_pb2.DownloadArtifactRequest(digest=digest)
        try:
            async for response in self._stub.DownloadArtifact(request):
                yield response.data
        except grpc.aio.AioRpcError as error:
            raise translate(error) from error

    async def read(self, payload: Payload) -> bytes:
        """Return the bytes of a payload, wherever they are."""
        if payload.WhichOneof("value") != "artifact":
            return payload.data
        return await self.read_artifact(payload.artifact.digest)

    async def read_artifact(self, digest: str) -> bytes:
        """Return the bytes of an artifact; begun again when the connection is lost."""
        request = scheduler_service_pb2.DownloadArtifactRequest(digest=digest)
        responses = await self._connection.call(self._downloaded, request, timeout_s=DOWNLOAD_TIMEOUT_S)
        return b"".join(response.data for response in responses)

    def _downloaded(
        self, request: scheduler_service_pb2.DownloadArtifactRequest, /, *, timeout: float
    ) -> Awaitable[list[scheduler_service_pb2.DownloadArtifactResponse]]:
        return _all_of(self._stub.DownloadArtifact(request, timeout=timeout))


async def _all_of(responses: AsyncIterable[R]) -> list[R]:
    return [response async for response in responses]


class WorkersClient:
    """The worker-manager's API, as far as people use it. Every method raises NodeflowError."""

    def __init__(self, channel: grpc.aio.Channel, *, patience_s: float = PATIENCE_S) -> None:
        self._stub = WorkerManagerServiceStub(channel)
        self._connection = _Connection(patience_s)

    async def workers(
        self,
        state: worker_manager_service_pb2.WorkerState.ValueType = (
            worker_manager_service_pb2.WorkerState.WORKER_STATE_UNSPECIFIED
        ),
    ) -> list[worker_manager_service_pb2.Worker]:
        """Return all workers by id, or those in a state."""
        found: list[worker_manager_service_pb2.Worker] = []
        token = ""
        while True:
            request = worker_manager_service_pb2.ListWorkersRequest(page_size=PAGE_SIZE, page_token=token, state=state)
            page = await self._connection.call(self._stub.ListWorkers, request)
            found.extend(page.workers)
            token = page.next_page_token
            if not token:
                return found


@asynccontextmanager
async def open_client(
    address: str, *, patience_s: float = PATIENCE_S, on_wait: OnWait | None = None
) -> AsyncIterator[Client]:
    """Connect to a scheduler; the connection is made with the first call."""
    async with open_channel(address) as channel:
        yield Client(channel, patience_s=patience_s, on_wait=on_wait)


@asynccontextmanager
async def open_workers_client(address: str, *, patience_s: float = PATIENCE_S) -> AsyncIterator[WorkersClient]:
    """Connect to a worker-manager; the connection is made with the first call."""
    async with open_channel(address) as channel:
        yield WorkersClient(channel, patience_s=patience_s)


class _Outage:
    """The time during which a stream cannot be had: who is told, when to try again, when to give up."""

    _DELAY_S: Final = 0.2
    # A stream that lasted this long had been had, although nothing came: to connect and be refused takes less.
    _HAD_AFTER_S: Final = 15.0

    def __init__(self, on_lost: Callable[[NodeflowError], None] | None) -> None:
        self._on_lost = on_lost
        self._since: float | None = None
        self._tried_at = 0.0

    def try_now(self) -> None:
        """Note that the stream is asked for."""
        self._tried_at = asyncio.get_running_loop().time()

    def end(self) -> None:
        self._since = None

    async def wait(self, error: NodeflowError, patience_s: float) -> None:
        """Wait before the next try; raises the error when patience would have run out by then."""
        now = asyncio.get_running_loop().time()
        if self._since is None or now - self._tried_at >= self._HAD_AFTER_S:
            self._since = now
            if self._on_lost is not None:
                self._on_lost(error)
        delay_s = max(self._DELAY_S, error.retry_after_s or 0.0)
        if now + delay_s - self._since > patience_s:
            raise error
        await asyncio.sleep(delay_s)


class _WithCursor(Protocol):
    """A message with a cursor."""

    cursor: str


C = TypeVar("C", bound=_WithCursor)
D = TypeVar("D", bound=_WithCursor)


async def _resumed(
    connection: _Connection,
    method: Callable[[C], AsyncIterable[D]],
    request: C,
    on_lost: Callable[[NodeflowError], None] | None,
) -> AsyncGenerator[D, None]:
    """Yield a stream's responses to its end; a lost connection is resumed from the last cursor."""
    outage = _Outage(on_lost)
    while True:
        outage.try_now()
        try:
            async for response in method(request):
                connection.met = True
                outage.end()
                request.cursor = response.cursor
                yield response
            return
        except grpc.aio.AioRpcError as error:
            told = translate(error)
            if not isinstance(told, Unavailable | Overloaded) or not connection.met:
                raise told from error
            await outage.wait(told, connection.patience_s)


async def _pieces(file: IO[bytes], content_type: str) -> AsyncIterator[scheduler_service_pb2.UploadArtifactRequest]:
    header = scheduler_service_pb2.UploadHeader(content_type=content_type)
    yield scheduler_service_pb2.UploadArtifactRequest(header=header)
    while data := file.read(PIECE_BYTES):
        yield scheduler_service_pb2.UploadArtifactRequest(data=data)


def _reference(workflow: workflow_pb2.WorkflowDocument | str) -> scheduler_service_pb2.WorkflowReference:
    if isinstance(workflow, str):
        if workflow.startswith("sha256:"):
            return scheduler_service_pb2.WorkflowReference(revision=workflow)
        return scheduler_service_pb2.WorkflowReference(name=workflow)
    return scheduler_service_pb2.WorkflowReference(document=workflow)
