"""What `nodeflow export` writes is read back as it was; and whatever is no export is refused in words."""

import json
from collections.abc import Iterable

import pytest
from tests.unit.audit.told import (
    CANCELLED,
    EACH,
    GOOD,
    GRAPH,
    LIST,
    SUM,
    TRUE,
    asked_to_cancel,
    began,
    cancelled,
    failed,
    log,
    lost,
    queued,
    started,
)

from nodeflow_sdk.audit.attempts import attempts_of
from nodeflow_sdk.audit.auditing import Audit
from nodeflow_sdk.audit.export_file import NotAnExport, read_export, write_end, write_execution, write_head
from nodeflow_sdk.audit.history import Acknowledgement, Attempt, Call, ExecutionHistory, History, Kind, State

RETRIED = log(
    started(),
    queued(LIST),
    began(LIST),
    failed(LIST, retry_ms=2_500),
    queued(LIST, 2),
    lost(LIST, 2),
    queued(LIST, 3),
    asked_to_cancel(),
    cancelled(LIST, EACH, SUM),
    CANCELLED,
    state=State.CANCELLED,
    task_count=3,
)


def written(*executions: ExecutionHistory) -> list[bytes]:
    lines = [write_head(5)]
    for execution in executions:
        lines += write_execution(execution)
    return [*lines, write_end(len(executions))]


def read(lines: Iterable[bytes]) -> list[History]:
    return list(read_export(lines))


def test_attempts_are_derived_from_the_events() -> None:
    first, second, third = attempts_of(RETRIED.executions[0])
    assert first == Attempt(
        execution_id="e",
        task=LIST,
        attempt=1,
        token=7,
        queued_ms=1_000,
        started_ms=2_000,
        worker="w",
        ended_ms=3_000,
        end=Kind.TASK_FAILED,
    )
    assert [(each.attempt, each.end) for each in (second, third)] == [
        (2, Kind.ATTEMPTS_LOST),
        (3, Kind.TASKS_CANCELLED),
    ]


def test_an_attempt_that_another_one_followed_without_its_end_is_told_too() -> None:
    broken = log(started(), queued(LIST), queued(LIST, 2), state=State.RUNNING)
    assert [(each.attempt, each.end) for each in attempts_of(broken.executions[0])] == [(1, None), (2, None)]


def test_executions_are_read_back_as_they_were() -> None:
    executions = [GOOD.executions[0], RETRIED.executions[0]]
    histories = read(written(*executions))
    assert [each.executions for each in histories] == [(each,) for each in executions]
    assert histories[1].attempts == tuple(attempts_of(executions[1]))
    assert histories[1].acknowledgements == (
        Acknowledgement(execution_id="e", call=Call.SUBMIT, time_ms=0, request_id="key", body="01"),
        Acknowledgement(execution_id="e", call=Call.CANCEL, time_ms=7_000),
    )


def test_what_was_written_has_no_violation() -> None:
    audit = Audit()
    for history in read(written(RETRIED.executions[0])):
        audit.add(history)
    assert audit.findings["I1"].judged == {"request ids": 1, "answers to clients": 2, "attempts": 3}
    assert audit.violation_count == 0


def test_lines_are_stable() -> None:
    assert written(GOOD.executions[0]) == written(GOOD.executions[0])
    first = json.loads(written(GOOD.executions[0])[1])
    assert list(first) == [
        "line",
        "execution_id",
        "tenant",
        "shard",
        "workflow",
        "revision",
        "request_id",
        "state",
        "task_count",
        "nodes",
    ]
    assert first["nodes"] == [{}, {"parents": [0]}, {"parents": [1]}]
    assert len(GRAPH) == 3


def test_a_running_execution_is_written_as_far_as_it_is() -> None:
    under_way = log(*TRUE[:3], state=State.RUNNING, task_count=3)
    [history] = read(written(under_way.executions[0]))
    assert history.executions == under_way.executions
    assert history.attempts[0].end is None


LINES = written(GOOD.executions[0])
HEAD, EXECUTION, *REST = LINES


