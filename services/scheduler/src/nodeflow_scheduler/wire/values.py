"""Payloads, failures and instants."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.internal.containers import MessageMap
from google.protobuf.timestamp_pb2 import Timestamp
from nodeflow.common.v1 import failure_pb2, payload_pb2

from nodeflow_scheduler.domain.failures import Failure, FailureKind
from nodeflow_scheduler.domain.values import JSON, NULL, Artifacts, Stored, Value

_KINDS = {int(kind): kind for kind in FailureKind}


def payload_of(value: Value) -> payload_pb2.Payload:
    """A value as it travels. Bytes that are still to be stored are left out: the reference is what counts."""
    if isinstance(value, bytes):
        return payload_pb2.Payload(data=value)
    content_type = "" if value.content_type == JSON else value.content_type
    if not value.digest:
        return payload_pb2.Payload(data=value.data, content_type=content_type)
    reference = payload_pb2.ArtifactReference(digest=value.digest, size_bytes=value.size_bytes)
    return payload_pb2.Payload(artifact=reference, content_type=content_type)


def value_of(payload: payload_pb2.Payload) -> Value:
    """A payload as the core has it."""
    if payload.HasField("artifact"):
        reference = payload.artifact
        content_type = payload.content_type or JSON
        return Stored(content_type=content_type, digest=reference.digest, size_bytes=reference.size_bytes)
    if payload.content_type in ("", JSON):
        return payload.data or NULL  # No bytes are no JSON; what was meant is that there is nothing.
    return Stored(content_type=payload.content_type, data=payload.data, size_bytes=len(payload.data))


def artifacts_of(payloads: Mapping[str, payload_pb2.Payload]) -> Artifacts:
    """The artifacts of a task as the core has them; what is no reference to a stored file is left out."""
    values = {name: value_of(payload) for name, payload in payloads.items()}
    return {name: value for name, value in values.items() if isinstance(value, Stored) and value.digest}


def write_artifacts(message: MessageMap[str, payload_pb2.Payload], artifacts: Artifacts) -> None:
    """The artifacts of a task as they travel."""
    for name, value in artifacts.items():
        message[name].CopyFrom(payload_of(value))


def failure_message(failure: Failure) -> failure_pb2.Failure:
    """A failure as it travels."""
    return failure_pb2.Failure(
        kind=failure_pb2.FailureKind.ValueType(int(failure.kind)),
        reason=failure.reason,
        message=failure.message,
        retryable=failure.retryable,
        error_type=failure.error_type,
        traceback=failure.traceback,
        cause=failure_message(failure.cause) if failure.cause is not None else None,
    )


def failure_of(message: failure_pb2.Failure) -> Failure:
    """A failure as the core has it."""
    return Failure(
        kind=_KINDS.get(message.kind, FailureKind.SYSTEM),  # What a kind counts as that this version does not know.
        reason=message.reason or "UNKNOWN",
        message=message.message,
        retryable=message.retryable,
        error_type=message.error_type,
        traceback=message.traceback,
        cause=failure_of(message.cause) if message.HasField("cause") else None,
    )


def timestamp(time_ms: int) -> Timestamp:
    """An instant as it travels."""
    seconds, rest = divmod(time_ms, 1000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000_000)


def timestamp_or_none(time_ms: int) -> Timestamp | None:
    """An instant as it travels, or nothing for 0."""
    return timestamp(time_ms) if time_ms else None
