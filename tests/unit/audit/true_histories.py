"""Histories in which every promise was kept, one for each turn that they may take."""

from dataclasses import replace
from hashlib import sha256

from msgspec.structs import replace as with_fields
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.common.v1.payload_pb2 import Payload
from nodeflow.scheduler.v1.log_pb2 import ExecutionFinished, LogRecord
from tests.unit.audit.told import (
    ALL,
    BEGINNING,
    CANCELLED,
    EACH,
    END,
    FAILED,
    GOOD,
    GRAPH,
    ITEM,
    ITEMS,
    LIST,
    NAME,
    OTHER_ITEM,
    SUM,
    TRUE,
    acknowledged,
    asked_to_cancel,
    began,
    cancelled,
    completed,
    execution,
    expanded,
    failed,
    finished,
    log,
    lost,
    noted,
    queued,
    seen,
    skipped,
    span,
    started,
    store,
    told,
    watched,
)

from nodeflow_sdk.audit.history import (
    Acknowledgement,
    Call,
    Explained,
    History,
    Node,
    QueueLevel,
    Slots,
    State,
    Told,
    ToldTask,
)

SUBMITTED = Acknowledgement(execution_id=NAME, call=Call.SUBMIT, time_ms=9, request_id="key", body="b")
CANCELLED_TASKS = [started(), queued(LIST), asked_to_cancel(), cancelled(LIST, EACH, SUM), CANCELLED]
TOLD = Told(
    execution_id=NAME,
    sequence=13,
    state=State.COMPLETED,
    tasks=tuple(ToldTask(task=task, state=State.COMPLETED, attempt=int(task != EACH)) for task in range(5)),
)


EXPANDED = Told(
    execution_id=NAME,
    sequence=5,
    state=State.RUNNING,
    tasks=(
        ToldTask(task=LIST, state=State.COMPLETED, attempt=1),
        ToldTask(task=EACH, state=State.RUNNING),
        *(ToldTask(task=task, state=State.PENDING) for task in (SUM, ITEM, OTHER_ITEM)),
    ),
)
WITH_OUTPUTS = LogRecord(
    execution_finished=ExecutionFinished(
        state=ExecutionState.EXECUTION_STATE_COMPLETED, outputs=Payload(data=b"{}", content_type="application/json")
    )
)
LOST_ONCE = log(started(), queued(LIST), lost(LIST), queued(LIST, 2), state=State.RUNNING)

