"""The one door of the core: events in, instructions out.

Owns every live session, its lease, and what each attached scheduler was told. Must not know network, messages, clocks.

Per scheduler stream a session is `opened`, then `held`, then its updates follow, and `closed` is last. From when a
report is asked for until it comes, updates of the session are not passed on to streams that wait for it: results are in
the report that follows (the worker keeps them until they are acknowledged), and a refused attempt is not in it.

A session that a hello replaces ends right after the first report of its successor, which has the results that it left:
a scheduler reads these first, and then takes for lost what else the old one held.

What a scheduler handed to a session, and finds neither in its report nor in earlier updates, is executed by nobody and
never will be. For a report names what the worker holds, and what it was sent since it was asked (`since_asked`) and has
not ended; a batch that is based on no report, or on an earlier one than the last that its stream was sent, is dropped;
and so is all that comes late from a stream which is over.
"""

import heapq
from collections.abc import Iterator, Mapping
from typing import assert_never

from nodeflow_shared.errors import IllegalState, InvalidInput, NodeflowError, StaleLease, Unavailable
from nodeflow_worker_manager.domain import events as ev
from nodeflow_worker_manager.domain import instructions as do
from nodeflow_worker_manager.domain.questions import Questions
from nodeflow_worker_manager.domain.reports import Held, Updates
from nodeflow_worker_manager.domain.sessions import NO_CAPACITY, EndReason, Session, SessionChange, SessionState
from nodeflow_worker_manager.domain.shards import ShardTable

Instructions = Iterator[do.Instruction]


