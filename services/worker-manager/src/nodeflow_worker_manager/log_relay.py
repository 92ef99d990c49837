"""Output on its way from workers to the store: passed through, never kept.

Owns which workers deliver output, and the wait until what they had read is stored. Must not know what a chunk says.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final

from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import NodeflowError
from nodeflow_shared.streams import Outbox, OutboxClosed
from nodeflow_worker_manager.driver import Driver
from nodeflow_worker_manager.ports import LogBatch, LogStore

ANSWERS: Final = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A batch is stored."""

    batch_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flush:
    """The worker is to send all that attempts have written by now."""

    flush_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed:
    """It did."""

    flush_id: int


FromWorker = LogBatch | Flushed
ToWorker = Stored | Flush


class LogStream:
    """One worker's open stream: batches in, answers and requests to flush out."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._answers: Outbox[ToWorker] = Outbox(ANSWERS)
        self._last_batch = 0
        self._last_stored = 0
        self._last_flush = 0
        self._flushes: dict[int, asyncio.Future[bool]] = {}
        self._due: dict[int, int] = {}
        self._error: Exception | None = None

    async def pass_on(self, requests: AsyncIterator[FromWorker]) -> None:
        """Pass batches to the store until the worker ends its side; an error ends the answers."""
        try:
            async for batch_id in self._store.append(self._batches(requests)):
                self._last_stored = batch_id
                await self._answers.put(Stored(batch_id=batch_id))
                self._settle()
        except OutboxClosed:
            pass
        except NodeflowError as error:
            self._error = error
        finally:
            self.close()

    async def answers(self) -> AsyncIterator[ToWorker]:
        """Yield what the worker is told; raises what broke the stream."""
        async for answer in self._answers:
            yield answer
        if self._error is not None:
            raise self._error

    async def flush(self) -> bool:
        """Wait until all that attempts have written by now is stored; False if the stream broke first."""
        self._last_flush += 1
        flush_id = self._last_flush
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._flushes[flush_id] = done
        try:
            await self._answers.put(Flush(flush_id=flush_id))
            return await done
        except OutboxClosed:
            return False
        finally:
            self._flushes.pop(flush_id, None)
            self._due.pop(flush_id, None)

    def close(self) -> None:
        """End the answers after those that are there."""
        self._answers.close()
        for done in self._flushes.values():
            if not done.done():
                done.set_result(False)

    async def _batches(self, requests: AsyncIterator[FromWorker]) -> AsyncGenerator[LogBatch]:
        async for request in requests:
            if isinstance(request, Flushed):
                if request.flush_id in self._flushes:  # one that nobody asked for would never be forgotten
                    self._due[request.flush_id] = self._last_batch
                    self._settle()
            else:
                self._last_batch = request.batch_id
                yield request

    def _settle(self) -> None:
        for flush_id, batch_id in self._due.items():
            done = self._flushes.get(flush_id)
            if batch_id <= self._last_stored and done is not None and not done.done():
                done.set_result(True)


class LogRelay:
    """All workers' output. A worker whose stream broke is expected back for as long as its lease may last."""

    def __init__(self, store: LogStore, driver: Driver, clock: Clock, *, lease_timeout_s: float) -> None:
        self._store = store
        self._driver = driver
        self._clock = clock
        self._lease_timeout_s = lease_timeout_s
        self._streams: dict[str, LogStream] = {}
        self._absent_until: dict[str, float] = {}
        self._changed = asyncio.Event()

    async def serve(self, session_id: str, requests: AsyncIterator[FromWorker]) -> AsyncIterator[ToWorker]:
        """Serve one stream, to its end."""
        stream = LogStream(self._store)
        self._driver.spawn(stream.pass_on(requests), f"logs.{session_id}")
        earlier = self._streams.get(session_id)
        self._streams[session_id] = stream
        self._absent_until.pop(session_id, None)
        if earlier is not None:
            earlier.close()
        self._tell()
        try:
            async for answer in stream.answers():
                yield answer
        finally:
            stream.close()
            if self._streams.get(session_id) is stream:
                del self._streams[session_id]
                self._forget_absent()
                self._absent_until[session_id] = self._clock.monotonic() + self._lease_timeout_s

    async def flush(self) -> None:
        """Wait until all that attempts had written when this was called is stored, by all workers that are there."""
        async with asyncio.TaskGroup() as group:
            for session_id in sorted(self._expected()):
                group.create_task(self._flush(session_id), name=f"worker-manager.flush.{session_id}")

    def drain(self) -> None:
        """End all streams: their workers come back to our successor."""
        for stream in self._streams.values():
            stream.close()

    def _expected(self) -> set[str]:
        self._forget_absent()
        return {*self._streams, *self._absent_until}

    def _forget_absent(self) -> None:
        now = self._clock.monotonic()
        self._absent_until = {each: until for each, until in self._absent_until.items() if until > now}

    async def _flush(self, session_id: str) -> None:
        while session_id in self._expected():
            stream = self._streams.get(session_id)
            if stream is None:
                await self._wait(self._absent_until[session_id])
            elif await stream.flush():
                return
            else:
                await asyncio.sleep(0)

    async def _wait(self, until: float) -> None:
        """Wait for a stream to be opened, at most until then."""
        changed = self._changed
        try:
            async with asyncio.timeout(max(until - self._clock.monotonic(), 0.001)):
                await changed.wait()
        except TimeoutError:
            pass

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
