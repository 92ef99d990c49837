"""kill -9 of the worker around the end of a process: what had ended is not done again, what had not is, at once."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.chaos.report_run import history_of
from tests.support.suite import Suite, running

from nodeflow_sdk.audit.checkers import check
from nodeflow_sdk.client import Client, open_client

DOCUMENT = """\
apiVersion: nodeflow/v1
kind: Workflow
name: once
nodes:
  only:
    process:
      script: 'echo $$ >> {begun}; while [ ! -e {gate} ]; do sleep 0.02; done; echo x=done > $NODEFLOW_OUTPUT'
outputs: {{only: "${{nodes.only.output}}"}}
"""
WAIT_S = 20.0


async def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds: no event tells of files and processes of others."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class Once:
    """One execution of one process: `begun` has its pid for each time, and it ends once `gate` is there."""

    def __init__(self, suite: Suite, client: Client) -> None:
        self._suite = suite
        self._client = client
        self._begun = suite.directory / "begun"
        self.gate = suite.directory / "gate"
        self._execution_id = ""

    def pids(self) -> list[int]:
        return [int(each) for each in self._begun.read_text().split()] if self._begun.exists() else []

    async def begin(self) -> None:
        source = DOCUMENT.format(begun=self._begun, gate=self.gate).encode()
        execution = await self._client.submit(WorkflowDocument(source=source, content_type="application/yaml"))
        self._execution_id = execution.execution_id
        await until(lambda: len(self.pids()) == 1)

    async def kill_worker(self) -> None:
        """Kill it, and wait until its successor is there."""
        pid = self._suite.kill("worker")
        await until(lambda: self._suite.pid("worker") != pid)

    async def check(self, *, attempts: int) -> None:
        """It completes with its result, in this many attempts, and every promise was kept."""
        async with asyncio.timeout(60):
            async for _ in self._client.watch(self._execution_id):
                pass
        execution = await self._client.get(self._execution_id)
        assert execution.state == ExecutionState.EXECUTION_STATE_COMPLETED
        assert json.loads(execution.outputs.data) == {"only": {"x": "done"}}
        assert [each.attempt_number async for each in self._client.tasks(self._execution_id)] == [attempts]
        assert len(self.pids()) == attempts


def is_recorded(suite: Suite) -> bool:
    """Whether the result is in a journal, which may still be a write-ahead log."""
    return any(b"done" in each.read_bytes() for each in suite.directory.rglob("session-*.sqlite*"))


async def test_a_process_that_ended_unheard_does_not_run_again(tmp_path: Path) -> None:
    with running(tmp_path) as suite:
        async with open_client(suite.address()) as client:
            once = Once(suite, client)
            await once.begin()
            manager = suite.pid("worker-manager")
            os.kill(manager, signal.SIGSTOP)
            once.gate.touch()
            [process] = once.pids()
            await until(lambda: not psutil.pid_exists(process))
            await until(lambda: is_recorded(suite))
            # With the manager goes what has arrived at its socket and it has not read: the result, if it was sent.
            os.kill(manager, signal.SIGKILL)
            await once.kill_worker()
            await once.check(attempts=1)
    assert check(history_of(suite)) == []


async def test_a_process_that_had_not_ended_is_ended_and_begun_again_at_once(tmp_path: Path) -> None:
    with running(tmp_path) as suite:
        async with open_client(suite.address()) as client:
            once = Once(suite, client)
            await once.begin()
            began = time.monotonic()
            await once.kill_worker()
            await until(lambda: len(once.pids()) == 2)
            assert time.monotonic() - began < 8.0, "it must not wait for the end of the lease, which lasts ten seconds"
            assert not psutil.pid_exists(once.pids()[0])
            once.gate.touch()
            await once.check(attempts=2)
    assert check(history_of(suite)) == []