class SessionRegistry:
    """The sessions of one worker-manager. `lease_timeout_s` is how long one lives after its last sign of life."""

    def __init__(self, *, lease_timeout_s: float) -> None:
        self._lease_timeout_s = lease_timeout_s
        self._sessions: dict[str, Session] = {}
        self._by_connection: dict[int, Session] = {}
        # Ended here, but not yet in the state-manager, which refuses them itself afterwards.
        self._ending: set[str] = set()
        # One entry per session counts, that of its `due`; one that was renewed meanwhile goes back in when it comes up.
        self._lease_ends: list[tuple[float, str]] = []
        self._shards = ShardTable()
        self._questions = Questions()

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The sessions that have not ended, by id. To be read only."""
        return self._sessions

    @property
    def next_lease_end(self) -> float | None:
        """The monotonic time at which a tick is due, or None. It may be early, never late."""
        return self._lease_ends[0][0] if self._lease_ends else None

    def handle(self, event: ev.Event, now: float) -> list[do.Instruction]:
        """Take an event in at monotonic time `now`, and return what must be done, in order."""
        return list(self._handle(event, now))

    def _handle(self, event: ev.Event, now: float) -> Instructions:
        match event:
            case ev.UpdatesReceived():
                return self._on_updates(event)
            case ev.AssignmentsReceived():
                return self._on_assignments(event)
            case ev.AcknowledgementReceived():
                return self._on_acknowledgement(event)
            case ev.HeartbeatReceived():
                return self._on_heartbeat(event, now)
            case ev.HeldReceived():
                return self._on_held(event, now)
            case ev.CancellationReceived():
                return self._on_cancellation(event)
            case ev.HelloReceived():
                return self._on_hello(event, now)
            case ev.SessionRegistered():
                return self._on_registered(event, now)
            case ev.RegistrationFailed():
                return self._on_registration_failed(event)
            case ev.WorkerLost():
                return self._on_worker_lost(event)
            case ev.GoodbyeReceived():
                return self._on_goodbye(event)
            case ev.SchedulerAttached():
                return self._on_attached(event)
            case ev.ShardsClaimed():
                return self._on_claimed(event)
            case ev.ShardsReleased():
                return self._on_released(event)
            case ev.SchedulerLost():
                return self._on_scheduler_lost(event)
            case ev.QuestionAsked():
                return self._on_question(event)
            case ev.QuestionAnswered():
                return self._on_answer(event)
            case ev.QuestionDropped():
                self._questions.drop(event.question)
                return iter(())
            case ev.DrainRequested():
                return self._on_drain(event)
            case ev.SessionsLoaded():
                return self._on_loaded(event, now)
            case ev.EndsRecorded():
                return self._on_ends_recorded(event)
            case ev.Tick():
                return self._on_tick(now)
            case _:
                assert_never(event)

    # Workers come and go.

    def _on_loaded(self, event: ev.SessionsLoaded, now: float) -> Instructions:
        for live in event.sessions:
            session = Session(
                session_id=live.session_id,
                worker_id=live.worker_id,
                state=SessionState.DISCONNECTED,
                lease_end=now + self._lease_timeout_s,
                last_seen=now,
                labels=live.labels,
                version=live.version,
            )
            self._add(session)
            yield from self._tell_opened(session)

    def _on_hello(self, event: ev.HelloReceived, now: float) -> Instructions:
        hello, connection = event.hello, event.connection
        fault = self._why_refused(hello)
        if fault is not None:
            yield do.CloseConnection(connection=connection, error=fault)
            return
        session = self._sessions.get(hello.session_id)
        if session is None:
            session = Session(
                session_id=hello.session_id,
                worker_id=hello.worker_id,
                state=SessionState.REGISTERING,
                lease_end=now + self._lease_timeout_s,
                last_seen=now,
            )
            self._add(session)
            yield do.Register(hello=hello)
        elif session.connection is not None:
            # The worker noticed sooner than we did that its old stream is dead.
            yield self._disconnect(session, Unavailable("the worker has opened another stream", reason="RECONNECTED"))
            session.change(SessionChange.STREAM_LOST)
            yield from self._tell_bid(session)
        self._adopt(session, event, now)
        if session.state is not SessionState.REGISTERING:
            yield from self._replace(session)
            yield from self._welcome(session, newly_registered=False)

    def _adopt(self, session: Session, event: ev.HelloReceived, now: float) -> None:
        """Take over what the hello says; it is a sign of life."""
        hello = event.hello
        session.capacity, session.labels, session.version = hello.capacity, hello.labels, hello.version
        # Those it named before have not ended yet if its first report has not come.
        session.replaces = tuple(dict.fromkeys((*session.replaces, *hello.replaced_session_ids)))
        session.connection = event.connection
        self._by_connection[event.connection] = session
        self._renew(session, now)

    def _why_refused(self, hello: ev.Hello) -> NodeflowError | None:
        if hello.session_id in self._ending:
            return _has_ended(hello.session_id)
        known = self._sessions.get(hello.session_id)
        if known is not None and known.replaced:
            return _has_ended(hello.session_id)
        if known is not None and known.worker_id != hello.worker_id:
            return InvalidInput(
                f"session {hello.session_id} belongs to worker {known.worker_id}, not {hello.worker_id}"
            )
        for replaced in hello.replaced_session_ids:
            other = self._sessions.get(replaced)
            if other is not None and other.worker_id != hello.worker_id:
                return InvalidInput(f"session {replaced} belongs to worker {other.worker_id} and cannot be replaced")
        return None

    def _on_registered(self, event: ev.SessionRegistered, now: float) -> Instructions:
        session = self._sessions.get(event.session_id)
        if session is None:
            # It ended while it was being recorded, so its end has to be recorded once more.
            yield self._record_end(event.session_id)
            return
        yield from self._replace(session)
        self._renew(session, now)
        if session.connection is None:
            session.change(SessionChange.RECORDED)
            yield from self._tell_opened(session)
        else:
            yield from self._welcome(session, newly_registered=event.created)

    def _on_registration_failed(self, event: ev.RegistrationFailed) -> Instructions:
        session = self._sessions.get(event.session_id)
        if session is None or session.state is not SessionState.REGISTERING:
            return
        session.change(SessionChange.REFUSED)
        del self._sessions[session.session_id]
        if session.connection is not None:
            yield self._disconnect(session, event.error)

    def _welcome(self, session: Session, *, newly_registered: bool) -> Instructions:
        assert session.connection is not None
        was_known = session.state is not SessionState.REGISTERING
        session.change(SessionChange.WELCOMED)
        yield do.Welcome(connection=session.connection, newly_registered=newly_registered)
        if session.drain_requested:
            session.draining = True
            yield do.Drain(connection=session.connection)
        # After a welcome the worker reports what it holds without being asked.
        session.asked = True
        session.awaiting.update(self._shards.streams)
        if not was_known:
            yield from self._tell_opened(session)

    def _replace(self, session: Session) -> Instructions:
        """Part from earlier processes of the worker. Their sessions end when it has reported what they left."""
        for replaced in session.replaces:
            old = self._sessions.get(replaced)
            if old is None or old.replaced:
                continue
            old.replaced = True
            if old.state is SessionState.REGISTERING:
                yield from self._end(old, EndReason.REPLACED, _was_replaced(replaced))
            elif old.connection is not None:
                yield self._disconnect(old, _was_replaced(replaced))
                old.change(SessionChange.STREAM_LOST)
                yield from self._tell_bid(old)

    def _end_replaced(self, session: Session) -> Instructions:
        """End the sessions of earlier processes; registering has recorded that, a reconnect has not."""
        for replaced in session.replaces:
            old = self._sessions.get(replaced)
            if old is not None:
                yield from self._end(old, EndReason.REPLACED, _was_replaced(replaced))
        session.replaces = ()

    def _on_worker_lost(self, event: ev.WorkerLost) -> Instructions:
        session = self._by_connection.pop(event.connection, None)
        if session is None or session.connection != event.connection:
            return
        session.connection = None
        session.drop_report()
        session.change(SessionChange.STREAM_LOST)
        yield from self._tell_bid(session)

    def _on_goodbye(self, event: ev.GoodbyeReceived) -> Instructions:
        session = self._welcomed(event.connection)
        if session is not None:
            yield from self._end(session, EndReason.GOODBYE, None)

    def _on_tick(self, now: float) -> Instructions:
        while self._lease_ends and self._lease_ends[0][0] <= now:
            due, session_id = heapq.heappop(self._lease_ends)
            session = self._sessions.get(session_id)
            if session is None or session.due != due:
                continue
            # While it is being recorded, its worker has no lease that could end.
            if session.state is SessionState.REGISTERING:
                session.lease_end = max(session.lease_end, now + self._lease_timeout_s)
            if session.lease_end > now:
                self._look_again(session)
            else:
                yield from self._end(session, EndReason.LEASE_ENDED, _has_ended(session_id))

    def _end(self, session: Session, reason: EndReason, error: NodeflowError | None) -> Instructions:
        streams = () if session.state is SessionState.REGISTERING else tuple(self._shards.streams)
        session.change(SessionChange.ENDED)
        session.drop_report()
        del self._sessions[session.session_id]
        for stream in streams:
            yield do.SendClosed(stream=stream, session_id=session.session_id, reason=reason)
        yield self._record_end(session.session_id)
        if session.connection is not None:
            yield self._disconnect(session, error)

    def _record_end(self, session_id: str) -> do.RecordEnds:
        self._ending.add(session_id)
        return do.RecordEnds(session_ids=(session_id,))

    def _on_ends_recorded(self, event: ev.EndsRecorded) -> Instructions:
        self._ending.difference_update(event.session_ids)
        return iter(())

    def _disconnect(self, session: Session, error: Exception | None) -> do.CloseConnection:
        assert session.connection is not None
        connection, session.connection = session.connection, None
        self._by_connection.pop(connection, None)
        session.drop_report()
        return do.CloseConnection(connection=connection, error=error)

    def _on_drain(self, event: ev.DrainRequested) -> Instructions:
        for session in self._sessions.values():
            if session.worker_id != event.worker_id:
                continue
            session.drain_requested = True
            if session.state is SessionState.CONNECTED and session.connection is not None:
                session.draining = True
                yield do.Drain(connection=session.connection)
                yield from self._tell_bid(session)

    # Workers report.

    def _on_heartbeat(self, event: ev.HeartbeatReceived, now: float) -> Instructions:
        session = self._welcomed(event.connection)
        if session is None:
            return
        self._renew(session, now)
        yield do.ReplyToHeartbeat(connection=event.connection, beat=event.beat)
        session.capacity = event.capacity
        session.draining = event.draining or session.drain_requested
        yield from self._tell_bid(session)

    def _on_held(self, event: ev.HeldReceived, now: float) -> Instructions:
        session = self._welcomed(event.connection)
        if session is None or not session.asked:
            return
        held: Held = event.held.plus(session.since_asked) if session.since_asked else event.held
        session.assigned_count = held.live_count
        session.last_seen = now
        waiting = sorted(session.awaiting)
        session.drop_report()
        for number in waiting:
            shards = self._shards.streams[number].shards
            generation = session.generations[number] = session.generations.get(number, 0) + 1
            yield do.SendHeld(
                stream=number, session_id=session.session_id, generation=generation, held=held.only(shards)
            )
        yield from self._end_replaced(session)
        yield from self._tell_bid(session)

    def _on_updates(self, event: ev.UpdatesReceived) -> Instructions:
        session = self._welcomed(event.connection)
        if session is None:
            return
        updates = event.updates
        session.assigned_count = max(0, session.assigned_count - updates.ended_count)
        if session.since_asked:
            # Whoever waits for the report is not told of these ends: it must not name what is over.
            session.since_asked = [batch.without(updates) for batch in session.since_asked]
        sole = self._shards.sole_owner
        if sole is not None:
            if sole.number not in session.awaiting:
                yield do.SendUpdates(stream=sole.number, session_id=session.session_id, updates=updates)
            return
        # What nobody owns stays with the worker, which reports it when the next owner claims the shard.
        for number, stream in self._shards.streams.items():
            part: Updates | None = None if number in session.awaiting else updates.only(stream.shards)
            if part is not None:
                yield do.SendUpdates(stream=number, session_id=session.session_id, updates=part)

    # Schedulers come, go and hand out attempts.

    def _on_attached(self, event: ev.SchedulerAttached) -> Instructions:
        replaced = self._shards.attach(event.stream, event.scheduler_id)
        if replaced is not None:
            yield from self._end_stream(replaced, Unavailable("the scheduler has attached anew", reason="REPLACED"))
        known = [each for each in self._sessions.values() if each.state is not SessionState.REGISTERING]
        yield do.SendOpened(stream=event.stream, sessions=tuple(map(_opened, known)))
        yield do.SendAttached(stream=event.stream)
        yield from self._ask_for_held(event.stream)

    def _on_claimed(self, event: ev.ShardsClaimed) -> Instructions:
        stream = self._shards.streams.get(event.stream)
        if stream is None:
            return
        try:
            gained = self._shards.claim(stream, event.tokens)
        except StaleLease as stale:
            yield from self._end_stream(event.stream, stale)
            return
        if gained:
            yield from self._ask_for_held(event.stream)

    def _on_released(self, event: ev.ShardsReleased) -> Instructions:
        stream = self._shards.streams.get(event.stream)
        if stream is not None:
            self._shards.release(stream, event.shards)
        return iter(())

    def _on_scheduler_lost(self, event: ev.SchedulerLost) -> Instructions:
        return self._forget_stream(event.stream)

    def _end_stream(self, number: int, error: NodeflowError) -> Instructions:
        yield from self._forget_stream(number)
        yield do.CloseStream(stream=number, error=error)

    def _forget_stream(self, number: int) -> Instructions:
        self._shards.detach(number)
        for session in self._sessions.values():
            session.awaiting.discard(number)
            session.generations.pop(number, None)
        for question in self._questions.take_all(number):
            yield do.RefuseQuestion(question=question, error=_nobody_answers())

    def _ask_for_held(self, stream: int) -> Instructions:
        """Have every connected session report to a stream; a report that is under way serves it as well."""
        for session in self._sessions.values():
            if session.state is not SessionState.CONNECTED or session.connection is None:
                continue
            session.awaiting.add(stream)
            if not session.asked:
                session.asked = True
                yield do.ReportHeld(connection=session.connection)

    def _on_assignments(self, event: ev.AssignmentsReceived) -> Instructions:
        stream = self._shards.streams.get(event.stream)
        if stream is None:
            return
        batch = event.batch
        if self._shards.sole_owner is not stream:
            fenced = batch.fence(self._shards.tokens)
            if fenced.stale is not None:
                yield do.SendUpdates(stream=event.stream, session_id=event.session_id, updates=fenced.stale)
            if fenced.current is None:
                return
            batch = fenced.current
        session = self._reachable(event.session_id)
        if session is None or session.connection is None:
            # The scheduler learns from the report after the reconnect, or from the session's end.
            return
        if event.generation != session.generations.get(event.stream):
            # It crossed a report, or comes before the first: the scheduler misses it there, so it must not arrive.
            return
        session.assigned_count += batch.count
        if session.asked:
            session.since_asked.append(batch)
        yield do.Assign(connection=session.connection, batch=batch)

    def _on_acknowledgement(self, event: ev.AcknowledgementReceived) -> Instructions:
        session = self._reachable(event.session_id)
        if session is not None and session.connection is not None:
            yield do.Acknowledge(connection=session.connection, acknowledgement=event.acknowledgement)

    def _on_cancellation(self, event: ev.CancellationReceived) -> Instructions:
        session = self._reachable(event.session_id)
        if session is not None and session.connection is not None:
            yield do.Cancel(connection=session.connection, cancellation=event.cancellation)

    # Workers ask.

    def _on_question(self, event: ev.QuestionAsked) -> Instructions:
        owner = self._shards.owner(event.shard)
        if event.session_id not in self._sessions:
            yield do.RefuseQuestion(question=event.question, error=_has_ended(event.session_id))
        elif owner is None:
            yield do.RefuseQuestion(question=event.question, error=_nobody_answers())
        else:
            self._questions.ask(event.question, owner)
            yield do.SendQuestion(stream=owner, question=event.question, request=event.request)

    def _on_answer(self, event: ev.QuestionAnswered) -> Instructions:
        if self._questions.take(event.question, event.stream):
            yield do.Answer(question=event.question, answer=event.answer)

    # What all of them need.

    def _add(self, session: Session) -> None:
        self._sessions[session.session_id] = session
        self._look_again(session)

    def _look_again(self, session: Session) -> None:
        session.due = session.lease_end
        heapq.heappush(self._lease_ends, (session.due, session.session_id))

    def _renew(self, session: Session, now: float) -> None:
        session.lease_end = now + self._lease_timeout_s
        session.last_seen = now

    def _welcomed(self, connection: int) -> Session | None:
        """Return the session whose stream this is now; whatever comes late on another stream counts for nothing."""
        session = self._by_connection.get(connection)
        return session if session is not None and session.state is SessionState.CONNECTED else None

    def _reachable(self, session_id: str) -> Session | None:
        session = self._sessions.get(session_id)
        return session if session is not None and session.state is SessionState.CONNECTED else None

    def _tell_opened(self, session: Session) -> Instructions:
        session.announced = session.bid
        for stream in self._shards.streams:
            yield do.SendOpened(stream=stream, sessions=(_opened(session),))

    def _tell_bid(self, session: Session) -> Instructions:
        """Announce the bid if it changed. One that is not zero waits for the report of what is held already."""
        bid = session.bid
        if (
            session.state is SessionState.REGISTERING
            or bid == session.announced
            or (session.asked and bid != NO_CAPACITY)
        ):
            return
        session.announced = bid
        for stream in self._shards.streams:
            yield do.SendCapacity(stream=stream, session_id=session.session_id, capacity=bid)


def _opened(session: Session) -> do.OpenedSession:
    return do.OpenedSession(
        session_id=session.session_id,
        worker_id=session.worker_id,
        capacity=session.announced,
        labels=session.labels,
        connected=session.state is SessionState.CONNECTED,
    )


def _nobody_answers() -> Unavailable:
    return Unavailable("no scheduler owns the execution at the moment; ask again", reason="NO_OWNER", retry_after_s=0.5)


def _was_replaced(session_id: str) -> IllegalState:
    return IllegalState(f"session {session_id} was replaced")


def _has_ended(session_id: str) -> IllegalState:
    return IllegalState(f"the lease of session {session_id} has ended; begin a new session", reason="SESSION_ENDED")
