"""What a worker keeps of its processes, in memory: the port `Journal` for tests.

Owns rows that outlive the simulated process: give each life the same `Kept`. What is written takes time, as on disk.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from nodeflow_worker.domain.events import Recorded
from nodeflow_worker.domain.values import Attempt, Key, ProcessIdentity, State
from nodeflow_worker.ports import Left

WRITE_S: Final = 0.002


@dataclass(slots=True)
class Kept:
    """What is on disk: by session, the processes of attempts, and the attempts that have results."""

    sessions: dict[str, dict[Key, ProcessIdentity | Attempt]] = field(default_factory=dict)


class MemoryJournal:
    """The port `Journal`. A crash (`crash`) loses what was not written yet."""

    def __init__(self, kept: Kept | None = None, *, write_s: float = WRITE_S) -> None:
        self._kept = kept or Kept()
        self._write_s = write_s
        self._session = ""
        self._tell: Callable[[Recorded], None] = _ignore
        self._crashed = False

    def listen(self, tell: Callable[[Recorded], None]) -> None:
        self._tell = tell

    def begin(self, session_id: str) -> None:
        self._kept.sessions.pop(self._session, None)
        self._session = session_id

    def note(self, attempt: Attempt, process: ProcessIdentity) -> None:
        self._rows[attempt.key] = process

    def record(self, attempt: Attempt) -> None:
        asyncio.get_running_loop().call_later(self._write_s, self._record, self._session, attempt)

    def _record(self, session_id: str, attempt: Attempt) -> None:
        if self._crashed or session_id != self._session:
            return
        self._rows[attempt.key] = _copy(attempt)
        self._tell(Recorded(attempts=[attempt]))

    def forget(self, attempts: Sequence[Attempt]) -> None:
        for each in attempts:
            self._rows.pop(each.key, None)

    async def take_over(self, session_ids: Sequence[str]) -> Left:
        found = [row for each in session_ids for row in self._kept.sessions.get(each, {}).items()]
        results = [_copy(row) for _, row in found if isinstance(row, Attempt)]
        for each in results:
            self._rows[each.key] = _copy(each)
        noted = [(key, row) for key, row in found if isinstance(row, ProcessIdentity)]
        results.sort(key=lambda each: each.attempt_number)
        unfinished, processes = tuple(key for key, _ in noted), tuple(row for _, row in noted)
        return Left(results=tuple(results), unfinished=unfinished, processes=processes)

    def drop(self, session_ids: Sequence[str], then: Callable[[], None]) -> None:
        for each in session_ids:
            self._kept.sessions.pop(each, None)
        then()

    async def close(self) -> None:
        self._tell = _ignore

    def crash(self) -> None:
        """Write nothing more."""
        self._crashed = True
        self._tell = _ignore

    @property
    def _rows(self) -> dict[Key, ProcessIdentity | Attempt]:
        return {} if self._crashed else self._kept.sessions.setdefault(self._session, {})


def _copy(attempt: Attempt) -> Attempt:
    return replace(attempt, state=State.WAITING, older=None, result_id=0)


def _ignore(_event: Recorded) -> None:
    """Before anyone listens, and after the end."""
