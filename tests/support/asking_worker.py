"""A worker of another make that asks what its tasks depend on, played by hand over any channel.

Owns its side of the protocol. Must not know whether its suite is real or virtual.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
import grpc.aio
from nodeflow.common.v1 import dependency_pb2, payload_pb2
from nodeflow.worker_manager.v1 import attempt_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as pb
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import WorkerManagerServiceStub

from nodeflow_shared.errors import Unavailable
from nodeflow_shared.status import from_rpc_error

SESSION: Final = "00000000-0000-4000-8000-000000000001"
FAN_IN: Final = {
    "one": {"function": "f:any"},
    "many": {"function": "f:any", "map": [0, 1, 2]},
    "last": {"function": "f:any", "needs": ["one", "many"]},
}
CAPACITY: Final = pb.Capacity(slots=8)
DEPENDENCIES: Final = [("one", 0, "0"), ("many", 1, ""), ("many", 3, "3"), ("many", 4, "4"), ("many", 5, "5")]
"""What `last` depends on: node, task number, result."""


class Asker:
    """A worker played by hand: it does the tasks before `last` at once, and holds on to that one."""

    def __init__(self, channel: grpc.aio.Channel, *, session_id: str = SESSION) -> None:
        self._session_id = session_id
        self.stub = WorkerManagerServiceStub(channel)
        self._outgoing: asyncio.Queue[pb.ConnectRequest | None] = asyncio.Queue()
        self._result_ids = 0
        self._last: asyncio.Future[attempt_pb2.Assignment] = asyncio.get_running_loop().create_future()
        self._held: list[attempt_pb2.AttemptKey] = []
        self._beats = 0
        self.welcomed = asyncio.Event()

    async def run(self) -> None:
        """Serve until the goodbye."""
        hello = pb.Hello(
            worker_id=f"asker-{self._session_id[-1]}",
            session_id=self._session_id,
            capacity=CAPACITY,
            version="0",
        )
        self._outgoing.put_nowait(pb.ConnectRequest(hello=hello))
        beating = asyncio.create_task(self._beat(), name="beats")
        async for response in self.stub.Connect(self._requests()):
            if response.HasField("welcome"):
                self.welcomed.set()
            if response.HasField("welcome") or response.HasField("report_held"):
                self._outgoing.put_nowait(pb.ConnectRequest(held=pb.HeldAttempts(live=self._held)))
            for assignment in response.assignments.assignments:
                spec = response.assignments.specs[assignment.spec]
                if spec.node == "last" and not self._last.done():
                    self._held = [key_of(assignment)]
                    self._last.set_result(assignment)
                else:
                    self.complete(assignment)
        beating.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(2)
            self._beats += 1
            beat = pb.Heartbeat(beat=self._beats, capacity=CAPACITY)
            self._outgoing.put_nowait(pb.ConnectRequest(heartbeat=beat))

    async def _requests(self) -> AsyncIterator[pb.ConnectRequest]:
        while (request := await self._outgoing.get()) is not None:
            yield request

    def complete(self, assignment: attempt_pb2.Assignment) -> None:
        """Report a result: the task's number."""
        self._result_ids += 1
        result = attempt_pb2.AttemptResult(
            **key_fields(assignment),
            result_id=self._result_ids,
            output=payload_pb2.Payload(data=str(assignment.task_number).encode()),
        )
        self._outgoing.put_nowait(pb.ConnectRequest(updates=attempt_pb2.AttemptUpdates(results=[result])))

    async def last(self) -> attempt_pb2.Assignment:
        """Wait for the attempt of `last`."""
        return await self._last

    def leave(self) -> None:
        """Say goodbye."""
        self._outgoing.put_nowait(pb.ConnectRequest(goodbye=pb.Goodbye()))
        self._outgoing.put_nowait(None)

    async def ask(
        self, key: attempt_pb2.AttemptKey, *, session_id: str = "", page_size: int = 0, page_token: str = ""
    ) -> pb.GetTaskDependenciesResponse:
        """Ask once; raises what the service raised."""
        request = pb.GetTaskDependenciesRequest(
            session_id=session_id or self._session_id, attempt=key, page_size=page_size, page_token=page_token
        )
        try:
            return await self.stub.GetTaskDependencies(request, timeout=5)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def insist(self, key: attempt_pb2.AttemptKey) -> pb.GetTaskDependenciesResponse:
        """Ask until somebody answers."""
        while True:
            try:
                return await self.ask(key)
            except Unavailable:
                await asyncio.sleep(0.5)


# Any: the keywords of a message have a type each.
def key_fields(assignment: attempt_pb2.Assignment) -> dict[str, Any]:
    """The fields that a key, an assignment and a result have in common."""
    names = ("execution_id", "task_number", "attempt_number", "shard", "fencing_token")
    return {name: getattr(assignment, name) for name in names}


def key_of(assignment: attempt_pb2.Assignment, **changed: Any) -> attempt_pb2.AttemptKey:
    """The key of an attempt, with some of its fields changed."""
    return attempt_pb2.AttemptKey(**{**key_fields(assignment), **changed})


def shown(dependencies: Iterable[dependency_pb2.TaskDependency]) -> list[tuple[str, int, str]]:
    """What `DEPENDENCIES` says of each."""
    return [(each.node, each.task_number, each.output.data.decode()) for each in dependencies]
