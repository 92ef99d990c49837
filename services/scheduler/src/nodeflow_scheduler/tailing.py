"""The output of an execution for readers: what is stored, what comes, and when nothing can come any more.

Owns the end of a tail: first the log of events says that nothing of what was asked for can run, then the workers are
asked to deliver what they had read from it, and then the rest is read. Nothing of it waits for a task to say something.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace

from nodeflow.common.v1 import log_chunk_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.lifecycle import FINAL_TASK_STATES
from nodeflow_scheduler.ports import Logs, LogSelection, StoredLogs
from nodeflow_scheduler.reading import Reading
from nodeflow_scheduler.wire.cursors import log_cursor, log_place_in
from nodeflow_scheduler.wire.logs import LineFilter, lines_of
from nodeflow_shared.errors import FieldViolation, InvalidInput, NodeflowError, NotFound, Unavailable
from nodeflow_shared.streams import Outbox

FLUSH_PATIENCE_S = 10.0
"""How long workers may take to deliver what they have, if nothing of it arrives meanwhile."""
LINES_PER_RESPONSE = 1_000
BYTES_PER_RESPONSE = 512 * 1024
GROUPS_AHEAD = 2


Item = StoredLogs | NodeflowError | None
"""What a followed tail is fed: output, an error that ends it, or None when nothing can come any more."""


class Tailing:
    """The way out for output. `run` is the life of what works beside the tails that follow."""

    def __init__(self, reading: Reading, logs: Logs) -> None:
        self._reading = reading
        self._logs = logs
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await asyncio.Event().wait()

    async def tail(self, tenant: str, request: pb2.TailLogsRequest) -> AsyncGenerator[pb2.TailLogsResponse, None]:
        """See the proto."""
        execution = await self._reading.execution(tenant, request.execution_id)
        chosen = await self._reading.checked(execution, lambda: _Chosen(request, execution))
        tail = _Tail(execution, chosen, request)
        selection = LogSelection(
            tenant=tenant,
            execution_id=execution.execution_id,
            after_position=tail.position,
            from_end=request.from_now and not request.cursor,
            task_number=chosen.task,
            attempt_number=request.attempt_number or None,
        )
        if not request.follow:
            await self._flush(tail)
        groups = self._followed(selection, chosen, tail) if request.follow else self._logs.read(selection, follow=False)
        async with aclosing(groups):
            async for group in groups:
                for position, chunk in group.chunks:
                    if chunk.task_number >= tail.known_tasks:
                        await self._know(tail, chunk.task_number)
                    for response in tail.read(position, chunk):
                        yield response
                    await asyncio.sleep(0)  # What a filter leaves out must not keep the loop from others.
                rest = tail.rest(group.last_position)
                if rest is not None:
                    yield rest

    async def _know(self, tail: _Tail, task: int) -> None:
        """Learns which items there are, as it is committed: in the log of another owner, numbers may be of others."""
        tail.execution = await self._reading.execution(tail.execution.tenant, tail.execution.execution_id)
        known_tasks = len(tail.execution.states)
        if task >= known_tasks:
            raise Unavailable("another scheduler has the execution; resume with the last cursor", retry_after_s=0.2)
        await self._reading.committed(tail.execution)
        tail.known_tasks = known_tasks

    async def _followed(
        self, selection: LogSelection, chosen: _Chosen, tail: _Tail
    ) -> AsyncGenerator[StoredLogs, None]:
        """What is stored and what comes, until nothing can come; then what is still there behind it."""
        if self._group is None:
            raise Unavailable("this scheduler stops; resume with the last cursor", retry_after_s=0.2)
        group, feed = self._group, Outbox[Item](GROUPS_AHEAD)
        beside = [group.create_task(_pump(self._logs.read(selection, follow=True), feed), name="tail.pump")]
        position = selection.after_position
        try:
            async for item in feed:
                if isinstance(item, NodeflowError):
                    raise item
                if item is None:
                    break
                if len(beside) == 1:  # Only now it is known where the reading begins, and so what is still to be read.
                    beside.append(group.create_task(self._tell_end(selection, chosen, tail, feed), name="tail.end"))
                position = item.last_position
                yield item
        finally:
            for task in beside:
                task.cancel()
        rest = self._logs.read(replace(selection, after_position=position, from_end=False), follow=False)
        async with aclosing(rest):
            async for item in rest:
                yield item

    async def _tell_end(self, selection: LogSelection, chosen: _Chosen, tail: _Tail, feed: Outbox[Item]) -> None:
        try:
            await self._until_over(selection.tenant, selection.execution_id, chosen)
            await self._flush(tail)
        except NodeflowError as error:
            await feed.put(error)
        else:
            await feed.put(None)

    async def _until_over(self, tenant: str, execution_id: str, chosen: _Chosen) -> None:
        execution = await self._reading.execution(tenant, execution_id)
        sequence, is_over = execution.sequence, chosen.over(execution)
        await self._reading.committed(execution)
        if is_over:
            return
        async with aclosing(self._reading.events(execution, sequence)) as events:
            async for _ in events:
                if await self._is_over(await self._reading.execution(tenant, execution_id), chosen):
                    return

    async def _is_over(self, execution: Execution, chosen: _Chosen) -> bool:
        is_over = chosen.over(execution)
        if is_over:
            await self._reading.committed(execution)
        return is_over

    async def _flush(self, tail: _Tail) -> None:
        """Have the workers deliver what they have; give up when they do not, and nothing arrives either."""
        seen = -1
        while not await self._logs.flush(FLUSH_PATIENCE_S) and tail.position != seen:
            seen = tail.position


async def _pump(groups: AsyncGenerator[StoredLogs, None], feed: Outbox[Item]) -> None:
    """Errors go through the feed: one that was raised would end the service."""
    try:
        async with aclosing(groups):
            async for item in groups:
                await feed.put(item)
    except NodeflowError as error:
        await feed.put(error)


class _Tail:
    """One tail: how far it has come, and the lines that wait to be sent."""

    def __init__(self, execution: Execution, chosen: _Chosen, request: pb2.TailLogsRequest) -> None:
        self.execution = execution
        self.known_tasks = len(execution.workflow.nodes)
        """Those of which it is certain what they are."""
        self._chosen = chosen
        self.position, self._skip = log_place_in(request.cursor, execution.execution_id)
        self._told = request.cursor or ("" if request.from_now else log_cursor(execution.execution_id, 0, 0))
        self._response = pb2.TailLogsResponse()
        self._size = 0

    def read(self, position: int, chunk: log_chunk_pb2.LogChunk) -> Iterator[pb2.TailLogsResponse]:
        """The responses that are full now."""
        if self._chosen.holds(self.execution, chunk.task_number):
            for place, line in lines_of(chunk, self.execution, self._chosen.lines, self._skip):
                self._response.lines.append(line)
                self._size += len(line.text)
                if len(self._response.lines) >= LINES_PER_RESPONSE or self._size >= BYTES_PER_RESPONSE:
                    yield self._take(position - 1, place)
        self.position, self._skip = position, 0

    def rest(self, last_position: int) -> pb2.TailLogsResponse | None:
        """The response with what is left, up to a position; None if it would say nothing new."""
        self.position = max(self.position, last_position)
        cursor = log_cursor(self.execution.execution_id, self.position, self._skip)
        return self._take(self.position, self._skip) if self._response.lines or cursor != self._told else None

    def _take(self, position: int, skip: int) -> pb2.TailLogsResponse:
        response, self._response, self._size = self._response, pb2.TailLogsResponse(), 0
        response.cursor = self._told = log_cursor(self.execution.execution_id, position, skip)
        return response


class _Chosen:
    """What a request asks for. Raises NotFound for what the execution does not have."""

    def __init__(self, request: pb2.TailLogsRequest, execution: Execution) -> None:
        self.lines = LineFilter(first_line=request.first_line, streams=frozenset(request.streams), text=request.text)
        self._attempt = request.attempt_number
        self._node = execution.workflow.number_of(request.node) if request.node else None
        self._map_index = request.map_index if request.HasField("map_index") else None
        if self._map_index is not None and self._node is None:
            violation = FieldViolation("map_index", "is given without a node", "the node whose item it is")
            raise InvalidInput("an item belongs to a node", violations=[violation])
        self.task: int | None = None
        if request.HasField("task_number"):
            self.task = request.task_number
            if self.task >= len(execution.states):
                raise NotFound(
                    f"execution {execution.execution_id} has no task {self.task}; "
                    f"its tasks are 0 to {len(execution.states) - 1}"
                )

    def holds(self, execution: Execution, task: int) -> bool:
        """Whether a task's output is asked for."""
        if self._node is not None and execution.node_of(task) != self._node:
            return False
        return self._map_index is None or execution.map_index_of(task) == self._map_index

    def over(self, execution: Execution) -> bool:
        """Whether nothing that is asked for can write any more."""
        if execution.finished:
            return True
        task = self.task if self.task is not None else self._node
        if task is None:
            return False
        if execution.states[task] in FINAL_TASK_STATES:
            return True
        return self.task is not None and 0 < self._attempt < execution.attempts[task]
