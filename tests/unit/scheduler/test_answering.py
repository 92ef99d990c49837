"""What workers ask: answered from committed state, in time, over the stream that it came by. On virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as pb
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import (
    WorkerManagerServiceServicer,
    add_WorkerManagerServiceServicer_to_server,
)
from tests.unit.scheduler.replica import Replica

from nodeflow_scheduler.adapters.workers import GrpcWorkers
from nodeflow_scheduler.answering import COMMIT_TIMEOUT_S, Answering
from nodeflow_scheduler.domain.messages import Input, Lease, ManagerAttached, ManagerLost
from nodeflow_scheduler.ports import Question
from nodeflow_shared.errors import Unavailable
from nodeflow_shared.status import from_status
from nodeflow_shared.streams import Inbox
from nodeflow_testing.loopback import LoopbackNetwork
from nodeflow_testing.virtual_loop import run


def test_questions_are_refused_when_the_log_does_not_answer_in_time_and_do_not_pile_up() -> None:
    async def main() -> None:
        replica = Replica()
        questions: Inbox[Question] = Inbox()
        async with replica.running():
            answering = asyncio.create_task(Answering(replica.driver, replica.workers, questions).run())
            await replica.ownership.ready.wait()
            replica.log.prompt = False
            await replica.submit("e1", 1)
            for number in range(3):
                message = pb.DependencyQuestion(question_id=number)
                questions.push(Question(manager="wm", attachment=1, message=message))
                await asyncio.sleep(COMMIT_TIMEOUT_S + 1)
                assert [each.question_id for each in replica.workers.answers] == list(range(number + 1))
            assert all(isinstance(from_status(each.refusal), Unavailable) for each in replica.workers.answers)
            answering.cancel()

    run(main)


class Manager(WorkerManagerServiceServicer):
    """A worker-manager that asks the same number on every stream, and notes the answers by stream."""

    def __init__(self) -> None:
        self.answers: list[list[int]] = []
        self._end = asyncio.Event()

    def end_stream(self) -> None:
        self._end.set()
        self._end = asyncio.Event()

    async def Coordinate(  # noqa: N802  # named by the proto
        self,
        request_iterator: AsyncIterator[pb.CoordinateRequest],
        context: grpc.aio.ServicerContext[Any, Any],  # Any: of no use here
    ) -> AsyncIterator[pb.CoordinateResponse]:
        answers: list[int] = []
        self.answers.append(answers)
        yield pb.CoordinateResponse(attached=True, questions=[pb.DependencyQuestion(question_id=7)])
        reading = asyncio.create_task(self._read(request_iterator, answers))
        await self._end.wait()
        reading.cancel()

    async def _read(self, requests: AsyncIterator[pb.CoordinateRequest], answers: list[int]) -> None:
        async for request in requests:
            answers += [each.question_id for each in request.answers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A scheduler's end of the stream to a worker-manager."""

    manager: Manager
    workers: GrpcWorkers
    inbox: Inbox[Input]
    questions: Inbox[Question]


@asynccontextmanager
async def attached() -> AsyncIterator[Attached]:
    network = LoopbackNetwork(chance=random.Random(0))
    manager = Manager()  # type: ignore[abstract]  # the rest of the methods is never called
    server = network.listen("wm")
    add_WorkerManagerServiceServicer_to_server(manager, server)
    inbox: Inbox[Input] = Inbox()
    questions: Inbox[Question] = Inbox()
    workers = GrpcWorkers({"wm": network.connect("wm")}, "s", inbox, questions)
    running = asyncio.create_task(workers.run())
    workers.claim([Lease(0, 1, 0)])
    yield Attached(manager=manager, workers=workers, inbox=inbox, questions=questions)
    running.cancel()
    await server.stop(None)


def test_an_answer_to_a_question_of_an_earlier_stream_is_dropped() -> None:
    """A worker-manager that began anew numbers its questions anew: the answer would reach whoever asks now."""

    async def main() -> None:
        async with attached() as it:
            (early,) = await it.questions.drain()
            it.manager.end_stream()
            (late,) = await it.questions.drain()
            it.workers.answer(early, pb.DependencyAnswer(question_id=early.message.question_id))
            await asyncio.sleep(1)
            assert it.manager.answers == [[], []]
            it.workers.answer(late, pb.DependencyAnswer(question_id=late.message.question_id))
            await asyncio.sleep(1)
            assert it.manager.answers == [[], [7]]

    run(main)


def test_a_claim_made_anew_puts_all_in_doubt_that_was_handed_out_over_the_stream_before() -> None:
    """Sessions that ended while nothing came through are named by nobody any more."""

    async def main() -> None:
        async with attached() as it:
            told = await it.inbox.drain()
            it.workers.claim([Lease(1, 1, 0)])
            it.manager.end_stream()
            while len(told) < 3:
                told += await it.inbox.drain()
            assert told == [
                ManagerAttached(manager="wm"),
                ManagerLost(manager="wm"),
                ManagerAttached(manager="wm"),
            ]

    run(main)
