"""What makes a process stop counts, whatever else goes wrong then."""

import asyncio
import os
import signal

import pytest

from nodeflow_shared import shutdown
from nodeflow_shared.shutdown import stop_signals


class BrokenLog:
    """A log whose reader is gone."""

    def info(self, event: str, **_: object) -> None:
        raise BrokenPipeError(event)


async def test_a_signal_counts_although_it_cannot_be_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "_log", BrokenLog())
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
    stop = asyncio.Event()
    with stop_signals(stop):
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(10):
            await stop.wait()
    asyncio.get_running_loop().set_exception_handler(None)
    assert isinstance(raised[0], BrokenPipeError)
