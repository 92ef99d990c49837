"""The loop of the log: gathers the batches of all Append streams, commits them together, answers each stream in order.

Owns group commit and flow control. Must not know messages, nor SQL.
While one group commits, the next gathers: an idle service answers after one commit, a busy one puts more into each.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from nodeflow_shared.errors import Internal, NodeflowError, Unavailable
from nodeflow_shared.logs import get_log
from nodeflow_shared.streams import Inbox, Outbox
from nodeflow_state_manager.domain.values import Refusal
from nodeflow_state_manager.ports import Appends, StoreFailed
from nodeflow_state_manager.writability import Writability

# Batches of one stream that were read and whose answers were not taken: beyond it, the stream is not read on.
STREAM_LIMIT: Final = 1_024

_log = get_log()

B = TypeVar("B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a batch, by the number that its caller gave it."""

    batch_id: int
    refusals: Sequence[Refusal]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting(Generic[B]):
    stream: "AppendStream[B]"
    batch_id: int
    batch: B
    size_bytes: int


class _Budget:
    """A bound on bytes in memory. One item that is larger than all of it gets through alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._freed = asyncio.Event()

    async def take(self, size: int) -> None:
        """Wait until there is room, and use it."""
        while self._used and self._used + size > self._limit:
            self._freed.clear()
            await self._freed.wait()
        self._used += size

    def free(self, size: int) -> None:
        """Give room back."""
        self._used -= size
        self._freed.set()


class AppendStream(Generic[B]):
    """One caller's batches, and their answers in the same order."""

    def __init__(self, log: "LogDriver[B]") -> None:
        self._log = log
        self._answers: Outbox[Answer] = Outbox(STREAM_LIMIT)
        self._room = asyncio.Semaphore(STREAM_LIMIT)
        self._unanswered = 0
        self._finished = False
        self._error: NodeflowError | None = None

    @property
    def failed(self) -> bool:
        """Whether the stream ends with an error: what it still has waiting is dropped."""
        return self._error is not None

    async def submit(self, batch_id: int, batch: B, size_bytes: int) -> None:
        """Hand a batch over, waiting for room; what waits too long simply makes the caller's transport wait."""
        await self._room.acquire()
        self._unanswered += 1
        await self._log.enqueue(_Waiting(stream=self, batch_id=batch_id, batch=batch, size_bytes=size_bytes))

    def finish(self) -> None:
        """No batch follows: the answers end after those that are due."""
        self._finished = True
        self._close_when_done()

    def fail(self, error: NodeflowError) -> None:
        """End the answers with an error, after those that are there."""
        if self._error is None:
            self._error = error
        self._answers.close()

    def answer(self, answer: Answer) -> None:
        """Give the answer to the oldest batch that has none."""
        self._answers.offer(answer)  # there is room: as many places as batches may be unanswered
        self._unanswered -= 1
        self._close_when_done()

    async def answers(self) -> AsyncIterator[Answer]:
        """Yield answers until the stream is finished; raises what it failed with."""
        async for answer in self._answers:
            self._room.release()
            yield answer
        if self._error is not None:
            raise self._error

    def _close_when_done(self) -> None:
        if self._finished and not self._unanswered:
            self._answers.close()


class LogDriver(Generic[B]):
    """Group commit over a store, whatever a batch is. `run` is its life.

    While the store cannot be written to, whatever comes is answered with the reason at once, and nothing is tried.
    """

    def __init__(self, store: Appends[B], *, waiting_limit_bytes: int, writability: Writability) -> None:
        self._store = store
        self._writability = writability
        self._inbox: Inbox[_Waiting[B]] = Inbox()
        self._budget = _Budget(waiting_limit_bytes)
        self._feeds: dict[AppendStream[B], asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._drained = asyncio.Event()

    async def run(self) -> None:
        """Commit what arrives, until drained."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            commits = tasks.create_task(self._commit_groups(), name="log.commits")
            probes = tasks.create_task(self._writability.run(), name="log.probes")
            await self._drained.wait()
            self._tasks = None
            for task in (commits, probes, *self._feeds.values()):
                task.cancel()

    async def drain(self) -> None:
        """Take no further batches, commit those that wait, and end every stream."""
        self._draining = True
        while len(self._inbox) or not self._idle.is_set():
            await self._idle.wait()
            await asyncio.sleep(0)  # lets the loop take what is in the inbox, and clear the event
        for stream in tuple(self._feeds):
            stream.fail(_stopping())
        self._drained.set()

    async def exchange(self, feed: Callable[[AppendStream[B]], Awaitable[None]]) -> AsyncIterator[Answer]:
        """Yield the answers to what `feed` submits, which runs beside it as a task of this driver.

        A NodeflowError of `feed` ends the answers with it, and so does the failure of a commit.
        """
        if self._draining or self._tasks is None:
            raise _stopping()
        stream: AppendStream[B] = AppendStream(self)
        feeding = self._feeds[stream] = self._tasks.create_task(self._feed(stream, feed), name="log.feed")
        try:
            async for answer in stream.answers():
                yield answer
        finally:
            feeding.cancel()
            del self._feeds[stream]

    async def enqueue(self, waiting: _Waiting[B]) -> None:
        """Let a batch into the next group, when there is room for its bytes."""
        await self._budget.take(waiting.size_bytes)
        if self._draining:
            self._budget.free(waiting.size_bytes)
            raise _stopping()
        self._inbox.push(waiting)

    async def _feed(self, stream: AppendStream[B], feed: Callable[[AppendStream[B]], Awaitable[None]]) -> None:
        try:
            await feed(stream)
            stream.finish()
        except NodeflowError as error:
            stream.fail(error)
        except Exception as error:  # noqa: BLE001  -- the task group is the service's: a stream must end alone
            _log.warning("append_stream_broke", error=str(error))
            stream.fail(Unavailable("the stream broke"))
        except asyncio.CancelledError:
            # Either way nobody submits any more: by us, or because the transport gave up the requests.
            stream.fail(Unavailable("the stream broke"))
            raise

    async def _commit_groups(self) -> None:
        while True:
            group = await self._inbox.drain()
            self._idle.clear()
            try:
                await self._commit(group)
            finally:
                for waiting in group:
                    self._budget.free(waiting.size_bytes)
                self._idle.set()

    async def _commit(self, group: Sequence[_Waiting[B]]) -> None:
        # After a failure, what a stream sent behind it is dropped: its caller sends all of it again.
        group = [waiting for waiting in group if not waiting.stream.failed]
        if not group:
            return
        if self._writability.problem is not None:
            self._fail(group, self._writability.problem)
            return
        try:
            results = await self._store.append([waiting.batch for waiting in group])
        except StoreFailed as error:
            self._writability.lose(error, sum(waiting.size_bytes for waiting in group))
            self._fail(group, error)
        except Exception as error:  # noqa: BLE001  -- one bad batch must not end the service
            _log.error("append_failed", batches=len(group), exc_info=error)
            self._fail(group, Internal("the append failed; the server's log has the details"))
        else:
            for waiting, refusals in zip(group, results, strict=True):
                waiting.stream.answer(Answer(batch_id=waiting.batch_id, refusals=refusals))

    def _fail(self, group: Sequence[_Waiting[B]], error: NodeflowError) -> None:
        for stream in dict.fromkeys(waiting.stream for waiting in group):
            stream.fail(error)


def _stopping() -> Unavailable:
    return Unavailable("the state-manager is stopping", reason="STOPPING", retry_after_s=0.5)
