"""How full the queues of the services are in a life: the highest level of each kind, beside its limit (I11).

Owns where queues are filled, and what each may hold beyond its limit. Must not judge what it sees.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from inspect import iscoroutinefunction
from types import FrameType
from typing import Any, Final
from unittest.mock import patch
from weakref import WeakKeyDictionary

from nodeflow_scheduler.domain import admission as admissions
from nodeflow_scheduler.domain.admission import Admission, Request
from nodeflow_sdk.audit.history import QueueLevel
from nodeflow_shared.errors import NodeflowError
from nodeflow_shared.streams import Inbox, Outbox
from nodeflow_state_manager.driver import _Budget
from nodeflow_worker.domain import unacknowledged
from nodeflow_worker.domain.agent import Agent
from nodeflow_worker_manager import driver as manager

OTHERS: Final = 32
"""What transfers, ticks, and users of a life may add to an inbox beside worker-managers."""

FULL: Final = "full_queue"
REFUSED: Final = "refused_submission"


class Levels:
    """Sees queues fill, and counts how often they were full, and submissions refused for it."""

    def __init__(self) -> None:
        self.effects: Counter[str] = Counter()
        self._highest: dict[tuple[str, int], int] = {}
        self._names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

    def rise(self, queue: str, level: int, limit: int, *, may_hold: int | None = None) -> None:
        """A queue holds so much now; it is full at its limit, and may hold that much unless it is said otherwise."""
        if level >= limit:
            self.effects[FULL] += 1
        key = (queue, limit if may_hold is None else may_hold)
        self._highest[key] = max(level, self._highest.get(key, 0))

    @property
    def queues(self) -> tuple[QueueLevel, ...]:
        """All that were seen."""
        return tuple(
            QueueLevel(queue=queue, limit=limit, highest=highest)
            for (queue, limit), highest in sorted(self._highest.items())
        )

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Look on."""
        with ExitStack() as stack:
            for owner, name, look in (
                (Outbox, "__init__", self._created),
                (Outbox, "_append", self._outbox),
                (Inbox, "__init__", self._created),
                (Inbox, "push", self._inbox),
                (_Budget, "take", self._budget),
                (Admission, "let_in", self._admission),
                (Agent, "handle", self._agent),
            ):
                stack.enter_context(patch.object(owner, name, _followed_by(getattr(owner, name), look)))
            stack.enter_context(patch.object(admissions, "overloaded", self._refuse(admissions.overloaded)))
            yield

    def _refuse(self, overloaded: Callable[[str], NodeflowError]) -> Callable[[str], NodeflowError]:
        def refused(what: str) -> NodeflowError:
            self.effects[REFUSED] += 1
            return overloaded(what)

        return refused

    def _created(self, queue: Outbox[Any] | Inbox[Any], *_: object) -> None:
        self._names[queue] = _creator()

    def _outbox(self, outbox: Outbox[Any], *_: object) -> None:
        self.rise(f"outbox of {self._names[outbox]}", len(outbox), outbox.limit)

    def _inbox(self, inbox: Inbox[Any], *_: object) -> None:
        """Beyond its limit there may be what one response of a worker-manager says: all that waited for it."""
        most = inbox.limit + manager.SCHEDULER_FRAMES + OTHERS
        self.rise(f"inbox of {self._names[inbox]}", len(inbox), inbox.limit, may_hold=most)

    def _budget(self, budget: _Budget, size: int) -> None:
        self._rise_in_company("bytes that wait for a commit", budget._used, size, budget._limit)

    def _admission(self, admission: Admission, request: Request) -> None:
        waiting, limits = admission._waiting, admission._limits
        rise = self._rise_in_company
        executions, tasks = admission.open_executions + waiting.executions, admission.open_tasks + waiting.tasks
        rise("open executions", executions, request.executions, limits.open_executions)
        rise("tasks of open executions", tasks, request.tasks, limits.open_tasks)
        rise("submissions that wait", waiting.executions, request.executions, limits.waiting_submissions)
        rise("bytes of submissions that wait", waiting.size_bytes, request.size_bytes, limits.waiting_bytes)

    def _rise_in_company(self, queue: str, level: int, newest: int, limit: int) -> None:
        """Of a queue that lets one alone in, however large it is."""
        self.rise(queue, level if level > newest else min(level, limit), limit)

    def _agent(self, agent: Agent, *_: object) -> None:
        attempts = agent.bid.slots + agent.bid._max
        results = len(agent._unacknowledged._results)
        most = unacknowledged.MAX_RESULTS
        self.rise("attempts of a worker", agent._live, attempts)
        self.rise("results without an acknowledgement", results, most, may_hold=most + attempts)


def _followed_by(original: Callable[..., Any], look: Callable[..., None]) -> Callable[..., Any]:
    """Make a method that lets us look when it has done its work."""
    if iscoroutinefunction(original):

        @wraps(original)
        async def waits(self: object, *args: Any, **named: Any) -> Any:  # noqa: ANN401  # whatever it takes and gives
            answer = await original(self, *args, **named)
            look(self, *args)
            return answer

        return waits

    @wraps(original)
    def follows(self: object, *args: Any, **named: Any) -> Any:  # noqa: ANN401
        answer = original(self, *args, **named)
        look(self, *args)
        return answer

    return follows


def _creator() -> str:
    """Name the module that creates a queue."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals["__name__"] in (__name__, "typing"):
        frame = frame.f_back
    return str(frame.f_globals["__name__"]) if frame is not None else ""
