"""The core: given events, when one more comes, then exactly these instructions."""

import pytest
from tests.unit.worker_manager.registry_lab import (
    BID,
    LEASE,
    Batch,
    Core,
    assign,
    attached,
    beat,
    connected,
    given,
    held,
    hello,
    opened,
    registered,
    reported,
    reports,
    send_held,
)

from nodeflow_shared.errors import IllegalState, InvalidInput, StaleLease, Unavailable
from nodeflow_worker_manager.domain import events as ev
from nodeflow_worker_manager.domain import instructions as do
from nodeflow_worker_manager.domain.sessions import NO_CAPACITY, Capacity, EndReason, SessionState


@pytest.fixture
def core() -> Core:
    return Core()


# Registration.


def test_a_worker_is_welcomed_only_after_its_session_is_recorded(core: Core) -> None:
    first = hello()
    assert isinstance(first, ev.HelloReceived)
    assert core.when(*attached(shard_0=5), first) == [do.Register(hello=first.hello)]
    assert core.state() is SessionState.REGISTERING
    assert core.when(registered(created=True)) == [
        do.Welcome(connection=1, newly_registered=True),
        do.SendOpened(stream=7, sessions=(opened(),)),
    ]
    assert core.when(reports((0, "x"), (3, "y"))) == [send_held((0, "x"))]


def test_a_worker_that_is_known_is_not_new(core: Core) -> None:
    assert core.when(hello(), registered(created=False)) == [do.Welcome(connection=1, newly_registered=False)]


def test_a_refused_registration_ends_the_stream_and_leaves_nothing(core: Core) -> None:
    error = Unavailable("away")
    refused = ev.RegistrationFailed(session_id="A", error=error)
    assert core.when(*attached(), hello(), refused) == [do.CloseConnection(connection=1, error=error)]
    assert not core.core.sessions


def test_a_session_that_was_refused_before_is_looked_at_once_in_a_lease(core: Core) -> None:
    """A worker tries again for as long as the state-manager is away, and each try would be remembered for ever."""
    for connection in range(2, 7):
        core.when(hello(connection), ev.RegistrationFailed(session_id="A", error=Unavailable("away")))
    core.when(*connected())
    core.tick(core.now + LEASE / 2)
    core.when(beat())
    core.tick(core.now + LEASE / 2)
    assert len(core.core._lease_ends) == 1


def test_a_worker_that_leaves_while_it_is_recorded_keeps_its_session_until_the_lease_ends(core: Core) -> None:
    assert core.when(*attached(), hello(), ev.WorkerLost(connection=1)) == []
    assert core.when(registered()) == [
        do.SendOpened(stream=7, sessions=(opened(capacity=NO_CAPACITY, is_connected=False),))
    ]
    assert core.tick(111)[0] == do.SendClosed(stream=7, session_id="A", reason=EndReason.LEASE_ENDED)


def test_a_lease_does_not_end_while_the_session_is_being_recorded(core: Core) -> None:
    core.when(hello())
    assert core.tick(150) == []
    assert core.when(registered()) == [do.Welcome(connection=1, newly_registered=True)]
    assert core.tick(159.9) == []


def test_a_session_of_another_worker_is_refused(core: Core) -> None:
    core.when(*connected())
    [close] = core.when(hello(2, "A", "thief"))
    assert isinstance(close, do.CloseConnection)
    assert isinstance(close.error, InvalidInput)
    [close] = core.when(hello(3, "B", "thief", replaced=["A"]))
    assert isinstance(close, do.CloseConnection)
    assert isinstance(close.error, InvalidInput)
    assert core.state() is SessionState.CONNECTED


# Leases.


def test_a_reconnect_within_the_lease_keeps_the_session(core: Core) -> None:
    core.when(*attached(shard_0=5), *connected())
    assert core.when(ev.WorkerLost(connection=1)) == [do.SendCapacity(stream=7, session_id="A", capacity=NO_CAPACITY)]
    core.now = 109
    assert core.when(hello(2)) == [do.Welcome(connection=2, newly_registered=False)]
    assert core.when(reports((0, "x"), connection=2)) == [
        send_held((0, "x"), generation=2),
        do.SendCapacity(stream=7, session_id="A", capacity=BID),
    ]
    assert core.tick(118) == []
    assert core.state() is SessionState.CONNECTED


