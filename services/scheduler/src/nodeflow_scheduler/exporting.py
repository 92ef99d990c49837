"""What the log holds of an execution, whole: its line in the index, its workflow, and every committed chunk.

Owns that the line is never behind the chunks. Reads the store and nothing else: what the scheduler has in memory is
what an export is compared with.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2

from nodeflow_scheduler.domain.lifecycle import FINAL_EXECUTION_STATES
from nodeflow_scheduler.library import Library
from nodeflow_scheduler.ports import Archive, Catalogue, ExecutionRecord
from nodeflow_scheduler.reading import Reading, not_found
from nodeflow_scheduler.wire.export import committed_chunk, indexed_execution
from nodeflow_scheduler.wire.readers import workflow_message

_FINAL = frozenset(map(int, FINAL_EXECUTION_STATES))


class Exporting:
    """The way out for whole logs."""

    def __init__(self, reading: Reading, archive: Archive, catalogue: Catalogue, library: Library) -> None:
        self._reading = reading
        self._archive = archive
        self._catalogue = catalogue
        self._library = library

    async def export(self, tenant: str, name: str) -> AsyncGenerator[pb2.ExportExecutionResponse, None]:
        """The responses of an export. Raises NotFound, also for what is another tenant's."""
        execution_id = await self._reading.resolve(tenant, name)
        record: ExecutionRecord | None = None
        last_sequence = 0
        async for part in self._archive.slices(execution_id, 0):
            chunks = [committed_chunk(chunk) for chunk in part.chunks]
            if part.record is None:
                yield pb2.ExportExecutionResponse(chunks=chunks)
            else:
                record = part.record
                if record.tenant != tenant:
                    raise not_found(name)
                workflow = workflow_message(await self._library.workflow(tenant, record.revision), None)
                line = indexed_execution(record)
                yield pb2.ExportExecutionResponse(execution=line, workflow=workflow, chunks=chunks)
            if chunks:
                last_sequence = chunks[-1].first_sequence + chunks[-1].event_count - 1
        if record is None or not is_final(record):
            async for response in self._rest(execution_id, last_sequence):
                yield response

    async def _rest(self, execution_id: str, last_sequence: int) -> AsyncGenerator[pb2.ExportExecutionResponse, None]:
        """What came after the line was read, if that includes the end: then the line is another one now.

        An execution that is not over now was not over when its chunks were read, so the line that was sent fits them.
        """
        record = (await self._catalogue.records([execution_id])).get(execution_id)
        if record is None or not is_final(record):
            return
        async for part in self._archive.slices(execution_id, last_sequence):
            chunks = [committed_chunk(chunk) for chunk in part.chunks if chunk.first_sequence > last_sequence]
            if chunks:
                yield pb2.ExportExecutionResponse(chunks=chunks)
        yield pb2.ExportExecutionResponse(execution=indexed_execution(record))


def is_final(record: ExecutionRecord) -> bool:
    """Whether an entry of the index says that its execution is over."""
    return record.state in _FINAL
