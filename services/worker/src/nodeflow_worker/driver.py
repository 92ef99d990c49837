"""The worker's imperative shell: carries events to the core, and its instructions out.

Owns the life of the Connect stream and the timers of heartbeat and lease. Decides nothing about attempts.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final, assert_never

from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import IllegalState, InvalidInput, StaleLease, StartupError, Unavailable
from nodeflow_shared.logs import get_log
from nodeflow_shared.retry import Backoff, keep_connected
from nodeflow_worker.domain import events
from nodeflow_worker.domain import instructions as do
from nodeflow_worker.domain.agent import Agent
from nodeflow_worker.domain.lease import NEVER
from nodeflow_worker.domain.output import OutputBuffer
from nodeflow_worker.log_delivery import LogDelivery
from nodeflow_worker.outbound import Outbound, Waiting
from nodeflow_worker.ports import (
    Artifacts,
    Beat,
    Held,
    Hello,
    Incoming,
    Journal,
    LogSink,
    Manager,
    Processes,
    Runners,
    Sessions,
)
from nodeflow_worker.transfers import Transfers

BEAT_SPACING_S: Final = 0.05
"""The least time between two heartbeats: a bid that changes quickly is told at most that often."""
WELCOME_TIMEOUT_S: Final = 10.0
LAST_LOGS_S: Final = 5.0
"""How long a worker that has nothing else left to do stays to deliver output."""

_log = get_log()


class Driver:
    """One worker: its core, and the world that the core's instructions go to. `ready` is set while it takes work."""

    def __init__(
        self,
        *,
        agent: Agent,
        runners: Runners,
        processes: Processes,
        manager: Manager,
        artifacts: Artifacts,
        log_sink: LogSink,
        outputs: OutputBuffer,
        sessions: Sessions,
        journal: Journal,
        clock: Clock,
        ready: asyncio.Event,
    ) -> None:
        self._agent = agent
        self._runners = runners
        self._processes = processes
        self._manager = manager
        self._sessions = sessions
        self._journal = journal
        self._taken_over: set[str] = set()
        self._clock = clock
        self._ready = ready
        self._transfers = Transfers(artifacts, clock, self.handle)
        self._outputs = outputs
        self._logs = LogDelivery(outputs, log_sink, self._drain_output, lambda: self._session)
        self._waiting = Waiting(self._make_held, self._make_beat)
        self._outbound: Outbound | None = None
        self._session = ""
        self._session_over = False
        self._stopped_at = NEVER
        """The end of the lease that everything was stopped for last."""
        self._left = asyncio.Event()
        self._fault: Exception | None = None
        self._timers = _Timers(self._on_beat_due, self._on_lease_due)
        self._beat = 0
        self._beat_at = 0.0
        self._beat_interval_s = 0.0

    async def run(self) -> None:
        """Work until drained and gone from the worker-manager."""
        self._runners.capture(self._outputs)
        self._processes.capture(self._outputs)
        self._runners.listen(self.handle)
        self._processes.listen(self.handle)
        self._journal.listen(self.handle)
        await self._processes.end_left(())
        self._session = self._sessions.begin()
        self._journal.begin(self._session)
        backoff = Backoff()
        try:
            async with asyncio.TaskGroup() as group:
                self._transfers.use(group)
                self.handle(events.Started())
                life = keep_connected("worker-manager", lambda: self._connect(backoff), backoff=backoff)
                connection = group.create_task(life, name="worker.connection")
                logs = group.create_task(self._logs.run(), name="worker.logs")
                await self._left.wait()
                if self._fault is not None:
                    raise self._fault
                await self._deliver_rest()
                connection.cancel()
                logs.cancel()
                self._transfers.cancel()
        finally:
            self._timers.cancel()

    def _drain_output(self) -> bool:
        drained = (self._runners.drain_output(), self._processes.drain_output())
        return all(drained)

    async def _deliver_rest(self) -> None:
        try:
            async with asyncio.timeout(LAST_LOGS_S):
                await self._logs.delivered()
        except TimeoutError:
            _log.warning("output_not_delivered", held_bytes=self._outputs.held)

    def drain(self) -> None:
        """Finish what is held, take nothing new, and leave."""
        self.handle(events.DrainRequested())

    def handle(self, event: events.Event) -> None:
        """Take in one event, and carry out what the core answers.

        An error here leaves the core and the world apart, so it ends the process: its session's attempts are then lost
        for certain, and tried again. (Many events come from loop callbacks, where a mere exception would be logged and
        passed over.)
        """
        try:
            self._look_at_lease()
            for order in self._agent.handle(event, self._clock.monotonic()):
                self._carry_out(order)
        except Exception as error:
            self._fault = self._fault or error
            self._left.set()
            raise

    def _carry_out(self, order: do.Instruction) -> None:
        match order:
            case do.Feed():
                self._runners.feed(order.runner, order.directory, order.attempts)
            case do.Record():
                self._journal.record(order.attempt)
            case do.NoteProcess():
                self._journal.note(order.attempt, order.process)
            case do.Forget():
                self._journal.forget(order.attempts)
            case do.Report():
                self._waiting.add(order.started, order.results, order.refused)
                self._wake()
            case do.StartProcess() | do.StopProcess() | do.KillProcess() | do.Discard():
                self._to_processes(order)
            case do.Publish():
                self._transfers.publish(order.attempt, order.value, order.files)
            case do.TakeBack():
                self._runners.take_back(order.runner, order.sequences)
            case do.Spawn():
                self._runners.spawn(order.runner, order.delay_s)
            case do.StopTask():
                self._runners.stop_task(order.runner, order.sequence, order.grace_s)
            case do.Retire():
                self._runners.retire(order.runner)
            case do.Kill():
                self._runners.kill(order.runner)
            case do.Fetch():
                self._transfers.fetch(order.attempt)
            case do.Save():
                self._transfers.save(order.attempt, order.value)
            case do.ReportHeld():
                self._waiting.held = True
                self._wake()
            case do.TellBid():
                self._timers.beat_at(max(self._clock.monotonic(), self._beat_at + BEAT_SPACING_S))
            case do.Leave():
                self._waiting.goodbye = True
                self._wake()
            case _:
                assert_never(order)

    def _to_processes(self, order: do.StartProcess | do.StopProcess | do.KillProcess | do.Discard) -> None:
        match order:
            case do.StartProcess():
                self._processes.start(order.attempt)
            case do.StopProcess():
                self._processes.stop(order.attempt, order.grace_s)
            case do.KillProcess():
                self._processes.kill(order.attempt)
            case do.Discard():
                self._processes.discard(order.attempt)
            case _:
                assert_never(order)

    def _wake(self) -> None:
        if self._outbound is not None:
            self._outbound.wake()

    # The stream.

    async def _connect(self, backoff: Backoff) -> None:
        """Live through one stream."""
        if self._session_over or self._clock.monotonic() >= self._agent.lease.ends_at:
            self._begin_session()
        dead = self._sessions.dead()
        await self._take_over(dead)
        bid = self._agent.bid
        hello = Hello(session_id=self._session, replaced_session_ids=dead, slots=bid.slots, credits=bid.credits)
        self._outbound = outbound = Outbound(hello, self._waiting)
        hello_sent_at = self._clock.monotonic()
        try:
            async with (
                asyncio.timeout(WELCOME_TIMEOUT_S) as self._patience,
                aclosing(self._manager.connect(outbound)) as incoming,
            ):
                async for message in incoming:
                    if isinstance(message, events.Welcomed):
                        self._part_from(dead)
                        backoff.reset()
                        self._welcome(message, hello_sent_at, outbound)
                    else:
                        self._on_message(message)
        except TimeoutError:
            raise Unavailable("the worker-manager fell silent", reason="SILENT") from None
        except (IllegalState, StaleLease) as error:
            _log.warning("session_refused", session_id=self._session, error=error.message)
            self._session_over = True
        except InvalidInput as error:
            raise StartupError(f"the worker-manager refuses this worker: {error.message}") from error
        finally:
            self._ready.clear()
            self._outbound = None
            outbound.close()
            if outbound.ended:
                self._journal.drop([self._session], self._sessions.end)
                self._left.set()
        if outbound.ended:
            # `run` ends this: to return would be told as a lost connection.
            await asyncio.Event().wait()

    def _begin_session(self) -> None:
        over, results = self._session, len(self._agent.held()[1])
        self._session_over = False
        self._session = self._sessions.begin()
        _log.warning("session_lost", session_id=over, new_session_id=self._session, dropped_results=results)
        self.handle(events.SessionBegun())
        self._journal.begin(self._session)

    async def _take_over(self, dead: Sequence[str]) -> None:
        """Make the results of dead sessions ours, and end what they still run, before we say that they are dead.

        From then on all that they held is lost, but for what the first report of this session has results of.
        """
        found = [each for each in dead if each not in self._taken_over]
        if not found:
            return
        left = await self._journal.take_over(found)
        await self._processes.end_left(left.processes)
        self._taken_over.update(found)
        _log.info("taken_over", sessions=found, results=len(left.results), unfinished=left.unfinished)
        self.handle(events.LeftBehind(results=left.results))

    def _part_from(self, dead: Sequence[str]) -> None:
        """The worker-manager was told of dead sessions: nothing of theirs is needed any more."""
        # Their locks go last: should we die before, a successor knows by them what there is to remove.
        self._journal.drop(dead, partial(self._forget_sessions, dead))

    def _forget_sessions(self, dead: Sequence[str]) -> None:
        self._sessions.forget(dead)
        self._taken_over.difference_update(dead)

    def _welcome(self, message: events.Welcomed, hello_sent_at: float, outbound: Outbound) -> None:
        self._patience.reschedule(None)
        self._beat_interval_s = message.heartbeat_interval_s
        self._waiting.clear_updates()
        self.handle(replace(message, hello_sent_at=hello_sent_at))
        self._on_lease_extended()
        outbound.open()
        if not self._agent.draining:
            self._ready.set()

    def _on_message(self, message: Incoming) -> None:
        self.handle(message)
        if self._agent.draining:
            self._ready.clear()
        if isinstance(message, events.BeatAnswered):
            self._on_lease_extended()

    def _make_held(self) -> Held:
        live, unacknowledged = self._agent.held()
        return Held(live=live, unacknowledged=unacknowledged)

    # Heartbeat and lease.

    def _make_beat(self) -> Beat:
        self._beat += 1
        self._beat_at = self._clock.monotonic()
        self.handle(events.BeatSent(beat=self._beat))
        self._timers.beat_at(self._beat_at + self._beat_interval_s)
        bid = self._agent.bid
        return Beat(beat=self._beat, slots=bid.slots, credits=bid.credits, draining=self._agent.draining)

    def _on_beat_due(self) -> None:
        self._waiting.beat = True
        self._wake()

    def _on_lease_extended(self) -> None:
        stops_at = self._agent.lease.stops_at
        self._timers.lease_at(stops_at)
        self._processes.guard(stops_at)

    def _on_lease_due(self) -> None:
        self._look_at_lease()
        stops_at = self._agent.lease.stops_at
        if self._clock.monotonic() < stops_at:
            self._timers.lease_at(stops_at)

    def _look_at_lease(self) -> None:
        """Stop everything if it is time.

        Before anything else is heard: if this process stood still, the guard has killed what executed our attempts, and
        neither their deaths nor an answer that waited here may be taken for anything else.
        """
        stops_at = self._agent.lease.stops_at
        if self._clock.monotonic() < stops_at or stops_at == self._stopped_at:
            return
        self._stopped_at = stops_at
        _log.warning("lease_ending", session_id=self._session)
        self.handle(events.LeaseEnding())
        if self._outbound is not None and not self._patience.expired():
            self._patience.reschedule(self._clock.monotonic())