def test_a_worker_that_reconnects_before_we_noticed_the_break_gets_the_new_stream(core: Core) -> None:
    core.when(*attached(shard_0=5), *connected())
    close, *rest = core.when(hello(2))
    assert isinstance(close, do.CloseConnection)
    assert close.connection == 1
    assert rest == [
        do.SendCapacity(stream=7, session_id="A", capacity=NO_CAPACITY),
        do.Welcome(connection=2, newly_registered=False),
    ]
    assert core.when(ev.UpdatesReceived(connection=1, updates=reported((0, "late")))) == []
    assert core.when(ev.WorkerLost(connection=1)) == []
    assert core.state() is SessionState.CONNECTED


def test_a_lease_ends_after_the_last_heartbeat_and_the_session_never_comes_back(core: Core) -> None:
    core.when(*attached(), *connected())
    core.now = 105
    assert core.when(beat(9)) == [do.ReplyToHeartbeat(connection=1, beat=9)]
    assert core.tick(114.9) == []
    assert core.core.next_lease_end == 115
    closed, ends, close = core.tick(115)
    assert closed == do.SendClosed(stream=7, session_id="A", reason=EndReason.LEASE_ENDED)
    assert ends == do.RecordEnds(session_ids=("A",))
    assert isinstance(close, do.CloseConnection)
    assert isinstance(close.error, IllegalState)
    [refused] = core.when(hello(2))
    assert isinstance(refused, do.CloseConnection)
    assert isinstance(refused.error, IllegalState)
    # Once it is recorded, it is the state-manager that refuses.
    assert isinstance(core.when(ev.EndsRecorded(session_ids=("A",)), hello(3))[0], do.Register)


def test_a_replaced_session_ends_behind_the_first_report_of_its_successor(core: Core) -> None:
    core.when(*attached(shard_0=5), *connected(), ev.WorkerLost(connection=1))
    assert core.when(hello(2, "B", replaced=["A"]), registered("B", created=False)) == [
        do.Welcome(connection=2, newly_registered=False),
        do.SendOpened(stream=7, sessions=(opened("B"),)),
    ]
    [refused] = core.when(hello(3, "A"))
    assert isinstance(refused, do.CloseConnection)
    assert isinstance(refused.error, IllegalState)
    assert core.when(ev.HeldReceived(connection=2, held=held((0, "left by A")))) == [
        do.SendHeld(stream=7, session_id="B", generation=1, held=held((0, "left by A"))),
        do.SendClosed(stream=7, session_id="A", reason=EndReason.REPLACED),
        do.RecordEnds(session_ids=("A",)),
    ]
    assert set(core.core.sessions) == {"B"}


def test_a_replaced_session_gets_nothing_more_while_its_successor_has_not_reported(core: Core) -> None:
    core.when(*attached(shard_0=5), *connected())
    orders = core.when(hello(2, "B", replaced=["A"]), registered("B", created=False))
    assert isinstance(orders[0], do.CloseConnection)
    assert orders[1] == do.SendCapacity(stream=7, session_id="A", capacity=NO_CAPACITY)
    assert core.when(assign(7, (0, 5, "late"))) == []
    assert core.when(reports((0, "late"))) == []


def test_a_successor_that_reports_on_a_later_stream_ends_what_it_replaced_then(core: Core) -> None:
    core.when(*attached(shard_0=5), *connected(), hello(2, "B", replaced=["A"]), registered("B"))
    core.when(ev.WorkerLost(connection=2), hello(3, "B"))
    orders = core.when(ev.HeldReceived(connection=3, held=held()))
    assert orders[1] == do.SendClosed(stream=7, session_id="A", reason=EndReason.REPLACED)


def test_a_session_replaced_while_it_was_recorded_is_ended_again_afterwards(core: Core) -> None:
    core.when(*attached(), hello(1, "A"), hello(2, "B", replaced=["A"]), registered("B"))
    assert core.when(registered("A")) == [do.RecordEnds(session_ids=("A",))]


def test_goodbye_ends_the_session_and_its_stream_well(core: Core) -> None:
    core.when(*attached(), *connected())
    assert core.when(ev.GoodbyeReceived(connection=1)) == [
        do.SendClosed(stream=7, session_id="A", reason=EndReason.GOODBYE),
        do.RecordEnds(session_ids=("A",)),
        do.CloseConnection(connection=1, error=None),
    ]
    assert core.when(ev.WorkerLost(connection=1)) == []


