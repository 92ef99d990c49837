"""Short ways to write down what is appended to a store, for tests."""

from collections.abc import Sequence

from nodeflow_state_manager.domain.values import (
    AppendBatch,
    Chunk,
    ExecutionRecord,
    ExecutionState,
    Refusal,
    RefusalReason,
    ShardAppend,
)
from nodeflow_state_manager.ports import Store

HOLDER = "scheduler-0"
LONG_MS = 60_000


def a_record(
    execution_id: str,
    *,
    shard: int = 0,
    state: ExecutionState = ExecutionState.RUNNING,
    tenant: str = "default",
    workflow: str = "etl",
    labels: dict[str, str] | None = None,
    create_time_ms: int = 1_000,
    finish_time_ms: int | None = None,
) -> ExecutionRecord:
    return ExecutionRecord(
        execution_id=execution_id,
        tenant=tenant,
        shard=shard,
        workflow=workflow,
        revision="sha256:1",
        state=state,
        labels=labels or {},
        create_time_ms=create_time_ms,
        finish_time_ms=finish_time_ms,
        request_id=f"request-{execution_id}",
        request_digest=b"\x01",
        task_count=7,
        finished_task_count=3,
    )


def a_chunk(execution_id: str, first_sequence: int, event_count: int = 1, data: bytes | None = None) -> Chunk:
    return Chunk(execution_id, first_sequence, event_count, data or f"{execution_id}@{first_sequence}".encode())


def a_start(execution_id: str, *, offset: int = 0, shard: int = 0, token: int = 1, events: int = 1) -> ShardAppend:
    """Return the part that begins an execution."""
    return ShardAppend(
        shard=shard,
        fencing_token=token,
        expected_offset=offset,
        chunks=[a_chunk(execution_id, 1, events)],
        records=[a_record(execution_id, shard=shard)],
    )


def a_part(offset: int, *chunks: Chunk, shard: int = 0, token: int = 1) -> ShardAppend:
    return ShardAppend(shard=shard, fencing_token=token, expected_offset=offset, chunks=chunks)


def a_batch(*parts: ShardAppend) -> AppendBatch:
    return AppendBatch(parts=parts)


async def append(store: Store, *parts: ShardAppend) -> list[tuple[int, RefusalReason]]:
    """Append one batch; return what was refused."""
    (refusals,) = await store.append([a_batch(*parts)])
    return reasons(refusals)


def reasons(refusals: Sequence[Refusal]) -> list[tuple[int, RefusalReason]]:
    return [(each.shard, each.reason) for each in refusals]


async def chunks_of(store: Store, execution_id: str, after: int = 0) -> list[Chunk]:
    pieces = [piece async for piece in store.read_execution(execution_id, after, allow_snapshot=False)]
    return [chunk for piece in pieces for chunk in piece.chunks]
