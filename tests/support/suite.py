"""A real suite for tests: `nodeflow up` as a process in a directory of its own, on free ports.

Owns its start, its end, and what is told when a test fails. Must not know what a test does with it.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.small_disk import SmallDisk

from nodeflow_sdk.suite.record import DATA_DIR_NAME, SuiteRecord, read_record

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 45.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


class Suite:
    """A running `nodeflow up`. Addresses hold for its life, process ids change with each restart."""

    def __init__(self, directory: Path, data_dir: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.data_dir = data_dir
        self.process = process

    @property
    def record(self) -> SuiteRecord:
        """What suite.json says now."""
        record = read_record(self.data_dir)
        assert record is not None, "the suite is not running"
        return record

    def address(self, service: str = "scheduler") -> str:
        """Return host:port of a service."""
        return self.record.addresses[service]

    def pid(self, service: str) -> int:
        """Return the process id of a service's present life."""
        return self.record.pids[service]

    def kill(self, service: str) -> int:
        """Kill a service with SIGKILL; returns the process id that it had."""
        pid = self.pid(service)
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self) -> int:
        """Stop the suite as Ctrl-C does; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_TIMEOUT_S)

    async def cli(self, *arguments: str) -> Finished:
        """Run a `nodeflow` command in the suite's directory."""
        return await run_cli(self.directory, *arguments)

    def logs(self) -> str:
        """Return all that the suite has written, for a failure's report."""
        files = [self.directory / "up.log", *sorted((self.data_dir / "logs").glob("*.log"))]
        return "\n".join(
            f"== {file.name}\n{file.read_text(errors='replace')[-8000:]}" for file in files if file.exists()
        )


async def run_cli(directory: Path, *arguments: str) -> Finished:
    """Run a `nodeflow` command in a directory, to its end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NODEFLOW_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nodeflow_sdk.cli", *arguments),
        cwd=directory,
        env={**environment, "NO_COLOR": "1", "XDG_CONFIG_HOME": str(directory / ".config")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Finished(code=process.returncode or 0, out=out.decode(), err=err.decode())


@contextmanager
def running(
    directory: Path, *options: str, disk: SmallDisk | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Suite]:
    """Run a suite in a directory; stops it at the end whatever happens, and prints its logs if the block fails.

    Its data may be on a small disk, which is at `.nodeflow` in that directory.
    """
    command: Sequence[str] = (sys.executable, "-m", "nodeflow_sdk.cli", "up", "--port", "0", *options)
    if disk is not None:
        command = disk.command(directory, *command)
    with (directory / "up.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, stderr=log, stdout=log, env={**os.environ, **(environment or {})}
        )
    suite = Suite(directory, disk.directory if disk is not None else directory / DATA_DIR_NAME, process)
    try:
        _wait_until_ready(suite)
        yield suite
    except BaseException:
        sys.stderr.write(suite.logs())
        raise
    finally:
        _end(suite)


@contextmanager
def beside(suite: Suite, name: str, command: list[str], settings: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a process beside the suite inside the block; it must end well when it is asked to."""
    environment = {**os.environ, **(settings or {})}
    with (suite.directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=suite.directory, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        finally:
            process.kill()
        assert process.returncode == 0


def _wait_until_ready(suite: Suite) -> None:
    """Return when suite.json is there, which `up` writes once all is healthy; a killed `up` leaves its own behind."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while (record := read_record(suite.data_dir)) is None or record.pid != suite.process.pid:
        assert suite.process.poll() is None, f"the suite ended at its start: {suite.process.returncode}"
        assert time.monotonic() < deadline, "the suite is not ready in time"
        time.sleep(_POLL_S)


def _end(suite: Suite) -> None:
    try:
        suite.stop()
    except subprocess.TimeoutExpired:
        # Its children notice that within half a second, and end too.
        suite.process.kill()
        suite.process.wait()
