"""A suite without workers, and scripts elsewhere that serve their own functions."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.suite import Finished, Suite, running

SCRIPT = """\
import sys
from helper import factor
from nodeflow_sdk import node, serve, serving, workflow

@node
def scaled(n: int) -> int:
    return factor * n

@workflow
def scaling(n: int) -> int:
    return scaled(n)

if __name__ == "__main__":
    suite, worker_manager, how = sys.argv[1:]
    if how == "serve":
        serve(scaling, suite=suite, worker_manager=worker_manager, slots=1)
    else:
        with serving(scaling, suite=suite, worker_manager=worker_manager, slots=1) as worker:
            print(worker.rpartition("-serve-")[2], scaling.run(n=4, suite=suite))
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with running(tmp_path_factory.mktemp("suite"), "--slots", "0") as suite:
        yield suite


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("factor = 3\n")
    (tmp_path / "served.py").write_text(SCRIPT)
    return tmp_path


async def started(project: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "served.py", *arguments),
        cwd=project,
        env={key: value for key, value in os.environ.items() if not key.startswith("NODEFLOW_")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finished(process: asyncio.subprocess.Process) -> Finished:
    out, err = await process.communicate()
    return Finished(code=process.returncode or 0, out=out.decode(), err=err.decode())


async def test_a_script_serves_its_own_run(suite: Suite, project: Path) -> None:
    done = await finished(await started(project, suite.address(), suite.address("worker-manager"), "run"))
    assert (done.code, done.out) == (0, "1 12\n"), done.err
    assert "CONNECTED" not in (await suite.cli("workers")).out, "it has left"


async def test_a_script_serves_others_until_it_is_stopped(suite: Suite, project: Path) -> None:
    process = await started(project, suite.address(), suite.address("worker-manager"), "serve")
    assert process.stderr is not None
    said = (await process.stderr.readline()).decode()
    assert said.startswith("serving scaling as worker "), said
    execution = (await suite.cli("submit", "scaling", "--input", "n=5")).out.strip()
    ended = await suite.cli("wait", execution)
    assert '"result": 15' in ended.out, ended.err
    process.send_signal(signal.SIGINT)
    done = await finished(process)
    assert (done.code, done.err) == (0, "stopping: what runs is finished first\n")


async def test_nobody_at_the_worker_managers_address_is_told(suite: Suite, project: Path) -> None:
    done = await finished(await started(project, suite.address(), "127.0.0.1:1", "run"))
    assert done.code == 1
    assert "127.0.0.1:1" in done.err
    assert "lone_worker.py" not in done.err
