"""What agent and runner say, in the words of the other.

Owns that translation. Must not know processes, pipes, nor when anything is said.
"""

import signal

from nodeflow_worker.domain.values import OCTETS, Attempt, Ending, Failure, FailureKind, Outcome, Stored
from nodeflow_worker.runner import frames


def extras_of(attempt: Attempt) -> list[frames.Extra]:
    """Return the arguments by reference, as a runner takes them."""
    return [
        frames.Extra(each.parameter, each.content_type, each.data, [frames.Part(*part) for part in each.parts])
        for each in attempt.extras
    ]


def outcome_of(result: frames.Result) -> Outcome:
    """Return how a task ended, as the core has it."""
    match result:
        case bytes():
            return result
        case frames.Octets():
            return Stored(content_type=OCTETS, data=result.data)
        case frames.Ended():
            return Ending.STOPPED if result.started else Ending.SKIPPED
        case frames.Failed():
            return _failure(result)


def _failure(failed: frames.Failed) -> Failure:
    return Failure(
        kind=FailureKind(failed.kind),
        reason=failed.reason,
        message=failed.message,
        retryable=failed.retryable,
        error_type=failed.error_type,
        traceback=failed.traceback,
        cause=_failure(failed.cause) if failed.cause is not None else None,
    )


def exit_in_words(code: int) -> str:
    """Return how a runner ended, for a person."""
    if code == frames.STALE_EXIT:
        return "its code had changed on disk"
    if code >= 0:
        return f"it exited with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"
