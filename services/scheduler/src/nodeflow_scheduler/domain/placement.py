"""Which worker gets which attempt, and who holds what.

What is waiting and who holds what is derived from committed grants and the reports of workers (promise I6); nothing is
counted beside them. An attempt that was handed out, or may have been handed out by an earlier scheduler, is in exactly
one place: `ready` (waits for a worker), a session's `live` (that session answers for it), or `doubtful` (it may be held
by a session that has not reported yet). What is still doubtful when every session has reported was certainly lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.lifecycle import TaskState

_QUEUED = int(TaskState.QUEUED)

Key = tuple[str, int, int]
"""An attempt: execution id, task number, attempt number."""


class Grant(NamedTuple):
    """An attempt to hand out."""

    execution: Execution
    task: int
    attempt: int

    @property
    def key(self) -> Key:
        """The attempt's name."""
        return (self.execution.execution_id, self.task, self.attempt)

    @property
    def is_wanted(self) -> bool:
        """Whether the task still waits for this very attempt."""
        execution, task, attempt = self
        return execution.states[task] == _QUEUED and execution.attempts[task] == attempt


WITHHELD_MS = 500
"""How long a worker that refused an attempt is left alone, if nothing is heard of it."""

LIGHT_BYTES = 4 * 1024
"""Arguments up to this size do not count: they are bounded by the number of attempts."""
LOAD_BYTES = 16 * 1024 * 1024
"""What arguments of attempts take that a session has not begun, before it gets no more. The last may go beyond it."""


@dataclass(slots=True)
class Session:
    """A worker session, as a worker-manager announced it."""

    session_id: str
    worker_id: str
    manager: str
    """The worker-manager that can reach it."""
    slots: int = 0
    credits: int = 0
    generation: int = 0
    """The last `held` report; 0 before the first, and then nothing may be handed out."""
    live: set[Key] = field(default_factory=set)
    withheld: bool = False
    """It refused something; nothing more until an attempt or its acknowledgement makes room, or its bid changes.

    Or for WITHHELD_MS: what fills it may be another scheduler's, of which nothing is heard here.
    """
    loads: dict[Key, int] = field(default_factory=dict)
    """What arguments take of those in `live` that it has not begun, in bytes; not of light ones."""
    load_bytes: int = 0

    def load(self, key: Key, size_bytes: int) -> None:
        """An attempt is on its way to it."""
        if size_bytes > LIGHT_BYTES:
            self.loads[key] = size_bytes
            self.load_bytes += size_bytes

    def unload(self, keys: Iterable[Key]) -> None:
        """It has begun attempts, or does not have them any more."""
        if self.loads:
            self.load_bytes -= sum([self.loads.pop(key, 0) for key in keys])

    def keep(self, keys: set[Key]) -> None:
        """It answers for these, and for no others."""
        self.live = keys
        self.unload(self.loads.keys() - keys)

    @property
    def free_slots(self) -> int:
        """How many attempts would begin at once."""
        return self.slots - len(self.live) if self.takes else 0

    @property
    def room(self) -> int:
        """How many attempts it would take."""
        return self.slots + self.credits - len(self.live) if self.takes else 0

    @property
    def takes(self) -> bool:
        """Whether it would take an attempt, if it had a place for it."""
        return self.generation > 0 and not self.withheld and self.load_bytes < LOAD_BYTES


_NOBODY = frozenset[str]()
_SWEEP_FROM = 1_024


