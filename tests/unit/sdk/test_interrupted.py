"""A run that is interrupted before its submission is answered: what it may have started is cancelled as well."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import EXECUTION_ID, FakeServices

from nodeflow_sdk import load
from nodeflow_sdk.running import pending
from nodeflow_shared.errors import InvalidInput

SCRIPT = "from nodeflow_sdk import load; load('flow.yaml').run()"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    file = tmp_path / "flow.yaml"
    file.write_text("apiVersion: nodeflow/v1\nkind: Workflow\nname: flow\nnodes: {}\n")
    return file


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  # what is waited for happens in the fake's handlers
            await asyncio.sleep(0.005)


async def submitting(fakes: FakeServices, document: Path) -> "asyncio.Task[dict[str, object]]":
    """Return a run whose submission the scheduler has, and has not answered."""
    fakes.scheduler.submission_answer.clear()
    run = asyncio.ensure_future(load(document).arun(suite=fakes.address))
    await until(lambda: bool(fakes.scheduler.submitted))
    run.cancel()
    return run


async def test_a_run_that_is_cancelled_while_it_submits_cancels_its_execution(
    fakes: FakeServices, document: Path
) -> None:
    run = await submitting(fakes, document)
    done, _ = await asyncio.wait([run], timeout=0.05)
    assert not done  # it waits to be told what it has started
    fakes.scheduler.submission_answer.set()
    await asyncio.wait([run], timeout=20)
    assert run.cancelled()
    assert [(each.execution_id, each.reason) for each in fakes.scheduler.cancelled] == [(EXECUTION_ID, "interrupted")]
    assert len(fakes.scheduler.submitted) == 1


async def test_one_whose_submission_is_refused_then_has_nothing_to_cancel(fakes: FakeServices, document: Path) -> None:
    fakes.scheduler.submit_error = InvalidInput("no")
    run = await submitting(fakes, document)
    fakes.scheduler.submission_answer.set()
    await asyncio.wait([run], timeout=20)
    assert run.cancelled()
    assert fakes.scheduler.cancelled == []


async def test_one_that_gets_no_answer_says_so_and_ends(
    fakes: FakeServices, document: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pending, "ANSWER_TIMEOUT_S", 0.05)
    run = await submitting(fakes, document)
    await asyncio.wait([run], timeout=20)
    assert run.cancelled()
    assert "it may have been started" in caplog.text


async def test_ctrl_c_while_a_script_submits(fakes: FakeServices, document: Path) -> None:
    fakes.scheduler.submission_answer.clear()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT),
        cwd=document.parent,
        env={**os.environ, "NODEFLOW_ADDRESS": fakes.address},
        stderr=asyncio.subprocess.PIPE,
    )
    await until(lambda: bool(fakes.scheduler.submitted))
    process.send_signal(signal.SIGINT)
    fakes.scheduler.submission_answer.set()
    _, err = await process.communicate()
    assert b"KeyboardInterrupt" in err
    assert [each.execution_id for each in fakes.scheduler.cancelled] == [EXECUTION_ID]


async def test_ctrl_c_while_the_command_line_submits(fakes: FakeServices, cli: Cli) -> None:
    fakes.scheduler.submission_answer.clear()
    process = await cli.start("run", "workflow.yaml")
    await until(lambda: bool(fakes.scheduler.submitted))
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert await process.stderr.readline() == b"interrupted: what was being submitted is cancelled\n"
    fakes.scheduler.submission_answer.set()
    await process.communicate()
    assert process.returncode == 130
    assert [each.execution_id for each in fakes.scheduler.cancelled] == [EXECUTION_ID]
