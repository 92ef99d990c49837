"""Sources of pipelines on the virtual suite: stored by callers, and looked for before anything starts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from hashlib import sha256

import grpc.aio
import pytest
from nodeflow.common.v1 import lifecycle_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.simulation.scenarios import simulate
from tests.support.virtual_client import VirtualClient

from nodeflow_testing.virtual_suite import VirtualSuite

DATA = b"a packed source" * 1_000
DIGEST = f"sha256:{sha256(DATA).hexdigest()}"


def document() -> WorkflowDocument:
    stages = [{"name": "s", "jobs": [{"name": "a", "run": "make", "when": False}]}]
    source = {"apiVersion": "nodeflow/v1", "kind": "Pipeline", "name": "p", "source": {"path": "src"}, "stages": stages}
    return WorkflowDocument(source=json.dumps(source).encode(), content_type="application/json")


async def requests(*data: bytes, digest: str = "") -> AsyncIterator[pb.UploadArtifactRequest]:
    yield pb.UploadArtifactRequest(header=pb.UploadHeader(digest=digest, content_type="application/x-tar"))
    for each in data:
        yield pb.UploadArtifactRequest(data=each)


async def submitted(client: VirtualClient, digest: str) -> pb.SubmitExecutionResponse:
    request = pb.SubmitExecutionRequest(workflow=pb.WorkflowReference(document=document()))
    request.inputs.data = json.dumps({"source": {"digest": digest}}).encode()
    return await client.stub.SubmitExecution(request, timeout=30)


def test_a_source_is_stored_and_then_a_pipeline_begins_with_it() -> None:
    async def scenario(_suite: VirtualSuite, client: VirtualClient) -> None:
        verdict = await client.stub.ValidateWorkflow(pb.ValidateWorkflowRequest(document=document()), timeout=30)
        assert (verdict.workflow.source_path, verdict.workflow.nodes[0].stage) == ("src", "s")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await submitted(client, DIGEST)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "the source of the pipeline is not stored" in (caught.value.details() or "")
        stored = await client.stub.UploadArtifact(requests(DATA[:100], DATA[100:]), timeout=30)
        assert (stored.artifact.digest, stored.artifact.size_bytes) == (DIGEST, len(DATA))
        execution = (await submitted(client, DIGEST)).execution
        assert json.loads(execution.inputs.data) == {"source": {"digest": DIGEST}}
        download = client.stub.DownloadArtifact(pb.DownloadArtifactRequest(digest=DIGEST), timeout=30)
        assert b"".join([response.data async for response in download]) == DATA
        assert (await client.finished(execution.execution_id)).state == lifecycle_pb2.EXECUTION_STATE_COMPLETED

    simulate({}, scenario)


def test_an_upload_that_does_not_fit_its_digest_or_has_no_header_or_two_is_refused() -> None:
    async def scenario(_suite: VirtualSuite, client: VirtualClient) -> None:
        async def headless() -> AsyncIterator[pb.UploadArtifactRequest]:
            yield pb.UploadArtifactRequest(data=DATA)

        async def twice_headed() -> AsyncIterator[pb.UploadArtifactRequest]:
            for _ in range(2):
                yield pb.UploadArtifactRequest(header=pb.UploadHeader(content_type="text/plain"))

        for wrong in (requests(DATA, digest="sha256:" + "0" * 64), headless(), twice_headed()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.stub.UploadArtifact(wrong, timeout=30)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    simulate({}, scenario)
