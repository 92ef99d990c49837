"""A worker of another make, played by hand: whatever it reports, the rest goes on."""

import asyncio
from collections.abc import AsyncIterator

from nodeflow.common.v1 import lifecycle_pb2 as life
from nodeflow.common.v1 import payload_pb2
from nodeflow.worker_manager.v1 import attempt_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as pb
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import WorkerManagerServiceStub
from tests.simulation.scenarios import simulate
from tests.support.virtual_client import VirtualClient

from nodeflow_sdk.audit.checkers import check
from nodeflow_testing.virtual_suite import VirtualSuite, address_of

SESSION = "00000000-0000-4000-8000-000000000001"
CAPACITY = pb.Capacity(slots=4, credits=4)
NOT_STORED = payload_pb2.ArtifactReference(digest=f"sha256:{'0' * 64}", size_bytes=1)
MALFORMED = payload_pb2.ArtifactReference(digest="../../etc/passwd", size_bytes=1)


def lies(
    assignment: attempt_pb2.Assignment, number: int, reference: payload_pb2.ArtifactReference
) -> pb.ConnectRequest:
    """A result that names bytes which were never uploaded."""
    result = attempt_pb2.AttemptResult(
        execution_id=assignment.execution_id,
        task_number=assignment.task_number,
        attempt_number=assignment.attempt_number,
        shard=assignment.shard,
        fencing_token=assignment.fencing_token,
        result_id=number,
        output=payload_pb2.Payload(artifact=reference),
    )
    return pb.ConnectRequest(updates=attempt_pb2.AttemptUpdates(results=[result]))


async def play_liar(suite: VirtualSuite) -> None:
    """Answer the first assignments with lies, and take nothing more."""
    outgoing: asyncio.Queue[pb.ConnectRequest] = asyncio.Queue()
    outgoing.put_nowait(
        pb.ConnectRequest(hello=pb.Hello(worker_id="liar", session_id=SESSION, capacity=CAPACITY, version="0"))
    )

    async def requests() -> AsyncIterator[pb.ConnectRequest]:
        while True:
            yield await outgoing.get()

    lie = iter([NOT_STORED, MALFORMED])
    stub = WorkerManagerServiceStub(suite.network.connect(address_of("worker-manager"), source="liar"))
    async for response in stub.Connect(requests()):
        if response.HasField("welcome"):
            outgoing.put_nowait(pb.ConnectRequest(held=pb.HeldAttempts()))
        for number, assignment in enumerate(response.assignments.assignments):
            outgoing.put_nowait(lies(assignment, number + 1, next(lie)))
        if response.HasField("acknowledgement"):
            outgoing.put_nowait(pb.ConnectRequest(goodbye=pb.Goodbye()))


def test_a_result_that_names_what_is_not_stored_fails_its_attempt_and_nothing_else() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        liar = asyncio.create_task(play_liar(suite), name="liar")
        lied_to = [
            await client.submit({"a": {"function": "f:any", "retry": attempts}}, outputs={}) for attempts in (1, 1)
        ]
        for execution_id in lied_to:
            execution = await client.finished(execution_id)
            assert execution.state == life.EXECUTION_STATE_FAILED
            assert execution.failure.cause.reason == "ARTIFACT_MISSING"
        await liar
        assert check(client.history()) == []

    simulate({}, scenario, workers=0)
