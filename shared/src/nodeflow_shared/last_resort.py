"""The end of a process whose stop does not end.

Owns the watch over a stop, by a thread of its own: the loop may be what hangs. Must not know what stopping consists of.
"""

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Final

from nodeflow_shared.logs import get_log

EXIT_HUNG: Final = 3
"""What a process exits with that did not come to its end."""
TELL_TIMEOUT_S: Final = 2.0
"""How long it may take to say so: what hangs may be whoever reads the log."""

_log = get_log()


class LastResort:
    """Made inside the loop that it watches over. What is armed stays armed: only the end of the process ends it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: threading.Timer | None = None

    def arm(self, after_s: float) -> None:
        """Exit in this many seconds, unless the process has ended by then. A later call changes nothing."""
        if self._timer is None:
            self._timer = threading.Timer(after_s, self._exit, (after_s,))
            self._timer.daemon = True
            self._timer.start()

    def _exit(self, after_s: float) -> None:
        telling = threading.Thread(target=self._tell, args=(after_s,), daemon=True)
        telling.start()
        telling.join(TELL_TIMEOUT_S)
        os._exit(EXIT_HUNG)

    def _tell(self, after_s: float) -> None:
        _log.critical("stop_hangs", after_s=after_s, tasks=_tasks(self._loop), threads=_threads())


def _tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Where each task is."""
    return [f"{task.get_name()}\n{''.join(_frames(task.get_coro()))}" for task in asyncio.all_tasks(loop)]


def _frames(awaited: object) -> Iterator[str]:
    """From a task's coroutine to what it waits for in the end. (A task's own stack has the first of them only.)"""
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "ag_frame", None)
        if frame is not None:
            yield from traceback.format_stack(frame, limit=1)
        else:
            yield f"  {awaited!r}\n"
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "ag_await", None)


def _threads() -> list[str]:
    """Where each thread is."""
    names = {each.ident: each.name for each in threading.enumerate()}
    return [
        f"{names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()  # noqa: SLF001  # there is no other way to see them
        if ident != threading.get_ident()
    ]