class _Timers:
    """When the next heartbeat and the lease's end are due, on the loop's clock."""

    def __init__(self, on_beat: Callable[[], None], on_lease: Callable[[], None]) -> None:
        self._on_beat = on_beat
        self._on_lease = on_lease
        # With their times beside them: uvloop gives a handle without one for what is due already.
        self._beat: tuple[float, asyncio.Handle] | None = None
        self._lease: tuple[float, asyncio.Handle] | None = None

    def beat_at(self, when: float) -> None:
        """Have a heartbeat then, or at the time that was set, whichever comes first."""
        self._beat = self._earlier(self._beat, when, self._fire_beat)

    def lease_at(self, when: float) -> None:
        """Look at the lease then. A timer that is set fires earlier and looks again: heartbeats do not move it."""
        if when == NEVER:
            return
        self._lease = self._earlier(self._lease, when, self._fire_lease)

    @staticmethod
    def _earlier(
        timer: tuple[float, asyncio.Handle] | None, when: float, fire: Callable[[], None]
    ) -> tuple[float, asyncio.Handle]:
        """Return a timer that fires then, or the one that is set if it fires sooner."""
        if timer is not None:
            if timer[0] <= when:
                return timer
            timer[1].cancel()
        return when, asyncio.get_running_loop().call_at(when, fire)

    def cancel(self) -> None:
        """Stop all timers."""
        for timer in (self._beat, self._lease):
            if timer is not None:
                timer[1].cancel()

    def _fire_beat(self) -> None:
        self._beat = None
        self._on_beat()

    def _fire_lease(self) -> None:
        self._lease = None
        self._on_lease()
