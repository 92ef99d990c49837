"""Every checker accepts a true history, and sees each way in which one can be false."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1 import log_pb2
from nodeflow.scheduler.v1.log_pb2 import LogChunk, LogRecord
from tests.support.checkers import (
    Violation,
    check_attempts,
    check_cancelled,
    check_course,
    check_dependencies,
    check_gapless,
    check_history,
    check_offsets,
    check_one_result_per_task,
    check_request_ids,
    check_times,
    check_tokens,
    check_watched,
)
from tests.support.history import ExecutionHistory, Fact, History, ShardHistory, facts_of

COMPLETED = ExecutionState.EXECUTION_STATE_COMPLETED
FAILED = ExecutionState.EXECUTION_STATE_FAILED
GRAPH = [[], [0], [1]]
"""list → each (mapped over two items: tasks 3 and 4) → sum."""
LIST, EACH, SUM, ITEM, OTHER_ITEM = range(5)
LAST_TOKEN = 7


def started() -> LogRecord:
    return LogRecord(execution_started=log_pb2.ExecutionStarted(tenant="default", workflow="sums"))


def queued(task: int, attempt: int = 1) -> LogRecord:
    return LogRecord(tasks_queued=log_pb2.TasksQueued(task_numbers=[task], attempt_numbers=[attempt]))


def began(task: int, attempt: int = 1) -> LogRecord:
    return LogRecord(tasks_started=log_pb2.TasksStarted(task_numbers=[task], attempt_numbers=[attempt]))


def completed(task: int, attempt: int = 1) -> LogRecord:
    done = log_pb2.TasksCompleted(task_numbers=[task], attempt_numbers=[attempt], outputs=[b"1"])
    return LogRecord(tasks_completed=done)


def failed(task: int, attempt: int = 1, retry_ms: int = 0) -> LogRecord:
    return LogRecord(task_failed=log_pb2.TaskFailed(task_number=task, attempt_number=attempt, retry_unix_ms=retry_ms))


def lost(task: int, attempt: int = 1) -> LogRecord:
    return LogRecord(attempts_lost=log_pb2.AttemptsLost(task_numbers=[task], attempt_numbers=[attempt]))


def expanded() -> LogRecord:
    items = log_pb2.NodeExpanded(task_number=EACH, first_item=ITEM, items=[b"1", b"2"])
    return LogRecord(node_expanded=items)


def cancelled(*tasks: int) -> LogRecord:
    return LogRecord(tasks_cancelled=log_pb2.TasksCancelled(task_numbers=tasks))


def asked_to_cancel() -> LogRecord:
    return LogRecord(cancel_requested=log_pb2.CancelRequested())


def finished(state: ExecutionState.ValueType = COMPLETED) -> LogRecord:
    return LogRecord(execution_finished=log_pb2.ExecutionFinished(state=state))


BEGINNING = [started(), queued(LIST), began(LIST), completed(LIST), expanded()]
ITEMS = [queued(ITEM), queued(OTHER_ITEM), completed(OTHER_ITEM), completed(ITEM), completed(EACH, 0)]
END = [queued(SUM), completed(SUM), finished()]
TRUE = [*BEGINNING, *ITEMS, *END]


def told(*records: LogRecord) -> list[Fact]:
    """Return the facts of records, each committed a second after the one before it."""
    facts: list[Fact] = []
    for number, record in enumerate(records):
        chunk = LogChunk(time_unix_ms=1_000 * number, fencing_token=LAST_TOKEN, records=[record])
        facts += facts_of(chunk.SerializeToString(), first_sequence=len(facts) + 1, first_offset=len(facts))
    return facts


def execution(
    facts: Sequence[Fact], *, state: ExecutionState.ValueType = COMPLETED, task_count: int = 5, name: str = "e"
) -> ExecutionHistory:
    """Return an execution that the index knows so."""
    return ExecutionHistory(execution_id=name, request_id="key", state=state, task_count=task_count, facts=tuple(facts))


def store(*executions: ExecutionHistory) -> History:
    """Return a store of one shard."""
    count = sum(len(each.facts) for each in executions)
    shard = ShardHistory(shard=0, fencing_token=LAST_TOKEN, next_offset=count)
    return History(executions=executions, shards=(shard,))


def altered(place: int, **changes: int) -> list[Fact]:
    """Return the true facts with one of them changed."""
    facts = told(*TRUE)
    facts[place] = replace(facts[place], **changes)  # type: ignore[arg-type]  # only fields that are numbers
    return facts


def said(violations: Iterable[Violation]) -> list[tuple[str, str]]:
    return [(each.promise, each.what) for each in violations]


def test_a_true_history_has_no_violation() -> None:
    assert check_history(store(execution(told(*TRUE))), {"e": GRAPH}) == []


@pytest.mark.parametrize(
    "ends",
    [
        [failed(LIST, retry_ms=2_000), queued(LIST, 2), completed(LIST, 2)],
        [lost(LIST), queued(LIST, 2), began(LIST, 2), completed(LIST, 2)],
    ],
)
def test_a_retried_and_a_lost_attempt_are_followed_by_the_next(ends: list[LogRecord]) -> None:
    records = [started(), queued(LIST), *ends, expanded(), *ITEMS, *END]
    assert check_history(store(execution(told(*records))), {"e": GRAPH}) == []


def test_a_task_that_was_lost_too_often_fails_by_its_lost_attempt() -> None:
    records = [started(), queued(LIST), lost(LIST), failed(LIST), cancelled(EACH, SUM), finished(FAILED)]
    assert check_history(store(execution(told(*records), state=FAILED, task_count=3)), {"e": GRAPH}) == []


def test_offsets() -> None:
    assert said(check_offsets(store(execution(altered(3, offset=4))))) == [
        ("I8", "offsets are 4 in place of 3, at place 3 of 13")
    ]
    shard = ShardHistory(shard=0, fencing_token=LAST_TOKEN, next_offset=14)
    beyond = replace(store(execution(told(*TRUE))), shards=(shard,))
    assert said(check_offsets(beyond)) == [("I8", "the next offset is 14 after 13 events")]


def test_tokens() -> None:
    assert said(check_tokens(store(execution(altered(3, token=6))))) == [("I2", "offset 3 has token 6, after token 7")]
    assert said(check_tokens(store(execution(altered(12, token=8))))) == [
        ("I2", "token 8 was used, 7 was granted last")
    ]


def test_times() -> None:
    assert said(check_times(store(execution(altered(3, time_ms=1_995))))) == [
        ("time", "offset 3 is 5 ms before the one before it")
    ]


def test_request_ids() -> None:
    twice = store(execution(told(*TRUE)), execution([], name="f"))
    assert said(check_request_ids(twice)) == [("I1", "request_id 'key' has 2 executions")]


def test_sequences() -> None:
    assert said(check_gapless(execution(altered(3, sequence=5)))) == [
        ("I8", "sequences are 5 in place of 4, at place 3 of 13")
    ]


def test_a_watcher_that_missed_saw_twice_or_lost_order() -> None:
    true = execution(told(*TRUE))
    seen = [fact.sequence for fact in true.facts]
    assert check_watched(true, seen) == []
    assert said(check_watched(true, seen[:-1])) == [("I8", "sequences are 12 in number, not 13")]
    assert said(check_watched(true, [1, *seen])) == [("I8", "sequences are 1 in place of 2, at place 1 of 13")]
    assert said(check_watched(true, [2, 1, *seen[2:]])) == [("I8", "sequences are 2 in place of 1, at place 0 of 13")]


@pytest.mark.parametrize(
    ("records", "what"),
    [
        (TRUE[1:], "it starts 0 times, and its first event is ['tasks_queued']"),
        ([started(), *TRUE], "it starts 2 times, and its first event is ['execution_started']"),
        ([*TRUE, finished()], "it finishes 2 times"),
        ([*TRUE, queued(LIST, 2)], "sequence 14 follows its end"),
        (TRUE[:-1], "the log says EXECUTION_STATE_RUNNING, the index EXECUTION_STATE_COMPLETED"),
    ],
)
def test_the_course_of_an_execution(records: list[LogRecord], what: str) -> None:
    assert said(check_course(execution(told(*records)))) == [("I4", what)]


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([queued(LIST, 2)], "task 0, sequence 1: tasks_queued of attempt 2 follows attempt 0"),
        (
            [queued(LIST), queued(LIST, 2)],
            "task 0, sequence 2: tasks_queued of attempt 2 comes while attempt 1 lasts",
        ),
        (
            [queued(LIST), failed(LIST, retry_ms=2_500), queued(LIST, 2)],
            "task 0, sequence 3: tasks_queued of attempt 2 comes 500 ms before it is due",
        ),
        (
            [queued(LIST), lost(LIST), queued(LIST, 2), completed(LIST, 1)],
            "task 0, sequence 4: tasks_completed of attempt 1 is heard, while attempt 2 lasts",
        ),
        (
            [queued(LIST), lost(LIST), completed(LIST)],
            "task 0, sequence 3: tasks_completed of attempt 1 is heard, while attempt 1 has ended",
        ),
        (
            [queued(LIST), completed(LIST), failed(LIST, retry_ms=9)],
            "task 0, sequence 3: task_failed of attempt 1 is heard, while attempt 1 has ended",
        ),
        ([queued(LIST), began(LIST), began(LIST)], "task 0, sequence 3: tasks_started of attempt 1 is a second start"),
    ],
)
def test_attempts(records: list[LogRecord], what: str) -> None:
    assert said(check_attempts(execution(told(*records)))) == [("I2", what)]


def test_nothing_begins_after_a_cancellation() -> None:
    records = [started(), asked_to_cancel(), queued(LIST)]
    assert said(check_cancelled(execution(told(*records)))) == [
        ("I5", "task 0, sequence 3: tasks_queued after the cancellation")
    ]


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([*TRUE, completed(ITEM)], "task 3 ends 2 times: [9, 14]"),
        ([*TRUE, failed(SUM)], "task 2 ends 2 times: [12, 14]"),
        ([*TRUE, queued(SUM, 2)], "task 2 goes on after its end at sequence 12"),
        ([*TRUE, queued(5)], "there are 5 tasks, and facts of others: [5]"),
        ([*BEGINNING, *ITEMS, finished()], "it is over, and 1 tasks have not ended: [2]"),
    ],
)
def test_one_result_per_task(records: list[LogRecord], what: str) -> None:
    assert said(check_one_result_per_task(execution(told(*records)), len(GRAPH))) == [("I2", what)]


def test_the_index_counts_tasks_right() -> None:
    miscounted = execution(told(*TRUE), task_count=4)
    assert said(check_one_result_per_task(miscounted, len(GRAPH))) == [("I2", "the index counts 4 tasks of 5")]


@pytest.mark.parametrize(
    ("records", "what"),
    [
        ([expanded()], "task 1, sequence 1: node_expanded before the results of [0]"),
        ([queued(ITEM)], "task 3, sequence 1: tasks_queued of an item that there is not"),
        (
            [completed(LIST), expanded(), queued(ITEM), queued(SUM), completed(ITEM)],
            "task 2, sequence 4: tasks_queued before the results of [1]",
        ),
        (
            [completed(LIST), expanded(), completed(ITEM), completed(EACH, 0)],
            "task 1, sequence 4: tasks_completed before its items [4]",
        ),
        ([failed(LIST), expanded()], "task 1, sequence 2: node_expanded before the results of [0]"),
    ],
)
def test_dependencies(records: list[LogRecord], what: str) -> None:
    assert said(check_dependencies(execution(told(*records)), GRAPH)) == [("I3", what)]


def test_a_whole_history_is_checked_for_everything() -> None:
    broken = [*BEGINNING, queued(SUM), *ITEMS, completed(ITEM), finished()]
    found = check_history(store(execution(told(*broken), task_count=4)), {"e": GRAPH})
    assert {each.promise for each in found} == {"I2", "I3"}
