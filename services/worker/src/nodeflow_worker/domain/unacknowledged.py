"""Results that nobody has acknowledged yet.

Owns their numbers, and the bound on how many are kept.
"""

from collections.abc import Sequence
from typing import Final

from nodeflow_worker.domain.values import Attempt, Failure, State, Stored

MAX_BYTES: Final = 32 * 1024 * 1024
"""Nothing new is taken beyond it: all results that are kept must fit into one `held` message."""
MAX_RESULTS: Final = 65_536
ARTIFACT_BYTES: Final = 256
"""About what an artifact takes in a result."""


class Unacknowledged:
    """Attempts with their outcomes, by result number, oldest first."""

    def __init__(self) -> None:
        self._results: dict[int, Attempt] = {}
        self._bytes = 0
        self._last_id = 0

    @property
    def full(self) -> bool:
        """Whether no more attempts should be taken."""
        return len(self._results) >= MAX_RESULTS or self._bytes >= MAX_BYTES

    def add(self, attempt: Attempt) -> None:
        """Keep a result, and give it its number."""
        self._last_id += 1
        attempt.result_id = self._last_id
        attempt.result_bytes = _size_of_result(attempt)
        self._results[self._last_id] = attempt
        self._bytes += attempt.result_bytes

    def told(self) -> list[Attempt]:
        """Those that may be told; the others are still being recorded."""
        return [each for each in self._results.values() if each.state is State.FINISHED]

    def acknowledged(self, result_ids: Sequence[int]) -> list[Attempt]:
        """Let go of results; numbers that are not known are passed over."""
        found = [attempt for each in result_ids if (attempt := self._results.pop(each, None)) is not None]
        self._bytes -= sum([attempt.result_bytes for attempt in found])
        return found

    def drop(self) -> None:
        """Let go of all: they are of a session that is over."""
        for attempt in self._results.values():
            attempt.state = State.ENDED
        self._results.clear()
        self._bytes = 0
        self._last_id = 0


def _size_of_result(attempt: Attempt) -> int:
    outcome = attempt.outcome
    if type(outcome) is bytes and not attempt.artifacts:
        return len(outcome)
    size = ARTIFACT_BYTES * len(attempt.artifacts)
    if isinstance(outcome, bytes | Stored):
        return size + len(outcome if isinstance(outcome, bytes) else outcome.data)
    return size + (_size_of_failure(outcome) if isinstance(outcome, Failure) else 0)


def _size_of_failure(failure: Failure) -> int:
    size = 256 + len(failure.message) + len(failure.traceback)
    return size if failure.cause is None else size + _size_of_failure(failure.cause)
