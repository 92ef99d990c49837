"""A tail ends as soon as nothing can come any more, whenever that is committed."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import SimpleNamespace
from typing import Any, TypeVar

from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb

from nodeflow_scheduler.domain.document import compile_document
from nodeflow_scheduler.domain.lifecycle import TaskState
from nodeflow_scheduler.ports import LogSelection, StoredLogs
from nodeflow_scheduler.tailing import Tailing

T = TypeVar("T")

WORKFLOW = compile_document(
    b'{"apiVersion": "nodeflow/v1", "kind": "Workflow", "name": "one", "nodes": {"a": {"function": "m:f"}}}',
    "application/json",
    "",
)


class EndsMeanwhile:
    """A `Reading` and `Logs` of an execution that ends while a tail waits for the commit of what it has seen of it."""

    def __init__(self) -> None:
        self.now = SimpleNamespace(
            execution_id="e",
            tenant="default",
            workflow=WORKFLOW,
            states=[TaskState.RUNNING],
            attempts=[1],
            sequence=3,
            finished=False,
        )

    async def execution(self, tenant: str, name: str) -> SimpleNamespace:
        return self.now

    async def checked(self, execution: SimpleNamespace, check: Callable[[], T]) -> T:
        return check()

    async def committed(self, execution: SimpleNamespace) -> None:
        if not execution.finished:
            execution.finished, execution.sequence = True, 4

    async def events(self, execution: SimpleNamespace, after_sequence: int) -> AsyncGenerator[object, None]:
        """Tells of the end, if it was not known; nothing ever follows it."""
        if after_sequence < execution.sequence:
            yield object()
        await asyncio.Event().wait()

    async def read(self, selection: LogSelection, *, follow: bool) -> AsyncGenerator[StoredLogs, None]:
        yield StoredLogs(chunks=[], last_position=0)
        if follow:
            await asyncio.Event().wait()

    async def flush(self, patience_s: float) -> bool:
        return True


async def test_an_end_that_comes_while_what_was_seen_is_committed_is_not_missed() -> None:
    double: Any = EndsMeanwhile()  # Of both it has what a tail asks for.
    tailing = Tailing(double, double)
    living = asyncio.create_task(tailing.run())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        told = [each async for each in tailing.tail("default", pb.TailLogsRequest(execution_id="e", follow=True))]
    assert [line for each in told for line in each.lines] == []
    living.cancel()
