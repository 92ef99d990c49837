"""The worker's core with processes: events in, exact instructions out; how they share slots with runners."""

from tests.unit.worker.making import attempt, process_attempt, started_agent

from nodeflow_worker.domain import events
from nodeflow_worker.domain import instructions as do
from nodeflow_worker.domain.agent import TIMEOUT_GRACE_S, Agent
from nodeflow_worker.domain.values import (
    Attempt,
    Ending,
    Failure,
    FailureKind,
    LeftFile,
    Outcome,
    ProcessIdentity,
    State,
    Stored,
)

IDENTITY = ProcessIdentity(pid=7, start_ticks=70)
FILE = LeftFile(name="out/a", path="/w/out/a", content_type="text/plain")


def assigned(agent: Agent, *attempts: Attempt) -> list[do.Instruction]:
    agent.bid.credits = 100
    agent.handle(events.BeatSent(beat=1), 0.0)
    return agent.handle(events.Assigned(attempts=attempts), 0.0)


def ended(agent: Agent, one: Attempt, outcome: Outcome, *files: LeftFile) -> list[do.Instruction]:
    orders = agent.handle(events.ProcessEnded(attempt=one, outcome=outcome, spent_s=0.01, files=files), 1.0)
    return [each for each in orders if not isinstance(each, do.TellBid)]


def recorded(agent: Agent, *attempts: Attempt) -> list[do.Instruction]:
    return agent.handle(events.Recorded(attempts=attempts), 1.5)


def starts(*attempts: Attempt) -> list[do.StartProcess]:
    return [do.StartProcess(attempt=each) for each in attempts]


class TestSlots:
    def test_processes_alone_may_have_all(self) -> None:
        agent = started_agent(slots=2)
        one, two, three = (process_attempt(task) for task in (1, 2, 3))
        assert assigned(agent, one, two, three) == starts(one, two)
        assert ended(agent, one, b"1") == [do.Record(attempt=one), *starts(three)]

    def test_runners_keep_off_the_slots_of_processes(self) -> None:
        agent = started_agent(slots=2)
        process, first, second = process_attempt(1), attempt(2), attempt(3)
        assert assigned(agent, process) == starts(process)
        assert assigned(agent, first, second) == [do.Feed(runner=1, directory="/d", attempts=[first])]
        feed = do.Feed(runner=2, directory="/d", attempts=[second])
        assert ended(agent, process, b"1") == [do.Record(attempt=process), feed]

    def test_each_side_has_half_when_both_wait(self) -> None:
        agent = started_agent(slots=2)
        processes = [process_attempt(task) for task in range(4)]
        functions = [attempt(task) for task in range(10, 14)]
        feed = do.Feed(runner=1, directory="/d", attempts=functions[:1])
        assert assigned(agent, *processes, *functions) == [*starts(processes[0]), feed]
        assert ended(agent, processes[0], b"1") == [do.Record(attempt=processes[0]), *starts(processes[1])]

    def test_a_single_slot_changes_hands(self) -> None:
        agent = started_agent(slots=1)
        processes, functions = [process_attempt(task) for task in (1, 2)], [attempt(task) for task in (3, 4)]
        assert assigned(agent, *processes, *functions) == starts(processes[0])
        feed = do.Feed(runner=1, directory="/d", attempts=functions[:1])
        assert ended(agent, processes[0], b"1") == [do.Record(attempt=processes[0]), feed]
        orders = agent.handle(events.RunnerResults(runner=1, outcomes=[b"1"], spent=[]), 1.0)
        assert orders[:2] == [do.Report(results=functions[:1]), *starts(processes[1])]

    def test_a_steady_flow_of_quick_functions_does_not_shut_processes_out(self) -> None:
        agent = started_agent(slots=1)
        quick = [attempt(task) for task in range(50)]
        assigned(agent, *quick)
        agent.handle(events.RunnerResults(runner=1, outcomes=[b"1"], spent=[("m:f", 1, 0.000_01)]), 0.0)
        process = process_attempt(99)
        assert assigned(agent, process, *(attempt(task) for task in range(100, 150))) == []
        orders = agent.handle(events.RunnerResults(runner=1, outcomes=[b"1"] * 49, spent=[]), 1.0)
        assert do.StartProcess(attempt=process) in orders


