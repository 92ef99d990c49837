"""The data of a chunk of the log: events, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, assert_never

from nodeflow.common.v1 import lifecycle_pb2
from nodeflow.scheduler.v1 import log_pb2

from nodeflow_scheduler.domain.events import (
    AttemptsLost,
    CancelRequested,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    NodeExpanded,
    TaskFailed,
    TasksCancelled,
    TasksCompleted,
    TasksQueued,
    TasksSkipped,
    TasksStarted,
)
from nodeflow_scheduler.domain.lifecycle import ExecutionState
from nodeflow_scheduler.domain.values import Stored, Value
from nodeflow_scheduler.wire.values import (
    artifacts_of,
    failure_message,
    failure_of,
    payload_of,
    value_of,
    write_artifacts,
)


class Decoded(NamedTuple):
    """The content of a chunk."""

    time_ms: int
    token: int
    events: list[Event]


def encode_chunk(events: Sequence[Event], time_ms: int, token: int) -> bytes:
    """Events as the data of a chunk."""
    chunk = log_pb2.LogChunk(time_unix_ms=time_ms, fencing_token=token)
    records = chunk.records
    for event in events:
        _write(records.add(), event)
    return chunk.SerializeToString()


def decode_chunk(data: bytes) -> Decoded:
    """The data of a chunk as events."""
    chunk = log_pb2.LogChunk.FromString(data)
    return Decoded(chunk.time_unix_ms, chunk.fencing_token, [_read(record) for record in chunk.records])


def _write(record: log_pb2.LogRecord, event: Event) -> None:  # An exhaustive match, most frequent first.
    match event:
        case TasksCompleted():
            _write_completed(record.tasks_completed, event)
        case TasksQueued():
            record.tasks_queued.task_numbers.extend(event.tasks)
            record.tasks_queued.attempt_numbers.extend(event.attempts)
        case TasksStarted():
            record.tasks_started.task_numbers.extend(event.tasks)
            record.tasks_started.attempt_numbers.extend(event.attempts)
            record.tasks_started.worker_id = event.worker_id
        case ExecutionStarted():
            record.execution_started.CopyFrom(started_message(event))
        case ExecutionFinished():
            _write_finished(record.execution_finished, event)
        case TaskFailed():
            record.task_failed.task_number = event.task
            record.task_failed.attempt_number = event.attempt
            record.task_failed.failure.CopyFrom(failure_message(event.failure))
            record.task_failed.retry_unix_ms = event.retry_ms
        case AttemptsLost():
            record.attempts_lost.task_numbers.extend(event.tasks)
            record.attempts_lost.attempt_numbers.extend(event.attempts)
            record.attempts_lost.reason = event.reason
        case TasksSkipped():
            record.tasks_skipped.task_numbers.extend(event.tasks)
            record.tasks_skipped.parent_failed = event.parent_failed
        case TasksCancelled():
            record.tasks_cancelled.task_numbers.extend(event.tasks)
            record.tasks_cancelled.reason = event.reason
        case NodeExpanded():
            record.node_expanded.CopyFrom(expanded_message(event.task, event.first_item, event.items))
        case CancelRequested():
            record.cancel_requested.SetInParent()
            record.cancel_requested.reason = event.reason
        case _:
            assert_never(event)


def _write_completed(message: log_pb2.TasksCompleted, event: TasksCompleted) -> None:
    if event.artifacts:
        for position, task in enumerate(event.tasks):
            if task in event.artifacts:
                write_artifacts(message.artifacts[position].artifacts, event.artifacts[task])
    message.task_numbers.extend(event.tasks)
    message.attempt_numbers.extend(event.attempts)
    try:
        message.outputs.extend(event.outputs)  # type: ignore[arg-type]  # mostly all bytes; others raise, and then we look
    except TypeError:
        del message.outputs[:]
        for position, output in enumerate(event.outputs):
            message.outputs.append(output if isinstance(output, bytes) else b"")
            if isinstance(output, Stored):
                message.payloads[position].CopyFrom(payload_of(output))


def _write_finished(message: log_pb2.ExecutionFinished, event: ExecutionFinished) -> None:
    message.state = lifecycle_pb2.ExecutionState.ValueType(int(event.state))
    if event.outputs is not None:
        message.outputs.CopyFrom(payload_of(event.outputs))
    if event.failure is not None:
        message.failure.CopyFrom(failure_message(event.failure))


def _read(record: log_pb2.LogRecord) -> Event:
    match record.WhichOneof("record"):
        case "execution_started":
            return started_of(record.execution_started)
        case "tasks_queued":
            queued = record.tasks_queued
            return TasksQueued(list(queued.task_numbers), list(queued.attempt_numbers))
        case "tasks_started":
            begun = record.tasks_started
            return TasksStarted(list(begun.task_numbers), list(begun.attempt_numbers), begun.worker_id)
        case "tasks_completed":
            return _read_completed(record.tasks_completed)
        case "task_failed":
            failed = record.task_failed
            failure = failure_of(failed.failure)
            return TaskFailed(failed.task_number, failed.attempt_number, failure, failed.retry_unix_ms)
        case "attempts_lost":
            lost = record.attempts_lost
            return AttemptsLost(list(lost.task_numbers), list(lost.attempt_numbers), lost.reason)
        case "tasks_skipped":
            return TasksSkipped(list(record.tasks_skipped.task_numbers), record.tasks_skipped.parent_failed)
        case "tasks_cancelled":
            return TasksCancelled(list(record.tasks_cancelled.task_numbers), record.tasks_cancelled.reason)
        case "node_expanded":
            expanded = record.node_expanded
            return NodeExpanded(expanded.task_number, expanded.first_item, list(expanded.items))
        case "cancel_requested":
            return CancelRequested(record.cancel_requested.reason)
        case "execution_finished":
            return _read_finished(record.execution_finished)
        case None:
            raise ValueError("the log has a record of a kind that this version does not know; run a newer scheduler")


def _read_completed(message: log_pb2.TasksCompleted) -> TasksCompleted:
    attempts = list(message.attempt_numbers)
    # A mapped node as a whole (attempt 0) has no result of its own.
    outputs: list[Value | None] = [
        data if attempt else None for data, attempt in zip(message.outputs, attempts, strict=True)
    ]
    for position, payload in message.payloads.items():
        outputs[position] = value_of(payload)
    tasks = list(message.task_numbers)
    artifacts = {tasks[position]: artifacts_of(files.artifacts) for position, files in message.artifacts.items()}
    return TasksCompleted(tasks, attempts, outputs, artifacts or None)


def _read_finished(message: log_pb2.ExecutionFinished) -> ExecutionFinished:
    return ExecutionFinished(
        ExecutionState(message.state),
        value_of(message.outputs) if message.HasField("outputs") else None,
        failure_of(message.failure) if message.HasField("failure") else None,
    )


def started_message(event: ExecutionStarted) -> log_pb2.ExecutionStarted:
    """The first event, as it is written."""
    return log_pb2.ExecutionStarted(
        tenant=event.tenant,
        workflow=event.workflow,
        revision=event.revision,
        inputs=event.inputs,
        request_id=event.request_id,
        request_digest=event.request_digest,
        labels=event.labels,
        deadline_unix_ms=event.deadline_ms,
    )


def started_of(message: log_pb2.ExecutionStarted) -> ExecutionStarted:
    """The first event, as it is read."""
    return ExecutionStarted(
        message.tenant,
        message.workflow,
        message.revision,
        message.inputs,
        message.request_id,
        message.request_digest,
        dict(message.labels),
        message.deadline_unix_ms,
    )


def expanded_message(task: int, first_item: int, items: Sequence[bytes]) -> log_pb2.NodeExpanded:
    """An expansion, as it is written."""
    return log_pb2.NodeExpanded(task_number=task, first_item=first_item, items=items)


def started_in_chunk(data: bytes) -> ExecutionStarted:
    """The first event of an execution, from its first chunk. Raises ValueError when that is something else."""
    record = log_pb2.LogChunk.FromString(data).records[0]
    if not record.HasField("execution_started"):
        raise ValueError(f"the log of an execution begins with {record.WhichOneof('record')}")
    return started_of(record.execution_started)
