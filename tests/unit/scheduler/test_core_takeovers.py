"""The core: whose shards and sessions come, go and come back, then who executes what, and what is told of it."""

from __future__ import annotations

import pytest
from tests.unit.scheduler.making import (
    ATTACHED,
    FLAKY,
    REFUSED,
    SHARD,
    START_MS,
    TOKEN,
    Caller,
    Lab,
    acquired,
    chain,
    closed,
    held,
    opened,
    ref,
    report,
    running,
    submit,
    updates,
    workflow,
)

from nodeflow_scheduler.domain import core
from nodeflow_scheduler.domain.events import (
    AttemptsLost,
    TasksCompleted,
    TasksQueued,
)
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.lifecycle import ExecutionState
from nodeflow_scheduler.domain.messages import (
    CapacityChanged,
    ManagerLost,
    ShardsLost,
    Tick,
)
from nodeflow_shared.errors import NodeflowError, Unavailable

LOST = ShardsLost(shards=REFUSED)


# --------------------------------------------------------------------- sessions


def test_what_a_closed_session_held_is_tried_again_elsewhere() -> None:
    lab = Lab.ready()
    running(lab, 3)
    lab.step(updates(results=[report(1)]))
    assert lab.step(closed()) == [AttemptsLost([0, 2], [1, 1], "WORKER_LOST"), TasksQueued([0, 2], [2, 2])]
    assert lab.step(closed()) == []
    assert lab.step(updates(results=[report(0, b"late")])) == []
    lab.step(opened("s2"), held("s2"))
    assert lab.assigned() == {"s2": [("e1", 0, 2), ("e1", 2, 2)]}


def test_a_report_brings_results_and_shows_what_was_lost_on_the_way() -> None:
    lab = Lab.ready()
    running(lab, 4)
    events = lab.step(held(live=[ref(1)], results=[report(2, result_id=12)], generation=2))
    assert events == [
        TasksCompleted([2], [1], [b"1"]),
        AttemptsLost([0, 3], [1, 1], "NOT_DELIVERED"),
        TasksQueued([0, 3], [2, 2]),
    ]
    assert lab.outgoing.acks == {"s1": [12]}
    assert lab.core.placement.sessions["s1"].generation == 2


def test_what_a_worker_holds_and_nobody_wants_is_stopped() -> None:
    lab = Lab.ready()
    running(lab, 2)
    stale, foreign = ref(0, token=TOKEN - 1), ref(0, shard=6, execution_id="x")
    lab.step(held(live=[ref(1), stale, foreign], generation=2))
    assert lab.outgoing.stops == {"s1": [stale]}


def test_what_a_later_owner_of_the_shard_began_is_left_to_it() -> None:
    """This scheduler has lost the shard and does not know: what came after it is not obsolete, but unknown here."""
    lab = Lab.ready()
    running(lab, 2)
    begun, finished = ref(0, attempt=2, token=TOKEN + 1), report(1, attempt=2, token=TOKEN + 1, result_id=12)
    other = ref(5, token=TOKEN + 1, execution_id="e2")
    lab.step(held(live=[begun, other, ref(0), ref(1)], results=[finished], generation=2))
    assert lab.outgoing.acks == {}
    assert lab.outgoing.stops == {}
    lab.step(updates(results=[report(0, attempt=2, token=TOKEN + 1, result_id=13)]))
    assert lab.outgoing.acks == {}


def test_a_report_of_an_unknown_session_is_ignored() -> None:
    lab = Lab.ready()
    running(lab)
    assert lab.step(held("nobody", results=[report(0)])) == []


def test_a_bid_that_grows_is_filled() -> None:
    lab = Lab.ready(slots=1)
    lab.step(submit(workflow({"a": {}, "b": {}, "c": {}})))
    assert lab.assigned() == {"s1": [("e1", 0, 1)]}
    lab.step(CapacityChanged(session_id="s1", slots=2, credits=1))
    assert lab.assigned() == {"s1": [("e1", 1, 1), ("e1", 2, 1)]}
    lab.step(CapacityChanged(session_id="nobody", slots=2, credits=1))


