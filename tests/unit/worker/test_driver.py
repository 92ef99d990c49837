"""The worker on a real stream, against a worker-manager that the test plays. Runners are virtual, times short."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import grpc
import pytest
from nodeflow.common.v1 import payload_pb2
from nodeflow.worker_manager.v1 import attempt_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as wm
from tests.unit.worker.making import process_attempt
from tests.unit.worker.manager_double import ManagerDouble, Stream

from nodeflow_shared.errors import StartupError
from nodeflow_testing.memory_journal import Kept, MemoryJournal
from nodeflow_testing.memory_sessions import MemorySessions
from nodeflow_testing.virtual_runners import Raised, Scripted, Value, VirtualRunners
from nodeflow_worker.adapters import worker_manager
from nodeflow_worker.adapters.session_locks import SessionLocks
from nodeflow_worker.bootstrap import WorkerService, build
from nodeflow_worker.config import Settings
from nodeflow_worker.domain.values import Attempt

LARGE = "x" * 100_000


def echo(arguments: dict[str, object], attempt: int) -> tuple[float, Scripted]:
    return 0.0, Value([arguments, attempt])


def hang(arguments: dict[str, object], attempt: int) -> tuple[float, Scripted]:
    return float("inf"), Value(None)


def fail(arguments: dict[str, object], attempt: int) -> tuple[float, Scripted]:
    return 0.0, Raised("ValueError", "bad")


def large(arguments: dict[str, object], attempt: int) -> tuple[float, Scripted]:
    return 0.0, Value(LARGE)


FUNCTIONS = {"echo": echo, "hang": hang, "fail": fail, "large": large}


class Worker:
    """A worker in this process, its runners, and the worker-manager that it talks to."""

    def __init__(
        self, manager: ManagerDouble, predecessors: tuple[str, ...] = (), left: Sequence[Attempt] = ()
    ) -> None:
        self.manager = manager
        self.runners = VirtualRunners(FUNCTIONS, start_s=0.0)
        self.sessions = MemorySessions(predecessors=predecessors)
        self.kept = Kept(sessions={each: {one.key: one for one in left} for each in predecessors})
        self.service: WorkerService | None = None
        self.running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        settings = Settings(worker_manager=self.manager.address, worker_id="w", slots=2, labels={"zone": "a"})
        self.service = await build(
            settings, runners=self.runners, sessions=self.sessions, journal=MemoryJournal(self.kept)
        )
        self.running = asyncio.ensure_future(self.service.run())

    async def stop(self) -> None:
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
        if self.service is not None:
            await self.service.close()

    async def welcomed(self, lease_s: float = 10.0, interval_s: float = 2.0) -> Stream:
        """Let the worker connect, and return its stream after the first `held`."""
        stream = await self.manager.stream()
        await stream.next("hello")
        stream.welcome(lease_s, interval_s)
        await stream.next("held")
        return stream


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    manager = ManagerDouble()
    await manager.start()
    worker = Worker(manager, predecessors=("dead-1",))
    await worker.start()
    yield worker
    await worker.stop()
    await manager.stop()


def assignment(task: int = 1, attempt: int = 1, arguments: bytes = b"{}", **more: object) -> attempt_pb2.Assignment:
    return attempt_pb2.Assignment(
        execution_id="e",
        task_number=task,
        attempt_number=attempt,
        shard=3,
        fencing_token=7,
        arguments=arguments,
        **more,  # type: ignore[arg-type]  # fields of the message, by name
    )


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # what is waited for happens in code that has no event for tests
            await asyncio.sleep(0.005)


async def test_the_first_messages(worker: Worker) -> None:
    stream = await worker.manager.stream()
    hello = await stream.next("hello")
    assert (hello.worker_id, hello.capacity.slots, dict(hello.labels)) == ("w", 2, {"zone": "a"})
    assert list(hello.replaced_session_ids) == ["dead-1"]
    assert worker.service is not None
    assert not worker.service.ready.is_set()
    stream.welcome()
    assert await stream.next("held") == wm.HeldAttempts()
    await until(lambda: len(stream.heartbeats) == 1)
    assert stream.heartbeats[0].beat == 1
    assert worker.service.ready.is_set()
    assert worker.sessions.dead() == []


async def test_a_task_from_assignment_to_acknowledgement(worker: Worker) -> None:
    stream = await worker.welcomed()
    stream.assign("echo", assignment(arguments=b'{"a": 1}'))
    [result] = (await stream.next("updates")).results
    assert (result.execution_id, result.task_number, result.attempt_number) == ("e", 1, 1)
    assert (result.shard, result.fencing_token, result.result_id) == (3, 7, 1)
    assert result.output == payload_pb2.Payload(data=b'[{"a":1},1]')
    stream.say(wm.ConnectResponse(report_held=wm.ReportHeld()))
    assert list((await stream.next("held")).unacknowledged) == [result]
    stream.acknowledge(1)
    stream.say(wm.ConnectResponse(report_held=wm.ReportHeld()))
    assert await stream.next("held") == wm.HeldAttempts()


async def test_a_failure(worker: Worker) -> None:
    stream = await worker.welcomed()
    stream.assign("fail", assignment())
    [result] = (await stream.next("updates")).results
    assert (result.failure.error_type, result.failure.message, result.failure.retryable) == ("ValueError", "bad", True)


async def test_started_and_cancelled(worker: Worker) -> None:
    stream = await worker.welcomed()
    stream.assign("hang", assignment())
    [started] = (await stream.next("updates")).started
    assert (started.execution_id, started.task_number, started.shard, started.fencing_token) == ("e", 1, 3, 7)
    stream.say(wm.ConnectResponse(cancellation=wm.Cancellation(attempts=[started])))
    [result] = (await stream.next("updates")).results
    assert result.cancelled


async def test_a_stale_token_is_refused(worker: Worker) -> None:
    stream = await worker.welcomed()
    stream.assign("echo", assignment(1))
    await stream.next("updates")
    stale = assignment(2)
    stale.fencing_token = 6
    stream.assign("echo", stale)
    [refused] = (await stream.next("updates")).refused
    assert (refused.task_number, refused.fencing_token) == (2, 6)


async def test_after_a_break_the_same_session_tells_what_it_holds(worker: Worker) -> None:
    stream = await worker.manager.stream()
    session = (await stream.next("hello")).session_id
    stream.welcome()
    await stream.next("held")
    stream.assign("echo", assignment(1))
    [result] = (await stream.next("updates")).results
    stream.assign("hang", assignment(2))
    await stream.next("updates")
    stream.end(grpc.StatusCode.UNAVAILABLE)
    again = await worker.manager.stream()
    assert (await again.next("hello")).session_id == session
    again.welcome()
    held = await again.next("held")
    assert [each.task_number for each in held.live] == [2]
    assert list(held.unacknowledged) == [result]


async def test_a_refused_session_is_replaced_by_a_clean_one(worker: Worker) -> None:
    stream = await worker.manager.stream()
    session = (await stream.next("hello")).session_id
    stream.welcome()
    await stream.next("held")
    stream.assign("hang", assignment(1))
    await stream.next("updates")
    stream.end(grpc.StatusCode.FAILED_PRECONDITION)
    again = await worker.manager.stream()
    hello = await again.next("hello")
    assert hello.session_id != session
    assert list(hello.replaced_session_ids) == [session]
    again.welcome()
    assert await again.next("held") == wm.HeldAttempts()


async def test_before_the_lease_ends_running_work_is_stopped(worker: Worker) -> None:
    stream = await worker.welcomed(lease_s=0.6, interval_s=0.1)
    stream.assign("hang", assignment(1))
    await stream.next("updates")
    before = list(worker.runners.alive)
    stream.answers_heartbeats = False
    beats = len(stream.heartbeats)
    await until(lambda: worker.runners.alive != before)
    assert len(stream.heartbeats) > beats
    again = await worker.manager.stream()
    await again.next("hello")
    again.welcome()
    assert await again.next("held") == wm.HeldAttempts()


async def test_answered_heartbeats_keep_the_lease(worker: Worker) -> None:
    stream = await worker.welcomed(lease_s=0.4, interval_s=0.1)
    stream.assign("hang", assignment(1))
    await stream.next("updates")
    before = list(worker.runners.alive)
    await until(lambda: len(stream.heartbeats) >= 10)
    assert worker.runners.alive == before


async def test_a_large_result_becomes_an_artifact(worker: Worker) -> None:
    stream = await worker.welcomed()
    worker.manager.upload_failures = 1
    stream.assign("large", assignment())
    [result] = (await stream.next("updates")).results
    digest = result.output.artifact.digest
    assert result.output.artifact.size_bytes == len(LARGE) + 2
    assert worker.manager.artifacts["acme", digest] == json.dumps(LARGE).encode()


async def test_an_upload_whose_source_fails_is_tried_again(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = worker_manager._requests
    failed: list[wm.UploadArtifactRequest] = []

    async def fails_once(header: wm.UploadHeader, source: BinaryIO) -> AsyncIterator[wm.UploadArtifactRequest]:
        async for each in requests(header, source):
            yield each
            if not failed:
                failed.append(each)
                raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(worker_manager, "_requests", fails_once)
    stream = await worker.welcomed()
    stream.assign("large", assignment())
    [result] = (await stream.next("updates")).results
    assert worker.manager.artifacts["acme", result.output.artifact.digest] == json.dumps(LARGE).encode()


async def test_arguments_by_reference(worker: Worker) -> None:
    stream = await worker.welcomed()
    worker.manager.artifacts["acme", "sha256:1"] = b'[{"value": 1}, {"artifact": {"digest": "sha256:2"}}]'
    worker.manager.artifacts["acme", "sha256:2"] = b'"two"'
    payload = payload_pb2.Payload(
        artifact=payload_pb2.ArtifactReference(digest="sha256:1", size_bytes=9),
        content_type="application/vnd.nodeflow.manifest+json",
    )
    reference = attempt_pb2.ArgumentReference(parameter="items", payload=payload)
    stream.assign("echo", assignment(references=[reference]))
    [result] = (await stream.next("updates")).results
    assert result.output.data == b'[{"items":[1,"two"]},1]'


async def test_a_missing_argument_fails_the_attempt(worker: Worker) -> None:
    stream = await worker.welcomed()
    payload = payload_pb2.Payload(artifact=payload_pb2.ArtifactReference(digest="sha256:9"))
    reference = attempt_pb2.ArgumentReference(parameter="items", payload=payload)
    stream.assign("echo", assignment(references=[reference]))
    [result] = (await stream.next("updates")).results
    assert (result.failure.reason, result.failure.retryable) == ("ARGUMENT_UNAVAILABLE", False)
    assert "'items'" in result.failure.message


async def test_a_stream_that_is_over_leaves_no_task_behind(worker: Worker) -> None:
    for _ in range(3):
        stream = await worker.manager.stream()
        await stream.next("hello")
        stream.end(grpc.StatusCode.UNAVAILABLE)
    await (await worker.manager.stream()).next("hello")

    def readers() -> int:
        return sum("_consume_request_iterator" in repr(each.get_coro()) for each in asyncio.all_tasks())

    # This stream's, and that of output. The one before ends a few turns of the loop later than its stream.
    await until(lambda: readers() == 2)


async def test_a_drain_finishes_what_is_held_and_leaves(worker: Worker) -> None:
    stream = await worker.welcomed()
    stream.assign("hang", assignment(1))
    [started] = (await stream.next("updates")).started
    stream.say(wm.ConnectResponse(drain=wm.Drain()))
    await until(lambda: any(beat.draining for beat in stream.heartbeats))
    stream.assign("echo", assignment(2))
    assert [each.task_number for each in (await stream.next("updates")).refused] == [2]
    stream.say(wm.ConnectResponse(cancellation=wm.Cancellation(attempts=[started])))
    [result] = (await stream.next("updates")).results
    stream.acknowledge(result.result_id)
    await stream.next("goodbye")
    assert worker.running is not None
    async with asyncio.timeout(5):
        await worker.running
    assert len(worker.sessions.ended) == 1


async def test_a_drain_before_the_first_hello_waits_for_results_that_are_taken_over() -> None:
    manager = ManagerDouble()
    await manager.start()
    left = process_attempt(4)
    left.outcome = b"1"
    worker = Worker(manager, predecessors=("dead-1",), left=[left])
    await worker.start()
    assert worker.service is not None
    await worker.service.drain()  # the core holds nothing yet, and would leave
    try:
        stream = await manager.stream()
        await stream.next("hello")
        stream.welcome(interval_s=0.05)
        [result] = (await stream.next("held")).unacknowledged
        await until(lambda: len(stream.heartbeats) == 2)
        stream.acknowledge(result.result_id)
        await stream.next("goodbye")
    finally:
        await worker.stop()
        await manager.stop()


async def test_a_dead_session_is_forgotten_once_its_journal_is_gone(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[Callable[[], None]] = []
    monkeypatch.setattr(MemoryJournal, "drop", lambda _self, _session_ids, then: gone.append(then))
    await worker.welcomed()
    assert worker.sessions.dead() == ["dead-1"]
    gone.pop()()
    assert worker.sessions.dead() == []


async def test_results_wait_for_one_message_when_the_writer_is_busy(worker: Worker) -> None:
    stream = await worker.welcomed()
    stream.assign("echo", *[assignment(task) for task in range(4)])
    seen: list[int] = []
    while len(seen) < 4:
        seen += [each.task_number for each in (await stream.next("updates")).results]
    assert sorted(seen) == [0, 1, 2, 3]


async def test_a_worker_that_is_not_accepted_ends_with_a_clear_error(worker: Worker) -> None:
    stream = await worker.manager.stream()
    await stream.next("hello")
    stream.end(grpc.StatusCode.INVALID_ARGUMENT)
    assert worker.running is not None
    with pytest.raises(ExceptionGroup) as caught:
        await worker.running
    assert caught.group_contains(StartupError, match="refuses this worker: the test ends the stream")


def test_session_locks(tmp_path: Path) -> None:
    from_one = SessionLocks(tmp_path / "w")
    from_two = SessionLocks(tmp_path / "w")
    one, two = from_one.begin(), from_two.begin()
    assert list(from_one.dead()) == []
    assert list(from_two.dead()) == []
    from_one.close()
    assert list(from_two.dead()) == [one]
    assert list(SessionLocks(tmp_path / "w").dead()) == []  # another successor has it
    from_two.forget([one])
    assert list(from_two.dead()) == []
    assert from_two.begin() != two
    assert list(from_two.dead()) == [two]
    from_two.end()
    from_two.close()
    assert list(SessionLocks(tmp_path / "w").dead()) == [two]
