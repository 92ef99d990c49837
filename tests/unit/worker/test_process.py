"""The worker as a process of its own, with real runners, against a worker-manager that the test plays."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nodeflow.worker_manager.v1 import attempt_pb2
from tests.unit.worker.manager_double import ManagerDouble, Stream


class Process:
    """A worker process."""

    def __init__(self, directory: Path, manager: ManagerDouble) -> None:
        self.directory = directory
        self.announce = directory / "address"
        self._environment = {
            **os.environ,
            "NODEFLOW_WORKER_WORKER_MANAGER": manager.address,
            # Several at a time, and beside whatever runs on this machine.
            "NODEFLOW_WORKER_BIND": "127.0.0.1:0",
            "NODEFLOW_WORKER_WORKER_ID": "w",
            "NODEFLOW_WORKER_SLOTS": "2",
            "NODEFLOW_WORKER_STATE_DIR": str(directory / "state"),
            "NODEFLOW_WORKER_PATH": str(directory),
            "NODEFLOW_WORKER_ANNOUNCE_FILE": str(self.announce),
        }

    async def start(self, **settings: str) -> asyncio.subprocess.Process:
        more = {f"NODEFLOW_WORKER_{name.upper()}": value for name, value in settings.items()}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "nodeflow_worker", env=self._environment | more, stderr=asyncio.subprocess.PIPE
        )


@pytest.fixture
async def manager() -> AsyncIterator[ManagerDouble]:
    manager = ManagerDouble()
    await manager.start()
    yield manager
    await manager.stop()


async def welcomed(manager: ManagerDouble) -> tuple[Stream, str, list[str]]:
    stream = await manager.stream()
    hello = await stream.next("hello")
    stream.welcome()
    await stream.next("held")
    return stream, hello.session_id, list(hello.replaced_session_ids)


async def end_of(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(15):
        _, errors = await process.communicate()
    return process.returncode, errors.decode()


async def test_a_worker_executes_serves_health_and_leaves_on_sigterm(tmp_path: Path, manager: ManagerDouble) -> None:
    (tmp_path / "fns.py").write_text("def double(n):\n    return 2 * n\n")
    worker = Process(tmp_path, manager)
    process = await worker.start()
    stream, _, _ = await welcomed(manager)
    stream.assign(
        "fns:double",
        attempt_pb2.Assignment(execution_id="e", task_number=1, attempt_number=1, arguments=b'{"n": 21}'),
    )
    results: list[attempt_pb2.AttemptResult] = []
    while not results:  # that it started may be told before: the first task imports its module
        results += (await stream.next("updates")).results
    [result] = results
    assert result.output.data == b"42"
    async with grpc.aio.insecure_channel(worker.announce.read_text()) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        reply = await health.Check(request, timeout=5)  # type: ignore[attr-defined]  # the stubs package lacks it
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    children = psutil.Process(process.pid).children()
    assert len(children) == 3  # the runners, and the launcher, which guards them
    process.send_signal(signal.SIGTERM)
    stream.acknowledge(result.result_id)
    await stream.next("goodbye")
    code, errors = await end_of(process)
    assert code == 0, errors
    assert not [each for each in children if each.is_running()]
    assert list((tmp_path / "state" / "w").iterdir()) == []


async def test_a_successor_names_the_session_of_a_killed_worker(tmp_path: Path, manager: ManagerDouble) -> None:
    worker = Process(tmp_path, manager)
    first = await worker.start()
    _, session, _ = await welcomed(manager)
    second = await worker.start()
    _, beside, replaced = await welcomed(manager)
    assert replaced == []
    first.kill()
    await end_of(first)
    third = await worker.start()
    stream, _, replaced = await welcomed(manager)
    assert replaced == [session]
    second.kill()
    await end_of(second)
    third.terminate()
    await stream.next("goodbye")
    assert (await end_of(third))[0] == 0
    assert [each.name for each in (tmp_path / "state" / "w").iterdir()] == [f"session-{beside}.lock"]


SPEAK = """\
import os, time

def speak(file):
    with open(file, "w") as opened:
        print(os.getpid(), file=opened, flush=True)
        time.sleep(60)
"""


async def test_a_worker_that_stands_still_past_its_lease_executes_nothing(
    tmp_path: Path, manager: ManagerDouble
) -> None:
    (tmp_path / "fns.py").write_text(SPEAK)
    process = await Process(tmp_path, manager).start()
    stream = await manager.stream()
    await stream.next("hello")
    stream.welcome(lease_s=1.0, interval_s=0.3)
    await stream.next("held")
    files = [tmp_path / "function", tmp_path / "process"]
    arguments = json.dumps({"file": str(files[0])}).encode()
    assignment = attempt_pb2.Assignment(execution_id="e", task_number=1, attempt_number=1, arguments=arguments)
    stream.assign("fns:speak", assignment)
    assignment = attempt_pb2.Assignment(execution_id="e", task_number=2, attempt_number=1, arguments=b"{}")
    stream.assign_script(f"echo $$ > {files[1]}; sleep 60; sleep 60", assignment)
    await until(lambda: all(each.exists() and each.read_text() for each in files))
    executing = [psutil.Process(int(each.read_text())) for each in files]
    process.send_signal(signal.SIGSTOP)
    await until(lambda: not any(map(runs, executing)))
    process.send_signal(signal.SIGCONT)
    # Their deaths are no failures of theirs: the session tells that it has nothing any more, or is over.
    again = await manager.stream()
    await again.next("hello")
    again.welcome()
    held = await again.next("held")
    assert (list(held.live), list(held.unacknowledged)) == ([], [])
    process.terminate()
    await again.next("goodbye")
    assert (await end_of(process))[0] == 0


async def test_a_successor_ends_what_a_launcher_that_stands_still_could_not(
    tmp_path: Path, manager: ManagerDouble
) -> None:
    worker = Process(tmp_path, manager)
    first = await worker.start()
    stream, session, _ = await welcomed(manager)
    file = tmp_path / "process"
    assignment = attempt_pb2.Assignment(execution_id="e", task_number=1, attempt_number=1, arguments=b"{}")
    stream.assign_script(f"echo $$ > {file}; sleep 60; sleep 60", assignment)
    await until(lambda: file.exists() and bool(file.read_text()))
    executing = psutil.Process(int(file.read_text()))
    launcher = executing.parent()
    assert launcher is not None
    launcher.suspend()
    agent = psutil.Process(first.pid)
    first.kill()
    await until(lambda: not runs(agent))
    second = await worker.start()
    stream, _, replaced = await welcomed(manager)
    await end_of(first)
    assert replaced == [session]
    assert not any(map(runs, [executing, launcher]))
    second.terminate()
    await stream.next("goodbye")
    assert (await end_of(second))[0] == 0
    assert list((tmp_path / "state" / "w").iterdir()) == []


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(15):
        # No event tells of files and processes of others.
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def runs(process: psutil.Process) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("slots", "0", "NODEFLOW_WORKER_SLOTS is '0'"),
        ("worker_id", "a b", "NODEFLOW_WORKER_WORKER_ID is 'a b'"),
        ("state_dir", "/proc/none", "set NODEFLOW_WORKER_STATE_DIR to a directory that this user can write"),
    ],
)
async def test_wrong_settings_are_named(
    tmp_path: Path, manager: ManagerDouble, setting: str, value: str, words: str
) -> None:
    process = await Process(tmp_path, manager).start(**{setting: value})
    code, errors = await end_of(process)
    assert code == 2
    assert words in errors
    assert "Traceback" not in errors