def test_sessions_that_were_alive_before_we_started_live_for_one_lease(core: Core) -> None:
    live = (ev.LiveSession(worker_id="w", session_id="A"), ev.LiveSession(worker_id="w", session_id="B"))
    core.when(ev.SessionsLoaded(sessions=live))
    closed_of = [opened(each, NO_CAPACITY, is_connected=False) for each in ("A", "B")]
    assert core.when(*attached()) == [
        do.SendOpened(stream=7, sessions=tuple(closed_of)),
        do.SendAttached(stream=7),
    ]
    assert core.when(hello(1, "A")) == [do.Welcome(connection=1, newly_registered=False)]
    core.now = 109
    core.when(beat())
    assert core.tick(110) == [
        do.SendClosed(stream=7, session_id="B", reason=EndReason.LEASE_ENDED),
        do.RecordEnds(session_ids=("B",)),
    ]
    assert core.state("A") is SessionState.CONNECTED


# Bids.


def test_only_a_changed_bid_is_told(core: Core) -> None:
    core.when(*attached(), *connected())
    assert core.when(beat(1)) == [do.ReplyToHeartbeat(connection=1, beat=1)]
    more = Capacity(slots=4, credits=4)
    assert core.when(beat(2, more)) == [
        do.ReplyToHeartbeat(connection=1, beat=2),
        do.SendCapacity(stream=7, session_id="A", capacity=more),
    ]
    assert core.when(beat(3, more, draining=True)) == [
        do.ReplyToHeartbeat(connection=1, beat=3),
        do.SendCapacity(stream=7, session_id="A", capacity=NO_CAPACITY),
    ]


def test_all_schedulers_are_told_the_same_bid(core: Core) -> None:
    """A bid that is kept back until the report comes is not told to one that attaches meanwhile either."""
    core.when(*connected(), *attached(7, "s"))
    core.when(beat(1, Capacity(slots=4, credits=4)))
    assert core.when(ev.SchedulerAttached(stream=8, scheduler_id="t"))[0] == do.SendOpened(
        stream=8, sessions=(opened(capacity=BID),)
    )
    core.when(beat(2, BID))
    assert core.when(reports()) == [send_held(), send_held(stream=8)]


def test_a_drain_is_told_to_the_worker_and_takes_its_bid_away(core: Core) -> None:
    core.when(*attached(), *connected())
    assert core.when(ev.DrainRequested(worker_id="other")) == []
    assert core.when(ev.DrainRequested(worker_id="w")) == [
        do.Drain(connection=1),
        do.SendCapacity(stream=7, session_id="A", capacity=NO_CAPACITY),
    ]
    assert core.when(ev.DrainRequested(worker_id="w")) == [do.Drain(connection=1)]
    # Still draining if the worker's heartbeat does not know yet, and after a reconnect.
    assert core.when(beat()) == [do.ReplyToHeartbeat(connection=1, beat=1)]
    assert core.when(ev.WorkerLost(connection=1), hello(2)) == [
        do.Welcome(connection=2, newly_registered=False),
        do.Drain(connection=2),
    ]
    assert core.when(reports(connection=2)) == [send_held(generation=2)]


# Schedulers.


def test_a_scheduler_hears_of_sessions_then_what_they_hold_then_updates(core: Core) -> None:
    core.when(*connected())
    assert core.when(*attached()) == [
        do.SendOpened(stream=7, sessions=(opened(),)),
        do.SendAttached(stream=7),
        do.ReportHeld(connection=1),
    ]
    # The claim comes while the report is under way: that one serves it as well.
    assert core.when(ev.ShardsClaimed(stream=7, tokens={0: 5})) == []
    # What comes ahead of the report is in it.
    assert core.when(ev.UpdatesReceived(connection=1, updates=reported((0, "early")))) == []
    assert core.when(reports((0, "early"))) == [send_held((0, "early"))]
    updates = reported((0, "later"))
    assert core.when(ev.UpdatesReceived(connection=1, updates=updates)) == [
        do.SendUpdates(stream=7, session_id="A", updates=updates)
    ]


