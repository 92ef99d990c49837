"""Messages ↔ values: what is merged, what is parted, and that the rest passes as it is."""

import pytest
from nodeflow.worker_manager.v1 import attempt_pb2 as attempts
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as pb

from nodeflow_shared.channel import MAX_MESSAGE_BYTES
from nodeflow_shared.errors import InvalidInput
from nodeflow_worker_manager import wire
from nodeflow_worker_manager.domain import events as ev
from nodeflow_worker_manager.domain import instructions as do
from nodeflow_worker_manager.domain.sessions import NO_CAPACITY, EndReason


def key(number: int, shard: int = 0, token: int = 5) -> attempts.AttemptKey:
    return attempts.AttemptKey(execution_id="e", task_number=number, attempt_number=1, shard=shard, fencing_token=token)


def result(number: int, shard: int = 0) -> attempts.AttemptResult:
    return attempts.AttemptResult(execution_id="e", task_number=number, attempt_number=1, shard=shard, result_id=number)


def updates(*results: attempts.AttemptResult) -> wire.UpdatesMessage:
    return wire.UpdatesMessage(attempts.AttemptUpdates(results=results))


def batch(*tasks: tuple[int, int, int]) -> wire.AssignmentsMessage:
    """Assignments: (number, shard, token)."""
    given = [
        attempts.Assignment(
            execution_id="e", task_number=number, attempt_number=1, shard=shard, fencing_token=token, spec=1
        )
        for number, shard, token in tasks
    ]
    return wire.AssignmentsMessage(attempts.AssignmentBatch(specs=[attempts.TaskSpec(node="n")] * 2, assignments=given))


def send_updates(session_id: str, *results: attempts.AttemptResult) -> do.SendUpdates:
    return do.SendUpdates(stream=1, session_id=session_id, updates=updates(*results))


def test_frames_that_wait_together_become_one_response() -> None:
    writer = wire.SchedulerWriter()
    held = wire.HeldMessage(pb.HeldAttempts(live=[key(1)]))
    frames: list[do.ToScheduler] = [
        do.SendHeld(stream=1, session_id="A", generation=3, held=held),
        send_updates("A", result(1)),
        send_updates("B", result(2)),
        do.SendCapacity(stream=1, session_id="A", capacity=NO_CAPACITY),
        do.SendClosed(stream=1, session_id="B", reason=EndReason.REPLACED),
    ]
    assert all(writer.add(frame) for frame in frames)
    response = writer.take()
    assert list(response.held) == [pb.SessionHeld(session_id="A", held=held.message, generation=3)]
    assert [(each.session_id, list(each.updates.results)) for each in response.updates] == [
        ("A", [result(1)]),
        ("B", [result(2)]),
    ]
    assert [each.session_id for each in response.capacities] == ["A"]
    assert [(each.session_id, each.reason) for each in response.closed] == [("B", "REPLACED")]
    assert not writer.take().ByteSize()


def test_a_frame_that_would_be_read_too_early_begins_the_next_response() -> None:
    writer = wire.SchedulerWriter()
    assert writer.add(send_updates("A", result(1)))
    opened = do.SendOpened(stream=1, sessions=())
    assert not writer.add(opened)
    assert len(writer.take().updates) == 1
    assert writer.add(opened)


