"""What a workflow asks of a suite: start, start many, find, register.

Owns these conversations and the one home that they have in a process. Must not know how a document was made.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

from nodeflow.scheduler.v1.scheduler_service_pb2 import Submission
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument

from nodeflow_sdk.client import Client
from nodeflow_sdk.payloads import to_payload
from nodeflow_sdk.running.background import Background
from nodeflow_sdk.running.handles import AsyncExecution, Execution
from nodeflow_sdk.running.home import Home
from nodeflow_sdk.running.orders import Order, Submittable
from nodeflow_sdk.running.pending import Pending
from nodeflow_sdk.running.remote import Remote
from nodeflow_sdk.running.service import Service
from nodeflow_sdk.sources import SOURCE_INPUT, packed
from nodeflow_shared.errors import InvalidInput


class Runs:
    """Workflows on suites; every method raises NodeflowError, or what the workflow makes of a fault in its document."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def run(self, workflow: Submittable, order: Order) -> object:
        """Run to the end, and return the result; interrupted at any moment, the execution is cancelled."""
        pending = Pending()
        try:
            return Execution(self._home, self._home.call(self._start(workflow, order, pending))).result()
        except KeyboardInterrupt:
            self._home.call(pending.undo())
            raise

    async def arun(self, workflow: Submittable, order: Order) -> object:
        """Run to the end, on a running loop; cancelled at any moment, the execution is cancelled."""
        pending = Pending()
        try:
            remote = await self._home.acall(self._start(workflow, order, pending))
            return await AsyncExecution(self._home, remote).result()
        except asyncio.CancelledError:
            await self._home.acall(pending.undo())
            raise

    def start(self, workflow: Submittable, order: Order) -> Execution[Any]:
        """Start an execution; returns once it is durable."""
        return Execution(self._home, self._home.call(self._start(workflow, order)))

    async def astart(self, workflow: Submittable, order: Order) -> AsyncExecution[Any]:
        """Start an execution, on a running loop."""
        return AsyncExecution(self._home, await self._home.acall(self._start(workflow, order)))

    def start_many(
        self,
        workflow: Submittable,
        inputs: Iterable[Mapping[str, object]],
        suite: str | None,
        labels: Mapping[str, str],
    ) -> list[Execution[Any]]:
        """Start an execution for each set of inputs, in one call."""
        submissions = [Submission(inputs=to_payload(each), labels=labels) for each in inputs]
        remotes = self._home.call(self._start_many(workflow, submissions, suite))
        return [Execution(self._home, remote) for remote in remotes]

    def find(self, workflow: Submittable, execution_id: str, suite: str | None) -> Execution[Any]:
        """Return an execution that was started before; raises NotFound."""
        return Execution(self._home, self._home.call(self._find(workflow, execution_id, suite)))

    def register(self, workflow: Submittable, suite: str | None) -> str:
        """Register a workflow; returns its revision."""
        return self._home.call(self._register(workflow, suite))

    @contextmanager
    def serving(
        self, workflows: Sequence[Submittable], suite: str | None, worker_manager: str | None, slots: int | None
    ) -> Iterator[str]:
        """Register workflows and serve their functions inside the block; gives the worker's id, if one is needed."""
        service = self._home.call(self._served(workflows, suite, worker_manager, slots))
        try:
            yield service.worker_id
        finally:
            self._home.call(service.end())

    async def _served(
        self, workflows: Sequence[Submittable], suite: str | None, worker_manager: str | None, slots: int | None
    ) -> Service:
        service = Service(workflows, slots)
        try:
            await service.begin(self._home, suite, worker_manager)
            for workflow in workflows:
                await self._register(workflow, suite)
        except BaseException:
            await service.end()
            raise
        return service

    async def _start(self, workflow: Submittable, order: Order, pending: Pending | None = None) -> Remote:
        async with self._judged(workflow, order.suite) as client:
            inputs = await _with_source(client, workflow, order.inputs) if workflow.has_source else order.inputs
            submission = client.submit(_document(workflow), inputs, request_id=order.request_id, labels=order.labels)
            execution = await (submission if pending is None else pending.answer(client, submission))
        return _remote(workflow, client, execution.execution_id)

    async def _start_many(
        self, workflow: Submittable, submissions: list[Submission], suite: str | None
    ) -> list[Remote]:
        async with self._judged(workflow, suite) as client:
            ids = await client.submit_many(_document(workflow), submissions)
        return [_remote(workflow, client, each) for each in ids]

    async def _find(self, workflow: Submittable, execution_id: str, suite: str | None) -> Remote:
        client = await self._home.client(suite)
        return _remote(workflow, client, (await client.get(execution_id)).execution_id)

    async def _register(self, workflow: Submittable, suite: str | None) -> str:
        async with self._judged(workflow, suite) as client:
            return (await client.register(_document(workflow))).revision

    @asynccontextmanager
    async def _judged(self, workflow: Submittable, suite: str | None) -> AsyncIterator[Client]:
        """Give the client of a suite; a fault that it finds in the document is raised as one of the line at fault."""
        client = await self._home.client(suite)
        try:
            yield client
        except InvalidInput as error:
            fault = next((each for each in error.violations if not each.path.startswith("inputs.")), None)
            if fault is None:
                raise
            raise workflow.at_fault(fault) from error


def _document(workflow: Submittable) -> WorkflowDocument:
    return WorkflowDocument(source=workflow.source, content_type=workflow.content_type, directory=workflow.directory)


async def _with_source(client: Client, workflow: Submittable, inputs: Mapping[str, object]) -> Mapping[str, object]:
    """Pack and store the source of a pipeline, unless the inputs have one; raises UnusableSource."""
    described = (await client.validate(_document(workflow))).workflow
    if not described.source_path or SOURCE_INPUT in inputs:
        return inputs
    with packed(Path(workflow.directory) / described.source_path) as source:
        stored = await client.upload_file(source.archive, "application/x-tar")
    return {**inputs, SOURCE_INPUT: {"digest": stored.digest, "size_bytes": stored.size_bytes}}


def _remote(workflow: Submittable, client: Client, execution_id: str) -> Remote:
    return Remote(client, execution_id, whole=workflow.whole, value=workflow.value)


# One for each process: it starts a thread with the first run, and stops at exit.
RUNS: Final = Runs(Background())
