"""An event loop on virtual time: waiting costs nothing, and what happens is the same in every run.

Owns time, the order of tasks and the seed of `random`. Must not know what runs on it. There are no sockets, no threads
and no signals on it: whatever asks for them fails.
"""

import asyncio
import gc
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Final, NoReturn, TypeVar

from nodeflow_testing.lives import LIFE

T = TypeVar("T")

HORIZON_S: Final = 86_400.0
"""Virtual seconds after which a run counts as hung: heartbeats go on for ever, so a hang need not be a deadlock."""
MANY_CANCELLED: Final = 1_000


class Deadlock(Exception):
    """Nothing can ever happen again, and the main task is not done; the message names the tasks that wait."""


class OutOfTime(Exception):
    """The run went past its horizon; the message names the tasks that wait."""


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop that begins at time 0 and jumps to its next timer when nothing is ready.

    It takes the place of the base class's `_run_once`: there is nothing to select from, timers that are due at one time
    run in the order in which they were set, and callbacks of lives that are paused are held.
    """

    _ready: deque[asyncio.Handle]

    def __init__(self, horizon_s: float = HORIZON_S) -> None:
        super().__init__()
        self._now = 0.0
        self._horizon_s = horizon_s
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timers_set = 0
        self._timers_cancelled = 0
        self.watched = 0
        """How many orders there are for lives: while there is none, nobody is asked."""
        self.numbers = itertools.count()
        """The next task's number."""
        self.stray: list[Exception] = []
        """What callbacks and forgotten tasks raised."""
        self.set_task_factory(_number_task)
        self.set_exception_handler(_keep_stray)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    # Any: callbacks are of every type. Both without the base class's checks: they are most of what a run does.
    def call_soon(  # type: ignore[override]  # with the stubs' type variables it could not be said shorter
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Call something after what is ready now."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]  # with the stubs' type variables it could not be said shorter
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call something at a time of this loop."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_set += 1
        heapq.heappush(self._timers, (when, self._timers_set, timer))
        return timer

    def release(self, handles: deque[asyncio.Handle]) -> None:
        """Run callbacks that were held."""
        self._ready.extend(handles)

    def run_in_executor(self, *_: object) -> NoReturn:
        """Refuse: a thread would take real time."""
        raise RuntimeError("there are no threads on virtual time")

    def _run_once(self) -> None:
        ready = self._ready
        if not ready and not self._stopping:  # type: ignore[attr-defined]  # of the base class; unknown to the stubs
            self._jump()
        timers = self._timers
        while timers and timers[0][0] <= self._now:
            ready.append(heapq.heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled and not (self.watched and _keeps_back(handle)):
                handle._run()

    def _jump(self) -> None:
        """Move time to the next timer."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Deadlock(f"nothing can happen any more, and these wait: {waiting_tasks(self)}")
        if timers[0][0] > self._horizon_s:
            late, self._horizon_s = self._horizon_s, math.inf  # so that what is left can be cancelled
            raise OutOfTime(f"after {late:.0f} virtual seconds these still wait: {waiting_tasks(self)}")
        self._now = max(self._now, timers[0][0])

    def _timer_handle_cancelled(self, _: asyncio.TimerHandle) -> None:
        """Forget timers that were cancelled when they are many: most deadlines are never reached."""
        self._timers_cancelled += 1
        if self._timers_cancelled > MANY_CANCELLED and self._timers_cancelled * 2 > len(self._timers):
            self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
            heapq.heapify(self._timers)
            self._timers_cancelled = 0

    def _write_to_self(self) -> None:
        """Nobody waits to be woken."""


def _keeps_back(handle: asyncio.Handle) -> bool:
    """Whether its process is paused, or is struck down at this moment, which may cancel the very callback."""
    life = handle._context.get(LIFE)  # type: ignore[attr-defined]  # unknown to the stubs
    return life is not None and (life.keeps_back(handle) or handle.cancelled())


# Any: what a coroutine yields and is sent is the loop's affair, and so are further arguments of a factory.
def _number_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **more: Any
) -> asyncio.Task[Any]:
    assert isinstance(loop, VirtualLoop)
    return _NumberedTask(work, number=next(loop.numbers), loop=loop, **more)


class _NumberedTask(asyncio.Task[Any]):
    """A task whose place in sets does not depend on its address: groups cancel their tasks in the order of a set."""

    def __init__(self, work: Coroutine[Any, Any, Any] | Generator[Any, None, Any], *, number: int, **more: Any) -> None:
        self._number = number
        super().__init__(work, **more)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


def run(main: Callable[[], Coroutine[Any, Any, T]], *, seed: int = 0, horizon_s: float = HORIZON_S) -> T:
    """Run a coroutine function to its end on a fresh loop, and cancel what is left; for synchronous tests.

    Raises Deadlock or OutOfTime instead of hanging, and what callbacks or forgotten tasks raised as a group.
    Draws from the module `random` (jitter) repeat themselves with the seed.
    """
    with _reproducible(seed):
        loop = VirtualLoop(horizon_s)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            result = runner.run(main())
    if loop.stray:
        raise ExceptionGroup("raised where nobody was listening", loop.stray)
    return result


def waiting_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """Name all tasks that are not done, each with the place where it waits."""
    return ", ".join(sorted(map(_describe, asyncio.all_tasks(loop)))) or "none"


def _describe(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack(limit=1)
    place = f" at {stack[0].f_code.co_qualname}:{stack[0].f_lineno}" if stack else ""
    return f"{task.get_name()}{place}"


def _keep_stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    error = context.get("exception")
    loop.stray.append(error if isinstance(error, Exception) else RuntimeError(context["message"]))


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed `random`, and keep the collector from running finalizers at moments of its own choice."""
    state, collecting = random.getstate(), gc.isenabled()
    random.seed(seed)
    gc.disable()
    try:
        yield
    finally:
        random.setstate(state)
        if collecting:
            gc.enable()
