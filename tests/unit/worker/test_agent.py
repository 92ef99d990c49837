"""The worker's core: events in, exact instructions out. No loop, no process, no clock."""

from collections.abc import Sequence

from tests.unit.worker.making import assigned, attempt, feed, quick, results, started_agent

from nodeflow_worker.domain import events
from nodeflow_worker.domain import instructions as do
from nodeflow_worker.domain.agent import TIMEOUT_GRACE_S, Agent
from nodeflow_worker.domain.unacknowledged import MAX_BYTES
from nodeflow_worker.domain.values import (
    INLINE_LIMIT_BYTES,
    Ending,
    Extra,
    Failure,
    FailureKind,
    Outcome,
    Reference,
    State,
    Stored,
)


def reported(orders: Sequence[do.Instruction]) -> list[Outcome | None]:
    return [each.outcome for order in orders if isinstance(order, do.Report) for each in order.results]


class TestStart:
    def test_a_runner_is_spawned_for_each_slot(self) -> None:
        agent = Agent(slots=2, max_credits=10)
        assert agent.handle(events.Started(), 0.0) == [do.Spawn(runner=1), do.Spawn(runner=2)]

    def test_attempts_wait_until_a_runner_is_ready(self) -> None:
        agent = Agent(slots=1, max_credits=10)
        agent.handle(events.Started(), 0.0)
        one = attempt()
        assert assigned(agent, one) == []
        assert agent.handle(events.RunnerReady(runner=1), 0.0) == [feed(1, [one])]

    def test_when_no_runner_ever_starts_attempts_fail_in_the_end(self) -> None:
        agent = Agent(slots=1, max_credits=10)
        agent.handle(events.Started(), 0.0)
        assigned(agent, attempt())
        seen: list[do.Instruction] = []
        for runner in range(1, 6):
            seen = agent.handle(events.RunnerDied(runner=runner, last_started=0, cause="no memory"), 0.0)
        [failure] = reported(seen)
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.reason) == (FailureKind.SYSTEM, "RUNNER_UNAVAILABLE")
        assert do.Spawn(runner=6, delay_s=1.0) in seen


