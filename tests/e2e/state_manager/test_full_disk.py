"""The state-manager on a disk that fills up: what it says, what goes on, and how it comes back by itself."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from nodeflow.common.v1 import log_chunk_pb2
from nodeflow.state_manager.v1 import artifact_service_pb2 as artifact_pb
from nodeflow.state_manager.v1 import artifact_service_pb2_grpc as artifact_grpc
from nodeflow.state_manager.v1 import log_service_pb2 as logs_pb
from nodeflow.state_manager.v1 import log_service_pb2_grpc as logs_grpc
from nodeflow.state_manager.v1 import state_manager_service_pb2 as pb
from nodeflow.state_manager.v1 import state_manager_service_pb2_grpc as pb_grpc
from tests.e2e.state_manager.processes import Server, Writer, acquire, read, start
from tests.support.health import NOT_SERVING, SERVING, health_becomes
from tests.support.small_disk import SmallDisk, small_disk

from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import NodeflowError, Unavailable
from nodeflow_shared.status import from_rpc_error
from nodeflow_shared.streams import Outbox

DISK_BYTES = 48 << 20
EVENTS, ARTIFACTS, LOGS = (f"nodeflow.state_manager.v1.{name}Service" for name in ("StateManager", "Artifact", "Log"))
PIPELINED = 4
CHUNKS = 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "data", DISK_BYTES) as disk:
        yield disk


@pytest.fixture
async def server(tmp_path: Path, disk: SmallDisk) -> AsyncIterator[Server]:
    server = await start(tmp_path / "data", disk)
    yield server
    if server.process.returncode is None:
        await server.kill()


async def write(stub: pb_grpc.StateManagerServiceStub, writer: Writer, *, until: int | None = None) -> NodeflowError:
    """Append as `_write_once` does, once more when a write met the end of the stream and so was not told its cause."""
    while (told := await _write_once(stub, writer, until=until)).reason == "INTERNAL":
        pass
    return told


async def _write_once(stub: pb_grpc.StateManagerServiceStub, writer: Writer, *, until: int | None) -> NodeflowError:
    """Append what was not answered, and then more: until so many batches are, or until the stream fails."""
    requests: Outbox[pb.AppendRequest] = Outbox(1_024)
    for number in sorted(writer.sent.keys() - writer.acknowledged):
        await requests.put(writer.sent[number])
    while len(requests) < PIPELINED:
        await requests.put(writer.batch())
    try:
        async for response in stub.Append(requests):
            assert list(response.refusals) == []
            writer.acknowledged.add(response.batch_id)
            if len(writer.acknowledged) == until:
                requests.close()
            if not requests.closed:
                await requests.put(writer.batch())
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    assert until is not None
    return Unavailable("the stream was closed")


async def assert_stored(stub: pb_grpc.StateManagerServiceStub, writer: Writer) -> None:
    for name in writer.sequences:
        found, expected = await read(stub, name), writer.expected(name)
        assert len(found) >= len(writer.acknowledged)
        assert found == expected[: len(found)]


async def test_appends_stop_reads_go_on_and_all_comes_back_when_there_is_room(server: Server, disk: SmallDisk) -> None:
    writer = Writer()
    async with open_channel(server.address) as channel:
        stub = pb_grpc.StateManagerServiceStub(channel)
        await acquire(stub)
        await write(stub, writer, until=20)
        disk.fill()
        told = await write(stub, writer)
        assert (type(told), told.reason) == (Unavailable, "DISK_FULL")
        assert told.retry_after_s == 1.0
        await health_becomes(channel, EVENTS, NOT_SERVING)
        await health_becomes(channel, "", NOT_SERVING)
        acknowledged = len(writer.acknowledged)
        assert (await write(stub, writer)).reason == "DISK_FULL"
        assert len(writer.acknowledged) == acknowledged
        await assert_stored(stub, writer)
        disk.free()
        await health_becomes(channel, EVENTS, SERVING)
        await write(stub, writer, until=acknowledged + 20)
        await assert_stored(stub, writer)


async def test_a_process_that_is_killed_on_a_full_disk_comes_back_and_has_lost_nothing(
    server: Server, disk: SmallDisk, tmp_path: Path
) -> None:
    writer = Writer()
    async with open_channel(server.address) as channel:
        stub = pb_grpc.StateManagerServiceStub(channel)
        await acquire(stub)
        await write(stub, writer, until=20)
        disk.fill()
        await write(stub, writer)
    await server.kill()
    again = await start(tmp_path / "data", disk)
    async with open_channel(again.address) as channel:
        stub = pb_grpc.StateManagerServiceStub(channel)
        await assert_stored(stub, writer)
        assert (await write(stub, writer)).reason == "DISK_FULL"
        disk.free()
        await health_becomes(channel, EVENTS, SERVING)
        await write(stub, writer, until=len(writer.acknowledged) + 20)
        await assert_stored(stub, writer)
    await again.kill()


async def test_output_and_artifacts_say_it_for_themselves(server: Server, disk: SmallDisk) -> None:
    async with open_channel(server.address) as channel:
        artifacts = artifact_grpc.ArtifactServiceStub(channel)
        logs = logs_grpc.LogServiceStub(channel)
        await artifacts.UploadArtifact(upload(b"before"))
        assert await append_log(logs, 1) is None
        disk.fill()
        told = await failure(artifacts.UploadArtifact(upload(bytes(8 << 20))))
        assert (told.reason, told.retry_after_s) == ("DISK_FULL", 1.0), told
        incoming = disk.directory / "artifacts" / ".incoming"
        assert list(incoming.iterdir()) == []  # a look into a directory
        log_told = await append_log(logs, 2)
        assert log_told is not None
        assert log_told.reason == "DISK_FULL"
        for service in (ARTIFACTS, LOGS):
            await health_becomes(channel, service, NOT_SERVING)
        stored = [response async for response in logs.ReadLogs(logs_pb.ReadLogsRequest(tenant="t", execution_id="e"))]
        assert [response.last_position for response in stored] == [0, 1]
        disk.free()
        for service in (ARTIFACTS, LOGS):
            await health_becomes(channel, service, SERVING)
        await artifacts.UploadArtifact(upload(bytes(8 << 20)))
        assert await append_log(logs, 2) is None


async def upload(data: bytes) -> AsyncIterator[artifact_pb.UploadArtifactRequest]:
    yield artifact_pb.UploadArtifactRequest(header=artifact_pb.UploadHeader(tenant="t"))
    for start_at in range(0, len(data), 1 << 20):
        yield artifact_pb.UploadArtifactRequest(data=data[start_at : start_at + (1 << 20)])


async def append_log(stub: logs_grpc.LogServiceStub, first_line: int) -> NodeflowError | None:
    chunk = log_chunk_pb2.LogChunk(
        tenant="t",
        execution_id="e",
        attempt_number=1,
        fencing_token=1,
        first_line=first_line,
        line_count=1,
        runs=bytes(100_000),
    )

    async def requests() -> AsyncIterator[logs_pb.AppendLogsRequest]:
        yield logs_pb.AppendLogsRequest(batch_id=1, chunks=[chunk])

    try:
        assert [response.batch_id async for response in stub.AppendLogs(requests())] == [1]
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    return None


async def failure(call: grpc.aio.StreamUnaryCall) -> NodeflowError:  # type: ignore[type-arg]  # of any types
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)
