"""The whole state of an open execution, so that a replay need not begin at its first event."""

from __future__ import annotations

from nodeflow.scheduler.v1 import log_pb2

from nodeflow_scheduler.domain.execution import Execution, Expansion
from nodeflow_scheduler.domain.lifecycle import ExecutionState
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.domain.workflow import Workflow
from nodeflow_scheduler.wire.log import expanded_message, started_message, started_of
from nodeflow_scheduler.wire.values import (
    artifacts_of,
    failure_message,
    failure_of,
    payload_of,
    value_of,
    write_artifacts,
)


def encode_snapshot(execution: Execution) -> bytes:
    """The state of an open execution. What follows from it is left out; `Execution.derive` computes it again."""
    message = log_pb2.ExecutionSnapshot(
        started=started_message(execution.origin),
        start_unix_ms=execution.start_ms,
        time_unix_ms=execution.time_ms,
        sequence=execution.sequence,
        states=bytes(execution.states),
        attempt_numbers=execution.attempts,
        failed_counts=execution.failed_counts,
        lost_counts=execution.lost_counts,
        outputs=[output if isinstance(output, bytes) else b"" for output in execution.outputs],
        retries_unix_ms=execution.retries_ms,
        fencing_tokens=execution.tokens,
        cancel_reason=execution.cancel_reason,
        finishes_unix_ms=execution.finishes_ms,
        starts_unix_ms=execution.starts_ms,
        worker_ids=execution.worker_ids,
        expansions=[expanded_message(each.node, each.first, each.items) for each in execution.expansions.values()],
    )
    for task, output in enumerate(execution.outputs):
        if isinstance(output, Stored):
            message.payloads[task].CopyFrom(payload_of(output))
    for task, artifacts in execution.artifacts.items():
        write_artifacts(message.artifacts[task].artifacts, artifacts)
    for task, failure in execution.failures.items():
        message.failures[task].CopyFrom(failure_message(failure))
    return message.SerializeToString()


def least_size(execution: Execution) -> int:
    """How many bytes a snapshot has at least: results and items are nearly all of a large one."""
    results = sum(len(output) for output in execution.outputs if isinstance(output, bytes))
    return results + sum(sum(map(len, each.items)) for each in execution.expansions.values())


def started_in(data: bytes) -> log_pb2.ExecutionStarted:
    """How the execution of a snapshot began: it names the workflow that is needed to restore it."""
    return log_pb2.ExecutionSnapshot.FromString(data).started


def restore_snapshot(data: bytes, execution_id: str, shard: int, workflow: Workflow) -> Execution:
    """The execution that a snapshot was taken of."""
    message = log_pb2.ExecutionSnapshot.FromString(data)
    execution = Execution(execution_id, shard, workflow)
    execution.started = started_of(message.started)
    execution.state = ExecutionState.RUNNING
    execution.start_ms, execution.time_ms = message.start_unix_ms, message.time_unix_ms
    execution.sequence = execution.snapshot_sequence = message.sequence
    execution.cancel_reason = message.cancel_reason if message.HasField("cancel_reason") else None
    execution.states = bytearray(message.states)
    execution.attempts = list(message.attempt_numbers)
    execution.tokens = list(message.fencing_tokens)
    execution.finishes_ms = list(message.finishes_unix_ms)
    execution.outputs = [output or None for output in message.outputs]
    _restore_sparse(message, execution)
    execution.derive()
    return execution


def _restore_sparse(message: log_pb2.ExecutionSnapshot, execution: Execution) -> None:
    for task, payload in message.payloads.items():
        execution.outputs[task] = value_of(payload)
    execution.failed_counts = dict(message.failed_counts)
    execution.lost_counts = dict(message.lost_counts)
    execution.failures = {task: failure_of(failure) for task, failure in message.failures.items()}
    execution.retries_ms = dict(message.retries_unix_ms)
    execution.starts_ms = dict(message.starts_unix_ms)
    execution.worker_ids = dict(message.worker_ids)
    execution.artifacts = {task: artifacts_of(files.artifacts) for task, files in message.artifacts.items()}
    for each in message.expansions:
        items = list(each.items)
        expansion = Expansion(node=each.task_number, first=each.first_item, items=items, open=len(items))
        execution.expansions[each.task_number] = expansion
