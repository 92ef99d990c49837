"""A state-manager as a process, and a writer that remembers what was acknowledged."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from nodeflow.common.v1 import lifecycle_pb2
from nodeflow.state_manager.v1 import log_pb2
from nodeflow.state_manager.v1 import state_manager_service_pb2 as pb
from nodeflow.state_manager.v1 import state_manager_service_pb2_grpc as pb_grpc
from tests.support.small_disk import SmallDisk

SHARDS = 4
EXECUTIONS_PER_SHARD = 5


class Server:
    """One process on a data directory."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.process = process
        self.address = address

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


def environment(directory: Path) -> dict[str, str]:
    ours = {"DATA_DIR": str(directory), "SHARD_COUNT": str(SHARDS), "BIND": "127.0.0.1:0", "LOG_FORMAT": "json"}
    return {**os.environ, **{f"NODEFLOW_STATE_MANAGER_{name}": value for name, value in ours.items()}}


async def launch(directory: Path, disk: SmallDisk | None = None) -> asyncio.subprocess.Process:
    command: Sequence[str] = (sys.executable, "-m", "nodeflow_state_manager")
    if disk is not None:
        command = disk.command(Path.cwd(), *command)
    return await asyncio.create_subprocess_exec(*command, env=environment(directory), stderr=asyncio.subprocess.PIPE)


async def start(directory: Path, disk: SmallDisk | None = None) -> Server:
    process = await launch(directory, disk)
    assert process.stderr is not None
    async with asyncio.timeout(30):
        async for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "ready":
                return Server(process, event["address"])
    raise AssertionError("the process ended before it was ready")


class Writer:
    """Writes chunks to all shards as fast as they are answered, and remembers which were acknowledged."""

    def __init__(self) -> None:
        self.offsets = [0] * SHARDS
        self.sequences: dict[str, int] = {}
        self.sent: dict[int, pb.AppendRequest] = {}
        self.acknowledged: set[int] = set()

    def batch(self) -> pb.AppendRequest:
        number = len(self.sent)
        request = pb.AppendRequest(batch_id=number, shards=[self._part(number, shard) for shard in range(SHARDS)])
        self.sent[number] = request
        return request

    def _part(self, number: int, shard: int) -> pb.ShardAppend:
        part = pb.ShardAppend(shard=shard, fencing_token=1, expected_offset=self.offsets[shard])
        for index in range(EXECUTIONS_PER_SHARD):
            name = f"{shard}-{index}"
            last = self.sequences.get(name, 0)
            if not last:
                state = lifecycle_pb2.EXECUTION_STATE_RUNNING
                part.records.append(
                    log_pb2.ExecutionRecord(execution_id=name, tenant="default", shard=shard, state=state)
                )
            data = f"{number} {name} ".encode() * 50
            part.chunks.append(log_pb2.Chunk(execution_id=name, first_sequence=last + 1, event_count=2, data=data))
            self.sequences[name] = last + 2
            self.offsets[shard] += 2
        return part

    def expected(self, execution_id: str) -> list[tuple[int, int, bytes]]:
        """Return the chunks of all batches, acknowledged or not."""
        return [
            (chunk.first_sequence, chunk.first_sequence + 1, chunk.data)
            for _, request in sorted(self.sent.items())
            for part in request.shards
            for chunk in part.chunks
            if chunk.execution_id == execution_id
        ]


async def read(stub: pb_grpc.StateManagerServiceStub, execution_id: str) -> list[tuple[int, int, bytes]]:
    request = pb.ReadExecutionRequest(execution_id=execution_id)
    return [
        (chunk.first_sequence, chunk.first_sequence + chunk.event_count - 1, chunk.data)
        async for response in stub.ReadExecution(request)
        for chunk in response.chunks
    ]


async def acquire(stub: pb_grpc.StateManagerServiceStub) -> None:
    await stub.AcquireShards(pb.AcquireShardsRequest(holder="s0", lease_timeout=Duration(seconds=60)))
