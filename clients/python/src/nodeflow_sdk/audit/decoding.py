"""From messages of the API to the values of a history.

Owns how the log's columns become facts. Must not know how they got here, nor judge them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, TypedDict

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.common.v1.payload_pb2 import Payload
from nodeflow.scheduler.v1.log_pb2 import ExecutionStarted, LogChunk, LogRecord, TasksCompleted
from nodeflow.scheduler.v1.scheduler_service_pb2 import ExportExecutionResponse
from nodeflow.scheduler.v1.workflow_pb2 import Workflow

from nodeflow_sdk.audit.history import NO_TASK, ExecutionHistory, Fact, Graph, Items, Kind, Node, State, Submission
from nodeflow_shared.errors import InvalidInput

_EXECUTION_STATES: Final = {
    number: State(name.removeprefix("EXECUTION_STATE_")) for name, number in ExecutionState.items() if number
}
_TASK_STATES: Final = {number: State(name.removeprefix("TASK_STATE_")) for name, number in TaskState.items() if number}


class UnknownRecord(InvalidInput):
    """The log has a record of a kind that this version does not know."""


def execution_state(state: ExecutionState.ValueType) -> State:
    """Return the word for the state of an execution. Raises KeyError for one that is not said."""
    return _EXECUTION_STATES[state]


def task_state(state: TaskState.ValueType) -> State:
    """Return the word for the state of a task. Raises KeyError for one that is not said."""
    return _TASK_STATES[state]


def graph_of(workflow: Workflow) -> Graph:
    """Return the graph of a workflow."""
    number = {node.name: place for place, node in enumerate(workflow.nodes)}
    return tuple(
        Node(
            name=node.name,
            parents=tuple(number[name] for name in node.dependencies),
            allow_failure=node.allow_failure,
        )
        for node in workflow.nodes
    )


def execution_of(responses: Sequence[ExportExecutionResponse]) -> ExecutionHistory:
    """Return an execution as it was exported; at least the first response must be there. Raises UnknownRecord."""
    lines = [response.execution for response in responses if response.HasField("execution")]
    line = lines[-1]  # The newest: an execution may come to its end while it is read.
    return ExecutionHistory(
        execution_id=line.execution_id,
        tenant=line.tenant,
        shard=line.shard,
        workflow=line.workflow,
        revision=line.revision,
        request_id=line.request_id,
        state=execution_state(line.state),
        task_count=line.task_count,
        graph=graph_of(responses[0].workflow),
        facts=tuple(
            fact
            for response in responses
            for chunk in response.chunks
            for fact in facts_of(chunk.log, first_sequence=chunk.first_sequence, first_offset=chunk.first_offset)
        ),
    )


def digest_of(payload: Payload) -> str:
    """Return the digest of a value, `sha256:…`, wherever it is; empty if there is none."""
    if payload.WhichOneof("value") == "artifact":
        return payload.artifact.digest
    return _digest(payload.data) if payload.data else ""


def facts_of(chunk: LogChunk, *, first_sequence: int, first_offset: int) -> Iterator[Fact]:
    """Decode a chunk of the log; the places count on from those of its first event. Raises UnknownRecord."""
    for place, (kind, task, attempt, more) in enumerate(_said(chunk.records)):
        yield Fact(
            sequence=first_sequence + place,
            offset=first_offset + place,
            time_ms=chunk.time_unix_ms,
            token=chunk.fencing_token,
            kind=kind,
            task=task,
            attempt=attempt,
            **more,
        )


class _More(TypedDict, total=False):
    """What a fact says beyond its kind, task and attempt."""

    worker: str
    value: str
    reason: str
    retry_ms: int
    state: State
    items: Items
    submission: Submission


_Said = tuple[Kind, int, int, _More]


def _said(records: Sequence[LogRecord]) -> Iterator[_Said]:
    """Yield kind, task, attempt and details for each event."""
    for record in records:
        name = record.WhichOneof("record")
        if name is None:
            raise UnknownRecord("the log has a record of a kind that this version does not know; use a newer nodeflow")
        kind = Kind(name)
        match kind:
            case Kind.TASKS_COMPLETED:
                yield from _completed(record.tasks_completed)
            case Kind.TASKS_QUEUED:
                queued = record.tasks_queued
                for task, attempt in zip(queued.task_numbers, queued.attempt_numbers, strict=True):
                    yield kind, task, attempt, {}
            case Kind.TASKS_STARTED:
                begun = record.tasks_started
                for task, attempt in zip(begun.task_numbers, begun.attempt_numbers, strict=True):
                    yield kind, task, attempt, {"worker": begun.worker_id}
            case Kind.ATTEMPTS_LOST:
                lost = record.attempts_lost
                for task, attempt in zip(lost.task_numbers, lost.attempt_numbers, strict=True):
                    yield kind, task, attempt, {"reason": lost.reason}
            case Kind.TASKS_SKIPPED:
                reason = "PARENT_FAILED" if record.tasks_skipped.parent_failed else "CONDITION_FALSE"
                for task in record.tasks_skipped.task_numbers:
                    yield kind, task, 0, {"reason": reason}
            case Kind.TASKS_CANCELLED:
                for task in record.tasks_cancelled.task_numbers:
                    yield kind, task, 0, {"reason": record.tasks_cancelled.reason}
            case _:
                yield _single(kind, record)


def _completed(completed: TasksCompleted) -> Iterator[_Said]:
    columns = zip(completed.task_numbers, completed.attempt_numbers, completed.outputs, strict=True)
    for place, (task, attempt, data) in enumerate(columns):
        if place in completed.payloads:
            value = digest_of(completed.payloads[place])
        else:
            value = _digest(data) if attempt else ""  # A mapped node as a whole has no result of its own.
        yield Kind.TASKS_COMPLETED, task, attempt, {"value": value}


def _single(kind: Kind, record: LogRecord) -> _Said:
    """Return the one event of a record that is not about a list of tasks."""
    match kind:
        case Kind.EXECUTION_STARTED:
            return kind, NO_TASK, 0, {"submission": _submission(record.execution_started)}
        case Kind.TASK_FAILED:
            failed = record.task_failed
            failure = _More(reason=failed.failure.reason, retry_ms=failed.retry_unix_ms)
            return kind, failed.task_number, failed.attempt_number, failure
        case Kind.NODE_EXPANDED:
            expanded = record.node_expanded
            return kind, expanded.task_number, 0, {"items": Items(first=expanded.first_item, count=len(expanded.items))}
        case Kind.CANCEL_REQUESTED:
            return kind, NO_TASK, 0, {"reason": record.cancel_requested.reason}
        case _:
            finished = record.execution_finished
            end = _More(
                state=execution_state(finished.state),
                value=digest_of(finished.outputs),
                reason=finished.failure.reason,
            )
            return kind, NO_TASK, 0, end


def _submission(started: ExecutionStarted) -> Submission:
    return Submission(
        tenant=started.tenant,
        workflow=started.workflow,
        revision=started.revision,
        request_id=started.request_id,
        request_digest=started.request_digest.hex(),
        deadline_ms=started.deadline_unix_ms,
    )


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