def test_responses_are_cut_before_they_grow_too_large() -> None:
    writer = wire.SchedulerWriter()
    large = result(1)
    large.output.data = bytes(wire.MAX_RESPONSE_BYTES * 2 // 3)
    assert writer.add(send_updates("A", large))
    assert not writer.add(send_updates("B", large))
    assert len(writer.take().updates) == 1
    # One report alone is never too large: the worker's own message was not.
    assert writer.add(send_updates("B", large, large))
    assert not writer.add(send_updates("C", result(2)))


def test_reports_of_large_results_from_many_workers_are_no_message_that_is_too_large() -> None:
    writer, sizes = wire.SchedulerWriter(), []
    large = result(1)
    large.output.data = bytes(20 << 20)
    held = wire.HeldMessage(pb.HeldAttempts(unacknowledged=[large]))
    for number in range(5):
        frame = do.SendHeld(stream=1, session_id=f"{number}", generation=1, held=held)
        if not writer.add(frame):
            sizes.append(writer.take().ByteSize())
            assert writer.add(frame)
    assert max(sizes) < MAX_MESSAGE_BYTES
    assert len(sizes) == 4


def test_a_message_of_a_worker_that_could_not_be_passed_on_is_refused() -> None:
    large = result(1)
    large.output.data = bytes(wire.MAX_REQUEST_BYTES)
    with pytest.raises(InvalidInput) as refused:
        wire.read_worker_request(1, pb.ConnectRequest(updates=attempts.AttemptUpdates(results=[large])))
    assert refused.value.reason == "MESSAGE_TOO_LARGE"


def test_what_a_worker_sends_counts_with_its_size() -> None:
    large = result(1)
    large.output.data = bytes(100_000)
    message = attempts.AttemptUpdates(results=[large])
    told = wire.read_worker_request(1, pb.ConnectRequest(updates=message))
    assert isinstance(told, ev.UpdatesReceived)
    held = wire.read_worker_request(1, pb.ConnectRequest(held=pb.HeldAttempts(unacknowledged=[large])))
    assert isinstance(held, ev.HeldReceived)
    for size_bytes in (told.updates.size_bytes, held.held.size_bytes):
        assert message.ByteSize() <= size_bytes < message.ByteSize() + 64


def test_updates_are_parted_by_shard() -> None:
    message = attempts.AttemptUpdates(
        started=[key(1, 0), key(2, 1)], results=[result(3, 0), result(4, 1)], refused=[key(5, 1)]
    )
    whole = wire.UpdatesMessage(message)
    assert whole.ended_count == 3
    part = whole.only({0})
    assert part is not None
    assert part.message == attempts.AttemptUpdates(started=[key(1, 0)], results=[result(3, 0)])
    assert whole.only({2}) is None


def test_held_attempts_are_parted_by_shard_and_may_be_none() -> None:
    held = wire.HeldMessage(pb.HeldAttempts(live=[key(1, 0), key(2, 1)], unacknowledged=[result(3, 1)]))
    assert held.live_count == 2
    assert held.only({1}).message == pb.HeldAttempts(live=[key(2, 1)], unacknowledged=[result(3, 1)])
    assert held.only({7}).message == pb.HeldAttempts()


def test_assignments_on_their_way_are_added_to_what_is_held_once() -> None:
    held = wire.HeldMessage(pb.HeldAttempts(live=[key(1)], unacknowledged=[result(2)]))
    merged = held.plus([batch((1, 0, 5), (2, 0, 5)), batch((3, 4, 6))])
    assert merged.message == pb.HeldAttempts(live=[key(1), key(3, 4, 6)], unacknowledged=[result(2)])
    assert held.live_count == 1


def test_assignments_that_are_over_are_taken_out() -> None:
    given = batch((1, 0, 5), (2, 0, 5), (3, 0, 5), (4, 0, 5))
    over = attempts.AttemptUpdates(started=[key(4)], results=[result(1)], refused=[key(3)])
    left = given.without(wire.UpdatesMessage(over))
    assert left.message == batch((2, 0, 5), (4, 0, 5)).message
    # Another attempt of the same task is not over.
    again = attempts.AttemptKey(execution_id="e", task_number=2, attempt_number=2)
    assert left.without(wire.UpdatesMessage(attempts.AttemptUpdates(refused=[again]))).message == left.message
    assert given.count == 4


def test_assignments_are_parted_by_token() -> None:
    current = batch((1, 0, 5), (2, 9, 1))
    fenced = current.fence({0: 5})
    assert fenced.current is current
    assert fenced.stale is None

    fenced = batch((1, 0, 4), (2, 1, 5)).fence({0: 5, 1: 5})
    assert isinstance(fenced.current, wire.AssignmentsMessage)
    assert isinstance(fenced.stale, wire.UpdatesMessage)
    assert fenced.current.message == batch((2, 1, 5)).message
    assert fenced.stale.message == attempts.AttemptUpdates(refused=[key(1, 0, 4)])
    assert batch((1, 0, 4)).fence({0: 5}).current is None


def test_a_schedulers_message_is_read_in_the_order_of_its_fields() -> None:
    request = pb.CoordinateRequest(
        claims=[pb.ShardClaim(shard=3, fencing_token=7)],
        released_shards=[4],
        acknowledgements=[pb.SessionAcknowledgement(session_id="A")],
        cancellations=[pb.SessionCancellation(session_id="B")],
        assignments=[pb.SessionAssignments(session_id="C", generation=2, batch=batch((1, 0, 5)).message)],
    )
    claimed, released, acknowledged, cancelled, assigned = wire.read_scheduler_request(9, request)
    assert claimed == ev.ShardsClaimed(stream=9, tokens={3: 7})
    assert released == ev.ShardsReleased(stream=9, shards=(4,))
    assert acknowledged == ev.AcknowledgementReceived(session_id="A", acknowledgement=pb.ResultAcknowledgement())
    assert cancelled == ev.CancellationReceived(session_id="B", cancellation=pb.Cancellation())
    assert isinstance(assigned, ev.AssignmentsReceived)
    assert (assigned.stream, assigned.session_id, assigned.generation) == (9, "C", 2)
    assert isinstance(assigned.batch, wire.AssignmentsMessage)
    assert assigned.batch.message == request.assignments[0].batch
