"""People and programs that use the suite: each starts one execution, and takes an interest in it until its end.

Owns their habits and their patience, and their complaints when what they are told contradicts itself. Must not look
into any service.
"""

import asyncio
import hashlib
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from random import Random
from typing import Final, TypeVar

from nodeflow.common.v1 import lifecycle_pb2
from nodeflow.scheduler.v1 import execution_pb2, explanation_pb2
from nodeflow.scheduler.v1.scheduler_service_pb2 import TailLogsRequest
from tests.simulation.seeds.diary import Diary, Tailing, Watching, now_ms
from tests.simulation.seeds.work import Work

from nodeflow_sdk.audit.history import Call, Explained
from nodeflow_sdk.client import Client
from nodeflow_shared.errors import (
    AlreadyExists,
    DeadlineExceeded,
    IllegalState,
    NodeflowError,
    Overloaded,
    QuotaExceeded,
    Unavailable,
)
from nodeflow_testing.virtual_suite import VirtualSuite, address_of

T = TypeVar("T")

FINAL: Final = frozenset(
    {
        lifecycle_pb2.EXECUTION_STATE_COMPLETED,
        lifecycle_pb2.EXECUTION_STATE_FAILED,
        lifecycle_pb2.EXECUTION_STATE_CANCELLED,
    }
)
PATIENCE_S: Final = 1e9
RETRY_S: Final = 0.5
TRY_AGAIN: Final = (Unavailable, DeadlineExceeded, Overloaded, QuotaExceeded)
"""Errors that say nothing but: not now."""


