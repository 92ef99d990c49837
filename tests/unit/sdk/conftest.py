"""The fakes, and the command line as a process of its own: so that exit codes and streams are the real ones."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.sdk.fake_services import FakeServices, serving

from nodeflow_sdk.suite.record import DATA_DIR_NAME, SuiteRecord, write_record

DOCUMENT = """\
apiVersion: nodeflow/v1
kind: Workflow
name: word-count
nodes:
  count:
    functon: word_count:count
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


class Cli:
    """Runs `nodeflow` in a directory of its own."""

    def __init__(self, directory: Path, address: str) -> None:
        self.directory = directory
        self.document = directory / "workflow.yaml"
        self.document.write_text(DOCUMENT)
        self.environment = {**os.environ, "NODEFLOW_ADDRESS": address, "NO_COLOR": "1", "TZ": "UTC"}
        self.environment["XDG_CONFIG_HOME"] = str(directory / "config")

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start a command."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "nodeflow_sdk.cli",
            *arguments,
            cwd=self.directory,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str) -> Finished:
        """Run a command to its end."""
        process = await self.start(*arguments)
        out, err = await process.communicate()
        assert b'Traceback (most recent call last):\n  File "/' not in err, err.decode()
        return Finished(code=process.returncode or 0, out=out.decode(), err=err.decode())


@pytest.fixture
async def fakes() -> AsyncIterator[FakeServices]:
    async with serving() as services:
        yield services


@pytest.fixture
def cli(fakes: FakeServices, tmp_path: Path) -> Cli:
    return Cli(tmp_path, fakes.address)


@pytest.fixture
def suite_here(fakes: FakeServices, cli: Cli) -> None:
    """Writes a suite.json that names the fakes, as a suite that runs in the command's directory does."""
    data_dir = cli.directory / DATA_DIR_NAME
    data_dir.mkdir()
    del cli.environment["NODEFLOW_ADDRESS"]
    addresses = {"scheduler": fakes.address, "worker-manager": fakes.address}
    record = SuiteRecord(pid=os.getpid(), start_time="", lasting=True, addresses=addresses, pids={})
    write_record(data_dir, record)
    assert json.loads((data_dir / "suite.json").read_text())["addresses"] == addresses
