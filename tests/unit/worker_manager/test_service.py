"""The service over real sockets: generated stubs on both sides, and a state-manager that keeps what it is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

import grpc.aio
import pytest
from google.protobuf.message import Message
from nodeflow.worker_manager.v1 import attempt_pb2 as attempts
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as pb
from tests.unit.worker_manager.state_manager_peer import StateManager
from tests.unit.worker_manager.streams_by_hand import Scheduler, Stream, Stub, Worker, serving, worker_manager

from nodeflow_shared.errors import IllegalState, InvalidInput, NodeflowError, NotFound, StaleLease, Unavailable
from nodeflow_shared.status import from_rpc_error

A = "aaaaaaaa-0000-4000-8000-000000000001"
B = "bbbbbbbb-0000-4000-8000-000000000002"
GOODBYE = pb.ConnectRequest(goodbye=pb.Goodbye())


@pytest.fixture
def state() -> StateManager:
    return StateManager()


@pytest.fixture
async def stub(state: StateManager) -> AsyncIterator[Stub]:
    async with serving(state.register) as port, worker_manager(port) as stub:
        yield stub


def hello(
    session_id: str = A, worker_id: str = "w", *, slots: int = 2, replaced: Sequence[str] = ()
) -> pb.ConnectRequest:
    facts = pb.Hello(
        worker_id=worker_id,
        session_id=session_id,
        capacity=pb.Capacity(slots=slots, credits=1),
        labels={"zone": "a"},
        replaced_session_ids=replaced,
    )
    return pb.ConnectRequest(hello=facts)


def result(number: int, shard: int = 0) -> attempts.AttemptResult:
    outcome = attempts.AttemptResult(
        execution_id="e", task_number=number, attempt_number=1, shard=shard, result_id=number
    )
    outcome.output.data = b"1"
    return outcome


def updates(*results: attempts.AttemptResult) -> pb.ConnectRequest:
    return pb.ConnectRequest(updates=attempts.AttemptUpdates(results=results))


def assignments(session_id: str, *tasks: tuple[int, int, int], generation: int = 1) -> pb.CoordinateRequest:
    """Assign tasks, (number, shard, token), on the ground of the first report unless it says otherwise."""
    batch = attempts.AssignmentBatch(
        specs=[attempts.TaskSpec(tenant="t", node="n")],
        assignments=[
            attempts.Assignment(
                execution_id="e", task_number=number, attempt_number=1, shard=shard, fencing_token=token
            )
            for number, shard, token in tasks
        ],
    )
    part = pb.SessionAssignments(session_id=session_id, batch=batch, generation=generation)
    return pb.CoordinateRequest(assignments=[part])


async def welcomed(stub: Stub, first: pb.ConnectRequest, *holds: attempts.AttemptResult) -> Worker:
    worker = Worker(stub, first, *holds)
    assert (await worker.next()).HasField("welcome")
    return worker


def has(field: str) -> Callable[[Message], object]:
    return lambda response: getattr(response, field)


def held_in(responses: Sequence[pb.CoordinateResponse]) -> list[int]:
    """The task numbers of the results that the last response says are held."""
    return [each.task_number for session in responses[-1].held for each in session.held.unacknowledged]


async def read_held(scheduler: Scheduler) -> int:
    """Read up to the next report, and return its generation."""
    [*_, last] = await scheduler.until(has("held"))
    return last.held[0].generation


@asynccontextmanager
async def beating(worker: Worker) -> AsyncIterator[None]:
    """Keep a session alive."""

    async def beat() -> None:
        for number in count(1):
            worker.send(pb.ConnectRequest(heartbeat=pb.Heartbeat(beat=number, capacity=pb.Capacity(slots=2))))
            await asyncio.sleep(0.1)

    beats = asyncio.create_task(beat())
    try:
        yield
    finally:
        beats.cancel()


async def test_a_task_travels_to_the_worker_and_its_result_back(stub: Stub, state: StateManager) -> None:
    worker = Worker(stub, hello())
    welcome = (await worker.next()).welcome
    assert (welcome.lease_timeout.seconds, welcome.heartbeat_interval.seconds) == (10, 2)
    assert welcome.newly_registered
    assert state.registry.live == {"w": {A}}

    scheduler = Scheduler(stub, {0: 5})
    responses = await scheduler.until(has("held"))
    opened = [session for response in responses for session in response.opened]
    assert [(each.session_id, each.worker_id, each.connected, dict(each.labels)) for each in opened] == [
        (A, "w", True, {"zone": "a"})
    ]
    assert any(response.attached for response in responses)

    given = assignments(A, (1, 0, 5))
    scheduler.send(given)
    assert (await worker.next()).assignments == given.assignments[0].batch
    worker.send(updates(result(1)))
    [*_, last] = await scheduler.until(has("updates"))
    assert list(last.updates[0].updates.results) == [result(1)]

    ack = pb.SessionAcknowledgement(session_id=A, acknowledgement=pb.ResultAcknowledgement(result_ids=[1]))
    stop = pb.SessionCancellation(session_id=A, cancellation=pb.Cancellation(attempts=[attempts.AttemptKey(shard=3)]))
    scheduler.send(pb.CoordinateRequest(acknowledgements=[ack], cancellations=[stop]))
    assert (await worker.next()).acknowledgement.result_ids == [1]
    assert (await worker.next()).cancellation == stop.cancellation

    worker.send(GOODBYE)
    assert await worker.end() is None
    [*_, last] = await scheduler.until(has("closed"))
    assert (last.closed[0].session_id, last.closed[0].reason) == (A, "GOODBYE")
    await state.registry.until_ended(A)


async def test_a_heartbeat_is_answered_and_its_bid_passed_on(stub: Stub) -> None:
    worker = await welcomed(stub, hello())
    scheduler = Scheduler(stub, {0: 5})
    await scheduler.until(has("held"))
    worker.send(pb.ConnectRequest(heartbeat=pb.Heartbeat(beat=7, capacity=pb.Capacity(slots=3))))
    assert (await worker.next()).heartbeat_reply.beat == 7
    [*_, last] = await scheduler.until(has("capacities"))
    assert last.capacities[0] == pb.SessionCapacity(session_id=A, capacity=pb.Capacity(slots=3))


async def test_a_broken_stream_keeps_the_session_and_its_results(stub: Stub) -> None:
    worker = await welcomed(stub, hello())
    scheduler = Scheduler(stub, {0: 5})
    await scheduler.until(has("held"))
    worker.cut()
    [*_, last] = await scheduler.until(has("capacities"))
    assert last.capacities[0].capacity == pb.Capacity()

    again = Worker(stub, hello(), result(4))
    assert not (await again.next()).welcome.newly_registered
    assert held_in(await scheduler.until(has("held"))) == [4]


async def test_a_restarted_worker_manager_knows_who_may_still_hold_attempts(state: StateManager) -> None:
    async with serving(state.register) as port:
        async with worker_manager(port) as stub:
            first, second = await welcomed(stub, hello(A)), await welcomed(stub, hello(B, "v"))
        assert isinstance(await first.end(), Unavailable)
        assert isinstance(await second.end(), Unavailable)
        assert state.registry.ended == set()

        async with worker_manager(port, lease_timeout_s=1.0) as stub:
            scheduler = Scheduler(stub, {0: 5})
            responses = await scheduler.until(has("attached"))
            opened = {each.session_id: each.connected for response in responses for each in response.opened}
            assert opened == {A: False, B: False}
            again = Worker(stub, hello(A), result(9))
            assert not (await again.next()).welcome.newly_registered
            assert held_in(await scheduler.until(has("held"))) == [9]
            async with beating(again):
                # The other one never comes back.
                [*_, last] = await scheduler.until(has("closed"))
            assert [(each.session_id, each.reason) for each in last.closed] == [(B, "LEASE_ENDED")]
            await state.registry.until_ended(B)
            assert A in state.registry.live["w"]


async def test_a_silent_worker_loses_its_lease_and_must_begin_anew(state: StateManager) -> None:
    async with serving(state.register) as port, worker_manager(port, lease_timeout_s=0.2) as stub:
        worker = await welcomed(stub, hello())
        lost = await worker.end()
        assert isinstance(lost, IllegalState)
        assert lost.reason == "SESSION_ENDED"
        await state.registry.until_ended(A)
        assert isinstance(await Worker(stub, hello()).end(), IllegalState)
        await welcomed(stub, hello(B))
        assert state.registry.live == {"w": {B}}


async def test_a_restarted_worker_replaces_its_dead_session_at_once(stub: Stub, state: StateManager) -> None:
    old = await welcomed(stub, hello(A))
    scheduler = Scheduler(stub, {0: 5})
    await scheduler.until(has("held"))
    old.cut()
    await welcomed(stub, hello(B, replaced=[A]))
    [*_, last] = await scheduler.until(has("closed"))
    assert [(each.session_id, each.reason) for each in last.closed] == [(A, "REPLACED")]
    assert state.registry.live == {"w": {B}}


async def test_a_hello_waits_for_the_state_manager(state: StateManager) -> None:
    async with AsyncExitStack() as first_life:
        port = await first_life.enter_async_context(serving(state.register))
        async with worker_manager(port) as stub:
            await first_life.aclose()
            worker = Worker(stub, hello())
            assert isinstance(await fault(stub.ListWorkers(pb.ListWorkersRequest())), Unavailable)
            async with serving(state.register, port):
                assert (await worker.next()).HasField("welcome")
                worker.send(GOODBYE)
                await worker.end()
                await state.registry.until_ended(A)


async def test_a_hello_does_not_wait_for_ever(state: StateManager) -> None:
    async with AsyncExitStack() as first_life:
        port = await first_life.enter_async_context(serving(state.register))
        async with worker_manager(port, register_timeout_s=0.1) as stub:
            await first_life.aclose()
            error = await Worker(stub, hello()).end()
            assert isinstance(error, Unavailable)
            assert error.reason == "STATE_MANAGER_AWAY"


async def test_two_schedulers_share_a_worker(stub: Stub) -> None:
    worker = await welcomed(stub, hello(), result(1, shard=0), result(2, shard=1), result(3, shard=2))
    zero, one = Scheduler(stub, {0: 5}, "zero"), Scheduler(stub, {1: 5}, "one")
    assert held_in(await zero.until(has("held"))) == [1]
    assert held_in(await one.until(has("held"))) == [2]

    worker.send(updates(result(5, shard=1), result(4, shard=0)))
    for scheduler, number in ((zero, 4), (one, 5)):
        [*_, last] = await scheduler.until(has("updates"))
        assert [each.task_number for each in last.updates[0].updates.results] == [number]

    one.send(pb.CoordinateRequest(claims=[pb.ShardClaim(shard=0, fencing_token=6)]))
    assert held_in(await one.until(has("held"))) == [1, 2]
    zero.send(assignments(A, (6, 0, 5), (7, 3, 1)))
    [*_, last] = await zero.until(has("updates"))
    assert [(each.task_number, each.fencing_token) for each in last.updates[0].updates.refused] == [(6, 5)]
    assert [each.task_number for each in (await worker.next()).assignments.assignments] == [7]


async def test_assignments_that_crossed_a_report_never_arrive(stub: Stub) -> None:
    worker = await welcomed(stub, hello())
    scheduler = Scheduler(stub, {0: 5})
    assert await read_held(scheduler) == 1
    scheduler.send(pb.CoordinateRequest(claims=[pb.ShardClaim(shard=1, fencing_token=5)]))
    assert await read_held(scheduler) == 2
    scheduler.send(assignments(A, (1, 0, 5), generation=1), assignments(A, (2, 0, 5), generation=2))
    assert [each.task_number for each in (await worker.next()).assignments.assignments] == [2]

    again = Scheduler(stub, {0: 5})
    assert await read_held(again) == 1
    again.send(assignments(A, (3, 0, 5), generation=2), assignments(A, (4, 0, 5), generation=1))
    assert [each.task_number for each in (await worker.next()).assignments.assignments] == [4]


async def test_a_stale_claim_is_refused(stub: Stub) -> None:
    first = Scheduler(stub, {0: 5}, "new")
    await first.until(has("attached"))
    assert isinstance(await Scheduler(stub, {0: 4}, "old").end(), StaleLease)


@pytest.mark.parametrize(
    ("messages", "path"),
    [
        ([updates()], "hello"),
        ([], "hello"),
        ([hello("no-uuid")], "hello.session_id"),
        ([hello(worker_id="a b")], "hello.worker_id"),
        ([hello(slots=0)], "hello.capacity.slots"),
    ],
)
async def test_a_malformed_hello_is_refused(stub: Stub, messages: list[pb.ConnectRequest], path: str) -> None:
    stream = Stream(stub.Connect, *messages)
    stream.close()
    error = await stream.end()
    assert isinstance(error, InvalidInput)
    assert [violation.path for violation in error.violations] == [path]


async def test_a_worker_that_breaks_the_order_of_messages_is_told_so(stub: Stub, state: StateManager) -> None:
    for second in (hello(), pb.ConnectRequest()):
        worker = await welcomed(stub, hello())
        worker.send(second)
        assert isinstance(await worker.end(), InvalidInput)
    assert state.registry.ended == set()


async def test_a_scheduler_has_to_attach_first_and_once(stub: Stub) -> None:
    for messages in (
        [pb.CoordinateRequest()],
        [pb.CoordinateRequest(attach=pb.Attach())],
        [pb.CoordinateRequest(attach=pb.Attach(scheduler_id="s"))] * 2,
    ):
        assert isinstance(await Stream(stub.Coordinate, *messages).end(), InvalidInput)


async def test_workers_are_listed_with_their_sessions(stub: Stub, state: StateManager) -> None:
    await welcomed(stub, hello(A, "a"))
    gone = await welcomed(stub, hello(B, "b"))
    gone.send(GOODBYE)
    await gone.end()
    await state.registry.until_ended(B)

    page = await stub.ListWorkers(pb.ListWorkersRequest(page_size=1))
    assert [(each.worker_id, each.state, each.session_id) for each in page.workers] == [
        ("a", pb.WORKER_STATE_CONNECTED, A)
    ]
    assert page.workers[0].capacity == pb.Capacity(slots=2, credits=1)
    assert page.workers[0].register_time.seconds == 1
    assert page.workers[0].last_seen_time.seconds > 1
    page = await stub.ListWorkers(pb.ListWorkersRequest(page_size=1, page_token=page.next_page_token))
    assert [(each.worker_id, each.state) for each in page.workers] == [("b", pb.WORKER_STATE_OFFLINE)]
    assert not page.next_page_token

    offline = await stub.ListWorkers(pb.ListWorkersRequest(page_size=1, state=pb.WORKER_STATE_OFFLINE))
    assert [each.worker_id for each in offline.workers] == ["b"]
    assert isinstance(await fault(stub.ListWorkers(pb.ListWorkersRequest(page_size=-1))), InvalidInput)


async def test_a_worker_is_drained(stub: Stub) -> None:
    worker = await welcomed(stub, hello())
    drained = (await stub.DrainWorker(pb.DrainWorkerRequest(worker_id="w"))).worker
    assert (drained.worker_id, drained.state) == ("w", pb.WORKER_STATE_DRAINING)
    assert (await worker.next()).HasField("drain")
    assert isinstance(await fault(stub.DrainWorker(pb.DrainWorkerRequest(worker_id="unknown"))), NotFound)
    assert isinstance(await fault(stub.DrainWorker(pb.DrainWorkerRequest(worker_id="a/b"))), InvalidInput)


async def fault(
    call: Awaitable[Message],
) -> NodeflowError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def upload(*parts: pb.UploadArtifactRequest) -> AsyncIterator[pb.UploadArtifactRequest]:
    for part in parts:
        yield part


async def test_artifacts_pass_through(stub: Stub, state: StateManager) -> None:
    header = pb.UploadArtifactRequest(header=pb.UploadHeader(tenant="t", digest="sha256:x"))
    parts = [pb.UploadArtifactRequest(data=data) for data in (b"hello ", b"world")]
    stored = await stub.UploadArtifact(upload(header, *parts))
    assert (stored.artifact.digest, stored.artifact.size_bytes) == ("sha256:x", 11)
    request = pb.DownloadArtifactRequest(tenant="t", digest="sha256:x")
    assert [part.data async for part in stub.DownloadArtifact(request)] == [b"hell", b"o wo", b"rld"]

    missing = stub.DownloadArtifact(pb.DownloadArtifactRequest(tenant="other", digest="sha256:x"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(missing))
    assert isinstance(from_rpc_error(caught.value), NotFound)
    assert isinstance(await fault(stub.UploadArtifact(upload(parts[0]))), InvalidInput)
    assert isinstance(await fault(stub.UploadArtifact(upload(header, parts[0], header))), InvalidInput)
