"""Workers as people see them: what is known of one for good, joined with the session that it has now.

Owns the join and the words for it. Must not know who asks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from nodeflow_worker_manager.domain.sessions import Session, SessionState


class WorkerState(StrEnum):
    """Whether a worker can be reached."""

    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    DRAINING = "DRAINING"
    OFFLINE = "OFFLINE"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownWorker:
    """A worker as the state-manager knows it. Times are milliseconds since the Unix epoch."""

    worker_id: str
    live_session_ids: tuple[str, ...]
    labels: Mapping[str, str]
    version: str
    register_time_ms: int
    last_session_time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A known worker with the session that it has now, if any. Times are milliseconds since the Unix epoch."""

    known: KnownWorker
    session: Session | None
    state: WorkerState
    last_seen_time_ms: int


def join(known: KnownWorker, session: Session | None, *, now: float, now_ms: int) -> Worker:
    """Join a worker with its session, at monotonic time `now` and wall time `now_ms`."""
    seen_ms = known.last_session_time_ms
    if session is not None:
        seen_ms = max(now_ms - round((now - session.last_seen) * 1_000), seen_ms)
    return Worker(known=known, session=session, state=_state(session), last_seen_time_ms=seen_ms)


def _state(session: Session | None) -> WorkerState:
    if session is None or session.state in (SessionState.REGISTERING, SessionState.CLOSED):
        return WorkerState.OFFLINE
    if session.draining or session.drain_requested:
        return WorkerState.DRAINING
    return WorkerState.CONNECTED if session.state is SessionState.CONNECTED else WorkerState.DISCONNECTED