def test_a_scheduler_that_attaches_anew_takes_the_place_of_its_old_stream(core: Core) -> None:
    core.when(*connected(), *attached(7, shard_0=5), reports())
    close, *rest = core.when(*attached(8))
    assert isinstance(close, do.CloseStream)
    assert close.stream == 7
    assert isinstance(close.error, Unavailable)
    assert rest == [
        do.SendOpened(stream=8, sessions=(opened(),)),
        do.SendAttached(stream=8),
        do.ReportHeld(connection=1),
    ]
    core.when(ev.SchedulerLost(stream=7), ev.ShardsClaimed(stream=8, tokens={0: 5}))
    assert core.when(reports((0, "x"))) == [send_held((0, "x"), stream=8)]


def test_results_that_nobody_owns_wait_for_the_next_owner(core: Core) -> None:
    core.when(*connected(), *attached(7, shard_0=5), reports())
    core.when(ev.SchedulerLost(stream=7))
    assert core.when(ev.UpdatesReceived(connection=1, updates=reported((0, "x")))) == []
    core.when(*attached(8, "t", shard_0=6))
    assert core.when(reports((0, "x"))) == [send_held((0, "x"), stream=8)]


def test_two_schedulers_get_the_reports_of_their_own_shards(core: Core) -> None:
    core.when(*connected(), *attached(7, "s", shard_0=5), *attached(8, "t", shard_1=5))
    assert core.when(reports((0, "x"), (1, "y"), (2, "z"))) == [
        send_held((0, "x")),
        send_held((1, "y"), stream=8),
    ]
    assert core.when(ev.UpdatesReceived(connection=1, updates=reported((1, "y"), (0, "x"), (2, "z")))) == [
        do.SendUpdates(stream=7, session_id="A", updates=reported((0, "x"))),
        do.SendUpdates(stream=8, session_id="A", updates=reported((1, "y"))),
    ]
    assert core.when(ev.UpdatesReceived(connection=1, updates=reported((1, "v")))) == [
        do.SendUpdates(stream=8, session_id="A", updates=reported((1, "v")))
    ]


def test_released_shards_have_no_owner(core: Core) -> None:
    core.when(*connected(), *attached(shard_0=5, shard_1=5), reports())
    core.when(ev.ShardsReleased(stream=7, shards=(1, 9)))
    assert core.when(ev.UpdatesReceived(connection=1, updates=reported((0, "x"), (1, "y")))) == [
        do.SendUpdates(stream=7, session_id="A", updates=reported((0, "x")))
    ]


def test_a_stale_claim_ends_the_stream_and_moves_nothing(core: Core) -> None:
    core.when(*connected(), *attached(7, "s", shard_0=5), reports())
    [close] = core.when(*attached(8, "t", shard_1=1, shard_0=4))
    assert isinstance(close, do.CloseStream)
    assert close.stream == 8
    assert isinstance(close.error, StaleLease)
    updates = reported((0, "x"), (1, "y"))
    assert core.when(ev.UpdatesReceived(connection=1, updates=updates)) == [
        do.SendUpdates(stream=7, session_id="A", updates=updates)
    ]


def test_a_higher_token_moves_the_shard_and_fences_the_loser(core: Core) -> None:
    core.when(*connected(), *attached(7, "s", shard_0=5, shard_1=5), reports())
    core.when(ev.SchedulerAttached(stream=8, scheduler_id="t"), reports())
    assert core.when(ev.ShardsClaimed(stream=8, tokens={0: 6})) == [do.ReportHeld(connection=1)]
    core.when(reports())
    assert core.when(assign(7, (0, 5, "stale"), (1, 5, "mine"))) == [
        do.SendUpdates(stream=7, session_id="A", updates=reported((0, "stale"))),
        given((1, 5, "mine")),
    ]
    assert core.when(assign(7, (0, 5, "stale"))) == [
        do.SendUpdates(stream=7, session_id="A", updates=reported((0, "stale")))
    ]
    assert core.when(assign(8, (0, 6, "x"), generation=2)) == [given((0, 6, "x"))]


def test_a_repeated_claim_asks_nobody_again(core: Core) -> None:
    core.when(*connected(), *attached(shard_0=5), reports())
    assert core.when(ev.ShardsClaimed(stream=7, tokens={0: 5})) == []
    assert core.when(ev.ShardsClaimed(stream=7, tokens={1: 5})) == [do.ReportHeld(connection=1)]


# What schedulers send to sessions.