TRUE_HISTORIES = {
    "nothing": History(),
    "plain": GOOD,
    "the graph is not known": replace(
        store(replace(GOOD.executions[0], graph=None)), told=(TOLD,), watched=(watched(ALL),)
    ),
    "a part of a shard": History(executions=GOOD.executions),
    "a failure is tried again": log(
        started(),
        queued(LIST),
        failed(LIST, retry_ms=2_900),
        queued(LIST, 2),
        completed(LIST, 2),
        expanded(),
        *ITEMS,
        *END,
    ),
    "a loss is tried again": log(
        started(),
        queued(LIST),
        lost(LIST),
        queued(LIST, 2),
        began(LIST, 2),
        completed(LIST, 2),
        expanded(),
        *ITEMS,
        *END,
    ),
    "lost too often": log(
        started(),
        queued(LIST),
        lost(LIST),
        failed(LIST),
        cancelled(EACH, SUM),
        FAILED,
        state=State.FAILED,
        task_count=3,
    ),
    "cancelled": replace(
        log(*CANCELLED_TASKS, state=State.CANCELLED, task_count=3),
        acknowledgements=(
            SUBMITTED,
            Acknowledgement(execution_id=NAME, call=Call.CANCEL, time_ms=5_000),
        ),
        spans=(span(LIST, 1_500, 3_000), span(LIST, 3_000, 3_000)),
        stop_within_ms=1_000,
    ),
    "work goes on": replace(
        log(started(), queued(LIST), state=State.RUNNING), spans=(span(LIST, 1_000, None),), stop_within_ms=0
    ),
    "work ends in time": replace(LOST_ONCE, spans=(span(LIST, 1_500, 2_000), span(LIST, 3_000, 9_000, attempt=2))),
    "clocks differ": replace(
        LOST_ONCE,
        spans=(span(LIST, 0, 3_000), span(LIST, 3_000, 9_000, attempt=2)),
        results=acknowledged(time_ms=1_000),
        clock_error_ms=1_000,
    ),
    "clocks differ at the end": replace(
        log(*CANCELLED_TASKS, state=State.CANCELLED, task_count=3),
        spans=(span(LIST, 1_500, 4_000),),
        stop_within_ms=1_000,
        clock_error_ms=1_000,
    ),
    "an item failed, and the rest went on": log(
        *BEGINNING,
        queued(ITEM),
        queued(OTHER_ITEM),
        failed(ITEM),
        completed(OTHER_ITEM),
        completed(EACH, 0),
        *END,
    ),
    "skipped": log(started(), skipped(LIST), skipped(EACH), skipped(SUM), finished(), task_count=3),
    "under way": log(*BEGINNING, *ITEMS[:3], state=State.RUNNING, task_count=3),
    "in a backoff": log(started(), queued(LIST), failed(LIST, retry_ms=9_000), state=State.RUNNING, task_count=3),
    "waits for an artifact": replace(
        log(started(), queued(LIST), completed(LIST), state=State.RUNNING, task_count=3),
        explained=(Explained(execution_id=NAME, task=EACH, reason="TASK_REASON_ARTIFACT"),),
    ),
    "a failure that is allowed": store(
        replace(
            execution(
                told(started(), queued(LIST), failed(LIST), expanded(), *ITEMS, *END),
            ),
            graph=(Node(allow_failure=True), *GRAPH[1:]),
        )
    ),
    "submitted twice": seen(acknowledgements=(SUBMITTED, SUBMITTED)),
    "submitted without keys": History(
        executions=tuple(replace(execution(told(*TRUE), name=name), request_id="", shard=ord(name)) for name in "ef"),
        acknowledgements=tuple(
            Acknowledgement(execution_id=name, call=Call.SUBMIT, time_ms=9, body=name) for name in "ef"
        ),
    ),
    "a result was acknowledged": seen(results=acknowledged()),
    "a result that nobody asked for": seen(results=acknowledged(token=3)),
    "a result under an old token": replace(
        log(started(), queued(LIST), state=State.RUNNING), results=acknowledged(token=3)
    ),
    "a result of a task that never was": seen(results=acknowledged(task=99)),
    "a result that was lost when it came": replace(LOST_ONCE, results=acknowledged(time_ms=2_000)),
    "a late result": replace(
        log(started(), queued(LIST), lost(LIST), queued(LIST, 2), state=State.RUNNING),
        results=acknowledged(),
    ),
    "attempts are noted": noted(),
    "watched": seen(watched=(watched(ALL[:4], ALL[4:]), watched(ALL[6:], after=6), watched(ALL[:3], ended=False))),
    "told when the items are not ready yet": seen(told=(EXPANDED,)),
    "outputs, told and not asked for": replace(
        log(*TRUE[:-1], WITH_OUTPUTS),
        told=(with_fields(TOLD, value=f"sha256:{sha256(b'{}').hexdigest()}"), TOLD),
    ),
    "told": seen(told=(TOLD, Told(execution_id=NAME, sequence=3, state=State.RUNNING))),
    "at work": seen(
        spans=(span(LIST, 1_000, 3_000), span(ITEM, 6_000, 7_000), span(OTHER_ITEM, 7_000, 7_000)),
        slots=(Slots(worker="w", slots=1),),
        stop_within_ms=0,
    ),
    "a queue that is full": seen(queues=(QueueLevel(queue="q", limit=3, highest=3),)),
}