class User:
    """Somebody with one work. `execution_id` is known once the submission was answered."""

    def __init__(self, suite: VirtualSuite, work: Work, number: int, seed: int, diary: Diary) -> None:
        self.name = f"user-{number}"
        self.work = work
        self.execution_id = ""
        self.cancelled = False
        """Whether a cancellation was asked for."""
        self._chance = Random(f"{seed}/{self.name}")
        self._diary = diary
        # Of several schedulers any may have the execution: whoever asks in vain asks the next one.
        patience_s = 0.0 if len(suite.schedulers) > 1 else PATIENCE_S
        self._clients = deque(
            Client(suite.network.connect(address_of(name), source=self.name), patience_s=patience_s)
            for name in suite.schedulers
        )
        self.request_id = self._draw_request_id()

    async def live(self, within_s: float) -> None:
        """Submit some time within these seconds, and stay until the execution is over."""
        await asyncio.sleep(self._chance.uniform(0, within_s) if self._chance.random() < 0.6 else 0)
        self._diary.note(self.name, f"submits {self.work.name}: {self.work.shape} of {len(self.work.nodes)} nodes")
        self.execution_id = (await self._submit()).execution_id
        self._diary.note(self.name, "is told of its execution", self.execution_id)
        async with asyncio.TaskGroup() as group:
            for habit in self._draw_habits():
                group.create_task(self._indulge(habit), name=f"{self.name} {habit.__name__}")

    def _draw_habits(self) -> list[Callable[[], Coroutine[None, None, None]]]:
        chance = self._chance
        habits: list[Callable[[], Coroutine[None, None, None]]] = [self._watch]
        if chance.random() < 0.5:
            habits.append(self._watch_now_and_then)
        if chance.random() < 0.5 and any(node.deed.prints for node in self.work.nodes):
            habits.append(self._tail)
        if chance.random() < 0.5:
            habits.append(self._resubmit)
        if chance.random() < 0.2:
            habits.append(self._submit_something_else)
        if chance.random() < 0.2:
            habits.append(self._cancel)
        if chance.random() < 0.5:
            habits.append(self._look)
        return habits

    async def _indulge(self, habit: Callable[[], Coroutine[None, None, None]]) -> None:
        try:
            await habit()
        except NodeflowError as error:
            what = f"{habit.__name__}: was refused with {type(error).__name__}: {error.message}"
            self._diary.complain(self.name, what, self.execution_id)

    # ------------------------------------------------------------------------- calls

    async def _submit(self) -> execution_pb2.Execution:
        document = self.work.document()
        execution = await self._patiently(lambda: self._clients[0].submit(document, request_id=self.request_id))
        body = hashlib.sha256(document.source).hexdigest()
        self._diary.acknowledge(Call.SUBMIT, execution.execution_id, self.request_id, body)
        self._diary.tell(execution)
        return execution

    async def _resubmit(self) -> None:
        for _ in range(self._chance.randrange(1, 4)):
            await self._pause(30)
            again = (await self._submit()).execution_id
            if again != self.execution_id:
                self._diary.complain(self.name, f"the same request_id gave another execution: {again}", again)

    async def _submit_something_else(self) -> None:
        await self._pause(60)
        other = self.work.document(note="something else")
        try:
            execution = await self._patiently(lambda: self._clients[0].submit(other, request_id=self.request_id))
        except AlreadyExists:
            return
        what = f"the same request_id with another body was accepted as {execution.execution_id}"
        self._diary.complain(self.name, what, self.execution_id)

    async def _cancel(self) -> None:
        await self._pause(40)
        self._diary.note(self.name, "cancels", self.execution_id)
        self.cancelled = True
        try:
            execution = await self._patiently(lambda: self._clients[0].cancel(self.execution_id, "no longer wanted"))
        except IllegalState:
            execution = await self._get()
            if execution.state not in FINAL - {lifecycle_pb2.EXECUTION_STATE_CANCELLED}:
                self._complain_of(execution, "the cancellation was refused")
            return
        self._diary.acknowledge(Call.CANCEL, self.execution_id)
        self._diary.tell(execution)
        if execution.state != lifecycle_pb2.EXECUTION_STATE_CANCELLED:
            self._complain_of(execution, "the cancellation was accepted")
        await self._get()

    async def _look(self) -> None:
        """Ask for this and that, now and then."""
        for _ in range(self._chance.randrange(1, 5)):
            await self._pause(30)
            await self._get()
            await self.tasks()
            await self.explain(self._chance.randrange(len(self.work.nodes)))

    async def _get(self) -> execution_pb2.Execution:
        execution = await self.execution()
        self._diary.tell(execution)
        return execution

    async def execution(self) -> execution_pb2.Execution:
        """Get the execution."""
        return await self._patiently(lambda: self._clients[0].get(self.execution_id))

    async def tasks(self) -> list[execution_pb2.Task]:
        """List the tasks."""

        async def listed() -> list[execution_pb2.Task]:
            return [task async for task in self._clients[0].tasks(self.execution_id)]

        return await self._patiently(listed)

    async def explain(self, task: int) -> Explained:
        """Ask why a task is where it is."""
        explanation = await self._patiently(lambda: self._clients[0].explain(self.execution_id, task))
        reason = explanation_pb2.TaskReason.Name(explanation.reason)
        return Explained(execution_id=self.execution_id, task=task, reason=reason)

    async def lines(self) -> Tailing:
        """Read all output that there is."""
        tailed = Tailing(who=f"{self.name} in the end", execution_id=self.execution_id)
        await self._read_lines(tailed, follow=False)
        return tailed

    # ----------------------------------------------------------------------- streams

    async def _watch(self) -> None:
        watched = Watching(who=f"{self.name} watching", execution_id=self.execution_id)
        self._diary.watched.append(watched)
        await self._watch_on(watched, "", leave=None)

    async def _watch_now_and_then(self) -> None:
        """Leave in the middle, and go on from the cursor later."""
        watched = Watching(who=f"{self.name} watching now and then", execution_id=self.execution_id)
        self._diary.watched.append(watched)
        cursor = ""
        for _ in range(self._chance.randrange(1, 4)):
            cursor = await self._watch_on(watched, cursor, leave=self._chance.uniform(0, 8))
            await self._pause(15)
        await self._watch_on(watched, cursor, leave=None)

    async def _watch_on(self, watched: Watching, cursor: str, *, leave: float | None) -> str:
        """Watch from a cursor on, to the end or for some seconds; returns the last cursor."""
        try:
            async with asyncio.timeout(leave):
                while not watched.ended:
                    try:
                        async with aclosing(self._clients[0].watch(self.execution_id, cursor)) as responses:
                            async for response in responses:
                                cursor = response.cursor
                                watched.responses.append(response)
                        watched.ended = True
                    except TRY_AGAIN:
                        await self._ask_another()
        except TimeoutError:
            pass
        return cursor

    async def _tail(self) -> None:
        tailed = Tailing(who=f"{self.name} tailing", execution_id=self.execution_id)
        self._diary.tailed.append(tailed)
        await self._read_lines(tailed, follow=True)

    async def _read_lines(self, tailed: Tailing, *, follow: bool) -> None:
        cursor = ""
        while not tailed.ended:
            request = TailLogsRequest(execution_id=self.execution_id, follow=follow, cursor=cursor)
            try:
                async with aclosing(self._clients[0].logs(request)) as responses:
                    async for response in responses:
                        cursor = response.cursor
                        tailed.lines += response.lines
                tailed.ended = True
            except TRY_AGAIN:
                await self._ask_another()

    # ---------------------------------------------------------------------- patience

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except TRY_AGAIN:
                await self._ask_another()

    async def _ask_another(self) -> None:
        await asyncio.sleep(RETRY_S)
        self._clients.rotate()

    async def _pause(self, longest_s: float) -> None:
        await asyncio.sleep(self._chance.uniform(0, self._chance.choice([0.05, 2, longest_s])))

    def _complain_of(self, execution: execution_pb2.Execution, what: str) -> None:
        state = lifecycle_pb2.ExecutionState.Name(execution.state)
        self._diary.complain(self.name, f"{what}, and the execution is {state}", self.execution_id)

    def _draw_request_id(self) -> str:
        """Half of all keys tell their time, as the SDK's do; the others are words."""
        if self._chance.random() < 0.5:
            return f"{self.name}'s key"
        value = bytearray(now_ms().to_bytes(6, "big") + self._chance.randbytes(10))
        value[6] = value[6] & 0x0F | 0x70
        value[8] = value[8] & 0x3F | 0x80
        return str(uuid.UUID(bytes=bytes(value)))