class TestEnds:
    def test_what_a_process_returns_is_reported(self) -> None:
        agent = started_agent()
        one = process_attempt()
        assigned(agent, one)
        assert agent.handle(events.ProcessRunning(attempt=one), 0.1) == [do.Report(started=[one])]
        identified = events.ProcessIdentified(attempt=one, process=IDENTITY)
        assert agent.handle(identified, 0.3) == [do.NoteProcess(attempt=one, process=IDENTITY)]
        assert ended(agent, one, b'{"a":1}') == [do.Record(attempt=one)]
        assert recorded(agent, one) == [do.Report(results=[one])]
        assert (one.outcome, one.state) == (b'{"a":1}', State.FINISHED)

    def test_files_are_published_before_the_result_is_reported(self) -> None:
        agent = started_agent()
        one = process_attempt()
        assigned(agent, one)
        assert ended(agent, one, b"1", FILE) == [do.Publish(attempt=one, value=b"1", files=(FILE,))]
        assert agent.held()[0] == [one]
        artifacts = (("out/a", Stored(digest="sha256:1", size_bytes=2)),)
        orders = agent.handle(events.Saved(attempt=one, value=b"1", artifacts=artifacts), 2.0)
        assert orders == [do.Record(attempt=one), do.Discard(attempt=one)]
        assert (one.outcome, one.artifacts) == (b"1", artifacts)

    def test_files_that_cannot_be_stored_fail_the_attempt(self) -> None:
        agent = started_agent()
        one = process_attempt()
        assigned(agent, one)
        ended(agent, one, b"1", FILE)
        failure = Failure(kind=FailureKind.TRANSIENT, reason="R", message="m", retryable=True)
        orders = agent.handle(events.TransferFailed(attempt=one, failure=failure), 2.0)
        assert orders == [do.Record(attempt=one), do.Discard(attempt=one)]
        assert (one.outcome, one.artifacts) == (failure, ())

    def test_a_cancelled_process_is_stopped_and_reported(self) -> None:
        agent = started_agent()
        one = process_attempt()
        assigned(agent, one)
        orders = agent.handle(events.CancelRequested(keys=[one.key], grace_s=3.0), 1.0)
        assert orders == [do.StopProcess(attempt=one, grace_s=3.0)]
        ended(agent, one, Ending.STOPPED)
        assert one.outcome is Ending.CANCELLED

    def test_a_waiting_process_is_cancelled_at_once_and_never_started(self) -> None:
        agent = started_agent(slots=1)
        one, two, three = (process_attempt(task) for task in (1, 2, 3))
        assigned(agent, one, two, three)
        assert agent.handle(events.CancelRequested(keys=[two.key], grace_s=3.0), 1.0) == [do.Report(results=[two])]
        assert ended(agent, one, b"1") == [do.Record(attempt=one), *starts(three)]

    def test_an_overdue_process_times_out(self) -> None:
        agent = started_agent()
        one = process_attempt()
        assigned(agent, one)
        orders = agent.handle(events.ProcessOverdue(attempt=one), 1.0)
        assert orders == [do.StopProcess(attempt=one, grace_s=TIMEOUT_GRACE_S)]
        ended(agent, one, Ending.STOPPED)
        assert isinstance(one.outcome, Failure)
        assert one.outcome.reason == "ATTEMPT_TIMEOUT"

    def test_before_the_lease_ends_all_are_killed_and_keep_their_slots_until_they_are_gone(self) -> None:
        agent = started_agent(slots=1)
        one, two = process_attempt(1), process_attempt(2)
        assigned(agent, one)
        assert agent.handle(events.LeaseEnding(), 1.0) == [do.KillProcess(attempt=one)]
        assert assigned(agent, two) == []
        assert ended(agent, one, Ending.STOPPED, FILE) == [
            do.Discard(attempt=one),
            do.Forget(attempts=[one]),
            *starts(two),
        ]

    def test_files_that_are_being_stored_are_discarded_when_the_lease_ends(self) -> None:
        agent = started_agent(slots=1)
        one = process_attempt()
        assigned(agent, one)
        ended(agent, one, b"1", FILE)
        assert agent.handle(events.LeaseEnding(), 1.0) == [do.Discard(attempt=one), do.Forget(attempts=[one])]