def test_doubt_ends_only_when_every_session_has_reported() -> None:
    lab = Lab.ready()
    running(lab, 2)
    assert lab.step(ManagerLost(manager="wm")) == []
    assert lab.step(opened("s1"), opened("s2"), ATTACHED) == []
    assert lab.step(held("s1", [ref(0)])) == [], "the other session may hold it"
    assert lab.step(held("s2")) == [AttemptsLost([1], [1], "NOT_DELIVERED"), TasksQueued([1], [2])]
    assert lab.core.placement.doubtful == set()


def test_doubt_ends_with_the_session_that_did_not_come_back() -> None:
    lab = Lab.ready()
    running(lab)
    lab.step(ManagerLost(manager="wm"))
    lab.step(opened("s1"), ATTACHED)
    assert lab.step(closed("s1")) == [AttemptsLost([0], [1], "NOT_DELIVERED"), TasksQueued([0], [2])]


# ----------------------------------------------------------------------- shards


def successor(lab: Lab, token: int = TOKEN + 1) -> Lab:
    """Another scheduler that takes over from the log of a lab."""
    other = Lab()
    executions = [lab.replayed(each) for each, it in lab.core.executions.items() if not it.finished]
    other.log = lab.log
    other.now_ms = lab.now_ms
    lease = lab.core.ledger.leases[SHARD]
    other.step(acquired(*executions, token=token, offset=lease.next_offset, time_ms=lease.time_ms))
    return other


def test_attempts_are_adopted_under_their_old_tokens() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {}, "b": {}, "c": {"needs": ["a"]}})))
    lab.assigned()
    other = successor(lab)
    assert other.core.placement.doubtful == {("e1", 0, 1), ("e1", 1, 1)}
    assert other.step(opened(), held(live=[ref(0)]), ATTACHED) == [
        AttemptsLost([1], [1], "NOT_DELIVERED"),
        TasksQueued([1], [2]),
    ]
    assert other.assigned() == {"s1": [("e1", 1, 2)]}
    assert other.step(updates(results=[report(0)])) == [TasksCompleted([0], [1], [b"1"]), TasksQueued([2], [1])]
    assert other.execution().tokens == [TOKEN, TOKEN + 1, TOKEN + 1]
    assert other.outgoing.acks == {"s1": [1]}


def test_an_adopted_attempt_that_is_refused_is_tried_anew_under_the_token_of_its_scheduler() -> None:
    """Under the one before it would be refused by all that have seen a newer one, for ever.

    A report names an attempt that was sent to its worker while it was under way; the worker may refuse it after that.
    """
    lab = Lab.ready()
    running(lab)
    other = successor(lab)
    assert other.step(opened(), held(live=[ref(0)]), ATTACHED) == []
    assert other.step(updates(refused=[ref(0)])) == [AttemptsLost([0], [1], "NOT_DELIVERED"), TasksQueued([0], [2])]
    other.step(opened("s2"), held("s2"))
    assert other.assigned() == {"s2": [("e1", 0, 2)]}
    assert other.execution().tokens == [TOKEN + 1]


def test_a_result_that_waited_for_a_new_scheduler_is_taken() -> None:
    lab = Lab.ready()
    running(lab)
    other = successor(lab)
    events = other.step(opened(), held(results=[report(0)]), ATTACHED)
    assert events[0] == TasksCompleted([0], [1], [b"1"])
    assert other.execution().state is ExecutionState.COMPLETED
    assert other.core.placement.doubtful == set()


def test_timers_are_taken_over() -> None:
    lab = Lab.ready()
    lab.step(
        submit(workflow({"a": {"retry": {"attempts": 2, "backoff": {"initial": "10s", "jitter": 0}}}}, timeout="60s"))
    )
    lab.step(updates(results=[report(0, FLAKY)]))
    other = successor(lab)
    assert other.core.next_due_ms() == START_MS + 10_000
    assert other.step(Tick(), after_ms=10_000) == [TasksQueued([0], [2])]
    assert other.core.next_due_ms() == START_MS + 60_000


def test_the_clock_of_a_shard_never_runs_backwards() -> None:
    lab = Lab.ready()
    lab.step(submit(chain(2)))
    lab.now_ms -= 1_000
    lab.step(updates(results=[report(0)]))
    assert lab.execution().finishes_ms[0] == START_MS
    lab.now_ms -= 1_000
    other = successor(lab)
    other.step(opened(), held(results=[report(1)]), ATTACHED)
    assert other.execution().finish_ms == START_MS