class Placement:
    """All sessions, and all attempts that are handed out or wait to be."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.ready: deque[Grant] = deque()
        self.doubtful: set[Key] = set()
        self._passed_over: dict[frozenset[str], deque[Grant]] = {}
        """Also ready, but not for these sessions. In lines of their own, so that nobody looks at them in each turn."""
        self._sweep_at = _SWEEP_FROM
        self._unfit: dict[str, dict[int, frozenset[str]]] = {}
        """The sessions that do not have the code of an execution's nodes, by node."""
        self._attached: set[str] = set()
        self._withheld_until_ms: dict[str, int] = {}
        """By session id."""

    # ---------------------------------------------------------------- sessions

    def on_opened(self, session: Session) -> None:
        """A session is known from now on. What an earlier one of the same id held is in doubt until it reports."""
        before = self.sessions.get(session.session_id)
        if before is not None:
            self.doubtful |= before.live
        self.sessions[session.session_id] = session

    def on_held(self, session_id: str, generation: int, held: Iterable[Key], finished: Iterable[Key]) -> set[Key]:
        """A session reported all that it holds and all results it has; returns what was lost on the way to it."""
        session = self.sessions[session_id]
        held_keys = set(held)
        missing = session.live - held_keys - set(finished)
        session.keep(held_keys)
        session.unload(held_keys)  # What it names has come to it; what it has begun may not have been told.
        session.generation = generation
        session.withheld = False
        self.doubtful -= held_keys
        return missing

    def on_capacity(self, session_id: str, slots: int, credit_limit: int) -> None:
        """A session's standing bid changed."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.slots, session.credits, session.withheld = slots, credit_limit, False

    def on_closed(self, session_id: str) -> set[Key]:
        """A session ended; returns what it held."""
        session = self.sessions.pop(session_id, None)
        return session.live if session is not None else set()

    def on_acknowledged(self, session_id: str) -> None:
        """A session was told that results are committed, which may have been what it had no room for."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.withheld = False

    def on_refused(self, session_id: str, refused: Iterable[Key], now_ms: int) -> set[Key]:
        """A session did not take attempts; returns those that it had to answer for, and no longer does."""
        session = self.sessions.get(session_id)
        keys = set(refused)
        given_back = keys & self.doubtful
        self.doubtful -= given_back
        if session is not None:
            given_back |= keys & session.live
            session.live -= keys
            session.unload(keys)
            session.withheld = True
            self._withheld_until_ms[session_id] = now_ms + WITHHELD_MS
        return given_back

    def try_again(self, now_ms: int) -> None:
        """Sessions that refused something some time ago are asked again."""
        if not self._withheld_until_ms:
            return
        for session_id in [each for each, until_ms in self._withheld_until_ms.items() if until_ms <= now_ms]:
            del self._withheld_until_ms[session_id]
            session = self.sessions.get(session_id)
            if session is not None:
                session.withheld = False

    def next_try_ms(self) -> int | None:
        """When `try_again` has something to do."""
        return min(self._withheld_until_ms.values(), default=None)

    def on_unfit(self, session_id: str, execution: Execution, node: int) -> bool:
        """A session has other code than a node asks for: it gets no more of it; returns whether another one may fit.

        Remembered for this execution alone: what a worker has may be put right before the next one.
        """
        unfit = self._unfit.setdefault(execution.execution_id, {})
        unfit[node] = sessions = unfit.get(node, _NOBODY) | {session_id}
        return any(
            not session.generation or (session.slots and each not in sessions)
            for each, session in self.sessions.items()
        )

    def fits(self, session_id: str, execution: Execution, task: int) -> bool:
        """Whether a session may have the code that a task asks for."""
        return session_id not in self._unfit_for(execution, task)

    def _unfit_for(self, execution: Execution, task: int) -> frozenset[str]:
        unfit = self._unfit.get(execution.execution_id)
        return unfit.get(execution.node_of(task), _NOBODY) if unfit is not None else _NOBODY

    def put_back(self, grants: Sequence[Grant]) -> None:
        """Attempts that never started go to the front of the line."""
        self.ready.extendleft(reversed(grants))

    def take_back(self, session: Session, grants: Sequence[Grant]) -> None:
        """Attempts that were assigned to a session, and not handed out, are its no more; `put_back` is to follow."""
        session.live.difference_update([grant.key for grant in grants])

    def on_manager_attached(self, manager: str) -> None:
        """A worker-manager has named all its sessions."""
        self._attached.add(manager)

    def on_manager_lost(self, manager: str) -> None:
        """A worker-manager is out of reach; its workers may go on, and what they hold is in doubt until they report."""
        self._attached.discard(manager)
        for session in [session for session in self.sessions.values() if session.manager == manager]:
            self.doubtful |= session.live
            del self.sessions[session.session_id]

    def certain(self, managers: Iterable[str]) -> bool:
        """Whether every session that could hold a doubtful attempt has reported."""
        return self._attached.issuperset(managers) and all(session.generation for session in self.sessions.values())

    def take_doubtful(self, most: int) -> list[Key]:
        """Some of what is in doubt, in order, for whoever settles it."""
        taken = sorted(self.doubtful)[:most]
        self.doubtful.difference_update(taken)
        return taken

    # ------------------------------------------------------------------ grants

    def enqueue(self, execution: Execution, queued: Iterable[tuple[int, int]]) -> None:
        """Attempts whose QUEUED event is committed."""
        self.ready.extend([Grant(execution, task, attempt) for task, attempt in queued])
        if self.waiting > self._sweep_at:
            self._keep(lambda grant: grant.is_wanted)
            self._sweep_at = max(_SWEEP_FROM, 2 * self.waiting)

    @property
    def waiting(self) -> int:
        """How many attempts wait for a worker; some of them may not be wanted any more."""
        count = len(self.ready)
        return count + sum(map(len, self._passed_over.values())) if self._passed_over else count

    def _keep(self, is_kept: Callable[[Grant], bool]) -> None:
        """Takes others out of the line: without workers, nobody else ever does."""
        self.ready = deque(filter(is_kept, self.ready))
        kept = {unfit: deque(filter(is_kept, line)) for unfit, line in self._passed_over.items()}
        self._passed_over = {unfit: line for unfit, line in kept.items() if line}

    def doubt(self, key: Key) -> None:
        """An attempt that an earlier scheduler may have handed out."""
        self.doubtful.add(key)

    def forget(self, shards: frozenset[int], executions: Iterable[str]) -> None:
        """Shards are not ours any more, nor are their executions.

        What workers hold of them is the next owner's, and so is every word on it: counted here, it would never end. A
        worker that it fills refuses what is too much.
        """
        self._keep(lambda grant: grant.execution.shard not in shards)
        gone = frozenset(executions)
        for session in self.sessions.values():
            session.keep({key for key in session.live if key[0] not in gone})
        for execution_id in gone:
            self._unfit.pop(execution_id, None)

    def on_finished(self, execution_id: str) -> None:
        """An execution is over."""
        self._unfit.pop(execution_id, None)

    def assign(self, *, by_slots: bool, most: int) -> dict[str, list[Grant]]:
        """Hands out what waits, evenly: to free slots, or to credits, which is for when there is no free slot any more.

        Returns grants by session id, in order; no more than `most`, or a few.
        """
        assigned: dict[str, list[Grant]] = {}
        if not (self.ready or self._passed_over):
            return assigned
        rooms = [
            (room, session)
            for session in self.sessions.values()
            if (room := session.free_slots if by_slots else session.room) > 0
        ]
        rooms.sort(key=lambda each: (each[0], each[1].session_id))
        for position, (room, session) in enumerate(rooms):
            share = -(-min(self.waiting, most) // (len(rooms) - position))
            taken = self._take(session.session_id, min(room, share))
            if taken:
                session.live.update([(execution.execution_id, task, attempt) for execution, task, attempt in taken])
                assigned[session.session_id] = taken
                most -= len(taken)
                if most <= 0:
                    break
        return assigned

    def _take(self, session_id: str, count: int) -> list[Grant]:
        """The next attempts in line that are still wanted, and that the session may have the code for."""
        taken: list[Grant] = []
        for unfit, line in list(self._passed_over.items()):
            if session_id not in unfit:
                self._take_from(line, session_id, count, taken)
                if not line:
                    del self._passed_over[unfit]
        self._take_from(self.ready, session_id, count, taken)
        return taken

    def _take_from(self, line: deque[Grant], session_id: str, count: int, taken: list[Grant]) -> None:
        while len(taken) < count and line:
            grant = line.popleft()
            if not grant.is_wanted:
                continue
            if self._unfit:
                unfit = self._unfit_for(grant.execution, grant.task)
                if session_id in unfit:
                    self._passed_over.setdefault(unfit, deque()).append(grant)
                    continue
            taken.append(grant)

    def holder_of(self, key: Key) -> Session | None:
        """The session that answers for an attempt."""
        return next((session for session in self.sessions.values() if key in session.live), None)
