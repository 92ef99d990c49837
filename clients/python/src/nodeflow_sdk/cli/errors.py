"""What a person reads when something is wrong, and the exit code that a script reads.

Owns the wording of errors of the API. Must not know any command.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum

from rich.text import Text

from nodeflow_shared.errors import (
    DeadlineExceeded,
    FieldViolation,
    IllegalState,
    Internal,
    NodeflowError,
    NotFound,
    Overloaded,
    QuotaExceeded,
    Unavailable,
)


class ExitCode(IntEnum):
    """What the process says at its end."""

    SUCCESS = 0
    FAILED = 1
    """The execution failed or was cancelled, or its state forbids what was asked."""
    USAGE = 2
    """A wrong option, an unreadable file, a malformed input, an id that does not exist."""
    REFUSED = 3
    """It cannot be scheduled: an invalid document, invalid inputs, a quota."""
    UNREACHABLE = 4
    """No service answers, or no suite can be started."""
    BUG = 70
    """A fault of ours."""
    INTERRUPTED = 130
    """Ctrl-C."""


class CliError(Exception):
    """Ends the command: a message, lines of detail, what would be right, and the exit code."""

    def __init__(self, message: str, exit_code: ExitCode, *, details: Sequence[Text] = (), hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.details = tuple(details)
        self.hint = hint

    def lines(self) -> Iterable[Text]:
        """Give the error as lines for a terminal."""
        yield Text.assemble(("error: ", "bold red"), self.message)
        yield from self.details
        if self.hint:
            yield Text.assemble(("try: ", "bold"), self.hint)


def usage_error(message: str, hint: str = "") -> CliError:
    """Return an error of whoever typed the command."""
    return CliError(message, ExitCode.USAGE, hint=hint)


def from_api(error: NodeflowError, address: str) -> CliError:
    """Return what an error of the API means to a person who asked the service at `address`."""
    match error:
        case Unavailable() if error.reason == "DISK_FULL":
            return CliError(
                f"nothing can be stored now: {error.message}",
                ExitCode.REFUSED,
                hint="make room on the disk of the state-manager, and repeat; running executions go on by themselves",
            )
        case Unavailable():
            return CliError(
                f"no Node Flow scheduler answers at {address} ({_transport_words(error.message)})",
                ExitCode.UNREACHABLE,
                hint="start a suite with `nodeflow up`, or name one with --address or NODEFLOW_ADDRESS",
            )
        case DeadlineExceeded():
            return CliError(
                f"the service at {address} did not answer in time",
                ExitCode.UNREACHABLE,
                hint="look at its log, and repeat",
            )
        case QuotaExceeded() | Overloaded():
            after = f"repeat after {error.retry_after_s:.0f} s" if error.retry_after_s else "repeat later"
            return CliError(error.message, ExitCode.REFUSED, hint=after)
        case Internal() if error.reason == "UNIMPLEMENTED":
            return CliError(
                f"the service at {address} does not have this call",
                ExitCode.UNREACHABLE,
                hint="is it a Node Flow scheduler?",
            )
        case Internal():
            return CliError(f"the service failed: {error.message}", ExitCode.BUG)
        case IllegalState():
            return CliError(error.message, ExitCode.FAILED)
        case NotFound() if error.reason == "EXECUTION_NOT_FOUND":
            return CliError(error.message, ExitCode.USAGE, hint="nodeflow ls, which lists those there are")
        case NotFound() if error.reason == "WORKFLOW_NOT_FOUND":
            return CliError(error.message, ExitCode.USAGE, hint="nodeflow workflows, which lists those there are")
        case _:
            return refusal(error, ExitCode.USAGE)


def refusal(error: NodeflowError, exit_code: ExitCode) -> CliError:
    """Return the error for a request that is at fault, with its violations."""
    match error.violations:
        case [only] if error.message in (only.description, f"{only.path}: {only.description}"):
            # Once is enough.
            return CliError(error.message, exit_code, hint=only.hint)
        case violations:
            return CliError(error.message, exit_code, details=violation_lines(violations))


def violation_lines(violations: Iterable[FieldViolation]) -> list[Text]:
    """Return a line or two for each fault of a request."""
    lines = []
    for each in violations:
        lines.append(Text.assemble("  ", (f"{each.path}: " if each.path else "", "bold"), each.description))
        if each.hint:
            lines.append(Text.assemble(("    try: ", "bold"), each.hint))
    return lines


def _transport_words(message: str) -> str:
    """Return the cause at the end of gRPC's chain of causes."""
    cause = message.rpartition("last error: ")[2] or message
    if "refused" in cause.lower():
        return "connection refused"
    return cause if len(cause) <= 160 else f"{cause[:159]}…"
