"""SchedulerService: each RPC becomes a call, and its result a reply. Decides nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import grpc.aio
from nodeflow.common.v1 import payload_pb2
from nodeflow.scheduler.v1 import execution_pb2, workflow_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2
from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceServicer

from nodeflow_scheduler.domain.document import compile_document
from nodeflow_scheduler.domain.document_faults import DocumentFaults
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.lifecycle import TaskState
from nodeflow_scheduler.domain.values import JSON, Stored
from nodeflow_scheduler.domain.workflow import Workflow
from nodeflow_scheduler.exporting import Exporting
from nodeflow_scheduler.intake import SUBMISSIONS_LIMIT, Intake, Submission
from nodeflow_scheduler.library import Library
from nodeflow_scheduler.ports import Artifacts, Catalogue, Upload, Uploads
from nodeflow_scheduler.reading import Reading
from nodeflow_scheduler.tailing import Tailing
from nodeflow_scheduler.wire.cursors import execution_cursor, sequence_in, task_page, task_page_start
from nodeflow_scheduler.wire.dependencies import PAGE_BYTES, PAGE_LIMIT, PAGE_SIZE, dependency_list
from nodeflow_scheduler.wire.explanations import check_task, explanation_message, task_named
from nodeflow_scheduler.wire.readers import (
    EventReader,
    execution_message,
    indexed_execution_message,
    listed_workflow_message,
    task_message,
    workflow_message,
)
from nodeflow_shared.errors import FieldViolation, InvalidInput

Context = grpc.aio.ServicerContext[Any, Any]

DEFAULT_TENANT = "default"
"""Whose everything is until there is authentication."""


class SchedulerServicer(SchedulerServiceServicer):
    """What people and programs call."""

    def __init__(
        self,
        *,
        intake: Intake,
        reading: Reading,
        tailing: Tailing,
        exporting: Exporting,
        library: Library,
        catalogue: Catalogue,
        artifacts: Artifacts,
        uploads: Uploads,
    ) -> None:
        self._intake = intake
        self._reading = reading
        self._tailing = tailing
        self._exporting = exporting
        self._library = library
        self._catalogue = catalogue
        self._artifacts = artifacts
        self._uploads = uploads

    # ---------------------------------------------------------------- workflows

    async def RegisterWorkflow(
        self, request: pb2.RegisterWorkflowRequest, context: Context
    ) -> pb2.RegisterWorkflowResponse:
        """See the proto."""
        document = request.document
        workflow, record, created = await self._library.register(
            DEFAULT_TENANT, document.source, document.content_type, document.directory
        )
        return pb2.RegisterWorkflowResponse(workflow=workflow_message(workflow, record), created=created)

    async def ValidateWorkflow(
        self, request: pb2.ValidateWorkflowRequest, context: Context
    ) -> pb2.ValidateWorkflowResponse:
        """See the proto."""
        document = request.document
        try:
            workflow = compile_document(document.source, document.content_type, document.directory)
        except DocumentFaults as faults:
            return pb2.ValidateWorkflowResponse(
                faults=[
                    workflow_pb2.DocumentFault(
                        path=fault.path, description=fault.description, hint=fault.hint, line=fault.line or 0
                    )
                    for fault in faults.faults
                ]
            )
        return pb2.ValidateWorkflowResponse(workflow=workflow_message(workflow, None))

    async def GetWorkflow(self, request: pb2.GetWorkflowRequest, context: Context) -> pb2.GetWorkflowResponse:
        """See the proto."""
        if not request.name and not request.revision:
            violation = FieldViolation("name", "is empty", "a workflow's name, or a revision")
            raise InvalidInput("no workflow is named", violations=[violation])
        record = await self._catalogue.get_workflow(DEFAULT_TENANT, request.name, request.revision)
        return pb2.GetWorkflowResponse(workflow=workflow_message(self._library.compile(record), record))

    async def ListWorkflows(self, request: pb2.ListWorkflowsRequest, context: Context) -> pb2.ListWorkflowsResponse:
        """See the proto."""
        records, next_page_token = await self._catalogue.list_workflows(
            DEFAULT_TENANT, request.page_size, request.page_token, request.name
        )
        workflows = [listed_workflow_message(record) for record in records]
        return pb2.ListWorkflowsResponse(workflows=workflows, next_page_token=next_page_token)

    # --------------------------------------------------------------- submission

    async def SubmitExecution(
        self, request: pb2.SubmitExecutionRequest, context: Context
    ) -> pb2.SubmitExecutionResponse:
        """See the proto."""
        workflow = await self._workflow(request.workflow)
        submission = Submission(
            inputs=json_in(request.inputs), request_id=request.request_id, labels=dict(request.labels)
        )
        (started,) = await self._intake.submit(DEFAULT_TENANT, workflow, [submission])
        execution = await self._reading.execution(DEFAULT_TENANT, started) if isinstance(started, str) else started
        message = execution_message(execution)
        await self._reading.committed(execution)
        return pb2.SubmitExecutionResponse(execution=message)

    async def SubmitExecutions(
        self, request: pb2.SubmitExecutionsRequest, context: Context
    ) -> pb2.SubmitExecutionsResponse:
        """See the proto."""
        count = len(request.submissions)
        if count > SUBMISSIONS_LIMIT:
            violation = FieldViolation("submissions", f"there are {count}", f"at most {SUBMISSIONS_LIMIT} in one call")
            raise InvalidInput("too many submissions", violations=[violation])
        workflow = await self._workflow(request.workflow)
        submissions = [
            Submission(inputs=json_in(each.inputs), request_id=each.request_id, labels=dict(each.labels))
            for each in request.submissions
        ]
        started = await self._intake.submit(DEFAULT_TENANT, workflow, submissions)
        ids = [each if isinstance(each, str) else each.execution_id for each in started]
        return pb2.SubmitExecutionsResponse(execution_ids=ids)

    async def _workflow(self, reference: pb2.WorkflowReference) -> Workflow:
        match reference.WhichOneof("workflow"):
            case "name":
                return await self._library.newest(DEFAULT_TENANT, reference.name)
            case "revision":
                return await self._library.workflow(DEFAULT_TENANT, reference.revision)
            case "document":
                document = reference.document
                return await self._library.from_document(
                    DEFAULT_TENANT, document.source, document.content_type, document.directory
                )
            case None:
                violation = FieldViolation("workflow", "is not set", "a name, a revision or a document")
                raise InvalidInput("no workflow is named", violations=[violation])

    async def CancelExecution(
        self, request: pb2.CancelExecutionRequest, context: Context
    ) -> pb2.CancelExecutionResponse:
        """See the proto."""
        execution = await self._reading.execution(DEFAULT_TENANT, request.execution_id)
        cancelled = await self._intake.cancel(DEFAULT_TENANT, execution, request.reason)
        message = execution_message(cancelled)
        await self._reading.committed(cancelled)
        return pb2.CancelExecutionResponse(execution=message)

    # --------------------------------------------------------------- executions

    async def GetExecution(self, request: pb2.GetExecutionRequest, context: Context) -> pb2.GetExecutionResponse:
        """See the proto."""
        execution = await self._reading.execution(DEFAULT_TENANT, request.execution_id)
        message = execution_message(execution)
        await self._reading.committed(execution)
        return pb2.GetExecutionResponse(execution=message)

    async def ListExecutions(self, request: pb2.ListExecutionsRequest, context: Context) -> pb2.ListExecutionsResponse:
        """See the proto."""
        records, next_page_token = await self._catalogue.list_executions(
            DEFAULT_TENANT, request.page_size, request.page_token, request.filter
        )
        executions = [indexed_execution_message(record) for record in records]
        return pb2.ListExecutionsResponse(executions=executions, next_page_token=next_page_token)

    async def ListTasks(self, request: pb2.ListTasksRequest, context: Context) -> pb2.ListTasksResponse:
        """See the proto."""
        execution = await self._reading.execution(DEFAULT_TENANT, request.execution_id)
        start = task_page_start(request, execution.execution_id)
        size = min(request.page_size or PAGE_SIZE, PAGE_LIMIT)
        if size < 0:
            raise InvalidInput("the page size is negative", violations=[FieldViolation("page_size", "is negative")])
        tasks: list[execution_pb2.Task] = []
        joined: list[Stored] = []
        token, room = "", PAGE_BYTES
        for task in chosen_tasks(execution, request, start):
            if len(tasks) == size or room <= 0:
                token = task_page(request, execution.execution_id, task)
                break
            tasks.append(task_message(execution, task, full=request.with_results))
            if request.with_results:
                joined += joined_list(execution, task)
                room -= tasks[-1].ByteSize()
        await self._reading.committed(execution)
        await self._keep(execution, joined)
        return pb2.ListTasksResponse(tasks=tasks, next_page_token=token)

    async def _keep(self, execution: Execution, joined: Sequence[Stored]) -> None:
        """Stores what an answer refers to, once the answer is made: it tells of one moment, and this takes time."""
        for each in joined:
            await self._artifacts.keep(execution.tenant, each)

    async def GetTask(self, request: pb2.GetTaskRequest, context: Context) -> pb2.GetTaskResponse:
        """See the proto."""
        execution = await self._reading.execution(DEFAULT_TENANT, request.execution_id)
        await self._reading.checked(execution, lambda: check_task(execution, request.task_number))
        message = task_message(execution, request.task_number, full=True)
        joined = joined_list(execution, request.task_number)
        await self._reading.committed(execution)
        await self._keep(execution, joined)
        return pb2.GetTaskResponse(task=message)

    async def GetTaskDependencies(
        self, request: pb2.GetTaskDependenciesRequest, context: Context
    ) -> pb2.GetTaskDependenciesResponse:
        """See the proto."""
        execution = await self._reading.execution(DEFAULT_TENANT, request.execution_id)
        await self._reading.checked(execution, lambda: check_task(execution, request.task_number))
        page = dependency_list(execution, request.task_number, request.page_size, request.page_token)
        await self._reading.committed(execution)
        return pb2.GetTaskDependenciesResponse(dependencies=page.dependencies, next_page_token=page.next_page_token)

    async def ExplainTask(self, request: pb2.ExplainTaskRequest, context: Context) -> pb2.ExplainTaskResponse:
        """See the proto."""
        execution = await self._reading.execution(DEFAULT_TENANT, request.execution_id)
        task = await self._reading.checked(execution, lambda: task_named(execution, request))
        explanation = self._reading.explain(execution, task)
        message = explanation_message(execution, explanation)
        await self._reading.all_committed(execution)
        return pb2.ExplainTaskResponse(explanation=message)

    async def WatchExecution(
        self, request: pb2.WatchExecutionRequest, context: Context
    ) -> AsyncIterator[pb2.WatchExecutionResponse]:
        """See the proto."""
        execution = await self._reading.execution(DEFAULT_TENANT, request.execution_id)
        execution_id = execution.execution_id
        after = sequence_in(request.cursor, execution_id)
        execution = await self._reading.at_least(execution, after)
        reader, is_over = EventReader.of(execution), execution.finished and after == execution.sequence
        await self._reading.committed(execution)  # or the log of another owner would be read with our own numbers
        if is_over:
            return
        async for chunk in self._reading.events(execution, after):
            for fresh in reader.groups(chunk, after):
                cursor = execution_cursor(execution_id, fresh[-1].sequence)
                yield pb2.WatchExecutionResponse(events=fresh, cursor=cursor)

    async def TailLogs(self, request: pb2.TailLogsRequest, context: Context) -> AsyncIterator[pb2.TailLogsResponse]:
        """See the proto."""
        async with aclosing(self._tailing.tail(DEFAULT_TENANT, request)) as responses:
            async for response in responses:
                yield response

    async def ExportExecution(
        self, request: pb2.ExportExecutionRequest, context: Context
    ) -> AsyncIterator[pb2.ExportExecutionResponse]:
        """See the proto."""
        async with aclosing(self._exporting.export(DEFAULT_TENANT, request.execution_id)) as responses:
            async for response in responses:
                yield response

    async def UploadArtifact(
        self, request_iterator: AsyncIterator[pb2.UploadArtifactRequest], context: Context
    ) -> pb2.UploadArtifactResponse:
        """See the proto."""
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("content") != "header":
            raise InvalidInput("the first request of an upload must carry its header")
        upload = Upload(digest=first.header.digest, content_type=first.header.content_type)
        data = uploaded(requests)
        stored = await self._uploads.upload(DEFAULT_TENANT, upload, data, context.time_remaining())
        reference = payload_pb2.ArtifactReference(digest=stored.digest, size_bytes=stored.size_bytes)
        return pb2.UploadArtifactResponse(artifact=reference)

    async def DownloadArtifact(
        self, request: pb2.DownloadArtifactRequest, context: Context
    ) -> AsyncIterator[pb2.DownloadArtifactResponse]:
        """See the proto."""
        async for data in self._artifacts.stream(DEFAULT_TENANT, request.digest):
            yield pb2.DownloadArtifactResponse(data=data)


async def uploaded(requests: AsyncIterator[pb2.UploadArtifactRequest]) -> AsyncIterator[bytes]:
    """The bytes of an upload, behind its header. Raises InvalidInput for anything else."""
    async for request in requests:
        if request.WhichOneof("content") != "data":
            raise InvalidInput("after the header of an upload only data may follow")
        yield request.data


def json_in(payload: payload_pb2.Payload) -> bytes:
    """Inputs: inline JSON. Raises InvalidInput for anything else."""
    if payload.HasField("artifact") or payload.content_type not in ("", JSON):
        violation = FieldViolation("inputs", "is not inline JSON", "an object as application/json in data")
        raise InvalidInput("inputs must be inline JSON", violations=[violation])
    return payload.data


def chosen_tasks(execution: Execution, request: pb2.ListTasksRequest, start: int) -> Iterator[int]:
    """The tasks that a request asks for, from a number on. Raises NotFound for a node that there is not."""
    node = execution.workflow.number_of(request.node) if request.node else None
    for task in range(start, len(execution.states)):
        if request.state and execution.states[task] != request.state:
            continue
        if node is not None and execution.node_of(task) != node:
            continue
        yield task


def joined_list(execution: Execution, task: int) -> list[Stored]:
    """The large list of a mapped node that nobody may have asked for yet, if the task has one: it is not stored."""
    if task in execution.expansions and execution.states[task] == TaskState.COMPLETED:
        joined = execution.output(task)
        if isinstance(joined, Stored) and joined.data:
            return [joined]
    return []
