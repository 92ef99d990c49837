"""Why something failed, as the core sees it, and the failures that the engine itself declares."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from nodeflow_scheduler.domain.expressions import EXPRESSION_FAILED, ExpressionError
from nodeflow_shared.errors import NodeflowError


class FailureKind(IntEnum):
    """Whose fault a failure is. The numbers are those on the wire."""

    TRANSIENT = 1
    PERMANENT = 2
    SYSTEM = 3
    USER = 4


TEXT_LIMIT = 16 * 1024
"""Characters of each text of a failure that a worker reports; it is kept in memory, in the log and in messages."""
CAUSES_LIMIT = 8
"""How many failures in a row that led to one are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failure of an attempt, a task or an execution."""

    kind: FailureKind
    reason: str
    """A constant in UPPER_SNAKE_CASE."""
    message: str
    retryable: bool = False
    error_type: str = ""
    traceback: str = ""
    cause: Failure | None = None

    def shortened(self, causes: int = CAUSES_LIMIT) -> Failure:
        """It, with texts and causes that are not too long for those who keep it."""
        return Failure(
            kind=self.kind,
            reason=_cut(self.reason),
            message=_cut(self.message),
            retryable=self.retryable,
            error_type=_cut(self.error_type),
            traceback=_cut(self.traceback),
            cause=self.cause.shortened(causes - 1) if self.cause is not None and causes else None,
        )


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[: TEXT_LIMIT // 2]}\n…\n{text[-TEXT_LIMIT // 2 :]}"


def expression_failed(what: str, error: NodeflowError) -> Failure:
    """An expression of the document could not be computed from the values at hand."""
    reason = error.reason if isinstance(error, ExpressionError) else EXPRESSION_FAILED
    return Failure(kind=FailureKind.USER, reason=reason, message=f"{what}: {error.message}")


def lost_too_often(losses: int) -> Failure:
    """Every attempt took its worker down, or the workers keep dying under it."""
    message = f"{losses} attempts were lost with their workers; the task may be what kills them"
    return Failure(kind=FailureKind.SYSTEM, reason="WORKER_LOST", message=message)


def items_failed(failed: int, total: int, first: Failure | None) -> Failure:
    """Items of a mapped node failed."""
    message = f"{failed} of {total} items did not complete"
    return Failure(kind=FailureKind.USER, reason="ITEMS_FAILED", message=message, cause=first)


def execution_timed_out(timeout_ms: int) -> Failure:
    """The execution's time was up."""
    message = f"the execution did not finish within {timeout_ms / 1000:g} s"
    return Failure(kind=FailureKind.TRANSIENT, reason="EXECUTION_TIMEOUT", message=message)


def node_failed(node: str, cause: Failure | None) -> Failure:
    """The execution failed because a node did."""
    kind = cause.kind if cause is not None else FailureKind.USER
    return Failure(kind=kind, reason="NODE_FAILED", message=f"node {node!r} failed", cause=cause)