def test_what_is_for_a_session_goes_to_its_stream_unchanged(core: Core) -> None:
    core.when(*connected(), *attached(shard_0=5), reports())
    batch = Batch(((0, 5, "x"),))
    [frame] = core.when(ev.AssignmentsReceived(stream=7, session_id="A", generation=1, batch=batch))
    assert isinstance(frame, do.Assign)
    assert frame.batch is batch
    acknowledgement = object()
    assert core.when(ev.AcknowledgementReceived(session_id="A", acknowledgement=acknowledgement)) == [
        do.Acknowledge(connection=1, acknowledgement=acknowledgement)
    ]
    assert core.when(ev.CancellationReceived(session_id="A", cancellation=acknowledgement)) == [
        do.Cancel(connection=1, cancellation=acknowledgement)
    ]


def test_assignments_given_while_a_report_is_under_way_are_added_to_it(core: Core) -> None:
    core.when(*connected(), *attached(shard_0=5), reports())
    assert core.when(ev.ShardsClaimed(stream=7, tokens={1: 5})) == [do.ReportHeld(connection=1)]
    assert core.when(assign(7, (0, 5, "new"))) == [given((0, 5, "new"))]
    assert core.when(reports((0, "old"))) == [send_held((0, "old"), (0, "new"), generation=2)]
    assert core.core.sessions["A"].assigned_count == 2


def test_what_ends_while_a_report_is_under_way_is_not_added_to_it(core: Core) -> None:
    """A scheduler that waits for the report is not told of these ends, and would count on them for ever."""
    core.when(*connected(), *attached(shard_0=5), reports(), ev.ShardsClaimed(stream=7, tokens={1: 5}))
    core.when(assign(7, (0, 5, "refused"), (0, 5, "runs")), assign(7, (0, 5, "later")))
    assert core.when(ev.UpdatesReceived(connection=1, updates=reported((0, "refused")))) == []
    assert core.when(reports((0, "old"))) == [send_held((0, "old"), (0, "runs"), (0, "later"), generation=2)]


def test_an_attempt_that_was_refused_and_given_again_is_in_the_report(core: Core) -> None:
    core.when(*connected(), *attached(7, "s", shard_0=5), *attached(8, "t", shard_1=5), reports())
    # The report is for 8, so 7 hears of the refusal at once and may hand the attempt out anew.
    core.when(ev.ShardsClaimed(stream=8, tokens={2: 5}))
    core.when(assign(7, (0, 5, "x")), ev.UpdatesReceived(connection=1, updates=reported((0, "x"))))
    core.when(assign(7, (0, 5, "x")))
    # Before it comes, the shard moves to 8.
    core.when(ev.ShardsClaimed(stream=8, tokens={0: 6}))
    assert core.when(reports()) == [send_held((0, "x"), stream=8, generation=2)]


# Generations: what a scheduler misses in a report does not arrive after it.


def test_assignments_that_crossed_a_report_are_dropped(core: Core) -> None:
    core.when(*connected(), *attached(shard_0=5), reports(), ev.ShardsClaimed(stream=7, tokens={1: 5}))
    assert core.when(reports()) == [send_held(generation=2)]
    assert core.when(assign(7, (0, 5, "crossed"), generation=1)) == []
    assert core.core.sessions["A"].assigned_count == 0
    assert core.when(assign(7, (0, 5, "new"), generation=2)) == [given((0, 5, "new"))]


def test_assignments_that_crossed_a_report_are_not_in_the_next_one_either(core: Core) -> None:
    core.when(*connected(), *attached(shard_0=5), reports(), ev.ShardsClaimed(stream=7, tokens={1: 5}), reports())
    core.when(ev.ShardsClaimed(stream=7, tokens={2: 5}))
    core.when(assign(7, (0, 5, "crossed"), generation=1), assign(7, (0, 5, "new"), generation=2))
    assert core.when(reports()) == [send_held((0, "new"), generation=3)]


def test_assignments_that_crossed_a_reconnect_are_dropped(core: Core) -> None:
    core.when(*attached(shard_0=5), *connected(), ev.WorkerLost(connection=1))
    assert core.when(assign(7, (0, 5, "to nobody"))) == []
    core.when(hello(2))
    # It still reaches the worker, so the report names it; the same, had it come after the report, must not.
    assert core.when(assign(7, (0, 5, "in time"))) == [given((0, 5, "in time"), connection=2)]
    assert send_held((0, "in time"), generation=2) in core.when(reports(connection=2))
    assert core.when(assign(7, (0, 5, "too late"))) == []


