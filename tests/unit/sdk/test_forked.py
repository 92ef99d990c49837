"""A process that is forked from one that had talked to a suite: its loop and its connections stayed behind."""

import asyncio
import os
import sys
from pathlib import Path

from tests.unit.sdk.fake_services import FakeServices

SCRIPT = """\
import multiprocessing, os, sys
from nodeflow_sdk import load
flow = load("flow.yaml")
flow.register()

def register():
    try:
        flow.register()
    except Exception as error:
        sys.stdout.write(f"{type(error).__name__}: {error}")
        sys.stdout.flush()

child = multiprocessing.get_context("fork").Process(target=register)
child.start()
child.join(10)
sys.exit(child.exitcode if child.exitcode is not None else child.kill() or 99)
"""


async def test_it_is_told_so_and_does_not_hang(fakes: FakeServices, tmp_path: Path) -> None:
    (tmp_path / "flow.yaml").write_text("apiVersion: nodeflow/v1\nkind: Workflow\nname: flow\nnodes: {}\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT),
        cwd=tmp_path,
        env={**os.environ, "NODEFLOW_ADDRESS": fakes.address},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"SuiteError: this process was forked" in out
