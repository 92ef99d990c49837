"""The directory of workers: the registry's pages, joined with the sessions that live here.

Owns listing and draining. Must not know messages.
"""

from dataclasses import dataclass
from typing import Final

from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import FieldViolation, InvalidInput, NotFound
from nodeflow_worker_manager.domain.events import DrainRequested
from nodeflow_worker_manager.domain.sessions import Session, SessionState
from nodeflow_worker_manager.domain.workers import KnownWorker, Worker, WorkerState, join
from nodeflow_worker_manager.driver import Driver
from nodeflow_worker_manager.ports import Registry

DEFAULT_PAGE: Final = 100
MAX_PAGE: Final = 1_000
CALL_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Workers by id; an empty token means that there are no more."""

    workers: list[Worker]
    next_page_token: str


class WorkerDirectory:
    """Joins the registry with the driver's live sessions."""

    def __init__(self, driver: Driver, registry: Registry, clock: Clock) -> None:
        self._driver = driver
        self._registry = registry
        self._clock = clock

    async def page(self, size: int, token: str, state: WorkerState | None, timeout_s: float | None) -> Page:
        """Return a page of workers, of one state if given. It may be short, but only the last is empty."""
        if size < 0:
            fault = FieldViolation("page_size", f"is {size}", "0 for the default, or up to 1000")
            raise InvalidInput("page_size is negative", violations=[fault])
        size = min(size or DEFAULT_PAGE, MAX_PAGE)
        while True:
            known = await self._registry.list_workers(size, token, live_only=False, timeout_s=_within(timeout_s))
            live = self._sessions_by_worker()
            joined = [self._join(each, live.get(each.worker_id)) for each in known.workers]
            workers = [each for each in joined if state is None or each.state is state]
            token = known.next_page_token
            if workers or not token:
                return Page(workers=workers, next_page_token=token)

    async def drain(self, worker_id: str, timeout_s: float | None) -> Worker:
        """Tell a worker to finish and leave; nothing happens if it has left already. NotFound if it was never known."""
        self._driver.feed((DrainRequested(worker_id=worker_id),))
        known = await self._find(worker_id, timeout_s)
        return self._join(known, self._sessions_by_worker().get(worker_id))

    async def _find(self, worker_id: str, timeout_s: float | None) -> KnownWorker:
        token = ""
        while True:
            known = await self._registry.list_workers(MAX_PAGE, token, live_only=False, timeout_s=_within(timeout_s))
            for each in known.workers:
                if each.worker_id == worker_id:
                    return each
            token = known.next_page_token
            if not token:
                raise NotFound(f"no worker has the id {worker_id}", metadata={"worker_id": worker_id})

    def _sessions_by_worker(self) -> dict[str, Session]:
        """Return one session of each worker: a connected one if there is one."""
        sessions: dict[str, Session] = {}
        for session in self._driver.core.sessions.values():
            if session.worker_id not in sessions or session.state is SessionState.CONNECTED:
                sessions[session.worker_id] = session
        return sessions

    def _join(self, known: KnownWorker, session: Session | None) -> Worker:
        return join(known, session, now=self._clock.monotonic(), now_ms=self._clock.now_ms())


def _within(timeout_s: float | None) -> float:
    return CALL_TIMEOUT_S if timeout_s is None else min(timeout_s, CALL_TIMEOUT_S)
