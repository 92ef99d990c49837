"""Errors on the wire: NodeflowError ↔ google.rpc.Status with ErrorInfo, BadRequest and RetryInfo.

Owns the mapping in both directions. Must not know who raises or handles an error.
"""

import re
from collections.abc import Iterable
from typing import Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from nodeflow_shared.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FieldViolation,
    IllegalState,
    Internal,
    InvalidInput,
    NodeflowError,
    NotFound,
    OutOfRange,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    StaleLease,
    Unauthenticated,
    Unavailable,
)

D = TypeVar("D", bound=Message)

DOMAIN: Final = "nodeflow"
DETAILS_KEY: Final = "grpc-status-details-bin"

# Peers may refuse trailers above 8 KiB (the default of most gRPC libraries), and then the caller sees a meaningless
# error: so what we say is cut to fit. The message goes twice: in the status (as base64), and percent-encoded.
MAX_STATUS_BYTES: Final = 4096
MAX_MESSAGE_BYTES: Final = 1000
MAX_PART_BYTES: Final = 400

_HINT: Final = " — try: "
_KIND: Final = "errorKind"
# The last is what grpc.aio makes of a write that meets the end of its stream, in place of the status that ended it
# (grpc/grpc#36066): whoever connects again is told that status.
_BROKEN: Final = ("RST_STREAM", "GOAWAY", "Stream removed", "Internal error from Core")
_NANOS: Final = 1_000_000_000
_MESSAGE_TOO_LARGE: Final = re.compile(r"message larger than max \((\d+) vs\. (\d+)\)")

# Where two kinds share a code, the first is what the bare code means.
_KINDS: Final[tuple[type[NodeflowError], ...]] = (
    InvalidInput,
    NotFound,
    AlreadyExists,
    IllegalState,
    StaleLease,
    OutOfRange,
    Conflict,
    Overloaded,
    QuotaExceeded,
    Unavailable,
    DeadlineExceeded,
    PermissionDenied,
    Unauthenticated,
    Internal,
)
_BY_CODE: Final = {kind.code_name: kind for kind in reversed(_KINDS)}
_BY_REASON: Final = {kind.reason: kind for kind in _KINDS}


def to_status(error: NodeflowError) -> status_pb2.Status:
    """Return the error as a rich status; long messages and many violations are cut to what a trailer can carry."""
    message = _cut(error.message, MAX_MESSAGE_BYTES)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code_name), message=message)
    kind = _kind_of(error)
    metadata = {key: _cut(value, MAX_PART_BYTES) for key, value in error.metadata.items()}
    if _BY_REASON.get(error.reason) is not kind and _BY_CODE[error.code_name] is not kind:
        metadata[_KIND] = kind.reason
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_s * _NANOS))
        status.details.add().Pack(retry)
    if error.violations:
        room = MAX_STATUS_BYTES - status.ByteSize()
        status.details.add().Pack(_bad_request(error.violations, room))
    return status


def from_rpc_error(error: grpc.RpcError) -> NodeflowError:
    """Return what the server raised, as far as the call tells; transport failures become Unavailable.

    Foreign servers and unknown or broken details are tolerated: the code alone then decides.
    """
    code, message, trailers = _parts(error)
    too_large = _MESSAGE_TOO_LARGE.search(message) if code is grpc.StatusCode.RESOURCE_EXHAUSTED else None
    if too_large is not None:
        return _message_too_large(too_large)
    return _error(code.name, message, _status_in(trailers), broken=_is_broken(code, message))


def from_status(data: bytes) -> NodeflowError:
    """Return the error in a serialised `google.rpc.Status` that travelled in a message; Internal if it is none."""
    try:
        status = status_pb2.Status.FromString(data)
        name = code_pb2.Code.Name(status.code)
    except (DecodeError, ValueError):
        return Internal("the answer holds an error that cannot be read")
    return _error(name, status.message, status, broken=False)


