"""The service over a real socket: each RPC once, and the errors that callers of this service meet."""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from nodeflow.common.v1 import lifecycle_pb2
from nodeflow.state_manager.v1 import artifact_service_pb2 as artifact_pb
from nodeflow.state_manager.v1 import artifact_service_pb2_grpc as artifact_grpc
from nodeflow.state_manager.v1 import log_pb2
from nodeflow.state_manager.v1 import state_manager_service_pb2 as pb
from nodeflow.state_manager.v1 import state_manager_service_pb2_grpc as pb_grpc

from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import InvalidInput, NodeflowError
from nodeflow_shared.interceptors import ErrorInterceptor
from nodeflow_shared.status import from_rpc_error
from nodeflow_state_manager.bootstrap import StateManager, build
from nodeflow_state_manager.config import StateManagerSettings

SHARDS = 4
TIMEOUT = Duration(seconds=10)
AT = Timestamp(seconds=2_000, nanos=5_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The service and its stubs."""

    service: StateManager
    log: pb_grpc.StateManagerServiceStub
    artifacts: artifact_grpc.ArtifactServiceStub


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    settings = StateManagerSettings(
        data_dir=tmp_path, shard_count=SHARDS, max_artifact_bytes=3 << 20, max_lease_timeout_s=20
    )
    service = await build(settings)
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    service.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(service.run())
        await service.ready.wait()
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield Api(
                service=service,
                log=pb_grpc.StateManagerServiceStub(channel),
                artifacts=artifact_grpc.ArtifactServiceStub(channel),
            )
        await service.drain()
    await server.stop(0)
    await service.close()


async def acquire(api: Api) -> None:
    response = await api.log.AcquireShards(pb.AcquireShardsRequest(holder="s0", lease_timeout=TIMEOUT))
    assert [(lease.shard, lease.fencing_token) for lease in response.leases] == [(n, 1) for n in range(SHARDS)]


def a_record(execution_id: str, shard: int = 0) -> log_pb2.ExecutionRecord:
    return log_pb2.ExecutionRecord(
        execution_id=execution_id,
        tenant="default",
        shard=shard,
        workflow="etl",
        revision="sha256:1",
        state=lifecycle_pb2.EXECUTION_STATE_RUNNING,
        labels={"team": "a"},
        create_time=Timestamp(seconds=1_000, nanos=5_000_000),
        request_id="r",
        request_digest=b"\x01",
        task_count=2,
        finished_task_count=1,
    )


def a_chunk(execution_id: str, first: int = 1, count: int = 2) -> log_pb2.Chunk:
    return log_pb2.Chunk(execution_id=execution_id, first_sequence=first, event_count=count, data=b"events")


def a_start(execution_id: str, *, shard: int = 0, offset: int = 0, token: int = 1) -> pb.ShardAppend:
    return pb.ShardAppend(
        shard=shard,
        fencing_token=token,
        expected_offset=offset,
        chunks=[a_chunk(execution_id)],
        records=[a_record(execution_id, shard)],
        snapshots=[log_pb2.Snapshot(execution_id=execution_id, sequence=1, data=b"state")],
        last_event_time=AT,
    )


async def stream(requests: Iterable[pb.AppendRequest]) -> AsyncIterator[pb.AppendRequest]:
    for request in requests:
        yield request


async def append(api: Api, *requests: pb.AppendRequest) -> list[pb.AppendResponse]:
    return [response async for response in api.log.Append(stream(requests))]


async def refused(call: Awaitable[object] | AsyncIterable[object]) -> NodeflowError:
    """Return what a call fails with, be its response one message or a stream of them."""

    async def consume() -> None:
        if isinstance(call, AsyncIterable):
            async for _ in call:
                pass
        else:
            await call

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await consume()
    return from_rpc_error(caught.value)


async def test_batches_are_appended_and_read_back(api: Api) -> None:
    await acquire(api)
    responses = await append(
        api,
        pb.AppendRequest(batch_id=8, shards=[a_start("a"), a_start("b", shard=1, token=9)]),
        pb.AppendRequest(batch_id=9, shards=[a_start("c", offset=2)]),
    )
    assert [(each.batch_id, [(r.shard, r.reason) for r in each.refusals]) for each in responses] == [
        (8, [(1, pb.REFUSAL_REASON_STALE_TOKEN)]),
        (9, []),
    ]
    chunk = a_chunk("a")
    request = pb.ReadExecutionRequest(execution_id="a", allow_snapshot=True)
    assert [response async for response in api.log.ReadExecution(request)] == [
        pb.ReadExecutionResponse(
            record=a_record("a"),
            snapshot=log_pb2.Snapshot(execution_id="a", sequence=1, data=b"state"),
            chunks=[chunk],
        )
    ]


async def test_open_executions_are_read_under_the_lease(api: Api) -> None:
    await acquire(api)
    await append(api, pb.AppendRequest(batch_id=1, shards=[a_start("a"), a_start("b", shard=1)]))
    held = [pb.HeldShard(shard=shard, fencing_token=1) for shard in (0, 1)]
    request = pb.ReadShardsRequest(shards=held)
    found = [each async for response in api.log.ReadShards(request) for each in response.executions]
    assert found == [
        pb.OpenExecution(
            record=a_record(name, shard),
            snapshot=log_pb2.Snapshot(execution_id=name, sequence=1, data=b"state"),
            chunks=[a_chunk(name)],
            last=True,
        )
        for shard, name in enumerate(("a", "b"))
    ]
    stale = pb.ReadShardsRequest(shards=[pb.HeldShard(shard=0, fencing_token=9)])
    assert (await refused(api.log.ReadShards(stale))).code_name == "FAILED_PRECONDITION"


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([pb.ShardAppend(shard=SHARDS)], "there is no shard 4"),
        ([pb.ShardAppend(shard=0), pb.ShardAppend(shard=0)], "more than one part"),
        ([pb.ShardAppend(chunks=[a_chunk("a", first=0)])], "a chunk needs"),
        ([pb.ShardAppend(chunks=[a_chunk("a", count=0)])], "a chunk needs"),
        ([pb.ShardAppend(chunks=[a_chunk("")])], "a chunk needs"),
        ([pb.ShardAppend(records=[a_record("a", shard=1)])], "is of shard 1, not 0"),
        ([pb.ShardAppend(records=[log_pb2.ExecutionRecord(execution_id="a", tenant="t")])], "a known state"),
        ([pb.ShardAppend(artifacts=[pb.ArtifactUse(tenant="t", digest="x")])], "is not a digest"),
    ],
)
async def test_a_malformed_batch_ends_the_stream_after_what_came_before(
    api: Api, parts: list[pb.ShardAppend], fault: str
) -> None:
    await acquire(api)
    good = pb.AppendRequest(batch_id=1, shards=[a_start("good", shard=3)])
    error = await refused(api.log.Append(stream([good, pb.AppendRequest(batch_id=2, shards=parts)])))
    assert isinstance(error, InvalidInput)
    assert fault in error.message


async def test_leases_are_capped_renewed_and_given_back(api: Api) -> None:
    acquired = await api.log.AcquireShards(
        pb.AcquireShardsRequest(holder="s0", shards=[2], lease_timeout=Duration(seconds=3_600))
    )
    assert acquired.shard_count == SHARDS
    (lease,) = acquired.leases
    assert (lease.shard, lease.fencing_token, lease.next_offset) == (2, 1, 0)
    assert lease.lease_timeout == Duration(seconds=20)
    assert lease.expire_time.seconds > 1_700_000_000
    held = [pb.HeldShard(shard=2, fencing_token=1), pb.HeldShard(shard=3, fencing_token=1)]
    renewed = await api.log.RenewShards(pb.RenewShardsRequest(holder="s0", shards=held, lease_timeout=TIMEOUT))
    assert (list(renewed.lost), renewed.lease_timeout) == ([3], TIMEOUT)
    await api.log.ReleaseShards(pb.ReleaseShardsRequest(holder="s0", shards=held))
    other = await api.log.AcquireShards(pb.AcquireShardsRequest(holder="s1", lease_timeout=TIMEOUT))
    assert [each.fencing_token for each in other.leases] == [1, 1, 2, 1]


async def test_a_lease_tells_the_time_of_the_last_event(api: Api) -> None:
    await acquire(api)
    await append(api, pb.AppendRequest(batch_id=1, shards=[a_start("a", shard=1)]))
    leases = (await api.log.AcquireShards(pb.AcquireShardsRequest(holder="s0", lease_timeout=TIMEOUT))).leases
    assert [lease.last_event_time for lease in leases] == [Timestamp(), AT, Timestamp(), Timestamp()]


async def test_the_index_answers_with_pages(api: Api) -> None:
    await acquire(api)
    parts = [a_start(f"e{shard}", shard=shard) for shard in range(3)]
    await append(api, pb.AppendRequest(batch_id=1, shards=parts))
    request = pb.ListExecutionsRequest(tenant="default", page_size=2, filter='labels.team = "a"')
    first = await api.log.ListExecutions(request)
    assert [each.execution_id for each in first.records] == ["e2", "e1"]
    request.page_token = first.next_page_token
    second = await api.log.ListExecutions(request)
    assert ([each.execution_id for each in second.records], second.next_page_token) == (["e0"], "")
    request.filter = 'labels.team = "b"'
    error = await refused(api.log.ListExecutions(request))
    assert [(each.path, each.description) for each in error.violations] == [
        ("page_token", "the page token belongs to a list with another filter")
    ]
    found = await api.log.FindExecutions(pb.FindExecutionsRequest(tenant="default", prefix="e"))
    assert [each.execution_id for each in found.records] == ["e2", "e1", "e0"]
    latest = await api.log.FindExecutions(pb.FindExecutionsRequest(tenant="default", prefix="@latest"))
    assert list(latest.records) == [a_record("e2", 2)]
    got = await api.log.BatchGetExecutions(pb.BatchGetExecutionsRequest(execution_ids=["e0", "e0", "no"]))
    assert list(got.records) == [a_record("e0")]


async def test_workflows_are_stored_and_listed(api: Api) -> None:
    workflow = log_pb2.WorkflowRecord(
        tenant="default", name="etl", revision="r1", document=b"doc", content_type="application/yaml", directory="/x"
    )
    created = await api.log.CreateWorkflow(pb.CreateWorkflowRequest(workflow=workflow))
    assert created.created
    assert not (await api.log.CreateWorkflow(pb.CreateWorkflowRequest(workflow=workflow))).created
    got = await api.log.GetWorkflow(pb.GetWorkflowRequest(tenant="default", name="etl"))
    assert got.workflow == created.workflow
    workflow.create_time.CopyFrom(created.workflow.create_time)
    assert got.workflow == workflow
    for name in ("", "etl"):
        listed = await api.log.ListWorkflows(pb.ListWorkflowsRequest(tenant="default", name=name))
        assert [(each.name, each.document) for each in listed.workflows] == [("etl", b"")]


async def test_worker_sessions_are_recorded(api: Api) -> None:
    request = pb.RegisterWorkerSessionRequest(worker_id="w", session_id="s1", labels={"zone": "a"}, version="1")
    assert (await api.log.RegisterWorkerSession(request)).created
    request.session_id, request.replaced_session_ids[:] = "s2", ["s1"]
    again = await api.log.RegisterWorkerSession(request)
    assert (again.created, list(again.worker.live_session_ids)) == (False, ["s2"])
    await api.log.EndWorkerSessions(pb.EndWorkerSessionsRequest(session_ids=["s2"]))
    assert list((await api.log.ListWorkers(pb.ListWorkersRequest(live_only=True))).workers) == []
    (worker,) = (await api.log.ListWorkers(pb.ListWorkersRequest())).workers
    assert (worker.worker_id, dict(worker.labels), worker.version) == ("w", {"zone": "a"}, "1")
    assert (await refused(api.log.RegisterWorkerSession(request))).code_name == "FAILED_PRECONDITION"


async def test_wrong_requests_name_the_field(api: Api) -> None:
    log = api.log
    calls: dict[str, Awaitable[object]] = {
        "holder": log.AcquireShards(pb.AcquireShardsRequest(lease_timeout=TIMEOUT)),
        "lease_timeout": log.AcquireShards(pb.AcquireShardsRequest(holder="s0")),
        "shards": log.RenewShards(
            pb.RenewShardsRequest(holder="s0", shards=[pb.HeldShard(shard=99)], lease_timeout=TIMEOUT)
        ),
        "filter": log.ListExecutions(pb.ListExecutionsRequest(tenant="default", filter="state")),
        "tenant": log.ListExecutions(pb.ListExecutionsRequest()),
        "page_size": log.ListExecutions(pb.ListExecutionsRequest(tenant="default", page_size=-1)),
        "prefix": log.FindExecutions(pb.FindExecutionsRequest(tenant="default")),
        "execution_ids": log.BatchGetExecutions(pb.BatchGetExecutionsRequest(execution_ids=["x"] * 1_001)),
        "workflow.document": log.CreateWorkflow(
            pb.CreateWorkflowRequest(workflow=log_pb2.WorkflowRecord(tenant="t", name="n", revision="r"))
        ),
        "name": log.GetWorkflow(pb.GetWorkflowRequest(tenant="default")),
        "session_id": log.RegisterWorkerSession(pb.RegisterWorkerSessionRequest(worker_id="w")),
        "session_ids": log.EndWorkerSessions(pb.EndWorkerSessionsRequest(session_ids=[""])),
        "page_token": log.ListWorkers(pb.ListWorkersRequest(page_token="?")),
    }
    for path, call in calls.items():
        error = await refused(call)
        assert (error.code_name, [each.path for each in error.violations]) == ("INVALID_ARGUMENT", [path])


async def test_unknown_names_are_not_found(api: Api) -> None:
    unknown = pb.ReadExecutionRequest(execution_id="nobody")
    assert (await refused(api.log.ReadExecution(unknown))).reason == "EXECUTION_NOT_FOUND"
    workflow = pb.GetWorkflowRequest(tenant="default", name="nothing")
    assert (await refused(api.log.GetWorkflow(workflow))).reason == "WORKFLOW_NOT_FOUND"


async def upload(api: Api, *messages: artifact_pb.UploadArtifactRequest) -> artifact_pb.UploadArtifactResponse:
    async def requests() -> AsyncIterator[artifact_pb.UploadArtifactRequest]:
        for message in messages:
            yield message

    return await api.artifacts.UploadArtifact(requests())


def header(tenant: str = "default", digest: str = "") -> artifact_pb.UploadArtifactRequest:
    return artifact_pb.UploadArtifactRequest(
        header=artifact_pb.UploadHeader(tenant=tenant, digest=digest, content_type="text/plain")
    )


def data(piece: bytes) -> artifact_pb.UploadArtifactRequest:
    return artifact_pb.UploadArtifactRequest(data=piece)


async def test_artifacts_go_up_and_come_down_and_can_then_be_referred_to(api: Api) -> None:
    await acquire(api)
    whole = bytes(range(256)) * 6_000
    digest = f"sha256:{hashlib.sha256(whole).hexdigest()}"
    part = a_start("a")
    part.artifacts.append(pb.ArtifactUse(tenant="default", digest=digest))
    (before,) = await append(api, pb.AppendRequest(batch_id=1, shards=[part]))
    assert [each.reason for each in before.refusals] == [pb.REFUSAL_REASON_MISSING_ARTIFACT]
    response = await upload(api, header(digest=digest), data(whole[:9]), data(whole[9:]))
    assert (response.artifact.digest, response.artifact.size_bytes) == (digest, len(whole))
    download = artifact_pb.DownloadArtifactRequest(tenant="default", digest=digest)
    assert b"".join([each.data async for each in api.artifacts.DownloadArtifact(download)]) == whole
    asked = artifact_pb.BatchGetArtifactsRequest(tenant="default", digests=[digest, "sha256:" + "0" * 64])
    (artifact,) = (await api.artifacts.BatchGetArtifacts(asked)).artifacts
    assert (artifact.reference, artifact.content_type) == (response.artifact, "text/plain")
    (after,) = await append(api, pb.AppendRequest(batch_id=2, shards=[part]))
    assert list(after.refusals) == []


@pytest.mark.parametrize(
    ("messages", "code", "path"),
    [
        ([], "INVALID_ARGUMENT", "header"),
        ([data(b"x")], "INVALID_ARGUMENT", "header"),
        ([header(), header()], "INVALID_ARGUMENT", "data"),
        ([header(tenant="../up")], "INVALID_ARGUMENT", "header.tenant"),
        ([header(digest="sha256:1")], "INVALID_ARGUMENT", "header.digest"),
        ([header(digest="sha256:" + "0" * 64), data(b"x")], "INVALID_ARGUMENT", "header.digest"),
        ([header(), *[data(b"x" * (1 << 20))] * 4], "RESOURCE_EXHAUSTED", None),
    ],
)
async def test_uploads_that_are_wrong_leave_nothing(
    api: Api, tmp_path: Path, messages: list[artifact_pb.UploadArtifactRequest], code: str, path: str | None
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await upload(api, *messages)
    error = from_rpc_error(caught.value)
    assert (error.code_name, [each.path for each in error.violations]) == (code, [path] if path else [])
    assert [each for each in (tmp_path / "artifacts").rglob("*") if each.is_file()] == []


async def test_an_artifact_without_an_entry_does_not_exist(api: Api) -> None:
    missing = artifact_pb.DownloadArtifactRequest(tenant="default", digest="sha256:" + "0" * 64)
    assert (await refused(api.artifacts.DownloadArtifact(missing))).reason == "ARTIFACT_NOT_FOUND"
    malformed = artifact_pb.BatchGetArtifactsRequest(tenant="default", digests=["x"])
    assert (await refused(api.artifacts.BatchGetArtifacts(malformed))).code_name == "INVALID_ARGUMENT"
