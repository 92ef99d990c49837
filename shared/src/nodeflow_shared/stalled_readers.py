"""Readers of response streams who do not read: after some time their call ends, and what it held is free.

Owns the time that one message may take, and how a call ends whose message is still on its way. Must not know what a
stream carries. Until then flow control holds the writer: it is one message ahead, whatever there is to tell.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final, TypeAlias

import grpc.aio
from grpc_status import rpc_status

from nodeflow_shared.errors import Unavailable
from nodeflow_shared.logs import get_log
from nodeflow_shared.status import to_status

# Any: requests and replies are of every type here. In quotes: only the stubs know the classes as generic.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

RETRY_AFTER_S: Final = 1.0

_log = get_log()


class StalledReaders:
    """Ends calls whose reader takes longer than `timeout_s` for one message."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._endings: set[asyncio.Task[None]] = set()

    def follow(self, method: str, context: Context) -> "Reader":
        """Return the reader of the call that the current task serves."""
        return Reader(self, method, context)

    def arm(self, reader: "Reader") -> asyncio.TimerHandle:
        """Return the timer of one message."""
        return asyncio.get_running_loop().call_later(self._timeout_s, self._end, reader)

    def _end(self, reader: "Reader") -> None:
        _log.warning("reader_stalled", method=reader.method, timeout_s=self._timeout_s)
        # The status goes behind the message that is on its way, so telling it lasts until the reader reads, or is gone.
        # Whoever serves the call does not wait for that. Its task is held here, and ends with the call.
        ending = asyncio.get_running_loop().create_task(self._tell(reader.context), name=f"stalled {reader.method}")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        asyncio.get_running_loop().call_soon(reader.task.cancel)

    async def _tell(self, context: Context) -> None:
        error = Unavailable(
            f"a message was not read within {self._timeout_s:g} s; resume after what was read",
            reason="NOT_READING",
            retry_after_s=RETRY_AFTER_S,
        )
        with suppress(grpc.aio.BaseError):  # what an abort raises for its own handler, or the call was over
            await context.abort_with_status(rpc_status.to_status(to_status(error)))


class Reader:
    """The reader of one call: `sending` before each message, `sent` once it is taken or the call is over."""

    def __init__(self, watch: StalledReaders, method: str, context: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.method = method
        self.context = context
        self._watch = watch
        self._timer: asyncio.TimerHandle | None = None

    def sending(self) -> None:
        """A message is on its way."""
        self._timer = self._watch.arm(self)

    def sent(self) -> None:
        """It was taken; or nothing is on its way any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
