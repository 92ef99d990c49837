"""The agent's state and every change of it: events in, instructions out.

Owns which attempts are held (waiting, being prepared, running, finished and not acknowledged), the tokens seen, the
bid, the lease and the drain. One door, `handle`; time is an argument. Which runner executes what is the pool's.
"""

from collections.abc import Iterator, Sequence
from typing import Final, assert_never

from nodeflow_worker.domain import events, failures
from nodeflow_worker.domain.instructions import (
    Discard,
    Fetch,
    Forget,
    Instruction,
    Leave,
    NoteProcess,
    Publish,
    Record,
    Report,
    ReportHeld,
    Save,
    TellBid,
)
from nodeflow_worker.domain.lease import Lease
from nodeflow_worker.domain.pace import Bid, Pace
from nodeflow_worker.domain.pool import Pool
from nodeflow_worker.domain.unacknowledged import Unacknowledged
from nodeflow_worker.domain.values import INLINE_LIMIT_BYTES, Attempt, Ending, Key, Outcome, State, Stop, Stored

TIMEOUT_GRACE_S: Final = 0.5
"""How long code that ran out of time may take to clean up before its runner is killed."""
MAX_PACES: Final = 10_000


class Agent:
    """The worker's core. `slots` tasks run at once; up to `max_credits` more are held ready when tasks are quick."""

    def __init__(self, *, slots: int, max_credits: int) -> None:
        self.bid = Bid(slots=slots, max_credits=max_credits)
        self.lease = Lease()
        self.draining = False
        self._pool = Pool(slots)
        self._held: dict[tuple[str, int], Attempt] = {}
        self._live = 0
        self._unacknowledged = Unacknowledged()
        self._tokens: dict[int, int] = {}
        self._paces: dict[tuple[str, str], Pace] = {}
        # The bid that the last heartbeat carried, and the one before it, which counts until that heartbeat is answered.
        self._told_credits = self.bid.credits
        self._last_beat = 0
        self._granted_credits = self.bid.credits

    def held(self) -> tuple[Sequence[Attempt], Sequence[Attempt]]:
        """Return the live attempts, and the finished ones that were not acknowledged, oldest result first."""
        live = [each for each in self._all_held() if each.state is not State.FINISHED]
        return live, self._unacknowledged.told()

    def handle(self, event: events.Event, now: float) -> list[Instruction]:
        """Take in one event at the time `now` (monotonic seconds) and return what is to be done, in order."""
        match event:
            case events.RunnerResults():
                return self._on_results(event, now)
            case events.Assigned():
                return self._on_assigned(event.attempts, now)
            case events.Acknowledged():
                return self._on_acknowledged(event.result_ids)
            case events.CancelRequested():
                return self._on_cancel(event.keys, event.grace_s)
            case events.RunnerReady():
                self._pool.ready(event.runner)
                return self._pool.dispatch(now)
            case events.RunnerDied():
                return self._on_died(event, now)
            case events.TaskRunning() | events.TaskOverdue() | events.TaskSkipped():
                return self._on_task(event, now)
            case events.TasksTakenBack():
                return self._on_taken_back(event, now)
            case events.ProcessEnded():
                return self._on_process_ended(event, now)
            case events.ProcessRunning() | events.ProcessIdentified() | events.ProcessOverdue():
                return self._on_process(event)
            case events.Prepared() | events.Saved() | events.TransferFailed():
                return self._on_transfer(event, now)
            case events.Recorded():
                return self._on_recorded(event.attempts)
            case events.LeftBehind():
                return self._take_over(event.results)
            case events.Started():
                return self._pool.start()
            case events.DrainRequested():
                return self._on_drain()
            case events.HeldRequested():
                return [ReportHeld()]
            case events.LeaseEnding():
                return self._drop_live()
            case events.SessionBegun():
                return self._begin_anew()
            case events.Welcomed() | events.BeatSent() | events.BeatAnswered():
                return self._on_lease(event, now)
            case _:
                assert_never(event)

    # Assignments.

    def _on_assigned(self, attempts: Sequence[Attempt], now: float) -> list[Instruction]:
        if now >= self.lease.stops_at:
            # They waited here while we stood still, and begin elsewhere by now; or a report will say that we lack them.
            return []
        ready: list[Attempt] = []
        refused: list[Attempt] = []
        orders: list[Instruction] = []
        most = self._most_live()
        for attempt in attempts:
            if self._is_stale(attempt) or self._live >= most:
                refused.append(attempt)
                continue
            name = (attempt.execution_id, attempt.task_number)
            known = self._held.get(name)
            if known is not None and not self._beside(attempt, known, refused):
                continue
            self._held[name] = attempt
            self._live += 1
            if attempt.spec.process is None:
                attempt.pace = self._pace(attempt)
            if attempt.references:
                attempt.state = State.PREPARING
                orders.append(Fetch(attempt=attempt))
            else:
                ready.append(attempt)
        if refused:
            orders.append(Report(refused=refused))
        self._pool.enqueue(ready)
        return orders + self._pool.dispatch(now)

    def _is_stale(self, attempt: Attempt) -> bool:
        """Whether a higher token of its shard was seen; its own is, from now on."""
        token = self._tokens.get(attempt.shard, 0)
        if attempt.fencing_token > token:
            self._tokens[attempt.shard] = attempt.fencing_token
        return attempt.fencing_token < token

    def _most_live(self) -> int:
        """How many attempts may be live when new ones are taken."""
        if self.draining or self._unacknowledged.full:
            return 0
        return self.bid.slots + max(self._told_credits, self._granted_credits)

    @staticmethod
    def _beside(attempt: Attempt, known: Attempt, refused: list[Attempt]) -> bool:
        """Whether to hold an attempt beside one of the same task; a repeat changes nothing but the token."""
        if attempt.attempt_number == known.attempt_number:
            known.fencing_token = max(known.fencing_token, attempt.fencing_token)
            return False
        if attempt.attempt_number < known.attempt_number:
            refused.append(attempt)
            return False
        attempt.older = known
        return True

    def _pace(self, attempt: Attempt) -> Pace:
        name = (attempt.spec.directory, attempt.spec.function)
        pace = self._paces.get(name)
        if pace is None:
            if len(self._paces) >= MAX_PACES:
                self._paces.clear()
            pace = self._paces[name] = Pace()
        return pace

    # Ends of attempts.

    def _on_results(self, event: events.RunnerResults, now: float) -> list[Instruction]:
        runner = self._pool.runner(event.runner)
        if runner is None:
            return []
        queue = runner.queue
        self._measure(runner.directory or "", event.spent, now)
        finished: list[Attempt] = []
        orders: list[Instruction] = []
        for outcome in event.outcomes:
            attempt = queue.popleft()
            if attempt.state is not State.FED:
                continue
            if type(outcome) is bytes and len(outcome) <= INLINE_LIMIT_BYTES:
                self._finish(attempt, outcome)
                finished.append(attempt)
            else:
                orders += self._settle(attempt, outcome, finished)
        runner.took(len(event.outcomes))
        runner.idle_since = now
        if finished:
            orders.append(Report(results=finished))
        orders += self._pool.dispatch(now)
        return orders + self._bid_changes() + self._leave_if_done()

    def _measure(self, directory: str, spent: Sequence[tuple[str, int, float]], now: float) -> None:
        for function, count, seconds in spent:
            pace = self._paces.get((directory, function))
            if pace is not None:
                pace.measured(count, seconds)
            self.bid.measured(count, seconds, now)

    def _finish(self, attempt: Attempt, outcome: Outcome) -> None:
        attempt.outcome = outcome
        attempt.state = State.FINISHED
        if attempt.extras:
            attempt.extras = ()
        self._unacknowledged.add(attempt)
        self._live -= 1

    def _record(self, attempt: Attempt, outcome: Outcome) -> Instruction:
        """Finish an attempt whose process has run: it cost too much to be lost with this process, so it is recorded."""
        self._finish(attempt, outcome)
        attempt.state = State.RECORDING
        return Record(attempt=attempt)

    def _on_recorded(self, attempts: Sequence[Attempt]) -> list[Instruction]:
        recorded = [each for each in attempts if each.state is State.RECORDING]
        for attempt in recorded:
            attempt.state = State.FINISHED
        return [Report(results=recorded)] if recorded else []

    def _take_over(self, results: Sequence[Attempt]) -> list[Instruction]:
        """Keep what earlier processes had finished as if it were our own; what there is no room for is lost."""
        superfluous: list[Attempt] = []
        for attempt in results:
            name = (attempt.execution_id, attempt.task_number)
            known = self._held.get(name)
            if known is not None and known.key == attempt.key and known.outcome is not None:
                continue  # by two sessions: the later one had taken it over from the other. Both are one row now.
            stale = known is not None and known.attempt_number >= attempt.attempt_number
            if stale or self._unacknowledged.full or attempt.outcome is None:
                superfluous.append(attempt)
                continue
            attempt.older = known
            self._held[name] = attempt
            self._live += 1  # which `_finish` takes back
            self._finish(attempt, attempt.outcome)
        return [Forget(attempts=superfluous)] if superfluous else []

    def _end(self, attempt: Attempt, outcome: Outcome, finished: list[Attempt]) -> None:
        """Finish an attempt, unless it was dropped meanwhile."""
        if attempt.state in (State.FED, State.WAITING):
            self._finish(attempt, outcome)
            finished.append(attempt)

    def _settle(self, attempt: Attempt, outcome: Outcome, finished: list[Attempt]) -> list[Instruction]:
        """End an attempt with an outcome of any kind; one that is too large to be inline is stored first."""
        if isinstance(outcome, bytes) and len(outcome) > INLINE_LIMIT_BYTES:
            outcome = Stored(data=outcome)
        if isinstance(outcome, Stored) and len(outcome.data) > INLINE_LIMIT_BYTES:
            attempt.state = State.STORING
            return [Save(attempt=attempt, value=outcome)]
        if outcome is Ending.SKIPPED and attempt.stop is Stop.NONE:  # it was to be taken back at the very last moment
            self._pool.enqueue([attempt])
            return []
        if isinstance(outcome, Ending):
            outcome = self._why_ended(attempt)
        if attempt.spec.process is not None:
            return [self._record(attempt, outcome)]
        self._finish(attempt, outcome)
        finished.append(attempt)
        return []

    @staticmethod
    def _why_ended(attempt: Attempt) -> Outcome:
        match attempt.stop:
            case Stop.CANCEL:
                return Ending.CANCELLED
            case Stop.TIMEOUT:
                return failures.timed_out(attempt)
            case Stop.NONE:
                return failures.runner_lost(attempt)
            case _:
                assert_never(attempt.stop)

    def _on_acknowledged(self, result_ids: Sequence[int]) -> list[Instruction]:
        acknowledged = self._unacknowledged.acknowledged(result_ids)
        for attempt in acknowledged:
            self._forget(attempt)
        recorded = [each for each in acknowledged if each.spec.process is not None]
        orders: list[Instruction] = [Forget(attempts=recorded)] if recorded else []
        return orders + self._leave_if_done()

    def _forget(self, attempt: Attempt) -> None:
        attempt.state = State.ENDED
        name = (attempt.execution_id, attempt.task_number)
        newest = self._held.get(name)
        if newest is attempt:
            if attempt.older is None:
                del self._held[name]
            else:
                self._held[name] = attempt.older
            return
        while newest is not None:
            if newest.older is attempt:
                newest.older = attempt.older
            newest = newest.older

    # Stops.

    def _on_cancel(self, keys: Sequence[Key], grace_s: float) -> list[Instruction]:
        orders: list[Instruction] = []
        finished: list[Attempt] = []
        for key in keys:
            attempt = self._find(key)
            if attempt is None:
                continue
            if attempt.state is State.FED:
                if attempt.stop is Stop.NONE:
                    attempt.stop = Stop.CANCEL
                orders += self._pool.stop(attempt, grace_s)
            elif attempt.state in (State.WAITING, State.PREPARING):
                self._finish(attempt, Ending.CANCELLED)
                finished.append(attempt)
        if finished:
            orders.append(Report(results=finished))
        return orders

    def _find(self, key: Key) -> Attempt | None:
        attempt = self._held.get(key[:2])
        while attempt is not None and attempt.attempt_number != key[2]:
            attempt = attempt.older
        return attempt

    # Runners.

    def _on_task(
        self, event: events.TaskRunning | events.TaskOverdue | events.TaskSkipped, now: float
    ) -> list[Instruction]:
        attempt = self._at(event.runner, event.sequence)
        if attempt is None:
            return []
        match event:
            case events.TaskRunning():
                self._pool.running_long(event.runner, event.sequence, now)
                return [Report(started=[attempt]), *self._pool.dispatch(now)]
            case events.TaskSkipped():
                self._finish(attempt, self._why_ended(attempt))
                return [Report(results=[attempt])]
            case events.TaskOverdue():
                if attempt.stop is not Stop.NONE:
                    return []
                attempt.stop = Stop.TIMEOUT
                return self._pool.stop(attempt, TIMEOUT_GRACE_S)
            case _:
                assert_never(event)

    def _on_taken_back(self, event: events.TasksTakenBack, now: float) -> list[Instruction]:
        finished: list[Attempt] = []
        for sequence in reversed(event.sequences):  # each goes to the head of its line
            attempt = self._at(event.runner, sequence)
            if attempt is None:
                continue
            if attempt.stop is Stop.NONE:
                self._pool.taken_back(event.runner, sequence)
            else:
                self._end(attempt, self._why_ended(attempt), finished)
        orders: list[Instruction] = [Report(results=finished)] if finished else []
        return orders + self._pool.dispatch(now)

    def _at(self, number: int, sequence: int) -> Attempt | None:
        runner = self._pool.runner(number)
        attempt = runner.at(sequence) if runner is not None else None
        return attempt if attempt is not None and attempt.state is State.FED else None

    def _on_died(self, event: events.RunnerDied, now: float) -> list[Instruction]:
        remains = self._pool.died(event.runner, event.last_started)
        finished: list[Attempt] = []
        for attempt in remains.lost:
            self._end(attempt, failures.result_lost(attempt, event.cause), finished)
        for attempt in remains.refused:
            self._end(attempt, failures.no_runner(attempt, event.cause), finished)
        for attempt in remains.stopped:
            self._end(attempt, self._why_ended(attempt), finished)
        blamed = remains.blamed
        if blamed is not None:
            ours = event.killed or blamed.stop is not Stop.NONE
            self._end(blamed, self._why_ended(blamed) if ours else failures.exited(blamed, event.cause), finished)
        for attempt in self._pool.give_up():
            self._end(attempt, failures.no_runner(attempt, event.cause), finished)
        orders: list[Instruction] = [Report(results=finished)] if finished else []
        return orders + self._pool.start() + self._pool.dispatch(now) + self._leave_if_done()

    # Processes.

    def _on_process(
        self, event: events.ProcessRunning | events.ProcessIdentified | events.ProcessOverdue
    ) -> list[Instruction]:
        attempt = event.attempt
        if attempt.state is not State.FED:
            return []
        match event:
            case events.ProcessRunning():
                return [Report(started=[attempt])]
            case events.ProcessIdentified():
                return [NoteProcess(attempt=attempt, process=event.process)]
            case events.ProcessOverdue():
                if attempt.stop is not Stop.NONE:
                    return []
                attempt.stop = Stop.TIMEOUT
                return self._pool.stop(attempt, TIMEOUT_GRACE_S)
            case _:
                assert_never(event)

    def _on_process_ended(self, event: events.ProcessEnded, now: float) -> list[Instruction]:
        attempt = event.attempt
        self._pool.process_ended(attempt)
        self.bid.measured(1, event.spent_s, now)
        finished: list[Attempt] = []
        orders: list[Instruction] = []
        if attempt.state is not State.FED:  # it was dropped: nobody wants what it leaves
            orders = [Discard(attempt=attempt)] if event.files else []
            orders.append(Forget(attempts=[attempt]))
        elif event.files and isinstance(event.outcome, bytes | Stored):
            attempt.state = State.STORING
            orders = [Publish(attempt=attempt, value=event.outcome, files=event.files)]
        else:
            orders = self._settle(attempt, event.outcome, finished)
        if finished:
            orders.append(Report(results=finished))
        return orders + self._pool.dispatch(now) + self._bid_changes() + self._leave_if_done()

    # Arguments and results by reference.

    def _on_transfer(
        self, event: events.Prepared | events.Saved | events.TransferFailed, now: float
    ) -> list[Instruction]:
        attempt = event.attempt
        if attempt.state not in (State.PREPARING, State.STORING):
            return []
        match event:
            case events.Prepared():
                attempt.extras = event.extras
                self._pool.enqueue([attempt])
                return self._pool.dispatch(now)
            case events.Saved():
                attempt.artifacts = event.artifacts
                outcome: Outcome = event.value
            case events.TransferFailed():
                outcome = event.failure
            case _:
                assert_never(event)
        if attempt.state is State.STORING and attempt.spec.process is not None:
            return [self._record(attempt, outcome), Discard(attempt=attempt)]
        self._finish(attempt, outcome)
        return [Report(results=[attempt]), *self._leave_if_done()]

    # The session.

    def _on_lease(
        self, event: events.Welcomed | events.BeatSent | events.BeatAnswered, now: float
    ) -> list[Instruction]:
        match event:
            case events.Welcomed():
                self.lease.begin(event.lease_timeout_s, event.hello_sent_at)
                return [ReportHeld(), TellBid(), *self._leave_if_done()]
            case events.BeatSent():
                self.lease.sent(event.beat, now)
                self._last_beat = event.beat
                self._granted_credits = max(self._granted_credits, self._told_credits)
                self._told_credits = self.bid.credits
                return self._pool.dispatch(now)  # somebody's patience may be over, and nothing else happen
            case events.BeatAnswered():
                self.lease.answered(event.beat)
                if event.beat == self._last_beat:
                    self._granted_credits = self._told_credits
            case _:
                assert_never(event)
        return []

    def _bid_changes(self) -> list[Instruction]:
        wanted, told = self.bid.credits, self._told_credits
        return [TellBid()] if wanted > 2 * told or told > 2 * wanted else []

    def _drop_live(self) -> list[Instruction]:
        """Stop and forget all that is unfinished; finished results are kept, for the session may still be there."""
        left: list[Instruction] = []
        for attempt in list(self._all_held()):
            if attempt.state is State.STORING and attempt.spec.process is not None:
                left += [Discard(attempt=attempt), Forget(attempts=[attempt])]
            if attempt.state < State.RECORDING:
                self._forget(attempt)
        self._live = 0
        return left + self._pool.abandon()

    def _begin_anew(self) -> list[Instruction]:
        orders = self._drop_live()
        self._held.clear()
        self._unacknowledged.drop()
        self.lease.void()
        return orders

    def _on_drain(self) -> list[Instruction]:
        if self.draining:
            return []
        self.draining = True
        return [TellBid(), *self._leave_if_done()]

    def _leave_if_done(self) -> list[Instruction]:
        return [Leave()] if self.draining and not self._held else []

    def _all_held(self) -> Iterator[Attempt]:
        for newest in self._held.values():
            attempt: Attempt | None = newest
            while attempt is not None:
                yield attempt
                attempt = attempt.older
