"""Agents that are killed, alone or together with their launchers: nothing that they had started runs on."""

import asyncio
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tests.unit.worker.process_lab import ProcessLab

from nodeflow_worker.adapters.leftovers import end_left
from nodeflow_worker.adapters.work_directories import WorkDirectories
from nodeflow_worker.domain.values import ProcessIdentity

AGENT = """\
import asyncio, sys
from pathlib import Path
from tests.unit.worker.process_lab import ProcessLab

async def main():
    async with ProcessLab(Path(sys.argv[1])) as lab:
        lab.assign(lab.attempt(script=sys.argv[2]))
        await lab.until(lambda: len(lab.printed().splitlines()) == 3)
        print(*lab.printed().split(), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
FAMILY = "echo $$; sleep 60 & echo $!; (setsid sh -c 'echo $$; exec sleep 61' &); sleep 60"
"""A process, its child, and one that left its session."""
NAMELESS = "exec env -i sh -c 'echo $$; sleep 60 & echo $!; echo 0; wait'"
"""Processes that do not say whose they are."""
WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent in a process of its own, and the processes that it has started."""

    process: subprocess.Popen[bytes]
    launcher: psutil.Process
    started: Sequence[psutil.Process]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def agent(directory: Path, script: str) -> Iterator[Agent]:
    """Run an agent with one process inside the block."""
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", AGENT, str(directory), script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root)
    assert process.stdout is not None
    with process.stdout:
        pids = [pid for pid in map(int, process.stdout.readline().split()) if pid]
    found = Agent(process, psutil.Process(pids[0]).parent() or psutil.Process(), [*map(psutil.Process, pids)])
    try:
        yield found
    finally:
        process.kill()
        process.wait()
        for each in (found.launcher, *found.started):
            if each.is_running():
                each.kill()


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that run; one that nobody has waited for yet does not."""
    return [each for each in processes if _runs(each)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def identity_of(process: psutil.Process) -> ProcessIdentity:
    fields = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
    return ProcessIdentity(pid=process.pid, start_ticks=int(fields[19]))


def test_nothing_outlives_an_agent_that_is_killed(tmp_path: Path) -> None:
    with agent(tmp_path, FAMILY) as killed:
        killed.kill()
        deadline = time.monotonic() + WAIT_S
        while alive(killed.started) or any((tmp_path / "state").iterdir()):
            assert time.monotonic() < deadline, alive(killed.started)
            os.sched_yield()


def test_what_outlives_agent_and_launcher_is_ended_by_the_next(tmp_path: Path) -> None:
    with agent(tmp_path, FAMILY) as killed:
        killed.launcher.suspend()
        killed.kill()
        killed.launcher.kill()
        assert len(alive(killed.started)) == 3
        end_left(tmp_path / "state", ())
        assert alive(killed.started) == []
        assert list((tmp_path / "state").iterdir()) == []


def test_what_says_nothing_of_itself_is_ended_as_the_group_that_was_noted(tmp_path: Path) -> None:
    with agent(tmp_path, NAMELESS) as killed:
        noted = identity_of(killed.started[0])
        killed.launcher.suspend()
        killed.kill()
        killed.launcher.kill()
        later = ProcessIdentity(pid=noted.pid, start_ticks=noted.start_ticks + 1)
        end_left(tmp_path / "state", [later])
        assert len(alive(killed.started)) == 2, "a process that only has the number is not ended"
        end_left(tmp_path / "state", [noted])
        assert alive(killed.started) == []


def test_a_launcher_that_is_slow_is_waited_for(tmp_path: Path) -> None:
    with agent(tmp_path, NAMELESS) as killed:
        killed.launcher.suspend()
        killed.kill()
        ending = threading.Thread(target=end_left, args=(tmp_path / "state", ()))
        ending.start()
        ending.join(0.3)
        assert ending.is_alive()
        assert len(alive(killed.started)) == 2
        killed.launcher.resume()
        ending.join(WAIT_S)
        assert not ending.is_alive()
        assert alive(killed.started) == []


async def test_a_launcher_begins_nothing_once_its_agent_is_dead(tmp_path: Path) -> None:
    async with ProcessLab(tmp_path, slots=30) as lab:
        assert await lab.outcome(["true"]) == b"null"
        link = lab.processes._link
        assert link is not None
        launcher = psutil.Process(link._popen.pid)
        launcher.suspend()
        lab.assign(*(lab.attempt(script=f"touch {tmp_path}/begun; sleep 60") for _ in range(30)))

        async def resume_once_we_are_gone() -> None:
            while not link._lost:  # noqa: ASYNC110  # set in the same step as the socket is closed
                await asyncio.sleep(0)
            launcher.resume()

        resuming = asyncio.ensure_future(resume_once_we_are_gone())
    await resuming
    assert not (tmp_path / "begun").exists()


async def test_what_other_workers_have_is_left_alone(tmp_path: Path) -> None:
    async with ProcessLab(tmp_path) as lab:
        lab.assign(lab.attempt(script="echo $$; sleep 60"))
        await lab.until(lambda: bool(lab.printed()))
        await asyncio.to_thread(end_left, tmp_path / "state", ())
        assert psutil.Process(int(lab.printed())).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("name", ["state", "never-made"])
def test_directories_without_a_worker_are_removed(tmp_path: Path, name: str) -> None:
    left = tmp_path / "state" / "processes-old"
    (left / "1" / "work").mkdir(parents=True)
    end_left(tmp_path / name, ())
    assert left.exists() == (name != "state")


async def test_directories_are_this_workers_alone(tmp_path: Path) -> None:
    one, two = WorkDirectories(tmp_path), WorkDirectories(tmp_path)
    assert one.path != two.path
    end_left(tmp_path, ())
    assert one.path.exists()
    await one.close()
    await two.close()
    assert not one.path.exists()


def test_a_directory_that_is_being_made_is_nobodys_leftover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers share a state directory, and the other one looks for leftovers at this very moment."""
    lock = fcntl.flock

    def flock_late(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:
            end_left(tmp_path, ())
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    directories = WorkDirectories(tmp_path)
    assert Path(directories.next()).is_dir()
    end_left(tmp_path, ())
    assert directories.path.is_dir()
