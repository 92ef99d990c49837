"""Every checker accepts true histories, and sees each way in which one can be false, and nothing else in it."""

from dataclasses import replace

import pytest
from msgspec.structs import replace as with_fields
from tests.unit.audit.told import (
    ALL,
    BEGINNING,
    EACH,
    END,
    GOOD,
    ITEM,
    ITEMS,
    LAST_TOKEN,
    LIST,
    NAME,
    OTHER_ITEM,
    SUM,
    TRUE,
    acknowledged,
    altered,
    asked_to_cancel,
    began,
    completed,
    execution,
    expanded,
    failed,
    finished,
    log,
    lost,
    noted,
    queued,
    seen,
    skipped,
    span,
    started,
    told,
    watched,
)
from tests.unit.audit.true_histories import CANCELLED_TASKS, SUBMITTED, TOLD, TRUE_HISTORIES

from nodeflow_sdk.audit.checkers import CHECKERS, check
from nodeflow_sdk.audit.history import (
    Acknowledgement,
    Call,
    Explained,
    History,
    Kind,
    QueueLevel,
    ShardHistory,
    Slots,
    State,
    Told,
    ToldTask,
)


def said(history: History) -> list[str]:
    return [str(each) for each in check(history)]


@pytest.mark.parametrize("history", TRUE_HISTORIES.values(), ids=TRUE_HISTORIES)
def test_a_true_history_has_no_violation(history: History) -> None:
    assert said(history) == []


