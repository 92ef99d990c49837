"""Which worker gets which attempt, and who holds what."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.unit.scheduler.making import assign_all, workflow

from nodeflow_scheduler.domain.events import ExecutionStarted, NodeExpanded, TasksQueued
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.lifecycle import TaskState
from nodeflow_scheduler.domain.placement import WITHHELD_MS, Grant, Key, Placement, Session


def execution_of(count: int, execution_id: str = "e", shard: int = 0) -> Execution:
    """An execution whose tasks are all queued for their first attempt."""
    execution = Execution(execution_id, shard, workflow({f"n{n}": {} for n in range(count)}))
    execution.apply(ExecutionStarted("t", "w", "r", b"{}", "", b"", {}, 0), 1, 1)
    execution.apply(TasksQueued(list(range(count)), [1] * count), 1, 1)
    return execution


def key(task: int) -> Key:
    return ("e", task, 1)


def placed(
    count: int, *bids: tuple[str, int, int], manager: str = "wm", reported: bool = True
) -> tuple[Placement, Execution]:
    """A placement with attempts in line and sessions of these names, slots and credits."""
    placement, execution = Placement(), execution_of(max(count, 1))
    for name, slots, spare in bids:
        placement.on_opened(Session(session_id=name, worker_id=name, manager=manager, slots=slots, credits=spare))
        if reported:
            placement.on_held(name, 1, [], [])
    placement.enqueue(execution, [(task, 1) for task in range(count)])
    return placement, execution


def handed(placement: Placement) -> dict[str, list[int]]:
    return {name: [grant.task for grant in grants] for name, grants in assign_all(placement).items()}


def test_free_slots_come_first_and_evenly() -> None:
    placement, _ = placed(4, ("a", 4, 4), ("b", 4, 4))
    assert handed(placement) == {"a": [0, 1], "b": [2, 3]}
    assert handed(placement) == {}


def test_small_workers_are_filled_and_large_ones_take_the_rest() -> None:
    placement, _ = placed(9, ("large", 10, 0), ("small", 1, 0), ("middle", 3, 0))
    assert handed(placement) == {"small": [0], "middle": [1, 2, 3], "large": [4, 5, 6, 7, 8]}


def test_credits_are_used_when_no_slot_is_free_and_never_more() -> None:
    placement, _ = placed(9, ("a", 2, 1), ("b", 1, 3))
    assert handed(placement) == {"b": [0, 4, 5, 6], "a": [1, 2, 3]}
    assert [grant.task for grant in placement.ready] == [7, 8]
    assert handed(placement) == {}


def test_nothing_is_handed_out_before_the_first_report() -> None:
    placement, _ = placed(2, ("a", 4, 0), reported=False)
    assert handed(placement) == {}
    placement.on_held("a", 1, [], [])
    assert handed(placement) == {"a": [0, 1]}


def test_what_is_no_longer_wanted_is_passed_over() -> None:
    placement, execution = placed(3, ("a", 1, 0))
    execution.attempts[0] = 2
    assert handed(placement) == {"a": [1]}
    assert len(placement.ready) == 1


def test_a_refusal_gives_back_what_the_session_answered_for_and_nothing_else() -> None:
    placement, execution = placed(2, ("a", 2, 0), ("b", 1, 0))
    placement.sessions["b"].slots = 0
    assert handed(placement) == {"a": [0, 1]}
    assert placement.on_refused("b", [key(0)], 0) == set()
    assert placement.on_refused("a", [key(1), ("other", 0, 1)], 0) == {key(1)}
    assert placement.on_refused("a", [key(1)], 0) == set()
    assert placement.sessions["a"].live == {key(0)}
    placement.put_back([Grant(execution, 1, 1)])
    assert handed(placement) == {}, "nothing more for a session that refused"
    placement.on_capacity("a", 2, 0)
    assert handed(placement) == {"a": [1]}


def test_what_is_put_back_goes_first_in_its_order() -> None:
    placement, execution = placed(1, ("a", 3, 0))
    later = execution_of(3, "f")
    placement.put_back([Grant(later, 1, 1), Grant(later, 2, 1)])
    assert [grant.key for grant in assign_all(placement)["a"]] == [("f", 1, 1), ("f", 2, 1), ("e", 0, 1)]
    assert execution.execution_id == "e"


def test_a_refusal_of_a_doubtful_attempt_removes_the_doubt() -> None:
    placement, _ = placed(0, ("a", 1, 0))
    placement.doubt(key(0))
    assert placement.on_refused("a", [key(0)], 0) == {key(0)}
    assert placement.doubtful == set()


def test_a_report_says_what_was_lost_on_the_way() -> None:
    placement, _ = placed(4, ("a", 4, 0))
    assign_all(placement)
    assert placement.on_held("a", 2, [key(1)], [key(2)]) == {key(0), key(3)}
    assert placement.sessions["a"].live == {key(1)}
    assert placement.sessions["a"].generation == 2


def test_a_report_claims_doubtful_attempts() -> None:
    placement, _ = placed(0, ("a", 4, 0))
    placement.doubt(key(0))
    placement.doubt(key(1))
    assert placement.on_held("a", 2, [key(0)], []) == set()
    assert placement.doubtful == {key(1)}
    assert placement.sessions["a"].free_slots == 3


def test_what_a_closed_session_held_is_lost_once() -> None:
    placement, _ = placed(2, ("a", 4, 0))
    assign_all(placement)
    assert placement.on_closed("a") == {key(0), key(1)}
    assert placement.on_closed("a") == set()
    assert placement.holder_of(key(0)) is None


def test_a_lost_manager_leaves_doubt_until_every_session_has_reported() -> None:
    placement, _ = placed(2, ("a", 4, 0))
    placement.on_manager_attached("wm")
    assign_all(placement)
    assert placement.certain(["wm"])
    placement.on_manager_lost("wm")
    assert placement.doubtful == {key(0), key(1)}
    assert placement.sessions == {}
    assert not placement.certain(["wm"])
    placement.on_opened(Session(session_id="a", worker_id="a", manager="wm", slots=4))
    placement.on_manager_attached("wm")
    assert not placement.certain(["wm"]), "the session has not reported"
    assert not placement.certain(["wm", "other"])
    placement.on_held("a", 1, [key(0)], [])
    assert placement.certain(["wm"])
    assert placement.doubtful == {key(1)}


def test_a_session_that_is_opened_again_must_report_what_it_holds() -> None:
    placement, _ = placed(2, ("a", 4, 0))
    assign_all(placement)
    placement.on_opened(Session(session_id="a", worker_id="a", manager="wm", slots=4))
    assert placement.doubtful == {key(0), key(1)}
    assert (placement.sessions["a"].live, placement.sessions["a"].free_slots) == (set(), 0)
    assert placement.on_held("a", 1, [key(0)], []) == set()
    assert placement.sessions["a"].free_slots == 3
    assert placement.doubtful == {key(1)}


def test_an_acknowledgement_makes_room_where_something_was_refused() -> None:
    placement, execution = placed(1, ("a", 1, 0))
    assign_all(placement)
    placement.on_refused("a", [key(0)], 0)
    placement.put_back([Grant(execution, 0, 1)])
    assert handed(placement) == {}
    placement.on_acknowledged("a")
    placement.on_acknowledged("nobody")
    assert handed(placement) == {"a": [0]}


def test_whoever_refused_is_asked_again_after_a_while_for_what_fills_it_may_be_of_another_scheduler() -> None:
    placement, execution = placed(1, ("a", 1, 0))
    assign_all(placement)
    placement.on_refused("a", [key(0)], 1_000)
    placement.put_back([Grant(execution, 0, 1)])
    assert placement.next_try_ms() == 1_000 + WITHHELD_MS
    placement.try_again(999 + WITHHELD_MS)
    assert handed(placement) == {}
    placement.try_again(1_000 + WITHHELD_MS)
    assert placement.next_try_ms() is None
    assert handed(placement) == {"a": [0]}


def test_attempts_of_forgotten_shards_are_not_handed_out_and_count_no_more() -> None:
    """What becomes of them is told to the next owner alone."""
    placement, _ = placed(2, ("a", 2, 0))
    assert handed(placement) == {"a": [0, 1]}
    placement.enqueue(execution_of(2, "f", shard=3), [(0, 1), (1, 1)])
    placement.enqueue(execution_of(3), [(2, 1)])
    placement.forget(frozenset({0}), ["e"])
    assert [grant.key for grant in assign_all(placement)["a"]] == [("f", 0, 1), ("f", 1, 1)]


# ------------------------------------------------------------------- unfit code


def mapped(count: int) -> Execution:
    """An execution of one mapped node, whose items are all queued for their first attempt."""
    execution = Execution("e", 0, workflow({"many": {"map": list(range(count))}}))
    execution.apply(ExecutionStarted("t", "w", "r", b"{}", "", b"", {}, 0), 1, 1)
    execution.apply(NodeExpanded(0, 1, [str(n).encode() for n in range(count)]), 1, 1)
    execution.apply(TasksQueued(list(range(1, count + 1)), [1] * count), 1, 1)
    return execution


def test_what_a_session_has_no_code_for_is_looked_at_once_and_not_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    count, turns = 500, 50
    looks = Counter[str]()
    node_of = Execution.node_of

    def counted(execution: Execution, task: int) -> int:
        looks["all"] += 1
        return node_of(execution, task)

    monkeypatch.setattr(Execution, "node_of", counted)
    placement, _ = placed(0, ("a", 1, 0), ("b", 1, 0))
    execution = mapped(count)
    placement.enqueue(execution, [(task, 1) for task in range(1, count + 1)])
    assert placement.on_unfit("a", execution, 0)
    assert handed(placement) == {"b": [1]}
    for turn in range(turns):
        placement.sessions["b"].live.clear()
        assert handed(placement) == {"b": [turn + 2]}
    assert placement.waiting == count - turns - 1
    assert looks["all"] <= count + turns + 1


def test_what_was_passed_over_keeps_its_place_and_goes_to_who_has_the_code() -> None:
    placement, _ = placed(0, ("a", 4, 0))
    execution, later = mapped(2), execution_of(1, "f")
    placement.enqueue(execution, [(1, 1), (2, 1)])
    placement.enqueue(later, [(0, 1)])
    placement.on_unfit("a", execution, 0)
    assert [grant.key for grant in assign_all(placement)["a"]] == [("f", 0, 1)]
    placement.on_opened(Session(session_id="b", worker_id="b", manager="wm", slots=4))
    placement.on_held("b", 1, [], [])
    placement.on_unfit("b", execution, 0)
    assert handed(placement) == {}
    placement.on_opened(Session(session_id="c", worker_id="c", manager="wm", slots=4))
    placement.on_held("c", 1, [], [])
    placement.enqueue(later, [])
    assert handed(placement) == {"c": [1, 2]}
    assert placement.waiting == 0


def test_what_sessions_have_no_code_for_is_forgotten_with_the_execution_and_with_its_shard() -> None:
    placement, execution = placed(1, ("a", 1, 0))
    placement.on_unfit("a", execution, 0)
    assert not placement.fits("a", execution, 0)
    placement.forget(frozenset({0}), ["e"])
    assert placement.fits("a", execution, 0)
    placement.on_unfit("a", execution, 0)
    placement.on_finished("e")
    assert placement.fits("a", execution, 0)


def test_without_workers_what_is_not_wanted_any_more_does_not_pile_up() -> None:
    placement, _ = placed(0)
    for _ in range(5_000):
        execution = execution_of(1)
        placement.enqueue(execution, [(0, 1)])
        execution.states[0] = TaskState.CANCELLED
    assert placement.waiting < 2_000