class TestAssignments:
    def test_unknown_functions_are_fed_one_by_one(self) -> None:
        agent = started_agent(slots=2)
        one, two, three = (attempt(task) for task in (1, 2, 3))
        assert assigned(agent, one, two, three) == [feed(1, [one]), feed(2, [two])]
        orders = results(agent, 1, b'"x"')
        assert orders == [do.Report(results=[one]), feed(1, [three])]
        assert (one.outcome, one.result_id, one.state) == (b'"x"', 1, State.FINISHED)

    def test_quick_functions_are_fed_in_batches(self) -> None:
        agent = started_agent(slots=1)
        quick(agent)
        batch = [attempt(task) for task in range(300)]
        [order] = assigned(agent, *batch)
        assert order == feed(1, batch[:256])

    def test_what_exceeds_slots_and_credits_is_refused(self) -> None:
        agent = started_agent(slots=1, max_credits=1)
        batch = [attempt(task) for task in range(3)]
        assert assigned(agent, *batch) == [do.Report(refused=[batch[2]]), feed(1, batch[:1])]

    def test_nothing_is_taken_while_results_that_nobody_acknowledged_are_too_many(self) -> None:
        agent = started_agent(slots=1)
        value = bytes(INLINE_LIMIT_BYTES)
        count = MAX_BYTES // INLINE_LIMIT_BYTES
        for task in range(count):
            one = attempt(task)
            assert assigned(agent, one) == [feed(1, [one])]
            assert results(agent, 1, value) == [do.Report(results=[one])]
        late = attempt(count)
        assert assigned(agent, late) == [do.Report(refused=[late])]
        agent.handle(events.Acknowledged(result_ids=[1]), 2.0)
        assert assigned(agent, late) == [feed(1, [late])]

    def test_a_lower_token_of_the_shard_is_refused(self) -> None:
        agent = started_agent()
        assigned(agent, attempt(1, shard=5, token=7))
        stale, other_shard = attempt(2, shard=5, token=6), attempt(3, shard=6, token=1)
        orders = assigned(agent, stale, other_shard)
        assert orders == [do.Report(refused=[stale]), feed(2, [other_shard])]

    def test_an_older_attempt_is_refused_while_a_newer_one_is_held(self) -> None:
        agent = started_agent()
        assigned(agent, attempt(1, 2))
        old = attempt(1, 1)
        assert assigned(agent, old) == [do.Report(refused=[old])]

    def test_a_newer_attempt_is_held_beside_an_older_one(self) -> None:
        agent = started_agent()
        old, new = attempt(1, 1), attempt(1, 2)
        assigned(agent, old)
        assert assigned(agent, new) == [feed(2, [new])]
        assert agent.held()[0] == [new, old]
        results(agent, 1, b"1")
        agent.handle(events.Acknowledged(result_ids=[old.result_id]), 2.0)
        assert agent.held() == ([new], [])

    def test_a_repeat_changes_nothing(self) -> None:
        agent = started_agent()
        one = attempt(1, token=1)
        assigned(agent, one)
        assert assigned(agent, attempt(1, token=2)) == []
        assert (agent.held()[0], one.fencing_token) == ([one], 2)

    def test_references_are_fetched_before_the_attempt_is_fed(self) -> None:
        agent = started_agent()
        reference = Reference(parameter="x", value=Stored(digest="sha256:1", size_bytes=3))
        one = attempt(references=(reference,))
        assert assigned(agent, one) == [do.Fetch(attempt=one)]
        assert agent.held()[0] == [one]
        extra = Extra(parameter="x", content_type="application/json", data=b"[1]")
        assert agent.handle(events.Prepared(attempt=one, extras=(extra,)), 1.0) == [feed(1, [one])]
        assert one.extras == (extra,)

    def test_an_attempt_whose_arguments_cannot_be_fetched_fails(self) -> None:
        agent = started_agent()
        one = attempt(references=(Reference(parameter="x", value=Stored(digest="sha256:1")),))
        assigned(agent, one)
        failure = Failure(kind=FailureKind.TRANSIENT, reason="R", message="m", retryable=True)
        orders = agent.handle(events.TransferFailed(attempt=one, failure=failure), 1.0)
        assert (orders, one.outcome) == ([do.Report(results=[one])], failure)


class TestResults:
    def test_results_are_kept_until_acknowledged(self) -> None:
        agent = started_agent()
        one, two = attempt(1), attempt(2)
        assigned(agent, one, two)
        results(agent, 1, b"1")
        assert agent.held() == ([two], [one])
        assert agent.handle(events.Acknowledged(result_ids=[1, 99]), 2.0) == []
        assert agent.held() == ([two], [])

    def test_a_large_result_is_stored_first(self) -> None:
        agent = started_agent()
        one = attempt()
        assigned(agent, one)
        large = b'"' + b"x" * 70_000 + b'"'
        assert results(agent, 1, large) == [do.Save(attempt=one, value=Stored(data=large))]
        assert agent.held() == ([one], [])
        stored = Stored(digest="sha256:1", size_bytes=70_002)
        assert agent.handle(events.Saved(attempt=one, value=stored), 2.0) == [do.Report(results=[one])]
        assert one.outcome == stored

    def test_started_is_told_of_what_runs(self) -> None:
        agent = started_agent()
        one = attempt()
        assigned(agent, one)
        running = events.TaskRunning(runner=1, sequence=1)
        assert agent.handle(running, 1.0) == [do.Report(started=[one])]
        results(agent, 1, b"1")
        assert agent.handle(running, 2.0) == []


