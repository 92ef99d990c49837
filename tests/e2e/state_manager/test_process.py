"""The state-manager as a process: what it promised before it was killed, and how it starts and stops."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from nodeflow.common.v1 import lifecycle_pb2
from nodeflow.state_manager.v1 import log_pb2
from nodeflow.state_manager.v1 import state_manager_service_pb2 as pb
from nodeflow.state_manager.v1 import state_manager_service_pb2_grpc as pb_grpc

from nodeflow_shared.channel import open_channel
from nodeflow_shared.streams import Outbox

SHARDS = 4
EXECUTIONS_PER_SHARD = 5
# What the writer keeps under way, so that the kill falls into the middle of a commit.
PIPELINED = 8
ACKNOWLEDGED_BEFORE_KILL = 150


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


async def launch(directory: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nodeflow_state_manager", env=environment(directory), stderr=asyncio.subprocess.PIPE
    )


async def start(directory: Path) -> Server:
    process = await launch(directory)
    assert process.stderr is not None
    async with asyncio.timeout(30):
        async for line in process.stderr:
            event = json.loads(line)
            if event["event"] == "ready":
                return Server(process, event["address"])
    raise AssertionError("the process ended before it was ready")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = await start(tmp_path)
    yield server
    if server.process.returncode is None:
        await server.kill()


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


async def write_until_killed(server: Server, writer: Writer) -> None:
    async with open_channel(server.address) as channel:
        stub = pb_grpc.StateManagerServiceStub(channel)
        await stub.AcquireShards(pb.AcquireShardsRequest(holder="s0", lease_timeout=Duration(seconds=60)))
        requests: Outbox[pb.AppendRequest] = Outbox(PIPELINED * 2)
        for _ in range(PIPELINED):
            await requests.put(writer.batch())

        async def write() -> None:
            async for response in stub.Append(requests):
                assert list(response.refusals) == []
                writer.acknowledged.add(response.batch_id)
                if len(writer.acknowledged) == ACKNOWLEDGED_BEFORE_KILL:
                    server.process.send_signal(signal.SIGKILL)
                await requests.put(writer.batch())

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await write()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.process.wait()


async def test_what_was_acknowledged_survives_kill_9_and_a_resend_completes_the_rest(
    server: Server, tmp_path: Path
) -> None:
    writer = Writer()
    await write_until_killed(server, writer)
    unanswered = sorted(writer.sent.keys() - writer.acknowledged)
    assert unanswered  # the kill fell among batches under way
    again = await start(tmp_path)
    async with open_channel(again.address) as channel:
        stub = pb_grpc.StateManagerServiceStub(channel)
        written = set()
        for name in writer.sequences:
            found, expected = await read(stub, name), writer.expected(name)
            assert len(found) >= len(writer.acknowledged)
            assert found == expected[: len(found)]
            written.add(len(found))
        assert len(written) == 1  # a batch is one transaction here: it is in every shard, or in none

        async def resend() -> AsyncIterator[pb.AppendRequest]:
            for number in unanswered:
                yield writer.sent[number]

        assert [(each.batch_id, list(each.refusals)) async for each in stub.Append(resend())] == [
            (number, []) for number in unanswered
        ]
        for name in writer.sequences:
            assert await read(stub, name) == writer.expected(name)
    await again.kill()


async def test_a_second_process_on_the_directory_says_why_it_does_not_start(server: Server, tmp_path: Path) -> None:
    second = await launch(tmp_path)
    _, said = await second.communicate()
    assert second.returncode == 2
    lines = said.decode().splitlines()
    assert len(lines) == 1
    assert "another state-manager has the data directory" in lines[0]


async def test_a_stop_answers_what_was_sent_and_ends_the_stream(server: Server) -> None:
    writer = Writer()
    async with open_channel(server.address) as channel:
        stub = pb_grpc.StateManagerServiceStub(channel)
        await stub.AcquireShards(pb.AcquireShardsRequest(holder="s0", lease_timeout=Duration(seconds=60)))
        requests: Outbox[pb.AppendRequest] = Outbox()
        await requests.put(writer.batch())

        async def write() -> None:
            async for response in stub.Append(requests):
                assert list(response.refusals) == []
                server.process.send_signal(signal.SIGTERM)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await write()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await server.process.wait() == 0
