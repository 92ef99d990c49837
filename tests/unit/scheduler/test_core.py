"""The core: given inputs, when a turn, then exactly what is appended, told and handed out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.scheduler.making import (
    ATTACHED,
    BROKEN,
    FLAKY,
    SHARD,
    START_MS,
    TOKEN,
    Caller,
    Lab,
    acquired,
    cancel,
    chain,
    columns,
    held,
    opened,
    ref,
    report,
    running,
    submit,
    updates,
    workflow,
)

from nodeflow_scheduler.domain.admission import Admission, Limits, Request
from nodeflow_scheduler.domain.core import Core
from nodeflow_scheduler.domain.events import (
    AttemptsLost,
    ExecutionStarted,
    TaskFailed,
    TasksCompleted,
    TasksQueued,
    TasksStarted,
)
from nodeflow_scheduler.domain.failures import Failure, FailureKind
from nodeflow_scheduler.domain.lifecycle import ExecutionState, TaskState
from nodeflow_scheduler.domain.messages import (
    AttemptRef,
    Produced,
    Report,
    ShardsLost,
    Stopped,
    Tick,
    Updates,
)
from nodeflow_scheduler.domain.values import Stored
from nodeflow_shared.errors import AlreadyExists, IllegalState, NotFound, Overloaded, Unavailable

# ------------------------------------------------------------------ submissions


def test_a_submission_is_one_write_and_is_answered_after_its_commit() -> None:
    lab, caller = Lab.ready(), Caller()
    turn = lab.core.step([submit(chain(2), caller=caller)], START_MS + 5)
    execution = lab.execution()
    (write,) = turn.writes
    assert (write.shard, write.token, write.expected_offset) == (SHARD, TOKEN, 0)
    assert [draft.events for draft in write.drafts] == [
        [
            ExecutionStarted("t", "w", execution.workflow.revision, b"{}", "r", b"d", {"team": "a"}, 0),
            TasksQueued([0], [1]),
        ]
    ]
    (entry,) = write.entries
    assert (entry.execution, entry.state, entry.task_count) == (execution, ExecutionState.RUNNING, 2)
    assert caller.answers == []
    assert lab.assigned() == {}
    lab.commit(turn)
    assert caller.only is execution
    assert lab.assigned() == {"s1": [("e1", 0, 1)]}


def test_offsets_count_events_and_turns_follow_each_other_before_any_is_committed() -> None:
    lab = Lab.ready()
    first = lab.core.step([submit(chain(2)), submit(chain(1), "e2")], START_MS)
    second = lab.core.step([submit(chain(1), "e3")], START_MS)
    assert [write.expected_offset for write in (*first.writes, *second.writes)] == [0, 4]
    assert lab.core.ledger.leases[SHARD].next_offset == 6


def test_writes_are_in_the_order_of_their_shards() -> None:
    lab = Lab.ready()
    lab.step(acquired(shard=2), acquired(shard=9))
    turn = lab.core.step([submit(chain(1), f"e{shard}", shard=shard) for shard in (9, SHARD, 2)], START_MS)
    assert [write.shard for write in turn.writes] == [2, SHARD, 9]


def test_a_repeated_submission_finds_its_execution_and_another_body_is_refused() -> None:
    lab = Lab.ready()
    first, repeat, other = Caller(), Caller(), Caller()
    lab.step(submit(chain(1), caller=first), submit(chain(1), caller=repeat))
    assert lab.step(submit(chain(1), caller=other, digest=b"another")) == []
    assert first.only is repeat.only is lab.execution()
    error = other.only
    assert isinstance(error, AlreadyExists)
    assert (error.reason, error.metadata) == ("REQUEST_ID_REUSED", {"execution_id": "e1"})


def test_a_repeat_finds_an_execution_that_is_over_and_does_not_start_it_again() -> None:
    lab, repeat = Lab.ready(), Caller()
    running(lab)
    lab.step(updates(results=[report(0)]))
    over = lab.execution()
    assert lab.step(submit(chain(1), caller=repeat, digest=over.origin.request_digest)) == []
    assert repeat.only is lab.execution() is over
    assert over.state is ExecutionState.COMPLETED


def test_what_is_open_is_counted_until_it_is_over_or_not_ours() -> None:
    lab = Lab.ready(Limits(open_executions=2, open_tasks=3))
    admission = lab.core.ledger.admission
    request = Request(executions=1, tasks=1, size_bytes=10)
    admission.let_in(request)
    lab.step(replace(submit(chain(1), "e0"), admitted=request), submit(chain(2), "e1"))
    assert (admission.open_executions, admission.open_tasks) == (2, 3)
    with pytest.raises(Overloaded, match="2 executions are open, and 2 at most may be") as caught:
        admission.let_in(request)
    assert caught.value.retry_after_s == 1.0
    lab.step(updates(results=[report(0, execution_id="e0")]))
    assert (admission.open_executions, admission.open_tasks) == (1, 2)
    with pytest.raises(Overloaded, match="open executions have 2 tasks, and 3 at most may be open"):
        admission.let_in(Request(executions=1, tasks=2))
    admission.let_in(request)
    admission.decided(request)
    lab.step(ShardsLost(shards=frozenset({SHARD})))
    assert (admission.open_executions, admission.open_tasks) == (0, 0)


def test_what_waits_to_be_decided_counts_as_open() -> None:
    admission = Admission(Limits(open_executions=2, open_tasks=3))
    for _ in range(2):
        admission.let_in(Request(executions=1, tasks=1))
    with pytest.raises(Overloaded, match="2 executions are open, and 2 at most may be"):
        admission.let_in(Request(executions=1, tasks=1))
    admission.decided(Request(executions=1, tasks=1))
    with pytest.raises(Overloaded, match="open executions have 1 tasks, and 3 at most may be open"):
        admission.let_in(Request(executions=1, tasks=3))


def test_what_waits_to_be_stored_has_a_limit_and_one_alone_gets_in_however_large() -> None:
    admission = Admission(Limits(waiting_submissions=3, waiting_bytes=100, open_tasks=10))
    large = Request(executions=5, tasks=50, size_bytes=500)
    admission.let_in(large)
    with pytest.raises(Overloaded, match="tasks"):
        admission.let_in(Request(executions=1, tasks=1))
    admission.decided(large)
    admission.let_in(Request(executions=2, tasks=2, size_bytes=60))
    for too_much in (Request(executions=2, tasks=2), Request(executions=1, tasks=1, size_bytes=50)):
        with pytest.raises(Overloaded, match="2 submissions wait to be stored"):
            admission.let_in(too_much)
    admission.let_in(Request(executions=1, tasks=1, size_bytes=40))


def test_finished_executions_stay_for_readers_until_there_are_too_many_of_their_tasks() -> None:
    lab = Lab.ready(Limits(finished_tasks=3))
    for name in ("a", "b", "c"):
        lab.step(submit(chain(2), name))
        for task in range(2):
            lab.step(updates(results=[report(task, execution_id=name, result_id=task + 1)]))
    assert list(lab.core.executions) == ["c"]


def test_executions_that_are_over_stay_for_readers_until_there_are_too_many() -> None:
    lab = Lab.ready(Limits(finished_executions=2))
    for number in range(4):
        lab.step(submit(chain(1), f"e{number}"))
        lab.step(updates(results=[report(0, execution_id=f"e{number}")]))
    assert list(lab.core.executions) == ["e2", "e3"]
    assert lab.core.ledger.admission.open_executions == 0


def test_shards_of_others_are_not_served() -> None:
    lab = Lab.ready()
    started, cancelled = Caller(), Caller()
    assert lab.step(submit(chain(1), shard=6, caller=started), cancel(shard=6, caller=cancelled)) == []
    assert isinstance(started.only, Unavailable)
    assert isinstance(cancelled.only, Unavailable)


# ---------------------------------------------------------------- cancellations


def test_a_cancellation_is_answered_and_a_repeat_changes_nothing() -> None:
    lab, first, repeat = Lab.ready(), Caller(), Caller()
    running(lab)
    lab.step(cancel(caller=first))
    assert lab.step(cancel(caller=repeat)) == []
    assert first.only is repeat.only is lab.execution()
    assert lab.execution().state is ExecutionState.CANCELLED
    assert lab.execution().cancel_reason == "enough"


def test_what_is_cancelled_in_the_turn_that_starts_it_is_handed_to_nobody() -> None:
    lab = Lab.ready()
    lab.step(submit(chain(1)), cancel())
    assert lab.assigned() == {}


def test_what_waits_in_line_when_it_is_cancelled_is_handed_to_nobody() -> None:
    lab = Lab()
    lab.step(acquired(), submit(workflow({"a": {}, "b": {}})))
    lab.step(cancel())
    lab.step(opened(), held(), ATTACHED)
    assert lab.assigned() == {}


def test_what_is_over_or_anothers_cannot_be_cancelled() -> None:
    lab = Lab.ready()
    running(lab)
    foreign, late = Caller(), Caller()
    lab.step(cancel(caller=foreign, tenant="somebody"))
    lab.step(updates(results=[report(0)]))
    assert lab.step(cancel(caller=late)) == []
    assert isinstance(foreign.only, NotFound)
    assert isinstance(late.only, IllegalState)
    assert "is COMPLETED already" in late.only.message


def test_what_has_ended_and_left_memory_before_its_cancellation_was_decided_is_asked_for_again() -> None:
    """Nobody asks for the cancellation of what there is not: it was there a moment ago."""
    lab = Lab.ready(Limits(finished_executions=1))
    running(lab)
    running(lab, execution_id="e2")
    late = Caller()
    over = [updates(results=[report(0)]), updates(results=[report(0, execution_id="e2")])]
    for each in over:
        lab.step(each)
    lab.step(cancel(caller=late))
    assert isinstance(late.only, Unavailable)
    assert "has ended meanwhile" in late.only.message


# ---------------------------------------------------------------------- results


def test_a_result_is_acknowledged_after_its_commit() -> None:
    lab = Lab.ready()
    running(lab)
    turn = lab.core.step([updates(results=[report(0, result_id=44)])], START_MS)
    outgoing = lab.core.commit(turn, frozenset())
    assert outgoing.acks == {"s1": [44]}
    assert lab.core.placement.sessions["s1"].live == set()


def test_a_result_counts_once_and_every_copy_is_acknowledged() -> None:
    lab = Lab.ready()
    running(lab, 2)
    assert lab.step(
        updates(results=[report(0, b"1"), report(0, b"2", result_id=8), report(0, BROKEN, result_id=9)])
    ) == [TasksCompleted([0], [1], [b"1"])]
    assert lab.outgoing.acks == {"s1": [1, 8, 9]}
    assert lab.step(updates(results=[report(0, b"3", result_id=10)])) == []
    assert lab.outgoing.acks == {"s1": [10]}
    assert lab.execution().output(0) == b"1"


def test_a_failure_before_a_success_of_the_same_attempt_is_what_counts() -> None:
    lab = Lab.ready()
    running(lab, 2)
    assert lab.step(updates(results=[report(0, BROKEN), report(0, b"1", result_id=5)])) == [TaskFailed(0, 1, BROKEN, 0)]
    assert lab.outgoing.acks == {"s1": [1, 5]}


@pytest.mark.parametrize(
    "stale",
    [
        report(0, attempt=2),
        report(0, attempt=0, token=0),
        report(0, token=TOKEN - 1),
        report(99),
        report(0, execution_id="unknown"),
        report(1),
    ],
)
@pytest.mark.parametrize("outcome", [b"1", FLAKY, Stopped(), Produced(b"1", {"a": Stored(digest="sha256:1")})])
def test_stale_reports_change_nothing_and_are_acknowledged(stale: Report, outcome: object) -> None:
    lab = Lab.ready()
    lab.step(submit(chain(2, retry=3)))
    lab.assigned()
    before = columns(lab.replayed())
    assert lab.step(updates(results=[stale._replace(outcome=outcome, result_id=3)])) == []  # type: ignore[arg-type]  # the values above
    assert lab.outgoing.acks == {"s1": [3]}
    assert columns(lab.execution()) == before


def test_the_accepted_result_publishes_its_artifacts_and_no_other() -> None:
    lab = Lab.ready()
    running(lab, 2)
    first = {"out/a": Stored(digest="sha256:1", size_bytes=1)}
    second = {"out/a": Stored(digest="sha256:2", size_bytes=1)}
    results = [report(0, Produced(b"1", first)), report(0, Produced(b"2", second), result_id=8)]
    assert lab.step(updates(results=results)) == [TasksCompleted([0], [1], [b"1"], {0: first})]
    assert lab.step(updates(results=[report(0, Produced(b"2", second), result_id=9)])) == []
    assert lab.execution().artifacts == {0: first}
    assert lab.replayed().artifacts == {0: first}


def test_a_mapped_node_as_a_whole_has_no_attempt_to_report_on() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"m": {"map": "${inputs.xs}"}}, inputs={"xs": {"type": "array"}}), inputs=b'{"xs":[1]}'))
    assert lab.step(updates(results=[report(0, attempt=0, token=0)])) == []
    assert lab.execution().states[0] == TaskState.RUNNING


def test_results_during_a_backoff_are_too_late() -> None:
    lab = Lab.ready()
    running(lab, retry=2)
    lab.step(updates(results=[report(0, FLAKY)]))
    assert lab.step(updates(results=[report(0, result_id=2)]), updates(started=[ref(0)])) == []
    assert lab.outgoing.acks == {"s1": [2]}


def test_results_of_shards_of_others_are_neither_taken_nor_acknowledged() -> None:
    lab = Lab.ready()
    running(lab)
    assert lab.step(updates(results=[report(0, shard=6)])) == []
    assert lab.outgoing.acks == {}
    assert lab.execution().states[0] == TaskState.QUEUED


def test_a_result_frees_its_slot_even_for_an_execution_that_is_gone() -> None:
    lab = Lab.ready(slots=1)
    running(lab)
    lab.step(cancel())
    lab.step(submit(chain(1), "e2"))
    assert lab.assigned() == {}
    lab.step(updates(results=[report(0, Stopped())]))
    assert lab.assigned() == {"s1": [("e2", 0, 1)]}


def test_an_attempt_that_a_worker_gave_up_is_made_up_for() -> None:
    lab = Lab.ready()
    running(lab)
    assert lab.step(updates(started=[ref(0)], results=[report(0, Stopped())])) == [
        TasksStarted([0], [1], "worker of s1"),
        AttemptsLost([0], [1], "REFUSED"),
        TasksQueued([0], [2]),
    ]


def test_a_start_and_its_result_in_one_turn() -> None:
    lab = Lab.ready()
    running(lab, 2)
    assert lab.step(updates(started=[ref(0)]), updates(results=[report(0)])) == [
        TasksStarted([0], [1], "worker of s1"),
        TasksCompleted([0], [1], [b"1"]),
    ]


# --------------------------------------------------------------------- refusals


def test_a_refused_attempt_goes_to_another_worker_as_it_is() -> None:
    lab = Lab.ready(slots=1)
    lab.step(submit(chain(1)))
    assert lab.assigned() == {"s1": [("e1", 0, 1)]}
    lab.step(opened("s2", slots=1), held("s2"))
    assert lab.step(updates(refused=[ref(0)])) == []
    assert lab.assigned() == {"s2": [("e1", 0, 1)]}
    assert lab.step(updates(refused=[ref(0)])) == [], "a repeat gives nothing back"
    assert lab.assigned() == {}


def test_refusing_what_is_over_frees_the_slot() -> None:
    lab = Lab.ready(slots=1)
    running(lab)
    lab.step(cancel())
    lab.step(updates(refused=[ref(0)]))
    assert lab.core.placement.sessions["s1"].live == set()
    assert lab.live_grants() == []


def test_refusing_what_had_begun_is_a_loss() -> None:
    lab = Lab.ready()
    running(lab)
    lab.step(updates(started=[ref(0)]))
    assert lab.step(updates(refused=[ref(0)])) == [AttemptsLost([0], [1], "REFUSED"), TasksQueued([0], [2])]


# ------------------------------------------------------------------ other code

OTHER_CODE = Failure(kind=FailureKind.SYSTEM, reason="CODE_DIFFERS", message="other bytes", retryable=False)


def unfit(task: int, session_id: str, attempt: int = 1) -> Updates:
    return updates(session_id, results=[report(task, OTHER_CODE, attempt=attempt)])


def test_a_worker_with_other_code_gets_no_more_of_the_node_and_another_one_does() -> None:
    lab = Lab.ready(slots=1)
    lab.step(submit(chain(1)))
    assert lab.assigned() == {"s1": [("e1", 0, 1)]}
    lab.step(opened("s2", slots=1), held("s2"))
    assert lab.step(unfit(0, "s1")) == [AttemptsLost([0], [1], "CODE_DIFFERS"), TasksQueued([0], [2])]
    assert lab.assigned() == {"s2": [("e1", 0, 2)]}


def test_what_the_others_cannot_run_waits_for_the_one_that_may_while_they_get_other_work() -> None:
    lab = Lab.ready(slots=1)
    lab.step(submit(chain(1)))
    lab.assigned()
    lab.step(opened("s2", slots=1))
    lab.step(unfit(0, "s1"))
    assert lab.assigned() == {}, "s2 has not reported yet"
    lab.step(submit(chain(1), "e2"))
    assert lab.assigned() == {"s1": [("e2", 0, 1)]}
    lab.step(held("s2"))
    assert lab.assigned() == {"s2": [("e1", 0, 2)]}


def test_a_task_that_no_worker_has_the_code_for_fails_and_its_retries_do_not_count() -> None:
    lab = Lab.ready(slots=1)
    lab.step(submit(chain(1, retry=3)))
    lab.assigned()
    lab.step(opened("s2", slots=1), held("s2"))
    lab.step(unfit(0, "s1"))
    lab.assigned()
    assert lab.step(unfit(0, "s2", attempt=2))[0] == TaskFailed(0, 2, OTHER_CODE, 0)


def test_that_many_workers_have_other_code_does_not_count_as_deaths_of_theirs() -> None:
    lab = Lab.ready(slots=1)
    lab.step(submit(chain(1)))
    for n in range(2, 26):
        lab.step(opened(f"s{n}", slots=1), held(f"s{n}"))
    asked, told = [], []
    for attempt in range(1, 26):
        [session_id] = lab.assigned()
        asked.append(session_id)
        told += lab.step(unfit(0, session_id, attempt))
    assert sorted(asked) == sorted(f"s{n}" for n in range(1, 26))
    assert [each for each in told if isinstance(each, TaskFailed)] == [TaskFailed(0, 25, OTHER_CODE, 0)]


def test_the_next_execution_is_offered_to_all_again() -> None:
    lab = Lab.ready(slots=1)
    lab.step(submit(chain(1)))
    lab.assigned()
    lab.step(unfit(0, "s1"))
    lab.step(submit(chain(1), "e2"))
    assert lab.assigned() == {"s1": [("e2", 0, 1)]}


# ------------------------------------------------------- before and after commit


def test_nothing_is_told_before_the_commit() -> None:
    lab = Lab.ready()
    running(lab, 2)
    lab.core.step([updates(results=[report(0)]), cancel()], START_MS)
    lab.core.step([submit(chain(1), "e2")], START_MS)
    assert lab.assigned() == {}
    assert lab.core.ledger.admission.open_executions == 2, "an execution is over once the log has it"


def test_a_turn_with_nothing_to_write_says_nothing() -> None:
    lab = Lab.ready()
    running(lab)
    turn = lab.core.step([Tick()], START_MS)
    outgoing = lab.core.commit(turn, frozenset())
    assert (turn.writes, outgoing.acks, outgoing.stops, outgoing.replies) == ([], {}, {}, [])


def test_a_snapshot_is_written_after_so_many_events() -> None:
    lab = Lab.ready(Limits(snapshot_every=8))
    lab.step(submit(chain(6)))
    written = []
    for task in range(5):
        lab.step(updates(results=[report(task)]))
        written.append([each.execution_id for write in lab.turn.writes for each in write.snapshots])
    assert written == [[], [], [], ["e1"], []]


def test_timers_that_no_longer_fit_are_swept_out() -> None:
    lab = Lab.ready()
    compiled = workflow({"a": {}}, timeout="1h")
    for number in range(3_000):
        lab.step(submit(compiled, f"e{number}"))
        lab.step(updates(results=[report(0, execution_id=f"e{number}")]))
    assert len(lab.core.ledger.timers) < 2_000
    lab.step(submit(compiled, "last"))
    assert lab.step(Tick(), after_ms=3_600_000) != []
    assert lab.execution("last").state is ExecutionState.FAILED


def test_every_input_has_a_handler() -> None:
    with pytest.raises(KeyError):
        Core(["wm"]).step([AttemptRef("e", 0, 1, 0, 0)], 0)  # type: ignore[list-item]  # what is no input is a defect
