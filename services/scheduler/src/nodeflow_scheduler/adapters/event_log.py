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
from nodeflow_scheduler.wire.store import append_request
from nodeflow_shared.retry import Backoff, keep_connected
from nodeflow_shared.status import from_rpc_error
from nodeflow_shared.streams import Outbox


@dataclass(slots=True)
class _Waiting:
    """A batch that was not answered yet."""

    request: manager_pb2.AppendRequest
    answer: asyncio.Future[frozenset[int]]
    given_up: frozenset[int] = frozenset()
    """Shards that are not sent again."""

    def settle(self, refused: frozenset[int]) -> None:
        """Gives the answer."""
        if not self.answer.done():
            self.answer.set_result(refused | self.given_up)


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
        """Sends a batch; see the port."""
        self._last_batch += 1
        request = append_request(self._last_batch, writes)
        answer: asyncio.Future[frozenset[int]] = asyncio.get_running_loop().create_future()
        self._waiting[self._last_batch] = _Waiting(request, answer)
        if self._outbox is not None:
            self._outbox.offer(request)
        return answer

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
