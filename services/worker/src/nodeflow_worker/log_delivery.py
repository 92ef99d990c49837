"""The worker's output on its way out: a stream of its own, beside the one of results and heartbeats.

Owns what was sent and not acknowledged across connections, and the answers to requests to flush. Must not know gRPC.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from typing import Final, Self

from nodeflow_shared.errors import InvalidInput, NodeflowError, Unavailable
from nodeflow_shared.logs import get_log
from nodeflow_shared.retry import Backoff, keep_connected
from nodeflow_worker.domain.output import Batch, OutputBuffer
from nodeflow_worker.ports import Flushed, FlushRequested, LogOutgoing, LogSink, LogsStored

MAX_UNACKNOWLEDGED: Final = 16
"""Batches on their way; beyond it nothing is sent, and soon nothing read."""

_log = get_log()


class LogDelivery:
    """Sends what the buffer holds until cancelled. `drain` reads what pipes hold; False if there is no room for all."""

    def __init__(
        self, buffer: OutputBuffer, sink: LogSink, drain: Callable[[], bool], session: Callable[[], str]
    ) -> None:
        self._buffer = buffer
        self._sink = sink
        self._drain = drain
        self._session = session
        self._outbound: _Outbound | None = None
        self._empty: asyncio.Future[None] | None = None
        buffer.on_added = self._wake

    async def run(self) -> None:
        """Deliver, over every outage."""
        backoff = Backoff()
        await keep_connected("logs", lambda: self._connect(backoff), backoff=backoff)

    async def delivered(self) -> None:
        """Wait until all that attempts have written is stored."""
        while not self._drain() or self._buffer.held:
            self._empty = asyncio.get_running_loop().create_future()
            await self._empty

    def _wake(self) -> None:
        if self._outbound is not None:
            self._outbound.wake()

    async def _connect(self, backoff: Backoff) -> None:
        self._outbound = outbound = _Outbound(self._buffer)
        try:
            async with aclosing(self._sink.write_logs(self._session(), outbound)) as answers:
                async for answer in answers:
                    backoff.reset()
                    if isinstance(answer, LogsStored):
                        self._stored(answer, outbound)
                    else:
                        self._flush(answer, outbound)
        except InvalidInput as error:
            # It would be refused again and again, and block whoever writes.
            _log.error("output_refused", batches=len(self._buffer.unacknowledged()), error=error.message)
            self._buffer.forget_sent()
        except NodeflowError as error:
            raise Unavailable(error.message, reason=error.reason) from error
        finally:
            self._outbound = None
            outbound.close()

    def _stored(self, answer: LogsStored, outbound: "_Outbound") -> None:
        self._buffer.acknowledge(answer.batch_id)
        outbound.acknowledged()
        if self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    def _flush(self, request: FlushRequested, outbound: "_Outbound") -> None:
        """Answer once all that is in the pipes now has gone out; wait for room if it does not fit."""
        if outbound.closed:
            return
        if self._drain():
            outbound.flush(request.flush_id)
        else:
            self._buffer.when_room(lambda: self._flush(request, outbound))


class _Outbound:
    """The requests of one stream, as the iterator that the stream's call reads."""

    def __init__(self, buffer: OutputBuffer) -> None:
        self._buffer = buffer
        self._again: deque[Batch] = deque(buffer.unacknowledged())
        self._on_way = 0
        self._flushes: deque[tuple[int, int]] = deque()
        self._wake: asyncio.Future[None] | None = None
        self.closed = False

    def acknowledged(self) -> None:
        """A batch arrived: there is room for another."""
        self._on_way -= 1
        self.wake()

    def flush(self, flush_id: int) -> None:
        """Say that a flush is done once all that is in the buffer now went out."""
        self._flushes.append((self._buffer.added, flush_id))
        self.wake()

    def close(self) -> None:
        """Say no more: the call is over."""
        self.closed = True
        self.wake()

    def wake(self) -> None:
        """Have the writer look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogOutgoing:
        while not self.closed:
            message = self._next()
            if message is not None:
                return message
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        raise StopAsyncIteration

    def _next(self) -> LogOutgoing | None:
        if self._flushes and not self._again and self._buffer.taken >= self._flushes[0][0]:
            return Flushed(flush_id=self._flushes.popleft()[1])
        if self._on_way >= MAX_UNACKNOWLEDGED:
            return None
        batch = self._again.popleft() if self._again else self._buffer.take()
        if batch is not None:
            self._on_way += 1
        return batch