def head(**fields: object) -> bytes:
    return json.dumps({**json.loads(HEAD), **fields}).encode()


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        ([], "its first line is not that of an export: Input data was truncated"),
        ([b"apiVersion: nodeflow/v1\n"], "its first line is not that of an export: JSON is malformed"),
        ([b'{"name": "wf"}'], "its first line is not that of an export: Object missing required field `format`"),
        ([head(format="other")], "its format is 'other', not 'nodeflow.history'"),
        ([head(version=2)], "it has version 2, and this nodeflow reads up to 1: use a newer one"),
        ([head(version=0)], "it has version 0, and the first one is 1"),
        ([HEAD, b"{}"], "line 2 is none of an export: Object missing required field `line`"),
        ([HEAD, b'{"line":"weather"}'], "line 2 is none of an export: Invalid value 'weather' - at `$.line`"),
        ([HEAD, REST[0]], "line 2 belongs to no execution: there is none before it"),
        (
            [HEAD, EXECUTION, b'{"line":"event","sequence":"x"}'],
            "line 3 is none of an export: Expected `int`, got `str` - at `$.sequence`",
        ),
        (
            [HEAD, EXECUTION, REST[0].replace(b'"offset"', b'"place"')],
            "line 3 is none of an export: Object contains unknown field `place`",
        ),
        (LINES[:-1], 'it was cut off: its last line should be the one that begins with {"line":"end"'),
        ([HEAD, EXECUTION, REST[0][:-9]], "line 3 is none of an export: Input data was truncated"),
        ([HEAD, write_end(1)], "its last line says 1 executions, and it has 0"),
        ([*LINES, REST[0]], f"line {len(LINES) + 1} comes after its end"),
    ],
)
def test_what_is_no_export_is_refused_in_words(lines: list[bytes], what: str) -> None:
    with pytest.raises(NotAnExport) as refused:
        read(lines)
    assert what in str(refused.value)


# ----------------------------------------------------------------------------- tampering


def altered(kind: bytes, old: bytes, new: bytes) -> list[bytes]:
    """Return the lines with the first of a kind changed."""
    place = next(place for place, line in enumerate(LINES) if kind in line)
    assert old in LINES[place]
    return [*LINES[:place], LINES[place].replace(old, new), *LINES[place + 1 :]]


def without(kind: bytes) -> list[bytes]:
    place = next(place for place, line in enumerate(LINES) if kind in line)
    return [*LINES[:place], *LINES[place + 1 :]]


TAMPERED = {
    "an event is gone": (without(b"tasks_started"), {"I1", "I8"}),
    "a result is another's": (altered(b"tasks_completed", b'"value":"sha256:', b'"value":"sha256:0'), {"I1"}),
    "an attempt never was": (without(b'"line":"attempt"'), {"I1"}),
    "an attempt has another token": (altered(b'"line":"attempt"', b'"token":7', b'"token":6'), {"I1"}),
    "the state is another": (altered(b'"line":"execution"', b"COMPLETED", b"FAILED"), {"I7"}),
    "a dependency is added": (altered(b'"line":"execution"', b"[0]", b"[0,2]"), {"I3"}),
    "the submission was another's": (
        altered(b"execution_started", b'"tenant":"default"', b'"tenant":"a"'),
        {"I10"},
    ),
    "the caller had another key": (altered(b'"line":"acknowledgement"', b'"key"', b'"other"'), {"I1"}),
}


@pytest.mark.parametrize(("lines", "promises"), TAMPERED.values(), ids=TAMPERED)
def test_a_file_that_was_tampered_with_is_found_out(lines: list[bytes], promises: set[str]) -> None:
    audit = Audit()
    for history in read(lines):
        audit.add(history)
    assert {promise for promise, count in audit.violation_counts.items() if count} == promises


def test_a_request_id_that_started_two_executions_is_seen_from_one_to_the_next() -> None:
    audit = Audit()
    for name in ("e", "f"):
        other = log(*TRUE).executions[0]
        audit.add(
            History(
                executions=(
                    ExecutionHistory(
                        execution_id=name,
                        request_id=other.request_id,
                        facts=other.facts,
                        graph=other.graph,
                        state=other.state,
                        task_count=other.task_count,
                    ),
                )
            )
        )
    [violation] = audit.findings["I1"].violations
    assert str(violation) == "I1 f: request_id 'key' has started e too"
    assert audit.execution_count == 2
