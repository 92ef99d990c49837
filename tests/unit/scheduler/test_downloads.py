"""Artifacts on their way to readers, over the stream that they come by. On virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from nodeflow.state_manager.v1 import artifact_service_pb2 as pb
from nodeflow.state_manager.v1.artifact_service_pb2_grpc import (
    ArtifactServiceServicer,
    add_ArtifactServiceServicer_to_server,
)

from nodeflow_scheduler.adapters.artifacts import GrpcArtifacts
from nodeflow_scheduler.adapters.silence import READ_TIMEOUT_S
from nodeflow_shared.errors import DeadlineExceeded
from nodeflow_testing.loopback import LoopbackNetwork
from nodeflow_testing.virtual_loop import run


class Store(ArtifactServiceServicer):
    """A store whose artifacts have a hundred pieces, and which takes its time for each."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s

    async def DownloadArtifact(  # noqa: N802  # named by the proto
        self,
        request: pb.DownloadArtifactRequest,
        context: grpc.aio.ServicerContext[Any, Any],  # Any: of no use here
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        for _ in range(100):
            await asyncio.sleep(self._pause_s)
            yield pb.DownloadArtifactResponse(data=b"x")


async def downloaded(pause_s: float) -> bytes:
    network = LoopbackNetwork(chance=random.Random(0))
    server = network.listen("store")
    add_ArtifactServiceServicer_to_server(Store(pause_s), server)  # type: ignore[abstract]  # the rest is never called
    artifacts = GrpcArtifacts(network.connect("store"))
    try:
        return b"".join([piece async for piece in artifacts.stream("t", "sha256:1")])
    finally:
        await server.stop(None)


def test_a_large_artifact_takes_as_long_as_it_takes() -> None:
    async def scenario() -> None:
        assert await downloaded(READ_TIMEOUT_S - 1) == b"x" * 100

    run(scenario)


def test_a_store_that_falls_silent_is_not_waited_for_for_ever() -> None:
    async def scenario() -> None:
        with pytest.raises(DeadlineExceeded):
            await downloaded(READ_TIMEOUT_S + 1)

    run(scenario)
