"""A history to break: three nodes, the middle one mapped over two items, as the log tells it.

Owns how records become a history. Must not know any checker.
"""

from collections.abc import Sequence
from dataclasses import replace

from msgspec.structs import replace as with_fields
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1 import log_pb2
from nodeflow.scheduler.v1.log_pb2 import LogChunk, LogRecord

from nodeflow_sdk.audit.attempts import attempts_of
from nodeflow_sdk.audit.decoding import facts_of
from nodeflow_sdk.audit.history import (
    ExecutionHistory,
    Fact,
    History,
    ResultAcknowledgement,
    ShardHistory,
    Span,
    State,
    Watched,
    WatchedBatch,
    graph_of_parents,
)

NAME = "e"
LIST, EACH, SUM, ITEM, OTHER_ITEM = range(5)
GRAPH = graph_of_parents([[], [LIST], [EACH]])
LAST_TOKEN = 7
STEP_MS = 1_000
"""Each record is committed so long after the one before it."""


def started(tenant: str = "default") -> LogRecord:
    record = log_pb2.ExecutionStarted(tenant=tenant, workflow="sums", request_id="key", request_digest=b"\x01")
    return LogRecord(execution_started=record)


def queued(task: int, attempt: int = 1) -> LogRecord:
    return LogRecord(tasks_queued=log_pb2.TasksQueued(task_numbers=[task], attempt_numbers=[attempt]))


def began(task: int, attempt: int = 1) -> LogRecord:
    begun = log_pb2.TasksStarted(task_numbers=[task], attempt_numbers=[attempt], worker_id="w")
    return LogRecord(tasks_started=begun)


def completed(task: int, attempt: int = 1) -> LogRecord:
    done = log_pb2.TasksCompleted(task_numbers=[task], attempt_numbers=[attempt], outputs=[b"1"])
    return LogRecord(tasks_completed=done)


def failed(task: int, attempt: int = 1, retry_ms: int = 0) -> LogRecord:
    return LogRecord(task_failed=log_pb2.TaskFailed(task_number=task, attempt_number=attempt, retry_unix_ms=retry_ms))


def lost(task: int, attempt: int = 1) -> LogRecord:
    gone = log_pb2.AttemptsLost(task_numbers=[task], attempt_numbers=[attempt], reason="WORKER_LOST")
    return LogRecord(attempts_lost=gone)


def expanded() -> LogRecord:
    items = log_pb2.NodeExpanded(task_number=EACH, first_item=ITEM, items=[b"1", b"2"])
    return LogRecord(node_expanded=items)


def cancelled(*tasks: int) -> LogRecord:
    return LogRecord(tasks_cancelled=log_pb2.TasksCancelled(task_numbers=tasks))


def skipped(*tasks: int) -> LogRecord:
    return LogRecord(tasks_skipped=log_pb2.TasksSkipped(task_numbers=tasks))


def asked_to_cancel() -> LogRecord:
    return LogRecord(cancel_requested=log_pb2.CancelRequested())


def finished(state: ExecutionState.ValueType = ExecutionState.EXECUTION_STATE_COMPLETED) -> LogRecord:
    return LogRecord(execution_finished=log_pb2.ExecutionFinished(state=state))


FAILED = finished(ExecutionState.EXECUTION_STATE_FAILED)
CANCELLED = finished(ExecutionState.EXECUTION_STATE_CANCELLED)

BEGINNING = [started(), queued(LIST), began(LIST), completed(LIST), expanded()]
ITEMS = [queued(ITEM), queued(OTHER_ITEM), completed(OTHER_ITEM), completed(ITEM), completed(EACH, 0)]
END = [queued(SUM), completed(SUM), finished()]
TRUE = [*BEGINNING, *ITEMS, *END]


def told(*records: LogRecord) -> tuple[Fact, ...]:
    """Return the facts of records."""
    facts: list[Fact] = []
    for number, record in enumerate(records):
        chunk = LogChunk(time_unix_ms=STEP_MS * number, fencing_token=LAST_TOKEN, records=[record])
        facts += facts_of(chunk, first_sequence=len(facts) + 1, first_offset=len(facts))
    return tuple(facts)


def execution(
    facts: Sequence[Fact], *, state: State = State.COMPLETED, task_count: int = 5, name: str = NAME
) -> ExecutionHistory:
    """Return an execution that the index knows so."""
    return ExecutionHistory(
        execution_id=name,
        request_id="key",
        state=state,
        task_count=task_count,
        graph=GRAPH,
        facts=tuple(facts),
    )


def store(*executions: ExecutionHistory) -> History:
    """Return a store of one shard, which has all of its executions."""
    count = sum(len(each.facts) for each in executions)
    shard = ShardHistory(shard=0, fencing_token=LAST_TOKEN, next_offset=count)
    return History(executions=executions, shards=(shard,))


def log(*records: LogRecord, state: State = State.COMPLETED, task_count: int = 5) -> History:
    """Return the history of one execution."""
    return store(execution(told(*records), state=state, task_count=task_count))


def altered(place: int, **changes: int) -> History:
    """Return the true history with one of its facts changed."""
    facts = list(told(*TRUE))
    facts[place] = with_fields(facts[place], **changes)
    return store(execution(facts))


GOOD = log(*TRUE)


def seen(**observations: object) -> History:
    """Return the true history with something that was seen from outside."""
    return replace(GOOD, **observations)  # type: ignore[arg-type]  # each test names a field of History with its type


def noted(**changes: object) -> History:
    """Return the true history with its attempts written down, the first of them otherwise than it was."""
    first, *others = attempts_of(GOOD.executions[0])
    return seen(attempts=(with_fields(first, **changes), *others))


def acknowledged(**changes: object) -> tuple[ResultAcknowledgement, ...]:
    """Return the acknowledgement of the first result."""
    true = ResultAcknowledgement(
        execution_id=NAME, task=LIST, attempt=1, token=LAST_TOKEN, time_ms=4 * STEP_MS, worker="w"
    )
    return (with_fields(true, **changes),)


ALL = tuple(range(1, len(TRUE) + 1))
"""The sequences of the true history."""


def watched(*batches: tuple[int, ...], cursors: str = "abcdefg", **fields: object) -> Watched:
    """Return what a watcher was told."""
    told = tuple(WatchedBatch(cursor=cursor, sequences=each) for cursor, each in zip(cursors, batches, strict=False))
    return with_fields(Watched(execution_id=NAME, batches=told), **fields)


def span(task: int, begin_ms: int, end_ms: int | None, *, worker: str = "w", attempt: int = 1) -> Span:
    """Return work on a worker."""
    return Span(worker=worker, execution_id=NAME, task=task, attempt=attempt, begin_ms=begin_ms, end_ms=end_ms)
