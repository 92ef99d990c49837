"""Proto ↔ domain: what is written is read back as it was."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nodeflow.common.v1 import failure_pb2, payload_pb2
from nodeflow.scheduler.v1 import event_pb2, log_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2
from nodeflow.worker_manager.v1 import attempt_pb2
from tests.unit.scheduler.making import (
    BROKEN,
    FLAKY,
    SHARD,
    START_MS,
    TOKEN,
    Lab,
    cancel,
    chain,
    ref,
    report,
    submit,
    updates,
    workflow,
)

from nodeflow_scheduler.domain.admission import Limits
from nodeflow_scheduler.domain.events import (
    AttemptsLost,
    CancelRequested,
    Event,
    ExecutionFinished,
    ExecutionStarted,
    NodeExpanded,
    TaskFailed,
    TasksCancelled,
    TasksCompleted,
    TasksQueued,
    TasksSkipped,
    TasksStarted,
    sequence_count,
)
from nodeflow_scheduler.domain.expressions import Rendered
from nodeflow_scheduler.domain.failures import CAUSES_LIMIT, TEXT_LIMIT, Failure, FailureKind
from nodeflow_scheduler.domain.lifecycle import ExecutionState
from nodeflow_scheduler.domain.messages import Outcome, Report, Stopped
from nodeflow_scheduler.domain.placement import Grant
from nodeflow_scheduler.domain.values import NULL, Artifacts, Stored, Value
from nodeflow_scheduler.wire.attempts import fill_batch, keys_of, refs_of, reports_of
from nodeflow_scheduler.wire.cursors import execution_cursor, sequence_in, task_page, task_page_start
from nodeflow_scheduler.wire.log import decode_chunk, encode_chunk, started_in_chunk
from nodeflow_scheduler.wire.readers import EventReader, execution_message, task_message
from nodeflow_scheduler.wire.store import REQUEST_BYTES, append_requests
from nodeflow_scheduler.wire.values import failure_message, failure_of, payload_of, timestamp, value_of
from nodeflow_shared.errors import InvalidInput

TASKS = st.lists(st.integers(0, 2**32 - 1), max_size=5)
INSTANTS = st.integers(0, 2**42)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
DIGESTS = st.from_regex(r"sha256:[0-9a-f]{4}", fullmatch=True)
INLINE = st.binary(min_size=1, max_size=30)
STORED = st.one_of(
    st.builds(
        lambda content_type, digest, size: Stored(content_type=content_type, digest=digest, size_bytes=size),
        st.sampled_from(["application/json", "text/plain"]),
        DIGESTS,
        st.integers(0, 2**40),
    ),
    st.binary(max_size=30).map(lambda data: Stored(content_type="image/png", data=data, size_bytes=len(data))),
)
VALUES: st.SearchStrategy[Value] = st.one_of(INLINE, STORED)
FAILURES = st.recursive(
    st.builds(
        Failure,
        kind=st.sampled_from(FailureKind),
        reason=st.sampled_from(["RAISED", "TIMEOUT"]),
        message=TEXTS,
        retryable=st.booleans(),
        error_type=TEXTS,
        traceback=TEXTS,
        cause=st.none(),
    ),
    lambda causes: st.builds(
        Failure, kind=st.sampled_from(FailureKind), reason=st.just("CAUSED"), message=TEXTS, cause=causes
    ),
    max_leaves=3,
)


def rows(event: type[TasksQueued]) -> st.SearchStrategy[Event]:
    return TASKS.flatmap(
        lambda tasks: st.lists(st.integers(1, 2**32 - 1), min_size=len(tasks), max_size=len(tasks)).map(
            lambda attempts: event(tasks, attempts)
        )
    )


@st.composite
def completions(draw: st.DrawFn) -> TasksCompleted:
    """Results of attempts, and mapped nodes as a whole, which have none."""
    tasks = draw(TASKS)
    attempts = [draw(st.integers(0, 3)) for _ in tasks]
    return TasksCompleted(tasks, attempts, [draw(VALUES) if attempt else None for attempt in attempts])


EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        ExecutionStarted,
        TEXTS,
        TEXTS,
        TEXTS,
        st.binary(max_size=30),
        TEXTS,
        st.binary(max_size=32),
        st.dictionaries(TEXTS, TEXTS, max_size=3),
        INSTANTS,
    ),
    rows(TasksQueued),
    rows(TasksQueued).map(lambda each: TasksStarted(each.tasks, each.attempts, "worker")),  # type: ignore[union-attr]  # it is TasksQueued
    rows(TasksQueued).map(lambda each: AttemptsLost(each.tasks, each.attempts, "REFUSED")),  # type: ignore[union-attr]  # it is TasksQueued
    completions(),
    st.builds(TaskFailed, st.integers(0, 2**32 - 1), st.integers(0, 9), FAILURES, INSTANTS),
    st.builds(TasksSkipped, TASKS, st.booleans()),
    st.builds(TasksCancelled, TASKS, TEXTS),
    st.builds(NodeExpanded, st.integers(0, 99), st.integers(0, 99), st.lists(st.binary(max_size=9), max_size=4)),
    st.builds(CancelRequested, TEXTS),
    st.builds(
        ExecutionFinished,
        st.sampled_from([ExecutionState.COMPLETED, ExecutionState.FAILED, ExecutionState.CANCELLED]),
        st.none() | VALUES,
        st.none() | FAILURES,
    ),
)


@given(st.lists(EVENTS, max_size=6), INSTANTS, st.integers(0, 2**63))
def test_a_chunk_is_read_as_it_was_written(events: list[Event], time_ms: int, token: int) -> None:
    decoded = decode_chunk(encode_chunk(events, time_ms, token))
    assert decoded == (time_ms, token, events)


@given(VALUES)
def test_a_value_is_read_as_it_was_written(value: Value) -> None:
    assert value_of(payload_of(value)) == value


@given(FAILURES)
def test_a_failure_is_read_as_it_was_written(failure: Failure) -> None:
    assert failure_of(failure_message(failure)) == failure


def test_what_a_newer_version_says_is_tolerated_in_failures_and_refused_in_the_log() -> None:
    newer = failure_pb2.Failure(kind=failure_pb2.FailureKind.ValueType(77), message="m")
    assert failure_of(newer) == Failure(kind=FailureKind.SYSTEM, reason="UNKNOWN", message="m")
    chunk = log_pb2.LogChunk(records=[log_pb2.LogRecord()]).SerializeToString()
    with pytest.raises(ValueError, match="run a newer scheduler"):
        decode_chunk(chunk)


def test_bytes_that_are_still_to_be_stored_do_not_travel() -> None:
    payload = payload_of(Stored(digest="sha256:1", size_bytes=3, data=b"[1]"))
    assert payload == payload_pb2.Payload(artifact=payload_pb2.ArtifactReference(digest="sha256:1", size_bytes=3))


def test_a_payload_without_bytes_is_null() -> None:
    assert value_of(payload_pb2.Payload()) == NULL
    assert value_of(payload_pb2.Payload(content_type="text/plain")) == Stored(content_type="text/plain")


def test_the_first_event_is_found_and_nothing_else_is_taken_for_it() -> None:
    started = ExecutionStarted("t", "w", "r", b"{}", "", b"", {}, 0)
    assert started_in_chunk(encode_chunk([started, TasksQueued([0], [1])], 1, 1)) == started
    with pytest.raises(ValueError, match="begins with tasks_queued"):
        started_in_chunk(encode_chunk([TasksQueued([0], [1])], 1, 1))


@given(INSTANTS)
def test_instants_keep_their_milliseconds(time_ms: int) -> None:
    assert timestamp(time_ms).ToMilliseconds() == time_ms


# --------------------------------------------------------------------- cursors


@given(st.integers(0, 10**18 - 1))
def test_a_cursor_gives_its_sequence_back(sequence: int) -> None:
    assert sequence_in(execution_cursor("e1", sequence), "e1") == sequence


def test_no_cursor_is_the_start() -> None:
    assert sequence_in("", "e1") == 0


@pytest.mark.parametrize("cursor", ["§", "a", "////", execution_cursor("e2", 4), execution_cursor("e1", -1)])
def test_foreign_and_malformed_cursors_are_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        sequence_in(cursor, "e1")
    assert [violation.path for violation in caught.value.violations] == ["cursor"]


def test_a_page_token_is_of_its_list_only() -> None:
    request = pb2.ListTasksRequest(node="a")
    request.page_token = task_page(request, "e1", 40)
    assert task_page_start(request, "e1") == 40
    assert task_page_start(pb2.ListTasksRequest(), "e1") == 0
    for other in (pb2.ListTasksRequest(node="b", page_token=request.page_token), pb2.ListTasksRequest(page_token="!")):
        with pytest.raises(InvalidInput):
            task_page_start(other, "e1")


# -------------------------------------------------------------------- attempts


def test_assignments_say_the_spec_of_a_node_once() -> None:
    lab = Lab.ready()
    compiled = workflow({"a": {"timeout": "90s"}, "m": {"map": "${inputs.xs}"}}, inputs={"xs": {"type": "array"}})
    lab.step(submit(compiled, inputs=b'{"xs":[1,2]}'))
    execution = lab.execution()
    large = Stored(digest="sha256:1", size_bytes=9, content_type="text/plain")
    batch = attempt_pb2.AssignmentBatch()
    fill_batch(
        batch,
        [
            (Grant(execution, 0, 1), Rendered(b'{"x":1}', (("big", large),))),
            (Grant(execution, 2, 1), Rendered(b"{}")),
            (Grant(execution, 3, 1), Rendered(b"{}")),
        ],
    )
    assert [(spec.node, spec.function.function, spec.tenant) for spec in batch.specs] == [
        ("a", "m:f", "t"),
        ("m", "m:f", "t"),
    ]
    assert batch.specs[0].attempt_timeout.seconds == 90
    assert not batch.specs[1].HasField("attempt_timeout")
    first, second, third = batch.assignments
    assert (first.execution_id, first.task_number, first.attempt_number) == ("e1", 0, 1)
    assert (first.shard, first.fencing_token, first.spec, first.arguments) == (SHARD, TOKEN, 0, b'{"x":1}')
    assert [(each.parameter, value_of(each.payload)) for each in first.references] == [("big", large)]
    assert not first.HasField("map_index")
    assert [(each.spec, each.map_index, each.HasField("map_index")) for each in (second, third)] == [
        (1, 0, True),
        (1, 1, True),
    ]


def test_attempts_are_named_alike_both_ways() -> None:
    refs = [ref(3, 2), ref(0, 1, execution_id="other", token=9, shard=1)]
    assert refs_of(keys_of(refs)) == refs


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (attempt_pb2.AttemptResult(output=payload_pb2.Payload(data=b"[1]")), b"[1]"),
        (attempt_pb2.AttemptResult(output=payload_pb2.Payload(data=b"1", content_type="application/json")), b"1"),
        (attempt_pb2.AttemptResult(output=payload_pb2.Payload()), NULL),
        (
            attempt_pb2.AttemptResult(output=payload_pb2.Payload(data=b"x", content_type="text/plain")),
            Stored(content_type="text/plain", data=b"x", size_bytes=1),
        ),
        (attempt_pb2.AttemptResult(failure=failure_message(FLAKY)), FLAKY),
        (attempt_pb2.AttemptResult(cancelled=True), Stopped()),
    ],
)
def test_the_end_of_an_attempt(result: attempt_pb2.AttemptResult, outcome: Outcome) -> None:
    result.execution_id, result.task_number, result.attempt_number = "e1", 4, 2
    result.shard, result.fencing_token, result.result_id = 6, 8, 77
    assert reports_of([result]) == [Report("e1", 4, 2, 6, 8, 77, outcome)]


# ------------------------------------------------------------------ the store


def test_a_turn_for_the_log() -> None:
    lab = Lab.ready()
    lab.step(submit(chain(2)))
    stored = Stored(digest="sha256:1", size_bytes=70_000)
    turn = lab.core.step([updates(results=[report(0, stored)])], START_MS + 3)
    [request] = append_requests(9, turn.writes)
    assert request.batch_id == 9
    (part,) = request.shards
    assert (part.shard, part.fencing_token, part.expected_offset) == (SHARD, TOKEN, 2)
    (chunk,) = part.chunks
    assert (chunk.execution_id, chunk.first_sequence, chunk.event_count) == ("e1", 3, 2)
    assert decode_chunk(chunk.data) == (
        START_MS + 3,
        TOKEN,
        [TasksCompleted([0], [1], [stored]), TasksQueued([1], [1])],
    )
    assert [(each.tenant, each.digest) for each in part.artifacts] == [("t", "sha256:1")]
    assert list(part.records) == []


def test_a_turn_that_is_too_large_for_a_message_is_several_whose_offsets_follow_each_other() -> None:
    lab = Lab.ready()
    inputs = b'{"a": "%s"}' % (b"x" * 1_000_000)
    turn = lab.core.step([submit(chain(1), f"e{n}", inputs=inputs) for n in range(40)], START_MS)
    requests = append_requests(5, turn.writes)
    assert [request.batch_id for request in requests] == [5, 6, 7]
    offset, names = 0, []
    for request in requests:
        assert request.ByteSize() <= REQUEST_BYTES
        (part,) = request.shards
        assert part.expected_offset == offset
        offset += sum(chunk.event_count for chunk in part.chunks)
        assert [record.execution_id for record in part.records] == [chunk.execution_id for chunk in part.chunks]
        names += [chunk.execution_id for chunk in part.chunks]
    assert names == [f"e{n}" for n in range(40)]


def test_a_snapshot_that_is_too_large_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab.ready(Limits(snapshot_every=1))
    turns = [lab.core.step([submit(chain(3))], START_MS), lab.core.step([updates(results=[report(0)])], START_MS)]
    assert [len(append_requests(1, turn.writes)[0].shards[0].snapshots) for turn in turns] == [0, 1]
    monkeypatch.setattr("nodeflow_scheduler.wire.store.SNAPSHOT_BYTES", 10)
    assert len(append_requests(1, turns[1].writes)[0].shards[0].snapshots) == 0


def test_a_snapshot_that_is_too_large_is_not_even_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every few thousand events all results would be copied, to be thrown away."""
    monkeypatch.setattr("nodeflow_scheduler.wire.store.SNAPSHOT_BYTES", 60_000)
    lab = Lab.ready(Limits(snapshot_every=1))
    lab.step(submit(chain(3)))
    lab.step(updates(results=[report(0, b"1" * 60_001)]))
    turn = lab.core.step([updates(results=[report(1)])], START_MS)
    assert [len(write.snapshots) for write in turn.writes] == [1]
    tracemalloc.start()
    (request,) = append_requests(1, turn.writes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(request.shards[0].snapshots) == 0
    assert peak < 60_000


def test_many_results_with_files_are_written_one_after_the_other() -> None:
    """Not each by a search through all: the scheduler would be busy with one turn for longer than its leases last."""
    count = 20_000
    files: dict[int, Artifacts] = {task: {"f": Stored(digest="sha256:1", size_bytes=1)} for task in range(count)}
    event = TasksCompleted(list(range(count)), [1] * count, [NULL] * count, files)
    began_s = time.process_time()
    data = encode_chunk([event], 1, 1)
    assert time.process_time() - began_s < 1
    assert decode_chunk(data).events == [event]


def test_the_index_hears_of_beginnings_and_ends() -> None:
    lab = Lab.ready()
    turn = lab.core.step([submit(chain(1))], START_MS)
    (begun,) = append_requests(1, turn.writes)[0].shards[0].records
    assert (begun.execution_id, begun.tenant, begun.shard, begun.task_count) == ("e1", "t", SHARD, 1)
    assert (begun.request_id, begun.request_digest, dict(begun.labels)) == ("r", b"d", {"team": "a"})
    assert not begun.HasField("finish_time")
    turn = lab.core.step([cancel()], START_MS + 1)
    (over,) = append_requests(2, turn.writes)[0].shards[0].records
    assert (int(over.state), over.finished_task_count) == (int(ExecutionState.CANCELLED), 1)
    assert over.finish_time.ToMilliseconds() == START_MS + 1


# -------------------------------------------------------------------- readers


def read_all(lab: Lab) -> list[event_pb2.Event]:
    """The events of the execution as a watcher gets them that knows nothing yet."""
    execution = lab.execution()
    reader = EventReader("e1", execution.workflow, [])
    found: list[event_pb2.Event] = []
    sequence = 1
    for data in lab.log["e1"]:
        chunk = decode_chunk(data)
        found += reader.read(sequence, chunk.time_ms, chunk.events)
        sequence += sum(map(sequence_count, chunk.events))
    return found


def test_readers_get_one_event_for_each_sequence() -> None:
    lab = Lab.ready()
    compiled = workflow(
        {"m": {"map": "${inputs.xs}"}, "no": {"when": "1 > 2"}, "after": {"needs": ["m"]}},
        inputs={"xs": {"type": "array"}},
    )
    lab.step(submit(compiled, inputs=b'{"xs":[1,2]}'))
    lab.step(updates(started=[ref(3)], results=[report(4), report(3, BROKEN)]))
    events = read_all(lab)
    assert [event.sequence for event in events] == list(range(1, lab.execution().sequence + 1))
    assert [event_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_") for event in events] == [
        "EXECUTION_STARTED",
        "NODE_EXPANDED",
        "NODE_STATE_CHANGED",
        "NODE_STATE_CHANGED",
        "NODE_STATE_CHANGED",
        "NODE_STATE_CHANGED",
        "ERROR_OCCURRED",
        "DATA_AVAILABLE",
        "ERROR_OCCURRED",
        "NODE_STATE_CHANGED",
        "EXECUTION_COMPLETED",
    ]
    failed = events[6].task
    assert (failed.node, failed.task_number, failed.map_index, failed.attempt_number) == ("m", 3, 0, 1)
    assert failed.failure.reason == "RAISED"
    assert events[7].task.map_index == 1
    assert events[9].task.reason == "PARENT_FAILED"


def test_items_are_not_taken_for_those_of_an_empty_mapped_node_before_theirs() -> None:
    lab = Lab.ready()
    compiled = workflow(
        {"none": {"map": "${inputs.none}"}, "some": {"map": "${inputs.some}"}},
        inputs={"none": {"type": "array"}, "some": {"type": "array"}},
    )
    lab.step(submit(compiled, inputs=b'{"none":[],"some":[1,2]}'))
    named = [(event.task.node, event.task.map_index) for event in read_all(lab) if event.task.HasField("map_index")]
    assert named == [("some", 0), ("some", 1)]


def test_what_readers_see_of_an_execution_and_its_tasks() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {"retry": 2}, "b": {}})))
    lab.step(updates(started=[ref(0)], results=[report(0, FLAKY), report(1, b"5")]))
    message = execution_message(lab.execution())
    assert (message.task_counts.total, message.task_counts.queued, message.task_counts.completed) == (2, 1, 1)
    assert message.cancel_reason == ""
    assert not message.HasField("finish_time")
    waiting, done = (task_message(lab.execution(), task, full=True) for task in (0, 1))
    assert waiting.worker_id == "worker of s1"
    assert waiting.retry_time.ToMilliseconds() == lab.execution().retries_ms[0]
    assert not waiting.HasField("output")
    assert done.output.data == b"5"
    assert done.item_count == 0
    lab.step(cancel())
    assert execution_message(lab.execution()).cancel_reason == "enough"


def test_the_texts_and_causes_of_a_reported_failure_are_cut_where_they_would_never_end() -> None:
    failure = Failure(kind=FailureKind.USER, reason="R" * 20_000, message="m", traceback="t" * 10_000_000)
    for _ in range(50):
        failure = Failure(kind=FailureKind.USER, reason="R", message="m", error_type="E" * 20_000, cause=failure)
    result = attempt_pb2.AttemptResult(failure=failure_message(failure))
    (report,) = reports_of([result])
    assert isinstance(report.outcome, Failure)
    assert failure_message(report.outcome).ByteSize() < CAUSES_LIMIT * 5 * TEXT_LIMIT
    depth, cause = 0, report.outcome.cause
    while cause is not None:
        depth, cause = depth + 1, cause.cause
    assert depth == CAUSES_LIMIT
    plain = Failure(kind=FailureKind.USER, reason="R", message="m", traceback="t" * TEXT_LIMIT)
    assert reports_of([attempt_pb2.AttemptResult(failure=failure_message(plain))])[0].outcome == plain