BROKEN_PROMISES: dict[str, list[tuple[History, *tuple[str, ...]]]] = {
    "I1": [
        (
            History(executions=(GOOD.executions[0], replace(execution(told(*TRUE), name="f"), shard=1))),
            "I1 tenant default: request_id 'key' has 2 executions",
        ),
        (
            seen(acknowledgements=(Acknowledgement(execution_id="f", call=Call.SUBMIT, time_ms=9),)),
            "I1 f: its submit was acknowledged, and there is no such execution",
        ),
        (
            seen(acknowledgements=(Acknowledgement(execution_id=NAME, call=Call.CANCEL, time_ms=9),)),
            "I1 e: its cancellation was acknowledged, and the log has none",
        ),
        (
            seen(acknowledgements=(Acknowledgement(execution_id=NAME, call=Call.SUBMIT, time_ms=9, request_id="k"),)),
            "I1 e: it was acknowledged for request_id 'k', and is of 'key'",
        ),
        (
            seen(
                acknowledgements=(
                    SUBMITTED,
                    Acknowledgement(execution_id=NAME, call=Call.SUBMIT, time_ms=9, request_id="key", body="c"),
                )
            ),
            "I1 e: request_id 'key' was accepted with two bodies",
        ),
        (
            replace(log(*TRUE[1:]), acknowledgements=(SUBMITTED,)),
            "I1 e: its submission was acknowledged, and the log has no start of it",
            "I4 e: it starts 0 times",
        ),
        (
            seen(acknowledgements=(SUBMITTED, with_fields(SUBMITTED, execution_id="f"))),
            "I1 f: request_id 'key' was answered with e before",
            "I1 f: its submit was acknowledged, and there is no such execution",
        ),
        (
            replace(
                log(started(), queued(LIST), began(LIST), state=State.RUNNING),
                results=acknowledged(),
            ),
            "I1 e, task 0: the result of attempt 1 was acknowledged to w, and the attempt goes on in the log",
        ),
        (
            replace(
                log(started(), queued(LIST), lost(LIST), queued(LIST, 2), state=State.RUNNING),
                results=acknowledged(time_ms=1_500),
            ),
            "I1 e, task 0: the result of attempt 1 was acknowledged to w, and the attempt was lost later",
        ),
        (
            seen(results=acknowledged(value="sha256:0")),
            "I1 e, task 0: the result of attempt 1 was acknowledged to w, and the log has another result",
        ),
        (
            noted(end=Kind.TASK_FAILED),
            (
                "I1 e, task 0: attempt 1 was noted as task_failed under token 7; "
                "the log says tasks_completed under token 7"
            ),
        ),
        (
            noted(value="sha256:0"),
            (
                "I1 e, task 0: attempt 1 was noted as tasks_completed under token 7; "
                "the log says tasks_completed under token 7; they differ in value"
            ),
        ),
        (
            seen(attempts=noted().attempts[1:]),
            "I1 e, task 0: attempt 1 is in the log, and was not noted",
        ),
        (
            seen(attempts=(*noted().attempts, *noted(attempt=4).attempts[:1])),
            "I1 e, task 0: attempt 4 was noted as tasks_completed under token 7; the log says nothing of it",
        ),
    ],
    "I2": [
        (altered(3, token=6), "I2 shard 0: offset 3 has token 6, after 7"),
        (altered(12, token=8), "I2 shard 0: token 8 was used, 7 was granted last"),
        (
            log(started(), queued(LIST, 2), state=State.RUNNING),
            "I2 e, task 0, sequence 2: tasks_queued of attempt 2 follows attempt 0",
        ),
        (
            log(started(), queued(LIST), queued(LIST, 2), state=State.RUNNING),
            "I2 e, task 0, sequence 3: tasks_queued of attempt 2 comes while attempt 1 lasts",
        ),
        (
            log(started(), queued(LIST), failed(LIST, retry_ms=3_500), queued(LIST, 2), state=State.RUNNING),
            "I2 e, task 0, sequence 4: tasks_queued of attempt 2 comes 500 ms before it is due",
        ),
        (
            log(started(), queued(LIST), lost(LIST), queued(LIST, 2), completed(LIST, 1), expanded(), *ITEMS, *END),
            "I2 e, task 0, sequence 5: tasks_completed of attempt 1 is heard, while attempt 2 lasts",
        ),
        (
            log(started(), queued(LIST), lost(LIST), completed(LIST), expanded(), *ITEMS, *END),
            "I2 e, task 0, sequence 4: tasks_completed of attempt 1 is heard, while attempt 1 has ended",
        ),
        (
            log(started(), queued(LIST), began(LIST), began(LIST), state=State.RUNNING),
            "I2 e, task 0, sequence 4: tasks_started of attempt 1 is a second start",
        ),
        (
            log(*TRUE[:-1], completed(ITEM), finished()),
            "I2 e, task 3, sequence 13: it ends 2 times, at the sequences [9, 13]",
        ),
        (
            log(*TRUE[:-1], failed(SUM), finished()),
            "I2 e, task 2, sequence 13: it ends 2 times, at the sequences [12, 13]",
        ),
        (
            log(*TRUE[:-1], began(SUM), finished()),
            "I2 e, task 2, sequence 13: tasks_started after its end at sequence 12",
        ),
        (
            log(*TRUE[:-1], skipped(5), finished(), task_count=6),
            "I2 e: there are 5 tasks, and events of others: [5]",
        ),
    ],
    "I3": [
        (
            log(started(), queued(LIST), expanded(), state=State.RUNNING),
            "I3 e, task 1, sequence 3: node_expanded before the results of [0]",
        ),
        (
            log(started(), queued(LIST), queued(SUM), state=State.RUNNING),
            "I3 e, task 2, sequence 3: tasks_queued before the results of [1]",
        ),
        (
            log(*BEGINNING, queued(ITEM), queued(OTHER_ITEM), completed(ITEM), completed(EACH, 0), state=State.RUNNING),
            "I3 e, task 1, sequence 9: tasks_completed before its items [4]",
        ),
        (
            log(started(), queued(LIST), completed(LIST), queued(ITEM), expanded(), *ITEMS[1:], *END),
            "I3 e, task 3, sequence 4: tasks_queued of an item that there is not yet",
        ),
        (
            log(started(), queued(LIST), failed(LIST), expanded(), *ITEMS, *END),
            "I3 e, task 1, sequence 4: node_expanded before the results of [0]",
        ),
        (
            seen(spans=(span(SUM, 10_000, 10_500, attempt=2),)),
            "I3 e, task 2: w began attempt 2, and the log has never made it ready",
        ),
        (
            seen(spans=(span(SUM, 9_000, 10_500),)),
            "I3 e, task 2: w began attempt 1 1000 ms before the log made it ready",
        ),
    ],
    "I4": [
        (log(*TRUE[1:]), "I4 e: it starts 0 times"),
        (log(started(), *TRUE), "I4 e: it starts 2 times"),
        (log(queued(LIST), started(), *TRUE[2:]), "I4 e, sequence 1: tasks_queued comes before its start"),
        (log(*TRUE, finished()), "I4 e: it finishes 2 times"),
        (log(*TRUE, asked_to_cancel()), "I4 e, sequence 14: cancel_requested follows its end"),
        (log(*BEGINNING, *ITEMS, finished()), "I4 e: it is over, and 1 tasks have not ended: [2]"),
        (
            log(started(), queued(LIST), completed(LIST), state=State.RUNNING),
            "I4 e: it is not over, no attempt of it lasts or is due, and nothing says what it waits for",
        ),
        (
            replace(
                log(started(), queued(LIST), lost(LIST), state=State.RUNNING),
                explained=(Explained(execution_id=NAME, task=LIST, reason=""),),
            ),
            "I4 e: it is not over, no attempt of it lasts or is due, and nothing says what it waits for",
        ),
    ],
    "I5": [
        (
            log(started(), asked_to_cancel(), queued(LIST), state=State.RUNNING),
            "I5 e, task 0, sequence 3: tasks_queued after the cancellation",
        ),
        (
            replace(
                log(*CANCELLED_TASKS, state=State.CANCELLED, task_count=3),
                spans=(span(LIST, 1_500, 3_001),),
                stop_within_ms=1_000,
            ),
            "I5 e, task 0: w works on attempt 1 until 1001 ms after its execution's end",
        ),
        (
            replace(
                log(*CANCELLED_TASKS, state=State.CANCELLED, task_count=3),
                spans=(span(LIST, 1_500, None),),
                stop_within_ms=1_000,
            ),
            "I5 e, task 0: w works on attempt 1 without an end after its execution's",
        ),
        (
            replace(
                log(*CANCELLED_TASKS, state=State.CANCELLED, task_count=3),
                spans=(span(LIST, 3_500, 3_600),),
                stop_within_ms=1_000,
            ),
            "I5 e, task 0: w works on attempt 1 from 1500 ms after its execution's end on",
        ),
    ],
    "I6": [
        (
            seen(
                spans=(span(ITEM, 6_000, 8_000), span(OTHER_ITEM, 7_000, 7_100), span(SUM, 10_000, 10_500)),
                slots=(Slots(worker="w", slots=1),),
            ),
            "I6 worker w: 2 attempts are at work in 1 slots at 7000 ms",
        ),
        (
            seen(
                spans=(span(ITEM, 6_000, 8_000), span(OTHER_ITEM, 7_000, 8_000), span(LIST, 7_500, 8_000)),
                slots=(Slots(worker="w", slots=1),),
            ),
            "I6 worker w: 2 attempts are at work in 1 slots at 7000 ms",
        ),
    ],
    "I7": [
        (log(*BEGINNING, *ITEMS[:2]), "I7 e: the log says RUNNING, the index COMPLETED"),
        (log(*TRUE, task_count=4), "I7 e: the log has 5 tasks, the index 4"),
        (
            seen(told=(Told(execution_id=NAME, sequence=14, state=State.COMPLETED),)),
            "I7 e: a reader was told of sequence 14, and the log ends at 13",
        ),
        (
            seen(told=(Told(execution_id=NAME, sequence=12, state=State.COMPLETED),)),
            "I7 e, sequence 12: the log gives RUNNING, a reader was told COMPLETED",
        ),
        (
            seen(told=(Told(execution_id=NAME, sequence=13, state=State.COMPLETED, value="sha256:0"),)),
            "I7 e, sequence 13: a reader was told other outputs than the log has",
        ),
        (
            seen(told=(Told(execution_id=NAME, sequence=13, state=State.COMPLETED, tasks=(TOLD.tasks or ())[:4]),)),
            "I7 e, sequence 13: the log gives 5 tasks, a reader was told of 4",
        ),
        (
            seen(
                told=(
                    Told(
                        execution_id=NAME,
                        sequence=13,
                        state=State.COMPLETED,
                        tasks=((TOLD.tasks or ())[0], ToldTask(task=1, state=State.FAILED), *(TOLD.tasks or ())[2:]),
                    ),
                )
            ),
            "I7 e, task 1, sequence 13: the log gives COMPLETED at attempt 0, a reader was told FAILED at 0",
        ),
        (
            seen(told=(with_fields(TOLD, tasks=(*(TOLD.tasks or ()), ToldTask(task=9, state=State.PENDING))),)),
            "I7 e, sequence 13: the log gives 5 tasks, a reader was told of 6",
            "I7 e, task 9: a reader was told of it, and the log has no such task",
        ),
        (
            seen(told=(Told(execution_id="f", sequence=1, state=State.RUNNING),)),
            "I7 f: a reader was told of it, and there is no such execution",
        ),
    ],
    "I8": [
        (altered(3, sequence=5), "I8 e: sequences are 5 in place of 4, at place 3 of 13"),
        (
            History(
                executions=GOOD.executions, shards=(ShardHistory(shard=0, fencing_token=LAST_TOKEN, next_offset=14),)
            ),
            "I8 shard 0: the next offset is 14 after 13 events",
        ),
        (altered(12, offset=13), "I8 shard 0: offsets are 13 in place of 12, at place 12 of 13"),
        (altered(3, time_ms=1_995), "I8 shard 0: the event at offset 3 is 5 ms before the one before it"),
        (
            History(
                executions=(
                    GOOD.executions[0],
                    replace(execution(GOOD.executions[0].facts, name="f"), request_id=""),
                )
            ),
            "I8 shard 0: 13 offsets are there twice, the first of them is 0",
        ),
        (
            History(executions=altered(3, offset=20).executions),
            "I8 e, task 1, sequence 5: offset 4 comes after offset 20",
            "I8 shard 0: the event at offset 20 is 9000 ms before the one before it",
        ),
        (
            History(executions=altered(4, offset=3).executions),
            "I8 e, task 1, sequence 5: offset 3 comes after offset 3",
            "I8 shard 0: 1 offsets are there twice, the first of them is 3",
        ),
        (
            seen(watched=(with_fields(watched(ALL), execution_id="f"),)),
            "I8 f: a watcher was told of it, and there is no such execution",
        ),
        (
            seen(watched=(watched(ALL[:-1]),)),
            "I8 e: a watcher was told sequences that are 12 in number, not 13",
        ),
        (
            seen(watched=(watched(ALL[:4], ALL[3:]),)),
            "I8 e: a watcher was told sequences that are 4 in place of 5, at place 4 of 13",
        ),
        (
            seen(watched=(watched((2, 1), ended=False),)),
            "I8 e: a watcher was told sequences that are 2 in place of 1, at place 0 of 2",
        ),
        (
            seen(watched=(watched(ALL[7:], after=6),)),
            "I8 e: a watcher was told sequences that are 8 in place of 7, at place 0 of 7",
        ),
        (
            seen(watched=(watched(ALL[:4], ALL[4:], cursors="aa"),)),
            "I8 e: a watcher was given one cursor for the sequences 4 and 13",
        ),
        (
            replace(log(*BEGINNING, *ITEMS[:2], state=State.RUNNING), watched=(watched(ALL[:7]),)),
            "I8 e: the stream of a watcher has ended, and the execution has not",
        ),
    ],
    "I9": [
        (
            replace(
                log(started(), queued(LIST), lost(LIST), queued(LIST, 2), state=State.RUNNING),
                spans=(span(LIST, 1_500, 2_001),),
            ),
            "I9 e, task 0, sequence 3: attempt 1 is lost (WORKER_LOST), and w works on it until 1 ms later",
        ),
        (
            replace(
                log(started(), queued(LIST), lost(LIST), queued(LIST, 2), state=State.RUNNING),
                spans=(span(LIST, 1_500, None),),
            ),
            "I9 e, task 0, sequence 3: attempt 1 is lost (WORKER_LOST), and w works on it without an end",
        ),
        (
            seen(spans=(span(LIST, 1_000, None), span(LIST, 2_000, 2_200, worker="v"))),
            "I9 e, task 0: v begins attempt 1 while w works on attempt 1",
        ),
        (
            seen(spans=(span(LIST, 1_000, 2_500), span(LIST, 2_000, 2_200, worker="v"))),
            "I9 e, task 0: v begins attempt 1 while w works on attempt 1",
        ),
    ],
    "I10": [
        (
            log(started("a"), *TRUE[1:]),
            "I10 e, sequence 1: tenant a submitted it, and the index gives it to default",
        ),
        (
            seen(watched=(watched(ALL, tenant="a"),)),
            "I10 e: tenant a was answered about what is default's",
        ),
        (
            seen(told=(Told(execution_id=NAME, tenant="a", sequence=1, state=State.RUNNING),)),
            "I10 e: tenant a was answered about what is default's",
        ),
    ],
    "I11": [
        (
            seen(queues=(QueueLevel(queue="q", limit=3, highest=4),)),
            "I11 queue q: it held 4, and its limit is 3",
        ),
    ],
}


@pytest.mark.parametrize(
    ("history", "what"),
    [
        pytest.param(history, what, id=f"{promise}-{number}")
        for promise, many in BROKEN_PROMISES.items()
        for number, (history, *what) in enumerate(many)
    ],
)
def test_a_broken_history_has_its_violation_and_no_other(history: History, what: list[str]) -> None:
    assert said(history) == what


def test_every_promise_has_broken_histories() -> None:
    assert list(BROKEN_PROMISES) == [checker.promise for checker in CHECKERS]
