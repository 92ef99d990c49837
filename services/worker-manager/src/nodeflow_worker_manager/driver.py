"""The imperative shell: one door for everything that happens, and the streams, timers and calls that follow.

Owns the outboxes of streams, the timer of leases, and the tasks that talk to the registry. Must not know messages, nor
decide what the core decides.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Final, Generic, Self, TypeVar, assert_never

from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import NodeflowError, Unavailable
from nodeflow_shared.logs import get_log
from nodeflow_shared.streams import Outbox
from nodeflow_worker_manager.domain import events as ev
from nodeflow_worker_manager.domain import instructions as do
from nodeflow_worker_manager.domain.registry import SessionRegistry
from nodeflow_worker_manager.domain.workers import KnownWorker
from nodeflow_worker_manager.ports import Registry

# A peer that does not read has its stream ended when this many frames wait for it, rather than memory growing.
WORKER_FRAMES: Final = 1_024
SCHEDULER_FRAMES: Final = 8_192
# And what they take, where they carry attempts or results.
WORKER_BYTES: Final = 64 << 20
SCHEDULER_BYTES: Final = 256 << 20
PACE_S: Final = 0.5
# How many messages of a worker between two of its heartbeats are never slowed down. One that is well sends fewer when
# a scheduler is behind, and its heartbeats must not come late behind them: its lease would end, and its work be lost.
UNPACED_MESSAGES: Final = 256
# How many questions of workers schedulers are asked at once: it bounds what answers occupy. Others wait their turn.
QUESTIONS: Final = 64
ANSWER_TIMEOUT_S: Final = 10.0

_log = get_log()

F = TypeVar("F")


class Peer(Generic[F]):
    """One open stream: its frames, and how it ends."""

    def __init__(self, number: int, limit: int, limit_bytes: int) -> None:
        self.number = number
        self.outbox: Outbox[F] = Outbox(limit)
        self.since_beat = 0
        """How many messages came from it since its last heartbeat."""
        self._limit_bytes = limit_bytes
        self._sizes: deque[int] = deque()
        self._bytes = 0
        self._relieved = asyncio.Event()
        self._error: Exception | None = None
        self._broken = False

    def send(self, frame: F, size_bytes: int) -> bool:
        """Queue a frame; False if the peer does not read. One frame alone is always taken, however large."""
        if self.outbox.closed:
            return True
        if (self._bytes and self._bytes + size_bytes > self._limit_bytes) or not self.outbox.offer(frame):
            return False
        self._sizes.append(size_bytes)
        self._bytes += size_bytes
        return True

    @property
    def crowded(self) -> bool:
        """Whether it is so far behind that those who send should slow down."""
        behind = len(self.outbox) * 2 > self.outbox.limit or self._bytes * 2 > self._limit_bytes
        return behind and not self.outbox.closed

    async def relief(self) -> None:
        """Wait until it is not that far behind, or over."""
        while self.crowded:
            self._relieved.clear()
            await self._relieved.wait()

    def end(self, error: Exception | None) -> None:
        """Let the peer read what is queued, and then end the stream."""
        if not self.outbox.closed:
            self._error = error
            self.outbox.close()
            self._relieved.set()

    def break_off(self, error: Exception) -> None:
        """End the stream without what is queued."""
        self._error, self._broken = error, True
        self.outbox.close()
        self._relieved.set()

    @property
    def waiting(self) -> bool:
        """Whether the next frame is there already."""
        return len(self.outbox) > 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> F:
        """Return the next frame; raises the error with which the stream ends."""
        try:
            frame = await anext(self.outbox)
            self._bytes -= self._sizes.popleft()
            self._relieved.set()
            if not self._broken:
                return frame
        except StopAsyncIteration:
            pass
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


class Driver:
    """Runs the core: `run` until drained, with `worker` and `scheduler` for each stream that a servicer holds."""

    def __init__(self, registry: Registry, clock: Clock, *, lease_timeout_s: float, register_timeout_s: float) -> None:
        self.ready = asyncio.Event()
        self.core = SessionRegistry(lease_timeout_s=lease_timeout_s)
        self._registry = registry
        self._clock = clock
        self._register_timeout_s = register_timeout_s
        self._events: deque[ev.Event] = deque()
        self._handling = False
        self._numbers = 0
        self._workers: dict[int, Peer[do.ToWorker]] = {}
        self._schedulers: dict[int, Peer[do.ToScheduler]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._askers: dict[int, asyncio.Future[object]] = {}
        self._asking = asyncio.Semaphore(QUESTIONS)
        self._ended: set[str] = set()
        self._ends_wait = asyncio.Event()
        self._drained = asyncio.Event()

    async def run(self) -> None:
        """Load the sessions that may still be alive, accept streams, and work until drained."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                self.spawn(self._load(), "load")
                self.spawn(self._record_ends(), "record-ends")
                await self._drained.wait()
            finally:
                self._group = None
                self._stop_timer()
                for task in self._tasks:
                    task.cancel()

    def drain(self) -> None:
        """Take no new stream, and end those that are open with UNAVAILABLE: their peers come back to our successor."""
        self.ready.clear()
        for worker in self._workers.values():
            worker.end(_stopping())
        for scheduler in self._schedulers.values():
            scheduler.end(_stopping())
        self._drained.set()

    def worker(self, hello: ev.Hello) -> Peer[do.ToWorker]:
        """Begin a worker's stream; its welcome, or the error that ends it, comes as any other frame."""
        self._check_open()
        peer: Peer[do.ToWorker] = Peer(self._next_number(), WORKER_FRAMES, WORKER_BYTES)
        self._workers[peer.number] = peer
        _log.info("worker_connecting", worker=hello.worker_id, session=hello.session_id, connection=peer.number)
        self.feed((ev.HelloReceived(connection=peer.number, hello=hello),))
        return peer

    def worker_left(self, peer: Peer[do.ToWorker]) -> None:
        """Note that a worker's stream is over. Idempotent."""
        peer.end(None)
        if self._workers.pop(peer.number, None) is not None:
            _log.info("worker_left", connection=peer.number)
            self.feed((ev.WorkerLost(connection=peer.number),))

    async def hear(self, peer: Peer[do.ToWorker], event: ev.Event) -> None:
        """Take in what a worker says; wait for the next word of one that sends on and on."""
        self.feed((event,))
        peer.since_beat = 0 if isinstance(event, ev.HeartbeatReceived) else peer.since_beat + 1
        if peer.since_beat > UNPACED_MESSAGES:
            await self._pace()

    def scheduler(self, scheduler_id: str) -> Peer[do.ToScheduler]:
        """Begin a scheduler's stream."""
        self._check_open()
        peer: Peer[do.ToScheduler] = Peer(self._next_number(), SCHEDULER_FRAMES, SCHEDULER_BYTES)
        self._schedulers[peer.number] = peer
        _log.info("scheduler_attached", scheduler=scheduler_id, stream=peer.number)
        self.feed((ev.SchedulerAttached(stream=peer.number, scheduler_id=scheduler_id),))
        return peer

    def scheduler_left(self, peer: Peer[do.ToScheduler]) -> None:
        """Note that a scheduler's stream is over. Idempotent."""
        peer.end(None)
        if self._schedulers.pop(peer.number, None) is not None:
            _log.info("scheduler_left", stream=peer.number)
            self.feed((ev.SchedulerLost(stream=peer.number),))

    async def ask(self, session_id: str, shard: int, request: object, timeout_s: float | None) -> object:
        """Have the scheduler that owns a shard answer a worker's question. Raises Unavailable if none does in time."""
        self._check_open()
        try:
            async with asyncio.timeout(min(timeout_s or ANSWER_TIMEOUT_S, ANSWER_TIMEOUT_S)), self._asking:
                return await self._answer(session_id, shard, request)
        except TimeoutError:
            raise Unavailable("the scheduler has not answered in time; ask again", retry_after_s=0.5) from None

    async def _answer(self, session_id: str, shard: int, request: object) -> object:
        question = self._next_number()
        asker = self._askers[question] = asyncio.get_running_loop().create_future()
        try:
            self.feed(
                (ev.QuestionAsked(question=question, session_id=session_id, shard=shard, request=request),),
            )
            return await asker
        finally:
            del self._askers[question]
            self.feed((ev.QuestionDropped(question=question),))

    def spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run a task among the service's; if it raises, the service fails. It is cancelled by a drain."""
        if self._group is None:
            work.close()
            raise _stopping()
        task = self._group.create_task(work, name=f"worker-manager.{name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def feed(self, events: Iterable[ev.Event]) -> None:
        """Take events in and carry out what follows, all before returning."""
        self._events.extend(events)
        if self._handling:
            return  # what is carried out can itself be an event: it waits its turn
        self._handling = True
        try:
            while self._events:
                event = self._events.popleft()
                for instruction in self.core.handle(event, self._clock.monotonic()):
                    self._carry_out(instruction)
        finally:
            self._handling = False
        self._set_timer()

    def _carry_out(self, instruction: do.Instruction) -> None:
        match instruction:
            case do.Register():
                self._spawn_registration(instruction.hello)
            case do.RecordEnds():
                _log.info("sessions_end", sessions=instruction.session_ids)
                self._ended.update(instruction.session_ids)
                self._ends_wait.set()
            case do.CloseConnection():
                worker = self._workers.get(instruction.connection)
                if worker is not None:
                    worker.end(instruction.error)
            case do.CloseStream():
                scheduler = self._schedulers.get(instruction.stream)
                if scheduler is not None:
                    _log.warning("scheduler_refused", stream=instruction.stream, error=str(instruction.error))
                    scheduler.end(instruction.error)
            case (
                do.Welcome()
                | do.ReplyToHeartbeat()
                | do.Assign()
                | do.Acknowledge()
                | do.Cancel()
                | do.ReportHeld()
                | do.Drain()
            ):
                self._send_to_worker(instruction)
            case do.Answer() | do.RefuseQuestion():
                self._tell_asker(instruction)
            case (
                do.SendOpened()
                | do.SendHeld()
                | do.SendUpdates()
                | do.SendCapacity()
                | do.SendClosed()
                | do.SendAttached()
                | do.SendQuestion()
            ):
                self._send_to_scheduler(instruction)
            case _:
                assert_never(instruction)

    def _tell_asker(self, instruction: do.Answer | do.RefuseQuestion) -> None:
        asker = self._askers[instruction.question]
        if asker.done():
            return  # its time was up in this very turn
        match instruction:
            case do.Answer():
                asker.set_result(instruction.answer)
            case do.RefuseQuestion():
                asker.set_exception(instruction.error)

    def _send_to_worker(self, frame: do.ToWorker) -> None:
        peer = self._workers.get(frame.connection)
        size = frame.batch.size_bytes if isinstance(frame, do.Assign) else 0
        if peer is None or peer.send(frame, size):
            return
        _log.warning("worker_does_not_read", connection=frame.connection, frames=WORKER_FRAMES)
        peer.break_off(Unavailable("the worker does not read its stream", reason="NOT_READING"))
        self._events.append(ev.WorkerLost(connection=frame.connection))

    def _send_to_scheduler(self, frame: do.ToScheduler) -> None:
        peer = self._schedulers.get(frame.stream)
        if peer is None or peer.send(frame, do.size_of(frame)):
            return
        _log.warning("scheduler_does_not_read", stream=frame.stream, frames=SCHEDULER_FRAMES)
        peer.break_off(Unavailable("the scheduler does not read its stream", reason="NOT_READING"))
        self._events.append(ev.SchedulerLost(stream=frame.stream))

    async def _pace(self) -> None:
        """Wait while a scheduler is far behind: who sends on and on is slowed down to what schedulers take.

        For no longer than PACE_S: a scheduler that does not read at all is nobody's fault.
        """
        for scheduler in tuple(self._schedulers.values()):
            if scheduler.crowded:
                try:
                    async with asyncio.timeout(PACE_S):
                        await scheduler.relief()
                except TimeoutError:
                    return

    def _set_timer(self) -> None:
        """Keep one timer, at or before the earliest end of a lease; renewals move ends later only."""
        due = self.core.next_lease_end
        if self._timer is None and due is not None:
            delay = max(0.0, due - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.feed((ev.Tick(),))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _load(self) -> None:
        workers = await self._registry.live_workers()
        sessions = tuple(live for worker in workers for live in _live_sessions(worker))
        self.feed((ev.SessionsLoaded(sessions=sessions),))
        _log.info("sessions_loaded", sessions=len(sessions))
        self.ready.set()

    def _spawn_registration(self, hello: ev.Hello) -> None:
        try:
            self.spawn(self._register(hello), f"register.{hello.session_id}")
        except NodeflowError as error:
            self._events.append(ev.RegistrationFailed(session_id=hello.session_id, error=error))

    async def _register(self, hello: ev.Hello) -> None:
        try:
            created = await self._registry.register_session(hello, self._register_timeout_s)
        except NodeflowError as error:
            _log.warning("registration_failed", worker=hello.worker_id, session=hello.session_id, error=error.message)
            self.feed((ev.RegistrationFailed(session_id=hello.session_id, error=error),))
        else:
            _log.info("session_registered", worker=hello.worker_id, session=hello.session_id, new_worker=created)
            self.feed((ev.SessionRegistered(session_id=hello.session_id, created=created),))

    async def _record_ends(self) -> None:
        """Record ends one call after the other, all that came up meanwhile in the next."""
        while True:
            await self._ends_wait.wait()
            self._ends_wait.clear()
            ended, self._ended = tuple(sorted(self._ended)), set()
            await self._registry.end_sessions(ended)
            _log.info("ends_recorded", sessions=len(ended))
            self.feed((ev.EndsRecorded(session_ids=ended),))

    def _check_open(self) -> None:
        if not self.ready.is_set() or self._group is None:
            raise (
                _stopping()
                if self._drained.is_set()
                else Unavailable("the worker-manager is starting", reason="STARTING")
            )

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers


def _live_sessions(worker: KnownWorker) -> Iterable[ev.LiveSession]:
    for session_id in worker.live_session_ids:
        yield ev.LiveSession(
            worker_id=worker.worker_id, session_id=session_id, labels=worker.labels, version=worker.version
        )


def _stopping() -> Unavailable:
    return Unavailable("the worker-manager is stopping", reason="STOPPING")
