"""The worker-managers, each over one Coordinate stream that is attached anew after a break and after every claim."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as manager_pb2
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import WorkerManagerServiceStub

from nodeflow_scheduler.domain.messages import (
    AttemptRef,
    CapacityChanged,
    Input,
    Lease,
    ManagerAttached,
    ManagerLost,
    SessionClosed,
    SessionOpened,
)
from nodeflow_scheduler.ports import Prepared, Question
from nodeflow_scheduler.wire.attempts import fill_batch, held_of, keys_of, updates_of
from nodeflow_shared.errors import IllegalState, StaleLease, Unavailable
from nodeflow_shared.retry import Backoff, keep_connected
from nodeflow_shared.status import from_rpc_error
from nodeflow_shared.streams import Inbox, Outbox

OUTBOX_LIMIT = 4_096
"""Messages that may wait for a worker-manager that does not read.

Beyond it the stream is ended: what was lost is learned at the next attachment.
"""

GENERATIONS = 1 << 32
"""Reports of a session that one stream can tell apart. Beyond this adapter their numbers grow over all streams."""

PARTS_LIMIT = 64
"""How many handouts and acknowledgements go into one message."""
MESSAGE_BYTES = 4 * 1024 * 1024
"""What handouts of one message may take, but for a single attempt that takes more."""

# The order in which a worker-manager carries out the parts of a message.
_ACKNOWLEDGEMENTS, _CANCELLATIONS, _ASSIGNMENTS, _ANSWERS = range(4)
_CLOSED = _ANSWERS + 1
"""Nothing more is put into the last message."""

STOP_GRACE_S = 5
"""How long a running attempt may take to stop after a cancellation."""


class GrpcWorkers:
    """`Workers`, over some worker-managers."""

    def __init__(
        self,
        channels: Mapping[str, grpc.aio.Channel],
        scheduler_id: str,
        inbox: Inbox[Input],
        questions: Inbox[Question],
    ) -> None:
        self._links = {
            name: ManagerLink(name, channel, scheduler_id, inbox, questions) for name, channel in channels.items()
        }

    async def run(self) -> None:
        """Keeps all streams open until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, link in self._links.items():
                group.create_task(link.run(), name=f"coordinate {name}")

    def claim(self, leases: Sequence[Lease]) -> None:
        """See the port."""
        for link in self._links.values():
            link.claim(leases)

    def assign(self, manager: str, session_id: str, generation: int, prepared: Sequence[Prepared]) -> None:
        """See the port."""
        self._links[manager].assign(session_id, generation, prepared)

    def acknowledge(self, manager: str, acks: Mapping[str, list[int]]) -> None:
        """See the port."""
        self._links[manager].acknowledge(acks)

    def stop(self, manager: str, stops: Mapping[str, list[AttemptRef]]) -> None:
        """See the port."""
        self._links[manager].stop(stops)

    def answer(self, question: Question, answer: manager_pb2.DependencyAnswer) -> None:
        """See the port."""
        self._links[question.manager].answer(question, answer)


