"""The state-manager as a process: what it promised before it was killed, and how it starts and stops."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from nodeflow.state_manager.v1 import state_manager_service_pb2 as pb
from nodeflow.state_manager.v1 import state_manager_service_pb2_grpc as pb_grpc
from tests.e2e.state_manager.processes import Server, Writer, acquire, launch, read, start

from nodeflow_shared.channel import open_channel
from nodeflow_shared.streams import Outbox

# What the writer keeps under way, so that the kill falls into the middle of a commit.
PIPELINED = 8
ACKNOWLEDGED_BEFORE_KILL = 150


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = await start(tmp_path)
    yield server
    if server.process.returncode is None:
        await server.kill()


async def write_until_killed(server: Server, writer: Writer) -> None:
    async with open_channel(server.address) as channel:
        stub = pb_grpc.StateManagerServiceStub(channel)
        await acquire(stub)
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
        await acquire(stub)
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