def test_what_was_lost_before_a_takeover_is_made_up_for_over_some_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that takes longer than a lease would lose the shards, and all would begin anew."""
    monkeypatch.setattr(core, "LOSSES_LIMIT", 2)
    lab = Lab.ready()
    lab.step(submit(workflow({name: {} for name in "abcde"})))
    lab.assigned()
    other = successor(lab)
    told = [other.step(opened(), held(), ATTACHED)]
    while other.core.next_due_ms() == 0:
        told.append(other.step(Tick()))
    lost = [each.tasks for events in told for each in events if isinstance(each, AttemptsLost)]
    assert lost == [[0, 1], [2, 3], [4]]
    assert len(other.assigned()["s1"]) == 5


def test_the_clock_of_a_shard_is_known_where_all_that_happened_is_over() -> None:
    lab = Lab.ready()
    lab.step(submit(chain(1)))
    lab.step(updates(results=[report(0)]))
    lab.now_ms -= 1_000
    other = successor(lab)
    assert other.core.executions == {}
    other.step(submit(chain(1), "e2"))
    assert other.execution("e2").start_ms == START_MS


def test_a_lost_shard_leaves_memory_and_what_its_turn_decided() -> None:
    lab, caller = Lab.ready(), Caller()
    running(lab)
    assert lab.step(submit(chain(1), "e2", caller=caller), updates(results=[report(0)]), LOST) == []
    assert lab.core.executions == {}
    assert lab.outgoing.acks == {}
    assert isinstance(caller.only, Unavailable)
    assert lab.live_grants() == []


def test_a_refused_append_drops_the_shard_and_nothing_of_it_is_told() -> None:
    lab, caller = Lab.ready(), Caller()
    running(lab)
    lab.step(submit(chain(1), "e2", caller=caller), updates(results=[report(0)]), refused=REFUSED)
    assert isinstance(caller.only, Unavailable)
    assert lab.outgoing.refused == REFUSED
    assert lab.outgoing.acks == {}
    assert lab.core.executions == {}
    assert lab.assigned() == {}


def test_what_was_decided_on_top_of_a_refused_append_never_happened_either() -> None:
    lab = Lab.ready()
    running(lab)
    first, repeat = Caller(), Caller()
    before = lab.core.step([submit(chain(1), "e2", caller=first), updates(results=[report(0)])], START_MS)
    on_top = lab.core.step([submit(chain(1), "e2", caller=repeat), updates(results=[report(0)])], START_MS)
    assert on_top.writes == []
    lab.commit(before, REFUSED)
    lab.commit(on_top)
    assert isinstance(first.only, Unavailable)
    assert isinstance(repeat.only, Unavailable)
    assert lab.outgoing.acks == {}


def test_a_shard_that_is_acquired_anew_is_served_anew() -> None:
    lab = Lab.ready()
    lab.step(submit(chain(1)), refused=REFUSED)
    lab.step(acquired(token=TOKEN + 2, offset=0))
    lab.step(opened(), held(), ATTACHED)
    caller = Caller()
    lab.step(submit(chain(1), caller=caller))
    assert isinstance(caller.only, Execution)
    assert lab.turn.writes[0].token == TOKEN + 2
    assert lab.assigned() == {"s1": [("e1", 0, 1)]}


def test_other_shards_go_on_when_one_is_refused() -> None:
    lab = Lab.ready()
    lab.step(acquired(shard=6))
    lab.step(opened(), held(), ATTACHED)
    callers = [Caller(), Caller()]
    lab.step(submit(chain(1), caller=callers[0]), submit(chain(1), "e2", caller=callers[1], shard=6), refused=REFUSED)
    assert isinstance(callers[0].only, NodeflowError)
    assert callers[1].only is lab.execution("e2")
    assert lab.assigned() == {"s1": [("e2", 0, 1)]}


def test_an_acquisition_asks_all_workers_anew() -> None:
    lab = Lab.ready()
    running(lab)
    lab.step(acquired(shard=6))
    assert lab.core.placement.sessions == {}
    assert lab.core.placement.doubtful == {("e1", 0, 1)}
