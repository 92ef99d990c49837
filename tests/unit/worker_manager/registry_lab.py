"""What tests of the worker-manager's core are made of: what peers say, and a core whose clock stands still."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nodeflow_worker_manager.domain import events as ev
from nodeflow_worker_manager.domain import instructions as do
from nodeflow_worker_manager.domain.registry import SessionRegistry
from nodeflow_worker_manager.domain.reports import Assignments, Fenced, Updates
from nodeflow_worker_manager.domain.sessions import Capacity, SessionState

LEASE = 10.0
BID = Capacity(slots=2, credits=1)


@dataclass(frozen=True)
class Report:
    """Held attempts or updates: names by shard."""

    shards: tuple[tuple[int, str], ...] = ()

    @property
    def size_bytes(self) -> int:
        return 0

    @property
    def live_count(self) -> int:
        return len(self.shards)

    @property
    def ended_count(self) -> int:
        return len(self.shards)

    def _only(self, shards: Container[int]) -> tuple[tuple[int, str], ...]:
        return tuple(entry for entry in self.shards if entry[0] in shards)


class HeldReport(Report):
    def only(self, shards: Container[int]) -> "HeldReport":
        return HeldReport(self._only(shards))

    def plus(self, batches: Sequence[Assignments]) -> "HeldReport":
        added = [(shard, name) for batch in batches if isinstance(batch, Batch) for shard, _, name in batch.tasks]
        return HeldReport((*self.shards, *added))


class UpdateReport(Report):
    def only(self, shards: Container[int]) -> "UpdateReport | None":
        part = self._only(shards)
        return UpdateReport(part) if part else None


@dataclass(frozen=True)
class Batch:
    """Assignments: (shard, token, name)."""

    tasks: tuple[tuple[int, int, str], ...]

    @property
    def size_bytes(self) -> int:
        return 0

    @property
    def count(self) -> int:
        return len(self.tasks)

    def without(self, updates: Updates) -> "Batch":
        assert isinstance(updates, UpdateReport)
        return Batch(tuple(task for task in self.tasks if (task[0], task[2]) not in updates.shards))

    def fence(self, tokens: Mapping[int, int]) -> Fenced:
        current = tuple(task for task in self.tasks if task[1] >= tokens.get(task[0], 0))
        stale = tuple((task[0], task[2]) for task in self.tasks if task not in current)
        return Fenced(Batch(current) if current else None, UpdateReport(stale) if stale else None)


def held(*shards: tuple[int, str]) -> HeldReport:
    return HeldReport(shards)


def reported(*shards: tuple[int, str]) -> UpdateReport:
    return UpdateReport(shards)


class Core:
    """The core with a clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.core = SessionRegistry(lease_timeout_s=LEASE)
        self.now = 100.0

    def when(self, *events: ev.Event) -> list[do.Instruction]:
        """Take events in; return what the last one led to."""
        instructions: list[do.Instruction] = []
        for event in events:
            instructions = self.core.handle(event, self.now)
        return instructions

    def tick(self, now: float) -> list[do.Instruction]:
        self.now = now
        return self.when(ev.Tick())

    def state(self, session_id: str = "A") -> SessionState:
        return self.core.sessions[session_id].state


def hello(connection: int = 1, session_id: str = "A", worker_id: str = "w", replaced: Iterable[str] = ()) -> ev.Event:
    facts = ev.Hello(worker_id=worker_id, session_id=session_id, capacity=BID, replaced_session_ids=tuple(replaced))
    return ev.HelloReceived(connection=connection, hello=facts)


def registered(session_id: str = "A", *, created: bool = True) -> ev.Event:
    return ev.SessionRegistered(session_id=session_id, created=created)


def connected(session_id: str = "A", connection: int = 1, *holds: tuple[int, str]) -> list[ev.Event]:
    """A worker that was welcomed and has said what it holds."""
    return [
        hello(connection, session_id),
        registered(session_id),
        ev.HeldReceived(connection=connection, held=held(*holds)),
    ]


def attached(stream: int = 7, scheduler_id: str = "s", **tokens: int) -> list[ev.Event]:
    """A scheduler that attached and claimed shards: `shard_3=5` is shard 3 under token 5."""
    claims = {int(shard.removeprefix("shard_")): token for shard, token in tokens.items()}
    events: list[ev.Event] = [ev.SchedulerAttached(stream=stream, scheduler_id=scheduler_id)]
    return [*events, ev.ShardsClaimed(stream=stream, tokens=claims)] if claims else events


def opened(session_id: str = "A", capacity: Capacity = BID, *, is_connected: bool = True) -> do.OpenedSession:
    return do.OpenedSession(session_id=session_id, worker_id="w", capacity=capacity, labels={}, connected=is_connected)


def beat(number: int = 1, capacity: Capacity = BID, *, draining: bool = False, connection: int = 1) -> ev.Event:
    return ev.HeartbeatReceived(connection=connection, beat=number, capacity=capacity, draining=draining)


def assign(stream: int, *tasks: tuple[int, int, str], session_id: str = "A", generation: int = 1) -> ev.Event:
    """Assignments of a scheduler that has read one report, unless it says otherwise."""
    batch = Batch(tasks)
    return ev.AssignmentsReceived(stream=stream, session_id=session_id, generation=generation, batch=batch)


def given(*tasks: tuple[int, int, str], connection: int = 1) -> do.Assign:
    return do.Assign(connection=connection, batch=Batch(tasks))


def reports(*holds: tuple[int, str], connection: int = 1) -> ev.Event:
    """The worker says what it holds."""
    return ev.HeldReceived(connection=connection, held=held(*holds))


def send_held(*holds: tuple[int, str], stream: int = 7, generation: int = 1) -> do.SendHeld:
    """The report as a scheduler is sent it: its first, unless it says otherwise."""
    return do.SendHeld(stream=stream, session_id="A", generation=generation, held=held(*holds))
