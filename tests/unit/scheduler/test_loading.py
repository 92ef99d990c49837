"""Loading what is open in shards, over the stream that it comes by. On virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from nodeflow.state_manager.v1 import state_manager_service_pb2 as pb
from nodeflow.state_manager.v1.state_manager_service_pb2_grpc import (
    StateManagerServiceServicer,
    add_StateManagerServiceServicer_to_server,
)
from tests.unit.scheduler.making import START_MS, TOKEN, Lab, chain, submit

from nodeflow_scheduler.adapters.silence import READ_TIMEOUT_S
from nodeflow_scheduler.adapters.state_manager import GrpcJournal
from nodeflow_scheduler.domain.messages import Lease
from nodeflow_scheduler.domain.workflow import Workflow
from nodeflow_scheduler.wire.store import append_requests
from nodeflow_shared.errors import DeadlineExceeded
from nodeflow_testing.loopback import LoopbackNetwork
from nodeflow_testing.virtual_loop import run


class Compiled:
    """Every workflow is this one."""

    def __init__(self, compiled: Workflow) -> None:
        self._compiled = compiled

    async def workflow(self, tenant: str, revision: str) -> Workflow:
        return self._compiled


class Store(StateManagerServiceServicer):
    """A state-manager that has open executions, and tells of one after the other."""

    def __init__(self, opened: list[pb.OpenExecution], pause_s: float) -> None:
        self._opened = opened
        self._pause_s = pause_s

    async def ReadShards(  # noqa: N802  # named by the proto
        self,
        request: pb.ReadShardsRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # Any: of no use here
    ) -> AsyncIterator[pb.ReadShardsResponse]:
        for each in self._opened:
            await asyncio.sleep(self._pause_s)
            yield pb.ReadShardsResponse(executions=[each])


def open_executions(compiled: Workflow, count: int) -> list[pb.OpenExecution]:
    lab = Lab.ready()
    turn = lab.core.step([submit(compiled, f"e{n}") for n in range(count)], START_MS)
    (request,) = append_requests(1, turn.writes)
    (part,) = request.shards
    return [
        pb.OpenExecution(record=record, chunks=[chunk], last=True)
        for record, chunk in zip(part.records, part.chunks, strict=True)
    ]


async def loaded(pause_s: float, count: int) -> list[str]:
    """Ids of what a journal loads, where so much time is between one execution and the next."""
    compiled = chain(1)
    network = LoopbackNetwork(chance=random.Random(0))
    server = network.listen("store")
    store = Store(open_executions(compiled, count), pause_s)  # type: ignore[abstract]  # the rest is never called
    add_StateManagerServiceServicer_to_server(store, server)
    journal = GrpcJournal(network.connect("store"))
    found = journal.open_executions([Lease(0, TOKEN, 0)], Compiled(compiled))
    try:
        return [execution.execution_id async for execution in found]
    finally:
        await server.stop(None)


def test_much_that_is_open_takes_as_long_to_load_as_it_takes() -> None:
    """With a deadline for the whole, a scheduler with much to load, or on a busy machine, would begin anew for ever."""
    assert run(lambda: loaded(READ_TIMEOUT_S / 4, 12)) == [f"e{n}" for n in range(12)]


def test_a_store_that_falls_silent_while_it_tells_what_is_open_is_asked_anew() -> None:
    with pytest.raises(DeadlineExceeded):
        run(lambda: loaded(READ_TIMEOUT_S + 1, 2))
