"""A service that is full, or does not answer in time: the call waits, says so, and is made again under the same key."""

import asyncio
from pathlib import Path

import pytest
from nodeflow.common.v1.payload_pb2 import Payload
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import EXECUTION_ID, FakeServices

import nodeflow_sdk.client
from nodeflow_sdk.client import open_client
from nodeflow_shared.errors import DeadlineExceeded, NodeflowError, Overloaded, Unavailable

DOCUMENT = WorkflowDocument(source=b"apiVersion: nodeflow/v1")
FULL = Overloaded("2 executions are open already", retry_after_s=0.05)
DISK_FULL = Unavailable("the database is full", reason="DISK_FULL", retry_after_s=0.05)


async def test_a_full_scheduler_is_waited_for_and_that_is_told_once(fakes: FakeServices) -> None:
    fakes.scheduler.submit_errors = [FULL, FULL, DISK_FULL]
    told: list[NodeflowError] = []
    async with open_client(fakes.address, on_wait=told.append) as client:
        assert (await client.submit(DOCUMENT)).execution_id == EXECUTION_ID
    assert [error.message for error in told] == [FULL.message]
    requests = fakes.scheduler.submitted
    assert len(requests) == 4
    assert len({request.request_id for request in requests}) == 1


async def test_patience_has_an_end(fakes: FakeServices) -> None:
    fakes.scheduler.submit_error = FULL
    async with open_client(fakes.address, patience_s=1) as client:
        await client.get(EXECUTION_ID)  # connecting takes its time where there is much to do
        with pytest.raises(Overloaded, match="open already"):
            await client.submit(DOCUMENT)
    assert len(fakes.scheduler.submitted) > 1


async def test_a_submission_without_an_answer_in_time_is_repeated_under_its_key(
    fakes: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodeflow_sdk.client, "CALL_TIMEOUT_S", 0.3)
    fakes.scheduler.silent_submissions = 2
    async with open_client(fakes.address) as client:
        await client.get(EXECUTION_ID)
        assert (await client.submit(DOCUMENT)).execution_id == EXECUTION_ID
    requests = fakes.scheduler.submitted
    assert len(requests) == 3
    assert len({request.request_id for request in requests}) == 1


async def test_a_service_that_never_answered_anything_is_reported_at_once(
    fakes: FakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodeflow_sdk.client, "CALL_TIMEOUT_S", 0.3)
    fakes.scheduler.silent_submissions = 1
    async with open_client(fakes.address) as client:
        with pytest.raises(DeadlineExceeded):
            await client.submit(DOCUMENT)


async def test_nobody_waits_for_a_stream_beyond_their_patience(fakes: FakeServices) -> None:
    fakes.scheduler.break_watch_after = [1, 0]
    fakes.scheduler.watch_error = Unavailable("the database is full", reason="DISK_FULL", retry_after_s=120)
    async with open_client(fakes.address, patience_s=60) as client, asyncio.timeout(30):
        with pytest.raises(Unavailable, match="database is full"):
            async for _ in client.watch(EXECUTION_ID):
                pass


async def test_large_values_are_sent_and_read_once_more_when_the_scheduler_is_restarted(
    fakes: FakeServices, tmp_path: Path
) -> None:
    file, data = tmp_path / "source.tar", b"a source of some length"
    file.write_bytes(data)
    async with open_client(fakes.address) as client:
        await client.get(EXECUTION_ID)
        fakes.scheduler.transfer_errors = [Unavailable("restarting"), FULL]
        stored = await client.upload_file(file, "application/x-tar")
        fakes.scheduler.transfer_errors = [Unavailable("restarting"), FULL]
        assert await client.read(Payload(artifact=stored)) == data
    assert fakes.scheduler.transfer_errors == []


async def test_a_file_that_cannot_be_read_is_no_interruption(fakes: FakeServices, tmp_path: Path) -> None:
    async with open_client(fakes.address) as client:
        with pytest.raises(FileNotFoundError):
            await client.upload_file(tmp_path / "missing.tar", "application/x-tar")


@pytest.mark.parametrize("error", [FULL, DISK_FULL])
async def test_the_command_line_says_why_it_waits(cli: Cli, fakes: FakeServices, error: NodeflowError) -> None:
    fakes.scheduler.submit_errors = [error]
    done = await cli("run", "workflow.yaml", "--detach")
    assert (done.code, done.out) == (0, f"{EXECUTION_ID}\n"), done.err
    assert f"waiting, and trying again: {error.message}" in done.err


async def test_a_disk_that_stays_full_is_told_as_what_it_is(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.submit_error = Unavailable("the database is full", reason="DISK_FULL", retry_after_s=120)
    done = await cli("run", "workflow.yaml", "--detach")
    assert done.code == 3
    assert "nothing can be stored now: the database is full" in done.err
    assert "make room on the disk" in done.err