@pytest.mark.parametrize("generation", [0, 1])
def test_assignments_before_any_report_are_dropped(core: Core, generation: int) -> None:
    core.when(*connected(), *attached(shard_0=5))
    assert core.when(assign(7, (0, 5, "early"), generation=generation)) == []
    assert core.when(reports()) == [send_held()]


def test_generations_are_counted_for_each_stream(core: Core) -> None:
    core.when(*connected(), *attached(7, "s", shard_0=5), reports())
    core.when(*attached(8, "t", shard_1=5))
    # This report is for 8 alone: 7 goes on as before.
    assert core.when(reports((0, "x"))) == [send_held(stream=8)]
    core.when(ev.ShardsClaimed(stream=8, tokens={2: 5}))
    assert core.when(reports((0, "x"))) == [send_held(stream=8, generation=2)]
    assert core.when(assign(7, (0, 5, "y"), generation=1)) == [given((0, 5, "y"))]
    assert core.when(assign(7, (0, 5, "y"), generation=2)) == []
    assert core.when(assign(8, (1, 5, "z"), generation=1)) == []
    assert core.when(assign(8, (1, 5, "z"), generation=2)) == [given((1, 5, "z"))]


def test_generations_are_counted_for_each_session(core: Core) -> None:
    core.when(*connected(), *attached(shard_0=5), reports(), ev.ShardsClaimed(stream=7, tokens={1: 5}), reports())
    core.when(*connected("B", 2))
    assert core.when(assign(7, (0, 5, "x"), session_id="B", generation=2)) == []
    assert core.when(assign(7, (0, 5, "x"), session_id="B", generation=1)) == [given((0, 5, "x"), connection=2)]


def test_generations_start_anew_with_each_attachment(core: Core) -> None:
    core.when(*connected(), *attached(7, shard_0=5), reports(), ev.ShardsClaimed(stream=7, tokens={1: 5}), reports())
    core.when(*attached(8, shard_0=5))
    # Neither what was on its way on the stream before, nor what is based on its reports.
    assert core.when(assign(7, (0, 5, "x"), generation=2)) == []
    assert core.when(assign(8, (0, 5, "x"), generation=2)) == []
    assert core.when(reports()) == [send_held(stream=8, generation=1)]
    assert core.core.sessions["A"].generations == {8: 1}
    assert core.when(assign(8, (0, 5, "x"), generation=2)) == []
    assert core.when(assign(8, (0, 5, "x"), generation=1)) == [given((0, 5, "x"))]


def test_what_is_for_a_session_without_a_stream_is_dropped(core: Core) -> None:
    core.when(*connected(), *attached(shard_0=5), reports(), ev.WorkerLost(connection=1))
    for session_id in ("A", "unknown"):
        assert core.when(assign(7, (0, 5, "x"), session_id=session_id)) == []
        assert core.when(ev.AcknowledgementReceived(session_id=session_id, acknowledgement=object())) == []
        assert core.when(ev.CancellationReceived(session_id=session_id, cancellation=object())) == []


def test_assigned_attempts_are_counted_until_they_are_reported(core: Core) -> None:
    core.when(*connected(), *attached(shard_0=5), reports((0, "a")))
    core.when(assign(7, (0, 5, "b"), (0, 5, "c")))
    assert core.core.sessions["A"].assigned_count == 3
    core.when(ev.UpdatesReceived(connection=1, updates=reported((0, "a"), (0, "b"))))
    assert core.core.sessions["A"].assigned_count == 1


def test_late_messages_of_a_stream_that_is_over_count_for_nothing(core: Core) -> None:
    core.when(*attached(shard_0=5), *connected(), ev.WorkerLost(connection=1))
    assert core.when(beat()) == []
    assert core.when(reports()) == []
    assert core.when(ev.GoodbyeReceived(connection=1)) == []
    assert core.when(ev.SchedulerLost(stream=99), assign(99, (0, 5, "x"))) == []
    assert core.when(ev.ShardsClaimed(stream=99, tokens={0: 9})) == []
    assert core.state() is SessionState.DISCONNECTED
