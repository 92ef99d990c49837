"""The event log, over one Append stream that is opened anew after a break; what was not answered is sent again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
from nodeflow.state_manager.v1 import state_manager_service_pb2 as manager_pb2
from nodeflow.state_manager.v1.state_manager_service_pb2_grpc import StateManagerServiceStub

from nodeflow_scheduler.domain.messages import ShardWrite
from nodeflow_scheduler.outage import Outage
from nodeflow_scheduler.wire.store import append_requests
from nodeflow_shared.retry import Backoff, keep_connected
from nodeflow_shared.status import from_rpc_error
from nodeflow_shared.streams import Outbox


class _Answer:
    """What became of a turn: the answers to all of its batches."""

    def __init__(self, batches: int) -> None:
        self.future: asyncio.Future[frozenset[int]] = asyncio.get_running_loop().create_future()
        self._missing = batches
        self._refused: frozenset[int] = frozenset()

    def take(self, refused: frozenset[int]) -> None:
        """One of its batches is answered."""
        self._refused |= refused
        self._missing -= 1
        if not self._missing and not self.future.done():
            self.future.set_result(self._refused)


@dataclass(slots=True)
class _Waiting:
    """A batch that was not answered yet."""

    request: manager_pb2.AppendRequest
    answer: _Answer
    given_up: frozenset[int] = frozenset()
    """Shards that are not sent again."""

    def settle(self, refused: frozenset[int]) -> None:
        """Gives the answer."""
        self.answer.take(refused | self.given_up)


class GrpcEventLog:
    """An `EventLog`. Holds at most what the driver allows to be pending."""

    def __init__(self, channel: grpc.aio.Channel, outage: Outage) -> None:
        self._stub = StateManagerServiceStub(channel)
        self._outage = outage
        self._last_batch = 0
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._outbox: Outbox[manager_pb2.AppendRequest] | None = None
        self._backoff = Backoff()

    async def run(self) -> None:
        """Keeps the stream open until cancelled."""
        await keep_connected("append", self._live, backoff=self._backoff)

    def append(self, writes: Sequence[ShardWrite]) -> Awaitable[frozenset[int]]:
        """Sends what a turn writes; see the port."""
        requests = append_requests(self._last_batch + 1, writes)
        answer = _Answer(len(requests))
        for request in requests:
            self._last_batch = request.batch_id
            self._waiting[request.batch_id] = _Waiting(request, answer)
            if self._outbox is not None:
                self._outbox.offer(request)
        return answer.future

    def forget(self, shards: frozenset[int]) -> None:
        """Takes parts out of what will be sent again; see the port. On an open stream everything is answered anyway."""
        if self._outbox is not None:
            return
        for batch_id, waiting in list(self._waiting.items()):
            kept = [part for part in waiting.request.shards if part.shard not in shards]
            given_up = frozenset(part.shard for part in waiting.request.shards if part.shard in shards)
            waiting.given_up |= given_up
            waiting.request = manager_pb2.AppendRequest(batch_id=batch_id, shards=kept)
            if not kept:
                del self._waiting[batch_id]
                waiting.settle(frozenset())

    async def _live(self) -> None:
        """One life of the stream."""
        outbox: Outbox[manager_pb2.AppendRequest] = Outbox(limit=1024)
        for waiting in self._waiting.values():
            outbox.offer(waiting.request)
        self._outbox = outbox
        try:
            async for response in self._stub.Append(outbox):
                self._backoff.reset()
                self._outage.over()
                self._answered(response)
        except grpc.RpcError as error:
            self._outage.note(from_rpc_error(error))
            raise
        finally:
            self._outbox = None
            outbox.close()

    def _answered(self, response: manager_pb2.AppendResponse) -> None:
        waiting = self._waiting.pop(response.batch_id, None)
        if waiting is not None:
            waiting.settle(frozenset(refusal.shard for refusal in response.refusals))
