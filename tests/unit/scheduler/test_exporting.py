"""An execution is exported whole, and its line in the index is never behind its events."""

from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.log_pb2 import ExecutionFinished, LogChunk, LogRecord, TasksQueued
from nodeflow.state_manager.v1.log_pb2 import Chunk, ExecutionRecord

from nodeflow_scheduler.domain.document import compile_document
from nodeflow_scheduler.domain.workflow import Workflow
from nodeflow_scheduler.exporting import Exporting
from nodeflow_scheduler.ports import StoredSlice
from nodeflow_shared.errors import NotFound

WORKFLOW = compile_document(
    b"""{"apiVersion": "nodeflow/v1", "kind": "Workflow", "name": "one",
    "nodes": {"a": {"function": "m:f"}, "b": {"function": "m:f", "needs": ["a"]}}}""",
    "application/json",
    "",
)
RUNNING = ExecutionState.EXECUTION_STATE_RUNNING
COMPLETED = ExecutionState.EXECUTION_STATE_COMPLETED


def chunk(first: int, *records: LogRecord) -> Chunk:
    data = LogChunk(fencing_token=3, records=records).SerializeToString()
    return Chunk(first_sequence=first, event_count=len(records), data=data, first_offset=first + 9)


QUEUED = LogRecord(tasks_queued=TasksQueued(task_numbers=[0], attempt_numbers=[1]))
FINISHED = LogRecord(execution_finished=ExecutionFinished(state=COMPLETED))


class Store:
    """A store that goes on between two readings, as a test says."""

    def __init__(self, state: ExecutionState.ValueType, chunks: Sequence[Chunk]) -> None:
        self.record = ExecutionRecord(execution_id="e", tenant="default", shard=4, state=state, revision="r")
        self.chunks = list(chunks)
        self.meanwhile: list[Chunk] = []

    async def slices(self, execution_id: str, after_sequence: int) -> AsyncIterator[StoredSlice]:
        record = ExecutionRecord()
        record.CopyFrom(self.record)
        after = [each for each in self.chunks if each.first_sequence > after_sequence]
        yield StoredSlice(record=record, chunks=after[:1])
        for each in after[1:]:
            yield StoredSlice(record=None, chunks=[each])
        if self.meanwhile:
            self.chunks += self.meanwhile
            self.meanwhile = []
            self.record.state = COMPLETED

    async def records(self, execution_ids: Sequence[str]) -> dict[str, ExecutionRecord]:
        return {"e": self.record}

    async def workflow(self, tenant: str, revision: str) -> Workflow:
        return WORKFLOW

    async def resolve(self, tenant: str, name: str) -> str:
        return name

    async def exported(self, tenant: str = "default") -> list[tuple[str, list[int]]]:
        """Return the state in each response, if it has the line, and the sequences that its chunks begin with."""
        # Any: a double of four ports at once.
        double: Any = self
        exporting = Exporting(SimpleNamespace(resolve=self.resolve), double, double, double)  # type: ignore[arg-type]  # of Reading it needs no more
        return [
            (
                ExecutionState.Name(response.execution.state) if response.HasField("execution") else "",
                [each.first_sequence for each in response.chunks],
            )
            async for response in exporting.export(tenant, "e")
        ]


async def test_the_line_and_the_graph_come_first_and_the_chunks_in_order() -> None:
    store = Store(COMPLETED, [chunk(1, QUEUED), chunk(2, FINISHED)])
    assert await store.exported() == [("EXECUTION_STATE_COMPLETED", [1]), ("", [2])]


async def test_chunks_are_opened_and_the_graph_is_told() -> None:
    store: Any = Store(COMPLETED, [chunk(1, QUEUED, FINISHED)])
    exporting = Exporting(SimpleNamespace(resolve=store.resolve), store, store, store)  # type: ignore[arg-type]  # of Reading it needs no more
    [response] = [each async for each in exporting.export("default", "e")]
    assert [(node.name, list(node.dependencies)) for node in response.workflow.nodes] == [("a", []), ("b", ["a"])]
    assert (response.execution.shard, response.chunks[0].first_offset, response.chunks[0].event_count) == (4, 10, 2)
    assert list(response.chunks[0].log.records) == [QUEUED, FINISHED]


async def test_an_execution_that_goes_on_is_exported_as_far_as_it_is() -> None:
    assert await Store(RUNNING, [chunk(1, QUEUED)]).exported() == [("EXECUTION_STATE_RUNNING", [1])]


async def test_when_it_ends_while_it_is_read_the_rest_follows_and_the_line_anew() -> None:
    store = Store(RUNNING, [chunk(1, QUEUED), chunk(2, QUEUED)])
    store.meanwhile = [chunk(3, FINISHED)]
    assert await store.exported() == [
        ("EXECUTION_STATE_RUNNING", [1]),
        ("", [2]),
        ("", [3]),
        ("EXECUTION_STATE_COMPLETED", []),
    ]


async def test_what_is_another_tenants_is_not_there() -> None:
    with pytest.raises(NotFound, match="there is no execution 'e'"):
        await Store(COMPLETED, [chunk(1, QUEUED)]).exported("other")
