"""Results of attempts ↔ the domain's terms: on the Connect stream, and in the journal.

Owns the mapping in both directions, and nothing else.
"""

from collections.abc import Iterable
from typing import Final, assert_never

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer as Repeated
from nodeflow.common.v1 import failure_pb2, payload_pb2
from nodeflow.worker_manager.v1 import attempt_pb2

from nodeflow_worker.domain.values import (
    JSON,
    Attempt,
    Ending,
    Failure,
    FailureKind,
    Outcome,
    ProcessSpec,
    Stored,
    TaskSpec,
)

_KEPT_SPEC: Final = TaskSpec(tenant="", process=ProcessSpec())
"""Of a result that is read again: how it came about is of no interest any more."""


def add_results(results: Repeated[attempt_pb2.AttemptResult], attempts: Iterable[Attempt]) -> None:
    """Add the results of attempts, as they are told and as they are kept."""
    for each in attempts:
        result = results.add()  # Field by field: to set them by keywords takes a quarter longer.
        result.execution_id = each.execution_id
        result.task_number = each.task_number
        result.attempt_number = each.attempt_number
        result.shard = each.shard
        result.fencing_token = each.fencing_token
        result.result_id = each.result_id
        outcome = each.outcome
        if type(outcome) is bytes:
            result.output.data = outcome
        elif outcome is not None:
            _write_outcome(result, outcome)
        if each.artifacts:
            for name, value in each.artifacts:
                _write_stored(result.artifacts[name], value)


def _write_outcome(result: attempt_pb2.AttemptResult, outcome: Outcome) -> None:
    match outcome:
        case bytes():
            result.output.data = outcome
        case Stored():
            _write_stored(result.output, outcome)
        case Failure():
            _write_failure(result.failure, outcome)
        case Ending():
            result.cancelled = True
        case _:
            assert_never(outcome)


def _write_stored(payload: payload_pb2.Payload, value: Stored) -> None:
    if value.content_type != JSON:
        payload.content_type = value.content_type
    if value.digest:
        payload.artifact.digest, payload.artifact.size_bytes = value.digest, value.size_bytes
    else:
        payload.data = value.data


_KINDS: Final = {
    FailureKind.TRANSIENT: failure_pb2.FAILURE_KIND_TRANSIENT,
    FailureKind.PERMANENT: failure_pb2.FAILURE_KIND_PERMANENT,
    FailureKind.SYSTEM: failure_pb2.FAILURE_KIND_SYSTEM,
    FailureKind.USER: failure_pb2.FAILURE_KIND_USER,
}


def _write_failure(message: failure_pb2.Failure, failure: Failure) -> None:
    message.kind = _KINDS[failure.kind]
    message.reason = failure.reason
    message.message = failure.message
    message.retryable = failure.retryable
    message.error_type = failure.error_type
    message.traceback = failure.traceback
    if failure.cause is not None:
        _write_failure(message.cause, failure.cause)


def read_result(message: attempt_pb2.AttemptResult) -> Attempt:
    """Return an attempt of a process that ended like this."""
    attempt = Attempt(
        message.execution_id,
        message.task_number,
        message.attempt_number,
        message.shard,
        message.fencing_token,
        _KEPT_SPEC,
        b"",
    )
    attempt.outcome = _read_outcome(message)
    attempt.artifacts = tuple((name, _read_stored(value)) for name, value in sorted(message.artifacts.items()))
    return attempt


def _read_outcome(message: attempt_pb2.AttemptResult) -> Outcome:
    match message.WhichOneof("outcome"):
        case "output":
            value = _read_stored(message.output)
            return value.data if value.content_type == JSON and not value.digest else value
        case "failure":
            return _read_failure(message.failure)
        case "cancelled":
            return Ending.CANCELLED
        case None:
            raise ValueError("a result without an outcome")
        case _:
            assert_never(message)


def _read_stored(payload: payload_pb2.Payload) -> Stored:
    return Stored(
        content_type=payload.content_type or JSON,
        data=payload.data,
        digest=payload.artifact.digest,
        size_bytes=payload.artifact.size_bytes,
    )


def _read_failure(message: failure_pb2.Failure) -> Failure:
    return Failure(
        kind=FailureKind(message.kind),
        reason=message.reason,
        message=message.message,
        retryable=message.retryable,
        error_type=message.error_type,
        traceback=message.traceback,
        cause=_read_failure(message.cause) if message.HasField("cause") else None,
    )