class TestTheJournal:
    def finished(self, agent: Agent, one: Attempt) -> Attempt:
        assigned(agent, one)
        ended(agent, one, b"1")
        return one

    def test_a_result_counts_as_live_until_it_is_recorded(self) -> None:
        agent = started_agent()
        one = self.finished(agent, process_attempt())
        assert agent.held() == ([one], [])
        recorded(agent, one)
        assert agent.held() == ([], [one])

    def test_functions_have_no_part_in_it(self) -> None:
        agent = started_agent()
        one = attempt()
        assigned(agent, one)
        orders = agent.handle(events.RunnerResults(runner=1, outcomes=[b"1"], spent=[]), 1.0)
        assert do.Report(results=[one]) in orders
        assert agent.handle(events.Acknowledged(result_ids=[1]), 1.0) == []

    def test_an_acknowledged_result_is_forgotten(self) -> None:
        agent = started_agent()
        one = self.finished(agent, process_attempt())
        recorded(agent, one)
        assert agent.handle(events.Acknowledged(result_ids=[1]), 2.0) == [do.Forget(attempts=[one])]

    def test_a_result_that_is_being_recorded_outlives_the_end_of_the_lease_but_not_the_session(self) -> None:
        agent = started_agent()
        one = self.finished(agent, process_attempt())
        assert agent.handle(events.LeaseEnding(), 2.0) == []
        assert recorded(agent, one) == [do.Report(results=[one])]
        two = self.finished(agent, process_attempt(2))
        agent.handle(events.SessionBegun(), 2.0)
        assert recorded(agent, two) == []
        assert agent.held() == ([], [])

    def test_a_worker_that_drains_stays_until_all_is_recorded_and_acknowledged(self) -> None:
        agent = started_agent()
        one = self.finished(agent, process_attempt())
        assert do.Leave() not in agent.handle(events.DrainRequested(), 2.0)
        recorded(agent, one)
        orders = agent.handle(events.Acknowledged(result_ids=[1]), 2.0)
        assert orders == [do.Forget(attempts=[one]), do.Leave()]

    def left(self, task: int = 1, number: int = 1) -> Attempt:
        attempt = process_attempt(task, number)
        attempt.outcome = b"1"
        return attempt

    def test_results_of_dead_sessions_are_held_like_our_own(self) -> None:
        agent = started_agent()
        one, two = self.left(1), self.left(2)
        assert agent.handle(events.LeftBehind(results=[one, two]), 0.0) == []
        assert agent.held() == ([], [one, two])
        assert (one.result_id, two.result_id) == (1, 2)
        assert agent.handle(events.Acknowledged(result_ids=[1, 2]), 0.0) == [do.Forget(attempts=[one, two])]
        assert agent.held() == ([], [])

    def test_they_take_no_slots(self) -> None:
        agent = started_agent(slots=1)
        agent.handle(events.LeftBehind(results=[self.left(1)]), 0.0)
        two = process_attempt(2)
        assert assigned(agent, two) == starts(two)

    def test_one_that_a_newer_attempt_has_overtaken_is_forgotten(self) -> None:
        agent = started_agent()
        newer = process_attempt(1, 2)
        assigned(agent, newer)
        late, same = self.left(1, 1), self.left(1, 2)
        orders = agent.handle(events.LeftBehind(results=[late, same]), 0.0)
        assert orders == [do.Forget(attempts=[late, same])]
        assert agent.held() == ([newer], [])

    def test_one_that_two_dead_sessions_have_is_held_once_and_stays_recorded(self) -> None:
        agent = started_agent()
        one = self.left(1)
        assert agent.handle(events.LeftBehind(results=[one, self.left(1)]), 0.0) == []
        assert agent.held() == ([], [one])
        assert agent.handle(events.Acknowledged(result_ids=[1]), 0.0) == [do.Forget(attempts=[one])]

    def test_the_next_attempt_of_a_task_may_come_while_an_old_result_is_held(self) -> None:
        agent = started_agent()
        agent.handle(events.LeftBehind(results=[self.left(1, 1)]), 0.0)
        newer = process_attempt(1, 2)
        assert assigned(agent, newer) == starts(newer)
        agent.handle(events.Acknowledged(result_ids=[1]), 0.0)
        assert agent.held() == ([newer], [])