class ManagerLink:
    """The stream to one worker-manager."""

    def __init__(
        self,
        name: str,
        channel: grpc.aio.Channel,
        scheduler_id: str,
        inbox: Inbox[Input],
        questions: Inbox[Question],
    ) -> None:
        self._name = name
        self._stub = WorkerManagerServiceStub(channel)
        self._scheduler_id = scheduler_id
        self._inbox = inbox
        self._questions = questions
        self._claims: list[manager_pb2.ShardClaim] = []
        self._claimed = asyncio.Event()
        self._outbox: Outbox[manager_pb2.CoordinateRequest] | None = None
        self._attachment = 0
        self._last = manager_pb2.CoordinateRequest()
        self._last_rank = _CLOSED
        self._last_parts = 0
        self._last_bytes = 0
        self._backoff = Backoff()

    async def run(self) -> None:
        """Keeps the stream open until cancelled."""
        await self._claimed.wait()
        await keep_connected(f"worker-manager {self._name}", self._live, backoff=self._backoff)

    def claim(self, leases: Sequence[Lease]) -> None:
        """Attaches anew with these shards. From now on nothing of the stream before is passed on."""
        self._claims = [manager_pb2.ShardClaim(shard=each.shard, fencing_token=each.token) for each in leases]
        self._detach()
        self._claimed.set()

    def acknowledge(self, acks: Mapping[str, list[int]]) -> None:
        """Tells sessions which results are committed."""
        request = self._request(_ACKNOWLEDGEMENTS)
        if request is not None:
            for session_id, result_ids in acks.items():
                request.acknowledgements.add(session_id=session_id).acknowledgement.result_ids.extend(result_ids)

    def stop(self, stops: Mapping[str, list[AttemptRef]]) -> None:
        """Tells sessions which attempts to stop."""
        request = self._request(_CANCELLATIONS)
        if request is not None:
            for session_id, refs in stops.items():
                cancellation = request.cancellations.add(session_id=session_id).cancellation
                cancellation.attempts.extend(keys_of(refs))
                cancellation.grace_timeout.CopyFrom(Duration(seconds=STOP_GRACE_S))

    def assign(self, session_id: str, generation: int, prepared: Sequence[Prepared]) -> None:
        """Hands out attempts, unless they were decided on what a session reported over an earlier stream."""
        attachment, reported = divmod(generation, GENERATIONS)
        if attachment != self._attachment:
            return  # Its loss is in the inbox: what was handed out is in doubt then, and made up for.
        waiting = [prepared]
        while waiting:
            part = waiting.pop()
            request = self._request(_ASSIGNMENTS)
            if request is None:
                return
            # Filled in place: a message that is put into another is copied.
            handout = request.assignments.add(session_id=session_id, generation=reported)
            fill_batch(handout.batch, part)
            size = handout.ByteSize()
            if size > MESSAGE_BYTES and len(part) > 1:
                del request.assignments[-1]
                waiting += [part[len(part) // 2 :], part[: len(part) // 2]]
            else:
                self._last_bytes += size

    def answer(self, question: Question, answer: manager_pb2.DependencyAnswer) -> None:
        """Answers a question. Nothing follows it in its message, for it may be large."""
        if question.attachment != self._attachment:
            return
        request = self._request(_ANSWERS)
        if request is not None:
            request.answers.append(answer)
            self._last_rank = _CLOSED

    def _request(self, rank: int) -> manager_pb2.CoordinateRequest | None:
        """The message to put parts of a kind into: the last one, if it still waits and the order of its fields is that
        of events. None when there is no stream; a stream that does not read is ended.
        """
        outbox = self._outbox
        if outbox is None:
            return None
        room = self._last_parts < PARTS_LIMIT and self._last_bytes < MESSAGE_BYTES
        if len(outbox) and self._last_rank <= rank and room:
            self._last_rank = rank
            self._last_parts += 1
            return self._last
        self._last, self._last_rank, self._last_parts = manager_pb2.CoordinateRequest(), rank, 1
        self._last_bytes = 0
        if outbox.offer(self._last):
            return self._last
        self._detach()
        return None

    def _detach(self) -> None:
        """Ends the stream, if there is one: what it handed out is in doubt, and its sessions are named anew."""
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            outbox.close()
            self._inbox.push(ManagerLost(manager=self._name))

    async def _live(self) -> None:
        """One life of the stream. It is over as soon as its outbox is not the current one any more."""
        await self._inbox.room()  # Its end will be told there too, and there may be many while nothing is decided.
        outbox: Outbox[manager_pb2.CoordinateRequest] = Outbox(OUTBOX_LIMIT)
        outbox.offer(
            manager_pb2.CoordinateRequest(
                attach=manager_pb2.Attach(scheduler_id=self._scheduler_id), claims=self._claims
            )
        )
        self._outbox = outbox
        self._last_rank = _CLOSED  # Nothing is put into the message that attaches.
        self._attachment += 1
        try:
            async for response in self._stub.Coordinate(outbox):
                if self._outbox is not outbox:
                    return
                self._backoff.reset()
                self._pass_on(response)
                await self._inbox.room()
        except grpc.RpcError as error:
            refusal = from_rpc_error(error)
            if not isinstance(refusal, IllegalState | StaleLease):
                raise
            # A claim is stale: the shard is another's, which the renewal of its lease will tell. Until then try again.
            raise Unavailable(refusal.message, reason=refusal.reason) from error
        finally:
            if self._outbox is outbox:
                self._detach()

    def _pass_on(self, response: manager_pb2.CoordinateResponse) -> None:
        """Pushes what a response says, in the order of its fields."""
        push = self._inbox.push
        for opened in response.opened:
            capacity = opened.capacity
            push(
                SessionOpened(
                    manager=self._name,
                    session_id=opened.session_id,
                    worker_id=opened.worker_id,
                    slots=capacity.slots,
                    credits=capacity.credits,
                )
            )
        for held in response.held:
            push(held_of(held, first_generation=self._attachment * GENERATIONS), held.ByteSize())
        for updates in response.updates:
            push(updates_of(updates.session_id, updates.updates), updates.ByteSize())
        for changed in response.capacities:
            capacity = changed.capacity
            push(CapacityChanged(session_id=changed.session_id, slots=capacity.slots, credits=capacity.credits))
        for closed in response.closed:
            push(SessionClosed(session_id=closed.session_id, reason=closed.reason))
        if response.attached:
            push(ManagerAttached(manager=self._name))
        for question in response.questions:
            self._questions.push(Question(manager=self._name, attachment=self._attachment, message=question))