def _error(code_name: str, message: str, status: status_pb2.Status, *, broken: bool) -> NodeflowError:
    info = _detail(status, error_details_pb2.ErrorInfo)
    retry = _detail(status, error_details_pb2.RetryInfo)
    bad = _detail(status, error_details_pb2.BadRequest)
    metadata = dict(info.metadata) if info else {}
    named = metadata.pop(_KIND, info.reason if info and info.domain == DOMAIN else "")
    kind = _BY_REASON.get(named)
    if kind is None or kind.code_name != code_name:
        kind = Unavailable if info is None and broken else _BY_CODE.get(code_name, Internal)
    foreign_reason = None if kind.code_name == code_name else code_name
    return kind(
        message or code_name,
        reason=(info.reason if info else None) or foreign_reason,
        metadata=metadata,
        violations=[_violation(each) for each in bad.field_violations] if bad else (),
        retry_after_s=retry.retry_delay.ToNanoseconds() / _NANOS if retry else None,
    )


def _message_too_large(found: re.Match[str]) -> InvalidInput:
    """Return what the transport's refusal means: it has the code of an overload, but no repeat will help."""
    size, limit = (f"{int(number):,}" for number in found.groups())
    description = f"a message of {size} bytes is too large; at most {limit} are allowed"
    hint = "pass large values as paths to files or as artifacts"
    return InvalidInput(description, reason="MESSAGE_TOO_LARGE", violations=[FieldViolation("", description, hint)])


def _is_broken(code: grpc.StatusCode, message: str) -> bool:
    """Whether the transport broke under the call: then the code says little, and only the transport's words tell."""
    if code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}:
        return any(words in message for words in _BROKEN)
    return code is grpc.StatusCode.CANCELLED


def _kind_of(error: NodeflowError) -> type[NodeflowError]:
    """Return the nearest class that both sides know: services may derive their own."""
    return next((kind for kind in type(error).__mro__ if kind in _KINDS), Internal)


def _cut(text: str, limit_bytes: int) -> str:
    """Return as much of the text as fits into `limit_bytes` when percent-encoded."""
    room = limit_bytes
    for index, char in enumerate(text):
        room -= 1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode(errors="replace"))
        if room < 0:
            return text[: max(index - 9, 0)] + "…"  # which takes nine bytes itself
    return text


def _bad_request(violations: Iterable[FieldViolation], room: int) -> error_details_pb2.BadRequest:
    reserve = 128  # for the last entry and for the Any around it
    bad = error_details_pb2.BadRequest()
    dropped = 0
    for each in violations:
        path = _cut(each.path, MAX_PART_BYTES)
        entry = error_details_pb2.BadRequest.FieldViolation(field=path, description=_describe(each))
        room -= entry.ByteSize() + 3
        if room < reserve:
            dropped += 1
        else:
            bad.field_violations.append(entry)
    if dropped:
        bad.field_violations.add(field="", description=f"and {dropped} more; correct the ones above to see them")
    return bad


def _describe(violation: FieldViolation) -> str:
    # The marker is also written when the description contains it itself, so that `_violation` always splits at ours.
    if violation.hint or _HINT in violation.description:
        return f"{_cut(violation.description, MAX_PART_BYTES)}{_HINT}{_cut(violation.hint, MAX_PART_BYTES)}"
    return _cut(violation.description, MAX_PART_BYTES)


def _violation(entry: error_details_pb2.BadRequest.FieldViolation) -> FieldViolation:
    description, marker, hint = entry.description.rpartition(_HINT)
    if not marker:
        return FieldViolation(entry.field, entry.description)
    return FieldViolation(entry.field, description, hint)


def _parts(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, Iterable[tuple[str, str | bytes]]]:
    """Read code, message and trailers: the error of an aio call, or of a blocking one (which is a call itself)."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code(), error.details() or "", error.trailing_metadata() or ()
    if isinstance(error, grpc.Call):
        return error.code(), error.details() or "", error.trailing_metadata() or ()
    return grpc.StatusCode.UNKNOWN, str(error), ()


def _status_in(trailers: Iterable[tuple[str, str | bytes]]) -> status_pb2.Status:
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _detail(status: status_pb2.Status, kind: type[D]) -> D | None:
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            try:
                packed.Unpack(detail)
            except DecodeError:
                return None
            return detail
    return None