class TestStops:
    def test_a_waiting_attempt_is_cancelled_at_once(self) -> None:
        agent = started_agent(slots=1)
        one, two = attempt(1), attempt(2)
        assigned(agent, one, two)
        orders = agent.handle(events.CancelRequested(keys=[two.key, ("e", 9, 9)], grace_s=3.0), 1.0)
        assert (orders, two.outcome) == ([do.Report(results=[two])], Ending.CANCELLED)
        assert results(agent, 1, b"1") == [do.Report(results=[one])]

    def test_a_fed_attempt_is_stopped_by_its_runner(self) -> None:
        agent = started_agent(slots=1)
        one = attempt(1)
        assigned(agent, one)
        orders = agent.handle(events.CancelRequested(keys=[one.key], grace_s=3.0), 1.0)
        assert orders == [do.StopTask(runner=1, sequence=1, grace_s=3.0)]
        assert reported(results(agent, 1, Ending.STOPPED)) == [Ending.CANCELLED]

    def test_a_result_that_was_quicker_than_the_cancellation_counts(self) -> None:
        agent = started_agent(slots=1)
        one = attempt(1)
        assigned(agent, one)
        agent.handle(events.CancelRequested(keys=[one.key], grace_s=3.0), 1.0)
        assert reported(results(agent, 1, b"1")) == [b"1"]

    def test_a_fed_attempt_that_had_not_begun_is_cancelled_at_once(self) -> None:
        agent = started_agent(slots=1)
        quick(agent)
        one, two = attempt(1), attempt(2)
        assigned(agent, one, two)
        orders = agent.handle(events.CancelRequested(keys=[two.key], grace_s=3.0), 1.0)
        assert orders == [do.StopTask(runner=1, sequence=3, grace_s=3.0)]
        assert reported(agent.handle(events.TaskSkipped(runner=1, sequence=3), 1.0)) == [Ending.CANCELLED]
        assert results(agent, 1, b"1", Ending.SKIPPED)[0] == do.Report(results=[one])

    def test_an_overdue_task_is_stopped_and_fails(self) -> None:
        agent = started_agent(slots=1)
        one = attempt(1, timeout_s=2.0)
        assigned(agent, one)
        overdue = events.TaskOverdue(runner=1, sequence=1)
        assert agent.handle(overdue, 1.0) == [do.StopTask(runner=1, sequence=1, grace_s=TIMEOUT_GRACE_S)]
        assert agent.handle(overdue, 1.0) == []
        died = events.RunnerDied(runner=1, last_started=1, cause="it was ended by SIGKILL", killed=True)
        [failure] = reported(agent.handle(died, 2.0))
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.TRANSIENT, "ATTEMPT_TIMEOUT", True)

    def test_an_overdue_task_leaves_its_place_to_another(self) -> None:
        agent = started_agent(slots=1, max_credits=1)
        assigned(agent, attempt(1, timeout_s=2.0))
        agent.handle(events.TaskOverdue(runner=1, sequence=1), 1.0)
        agent.handle(events.RunnerDied(runner=1, last_started=1, cause="it was ended by SIGKILL", killed=True), 2.0)
        agent.handle(events.RunnerReady(runner=2), 2.0)
        batch = [attempt(task) for task in (2, 3, 4)]
        assert assigned(agent, *batch, now=2.0) == [do.Report(refused=batch[2:]), feed(2, batch[:1])]