class TestBehindALongTask:
    """What was fed to a runner behind a task that turned out long runs elsewhere, as the same attempt."""

    def fed(self, slots: int, count: int) -> tuple[Agent, list[Attempt]]:
        """A core that fed `count` tasks, known to be quick, to its runners."""
        agent = started_agent(slots=slots)
        probe = attempt(task=10_000)
        assigned(agent, probe)
        agent.handle(events.RunnerResults(runner=1, outcomes=[b"1"], spent=[("m:f", 1, 0.000_01)]), 0.0)
        attempts = [attempt(task) for task in range(count)]
        assigned(agent, *attempts)
        return agent, attempts

    def test_they_are_taken_back_when_another_is_idle(self) -> None:
        agent, (long, *others) = self.fed(slots=2, count=3)
        assert long.runner == 1
        orders = agent.handle(events.TaskRunning(runner=1, sequence=2), 1.0)
        assert orders == [do.Report(started=[long]), do.TakeBack(runner=1, sequences=[3, 4])]
        assert agent.handle(events.TaskRunning(runner=1, sequence=2), 1.0) == [do.Report(started=[long])]
        orders = agent.handle(events.TasksTakenBack(runner=1, sequences=[3, 4]), 1.0)
        assert orders == [do.Feed(runner=2, directory="/d", attempts=others)]
        agent.handle(events.RunnerResults(runner=2, outcomes=[b"2", b"3"], spent=[]), 1.1)
        agent.handle(events.RunnerResults(runner=1, outcomes=[b"1", Ending.SKIPPED, Ending.SKIPPED], spent=[]), 300.0)
        assert [each.outcome for each in (long, *others)] == [b"1", b"2", b"3"]

    def test_as_soon_as_another_becomes_idle(self) -> None:
        agent, (long, behind) = self.fed(slots=2, count=2)
        slow = attempt(20, function="m:slow")
        assigned(agent, slow)
        assert (long.runner, behind.runner, slow.runner) == (1, 1, 2)
        assert agent.handle(events.TaskRunning(runner=1, sequence=2), 1.0) == [do.Report(started=[long])]
        orders = agent.handle(events.RunnerResults(runner=2, outcomes=[b"1"], spent=[]), 1.1)
        assert orders == [do.Report(results=[slow]), do.TakeBack(runner=1, sequences=[3])]

    def test_although_others_wait_all_the_time(self) -> None:
        agent, _ = self.fed(slots=2, count=0)
        agent.bid.credits = 1_024
        agent.handle(events.BeatSent(beat=1), 0.0)
        attempts = [attempt(task) for task in range(800)]
        assigned(agent, *attempts)
        agent.handle(events.TaskRunning(runner=1, sequence=2), 1.0)
        behind = [each for each in attempts if each.runner == 1][1:]
        taken, fed = agent.handle(events.RunnerResults(runner=2, outcomes=[b"1"] * 256, spent=[]), 1.1)[1:]
        assert taken == do.TakeBack(runner=1, sequences=list(range(3, 3 + len(behind))))
        assert isinstance(fed, do.Feed)
        agent.handle(events.TasksTakenBack(runner=1, sequences=list(range(3, 3 + len(behind)))), 1.1)
        [fed] = agent.handle(events.RunnerResults(runner=2, outcomes=[b"1"] * 256, spent=[]), 1.2)[1:]
        assert isinstance(fed, do.Feed)
        assert list(fed.attempts[: len(behind)]) == behind

    def test_nothing_is_fed_behind_a_task_that_runs_long(self) -> None:
        agent, [long] = self.fed(slots=1, count=1)
        agent.handle(events.TaskRunning(runner=1, sequence=2), 1.0)
        assert assigned(agent, attempt(50)) == []
        assert agent.handle(events.RunnerResults(runner=1, outcomes=[b"1"], spent=[]), 2.0)[0] == do.Report(
            results=[long]
        )

    def test_one_that_was_skipped_at_the_last_moment_waits_again(self) -> None:
        agent, (long, behind) = self.fed(slots=2, count=2)
        agent.handle(events.TaskRunning(runner=1, sequence=2), 1.0)
        orders = agent.handle(events.RunnerResults(runner=1, outcomes=[b"1", Ending.SKIPPED], spent=[]), 1.1)
        assert orders[0] == do.Report(results=[long])
        assert [each.attempts for each in orders if isinstance(each, do.Feed)] == [[behind]]

    def test_one_that_is_cancelled_meanwhile_is_not_fed_again(self) -> None:
        agent, (_, behind) = self.fed(slots=2, count=2)
        agent.handle(events.TaskRunning(runner=1, sequence=2), 1.0)
        agent.handle(events.CancelRequested(keys=[behind.key], grace_s=1.0), 1.0)
        orders = agent.handle(events.TasksTakenBack(runner=1, sequences=[3]), 1.0)
        assert orders == [do.Report(results=[behind])]
        assert behind.outcome is Ending.CANCELLED

    def test_a_runner_that_dies_then_loses_none_twice(self) -> None:
        agent, (long, behind) = self.fed(slots=2, count=2)
        agent.handle(events.TaskRunning(runner=1, sequence=2), 1.0)
        agent.handle(events.TasksTakenBack(runner=1, sequences=[3]), 1.0)
        orders = agent.handle(events.RunnerDied(runner=1, last_started=2, cause="it exited with code 1"), 2.0)
        assert orders[0] == do.Report(results=[long])
        assert (behind.state, behind.runner) == (State.FED, 2)
