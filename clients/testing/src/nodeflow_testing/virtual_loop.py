"""An event loop on virtual time: waiting costs nothing, and what happens is the same in every run.

Owns time, the order of tasks and the seed of `random`. Must not know what runs on it. There are no sockets, no threads
and no signals on it: whatever asks for them fails.
"""

import asyncio
import gc
import itertools
import math
import random
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

T = TypeVar("T")

HORIZON_S: Final = 86_400.0
"""Virtual seconds after which a run counts as hung: heartbeats go on for ever, so a hang need not be a deadlock."""


class Deadlock(Exception):
    """Nothing can ever happen again, and the main task is not done; the message names the tasks that wait."""


class OutOfTime(Exception):
    """The run went past its horizon; the message names the tasks that wait."""


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop that begins at time 0 and jumps to its next timer when nothing is ready."""

    def __init__(self, horizon_s: float = HORIZON_S) -> None:
        super().__init__()
        self._now = 0.0
        self._horizon_s = horizon_s
        # Where the base class would wait for sockets, time is moved instead.
        self._selector = _Jump(self)
        self.numbers = itertools.count()
        """The next task's number."""
        self.stray: list[Exception] = []
        """What callbacks and forgotten tasks raised."""
        self.set_task_factory(_number_task)
        self.set_exception_handler(_keep_stray)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def jump(self) -> None:
        """Move time to the next timer."""
        # The base class removes cancelled timers from the front before it would wait.
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # unknown to the stubs
        if timers[0].when() > self._horizon_s:
            late, self._horizon_s = self._horizon_s, math.inf  # so that what is left can be cancelled
            raise OutOfTime(f"after {late:.0f} virtual seconds these still wait: {waiting_tasks(self)}")
        self._now = timers[0].when()

    def run_in_executor(self, *_: object) -> NoReturn:
        """Refuse: a thread would take real time."""
        raise RuntimeError("there are no threads on virtual time")

    def _process_events(self, event_list: list[object]) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody waits to be woken."""


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


class _Jump:
    """What the base class takes for a selector."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> tuple[()]:
        """Take no time at all."""
        if timeout is None:
            raise Deadlock(f"nothing can happen any more, and these wait: {waiting_tasks(self._loop)}")
        if timeout > 0:
            self._loop.jump()
        return ()


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