class TestDeaths:
    def test_blame_is_exact(self) -> None:
        agent = started_agent(slots=1)
        quick(agent)
        told, lost, blamed, unstarted = batch = [attempt(task) for task in range(4)]
        assigned(agent, *batch)
        results(agent, 1, b"1")
        # The runner's first task was the probe, so the one that it died in is its fourth.
        orders = agent.handle(events.RunnerDied(runner=1, last_started=4, cause="it exited with code 3"), 2.0)
        assert orders == [do.Report(results=[lost, blamed]), do.Spawn(runner=2)]
        assert told.outcome == b"1"
        assert isinstance(lost.outcome, Failure)
        assert isinstance(blamed.outcome, Failure)
        assert (lost.outcome.kind, lost.outcome.reason) == (FailureKind.SYSTEM, "RESULT_LOST")
        assert (blamed.outcome.kind, blamed.outcome.reason) == (FailureKind.USER, "RUNNER_EXITED")
        assert "it exited with code 3" in blamed.outcome.message
        assert agent.handle(events.RunnerReady(runner=2), 3.0) == [feed(2, [unstarted])]

    def test_nobody_is_blamed_when_nothing_was_begun(self) -> None:
        agent = started_agent(slots=1)
        one = attempt()
        assigned(agent, one)
        stale = events.RunnerDied(runner=1, last_started=0, cause="its code had changed on disk")
        assert agent.handle(stale, 1.0) == [do.Spawn(runner=2)]
        assert agent.handle(events.RunnerReady(runner=2), 1.0) == [feed(2, [one])]

    def test_an_attempt_before_which_runners_keep_dying_fails_in_the_end(self) -> None:
        agent = started_agent(slots=1)
        one = attempt()
        assigned(agent, one)
        for runner in range(1, 9):
            agent.handle(events.RunnerDied(runner=runner, last_started=0, cause="out of memory"), 1.0)
            assert agent.handle(events.RunnerReady(runner=runner + 1), 1.0) == [feed(runner + 1, [one])]
        orders = agent.handle(events.RunnerDied(runner=9, last_started=0, cause="out of memory"), 1.0)
        assert orders == [do.Report(results=[one]), do.Spawn(runner=10)]
        assert isinstance(one.outcome, Failure)
        assert one.outcome.reason == "RUNNER_UNAVAILABLE"

    def test_a_cancelled_task_that_never_began_ends_with_its_runner(self) -> None:
        agent = started_agent(slots=1)
        quick(agent)
        one, two = attempt(1), attempt(2)
        assigned(agent, one, two)
        agent.handle(events.CancelRequested(keys=[two.key], grace_s=3.0), 1.0)
        orders = agent.handle(events.RunnerDied(runner=1, last_started=2, cause="c"), 2.0)
        assert {each.task_number for order in orders if isinstance(order, do.Report) for each in order.results} == {
            1,
            2,
        }
        assert two.outcome is Ending.CANCELLED

    def test_a_task_is_not_blamed_when_the_agent_meant_another(self) -> None:
        agent = started_agent(slots=1)
        one = attempt(1)
        assigned(agent, one)
        died = events.RunnerDied(runner=1, last_started=1, cause="it was ended by SIGKILL", killed=True)
        [failure] = reported(agent.handle(died, 1.0))
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.reason) == (FailureKind.SYSTEM, "RUNNER_LOST")


