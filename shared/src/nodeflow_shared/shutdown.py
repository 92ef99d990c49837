"""What makes a process stop: signals, and the death of its parent.

Owns how a request to stop is noticed. Must not know what stopping consists of.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from nodeflow_shared.logs import get_log

PARENT_POLL_S: Final = 0.5

# Ctrl-C reaches a whole process group, and a supervisor in it passes the stop on: two signals, one wish.
REPEAT_AFTER_S: Final = 0.5

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = get_log()


@contextmanager
def stop_signals(stop: asyncio.Event) -> Iterator[None]:
    """While inside, SIGTERM and SIGINT set `stop`; a repeat, half a second later or more, ends the process at once."""
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    timers: list[asyncio.TimerHandle] = []

    def request(number: signal.Signals) -> None:
        if timers:
            return
        stop.set()  # before anything that could fail, or nobody ever stops
        _log.info("stopping", cause=number.name)
        timers.append(loop.call_later(REPEAT_AFTER_S, let_repeat_kill))

    def let_repeat_kill() -> None:
        # The system's own action, not ours: it ends the process even if this loop hangs.
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, request, number)
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, previous[number])


async def wait_for_orphanhood(parent: int) -> None:
    """Return when this process is no longer a child of `parent`."""
    while os.getppid() == parent:  # noqa: ASYNC110  # no portable event tells of it
        await asyncio.sleep(PARENT_POLL_S)
