"""The errors that services raise and that callers receive, one class per kind of fault.

Owns the vocabulary only: it knows nothing of gRPC or protobuf (`status` maps to and from the wire), so that pure domain
code may import it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One fault in a request: where it is, what is wrong, and what would be right."""

    path: str
    description: str
    hint: str = ""


class NodeflowError(Exception):
    """A fault with a canonical code, told to the caller as it is: the message must be fit for a user's eyes.

    `reason` is the machine-readable cause (UPPER_SNAKE), `metadata` its facts, `violations` the faults of a request by
    field, `retry_after_s` the seconds after which a repeat may succeed.
    """

    code_name: ClassVar[str] = "INTERNAL"
    reason: str = "INTERNAL"
    """The class's value is the default of its instances."""

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] = MappingProxyType({}),
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.metadata = dict(metadata)
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s


class InvalidInput(NodeflowError):
    """The request is wrong whatever the state of the system; `violations` say where."""

    code_name = "INVALID_ARGUMENT"
    reason = "INVALID_INPUT"


class NotFound(NodeflowError):
    """What the request names does not exist, or is not visible to the caller."""

    code_name = "NOT_FOUND"
    reason = "NOT_FOUND"


class AlreadyExists(NodeflowError):
    """What the request would create exists already, with another content."""

    code_name = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class IllegalState(NodeflowError):
    """The present state does not allow the request; a repeat fails until the state has been changed."""

    code_name = "FAILED_PRECONDITION"
    reason = "ILLEGAL_STATE"


class StaleLease(NodeflowError):
    """The caller's lease has ended or its fencing token is older than one seen; it must stop acting on it."""

    code_name = "FAILED_PRECONDITION"
    reason = "STALE_LEASE"


class OutOfRange(NodeflowError):
    """A position lies outside of what is kept; the message names the range."""

    code_name = "OUT_OF_RANGE"
    reason = "OUT_OF_RANGE"


class Conflict(NodeflowError):
    """A concurrent change came first; read again and repeat from there."""

    code_name = "ABORTED"
    reason = "CONFLICT"


class QuotaExceeded(NodeflowError):
    """The caller has used up what it was granted."""

    code_name = "RESOURCE_EXHAUSTED"
    reason = "QUOTA_EXCEEDED"


class Overloaded(NodeflowError):
    """A queue is full; repeat after `retry_after_s`."""

    code_name = "RESOURCE_EXHAUSTED"
    reason = "OVERLOADED"


class Unavailable(NodeflowError):
    """The service cannot be reached or cannot answer now; a repeat may succeed."""

    code_name = "UNAVAILABLE"
    reason = "UNAVAILABLE"


class DeadlineExceeded(NodeflowError):
    """The time that the caller gave ran out; the request may or may not have taken effect."""

    code_name = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class PermissionDenied(NodeflowError):
    """The caller is known and may not do this."""

    code_name = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"


class Unauthenticated(NodeflowError):
    """The caller has not shown who it is."""

    code_name = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class Internal(NodeflowError):
    """A fault of ours."""

    code_name = "INTERNAL"
    reason = "INTERNAL"


class StartupError(Exception):
    """A process cannot start as it was told to; the message is one line and says what would be right."""