class TestSession:
    def test_a_welcome_is_answered_with_what_is_held(self) -> None:
        agent = started_agent()
        welcome = events.Welcomed(lease_timeout_s=10.0, heartbeat_interval_s=2.0, hello_sent_at=5.0)
        assert agent.handle(welcome, 6.0) == [do.ReportHeld(), do.TellBid()]
        assert (agent.lease.stops_at, agent.lease.ends_at) == (14.0, 15.0)

    def test_report_held_is_answered(self) -> None:
        assert started_agent().handle(events.HeldRequested(), 0.0) == [do.ReportHeld()]

    def test_the_lease_counts_from_when_the_answered_beat_was_sent(self) -> None:
        agent = started_agent()
        agent.handle(events.Welcomed(lease_timeout_s=10.0, heartbeat_interval_s=2.0), 0.0)
        agent.handle(events.BeatSent(beat=1), 2.0)
        agent.handle(events.BeatSent(beat=2), 4.0)
        agent.handle(events.BeatAnswered(beat=1), 8.0)
        assert agent.lease.ends_at == 12.0
        agent.handle(events.BeatAnswered(beat=7), 9.0)
        assert agent.lease.ends_at == 12.0

    def test_before_the_lease_ends_all_that_is_unfinished_is_stopped_and_forgotten(self) -> None:
        agent = started_agent(slots=2)
        one, two, three = (attempt(task) for task in (1, 2, 3))
        assigned(agent, one, two, three)
        results(agent, 1, b"1")  # and three goes to runner 1
        assert agent.handle(events.LeaseEnding(), 9.0) == [do.Kill(runner=1), do.Kill(runner=2)]
        assert agent.held() == ([], [one])
        died = events.RunnerDied(runner=2, last_started=1, cause="it was ended by SIGKILL", killed=True)
        assert agent.handle(died, 9.1) == [do.Spawn(runner=3)]
        assert results(agent, 1, b"late") == []

    def test_what_waited_for_an_agent_that_stood_still_past_its_lease_does_not_begin(self) -> None:
        agent = started_agent(slots=2)
        agent.handle(events.Welcomed(lease_timeout_s=10.0, heartbeat_interval_s=2.0), 0.0)
        agent.handle(events.LeaseEnding(), 30.0)
        assert agent.handle(events.Assigned(attempts=[attempt(1)]), 30.0) == []
        assert agent.held() == ([], [])

    def test_a_new_session_begins_clean(self) -> None:
        agent = started_agent(slots=2)
        one, two = attempt(1), attempt(2)
        assigned(agent, one, two)
        results(agent, 1, b"1")
        assert agent.handle(events.SessionBegun(), 20.0) == [do.Kill(runner=2)]
        assert agent.held() == ([], [])
        again = attempt(1, 2)
        assert assigned(agent, again) == [feed(1, [again])]
        results(agent, 1, b"2")
        assert again.result_id == 1


class TestDrain:
    def test_an_idle_worker_leaves_at_once(self) -> None:
        assert started_agent().handle(events.DrainRequested(), 0.0) == [do.TellBid(), do.Leave()]

    def test_what_is_held_is_finished_and_acknowledged_first(self) -> None:
        agent = started_agent()
        one = attempt(1)
        assigned(agent, one)
        assert agent.handle(events.DrainRequested(), 0.0) == [do.TellBid()]
        assert agent.handle(events.DrainRequested(), 0.0) == []
        new = attempt(2)
        assert assigned(agent, new) == [do.Report(refused=[new])]
        assert results(agent, 1, b"1") == [do.Report(results=[one])]
        assert agent.handle(events.Acknowledged(result_ids=[1]), 1.0) == [do.Leave()]


class TestBid:
    def test_quick_tasks_raise_the_bid_and_slow_ones_lower_it(self) -> None:
        agent = started_agent(slots=2)
        assert agent.bid.credits == 2
        assigned(agent, attempt(1))
        spent = [("m:f", 1, 0.000_02)]
        orders = agent.handle(events.RunnerResults(runner=1, outcomes=[b"1"], spent=spent), 1.0)
        assert (agent.bid.credits, do.TellBid() in orders) == (1024, True)
        agent.handle(events.BeatSent(beat=1), 1.0)
        assigned(agent, attempt(2), now=2.0)
        spent = [("m:f", 1, 2.0)]
        orders = agent.handle(events.RunnerResults(runner=1, outcomes=[b"1"], spent=spent), 4.0)
        assert (agent.bid.credits, do.TellBid() in orders) == (2, True)

    def test_a_lowered_bid_counts_once_its_beat_is_answered(self) -> None:
        agent = started_agent(slots=1, max_credits=3)
        agent.bid.credits = 3
        agent.handle(events.BeatSent(beat=1), 0.0)
        agent.bid.credits = 1
        agent.handle(events.BeatSent(beat=2), 0.0)
        batch = [attempt(task) for task in range(5)]
        assert assigned(agent, *batch)[0] == do.Report(refused=batch[4:])
        agent.handle(events.BeatAnswered(beat=2), 0.0)
        late = attempt(9)
        assert assigned(agent, late) == [do.Report(refused=[late])]
