"""What the worker says when an attempt failed for another reason than an exception in the user's code.

Owns the words, and whose fault it is.
"""

from nodeflow_worker.domain.values import Attempt, Failure, FailureKind, Reason


def timed_out(attempt: Attempt) -> Failure:
    """Its time was up."""
    return Failure(
        kind=FailureKind.TRANSIENT,
        reason=Reason.ATTEMPT_TIMEOUT,
        message=f"{attempt.spec.title} ran longer than its {attempt.spec.timeout_s or 0:g} s and was stopped",
        retryable=True,
    )


def exited(attempt: Attempt, cause: str) -> Failure:
    """The runner died in it, by its own doing."""
    return Failure(
        kind=FailureKind.USER,
        reason=Reason.RUNNER_EXITED,
        message=f"the process that ran {attempt.spec.title} ended in the middle of it: {cause}",
        retryable=True,
    )


def runner_lost(attempt: Attempt) -> Failure:
    """The agent killed the runner, and meant another task."""
    return Failure(
        kind=FailureKind.SYSTEM,
        reason=Reason.RUNNER_LOST,
        message=f"the process that ran {attempt.spec.title} was killed because of another attempt in it",
        retryable=True,
    )


def result_lost(attempt: Attempt, cause: str) -> Failure:
    """It had ended, but its runner died before it could tell how."""
    return Failure(
        kind=FailureKind.SYSTEM,
        reason=Reason.RESULT_LOST,
        message=f"the result of {attempt.spec.title} was lost with its process: {cause}",
        retryable=True,
    )


def no_runner(attempt: Attempt, cause: str) -> Failure:
    """Runner processes do not start, or die before they begin it."""
    return Failure(
        kind=FailureKind.SYSTEM,
        reason=Reason.RUNNER_UNAVAILABLE,
        message=f"{attempt.spec.title} was not started: processes that should run it end before they can ({cause})",
        retryable=True,
    )


def not_filled(what: str, cause: str, *, retryable: bool) -> Failure:
    """A file that belongs into the working directory could not be fetched."""
    return Failure(
        kind=FailureKind.TRANSIENT if retryable else FailureKind.PERMANENT,
        reason=Reason.ARGUMENT_UNAVAILABLE,
        message=f"{what} could not be put into the working directory: {cause}",
        retryable=retryable,
    )


def source_unusable(cause: str) -> Failure:
    """The source is no archive that can be unpacked here, or a file has no place below the working directory."""
    return Failure(kind=FailureKind.PERMANENT, reason=Reason.SOURCE_UNUSABLE, message=cause, retryable=False)


def not_fetched(parameter: str, cause: str, *, retryable: bool) -> Failure:
    """An argument by reference could not be read."""
    return Failure(
        kind=FailureKind.TRANSIENT if retryable else FailureKind.PERMANENT,
        reason=Reason.ARGUMENT_UNAVAILABLE,
        message=f"the value of argument {parameter!r} could not be read: {cause}",
        retryable=retryable,
    )


def artifact_not_stored(name: str, cause: str, *, retryable: bool) -> Failure:
    """A file that was left as an artifact could not be stored."""
    return Failure(
        kind=FailureKind.TRANSIENT if retryable else FailureKind.PERMANENT,
        reason=Reason.RESULT_NOT_STORED,
        message=f"the artifact {name!r} could not be stored: {cause}",
        retryable=retryable,
    )


def not_stored(size_bytes: int, cause: str, *, retryable: bool) -> Failure:
    """A large result could not be stored."""
    return Failure(
        kind=FailureKind.TRANSIENT if retryable else FailureKind.PERMANENT,
        reason=Reason.RESULT_NOT_STORED,
        message=f"the result of {size_bytes:,} bytes could not be stored: {cause}",
        retryable=retryable,
    )
