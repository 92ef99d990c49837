"""kill -9 while executions are submitted: what was acknowledged exists once, and a repeat finds it."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.chaos.report_run import check_logs, history_of
from tests.support.suite import Suite, running

from nodeflow_sdk.audit.checkers import check
from nodeflow_sdk.audit.history import Acknowledgement, Call, State
from nodeflow_sdk.client import Client, open_client

SUBMISSIONS = 50
LANES = 5
KILL_AFTER = 15

CHAIN = b"""\
apiVersion: nodeflow/v1
kind: Workflow
name: chain
inputs: {n: {type: integer}}
nodes:
  first: {function: "functions:one_more", with: {n: "${inputs.n}"}}
  second: {function: "functions:one_more", with: {n: "${nodes.first.output}"}}
outputs: {n: "${nodes.second.output}"}
"""


class Submitting:
    """Submissions in some lanes at once, with a kill in the middle of them."""

    def __init__(self, suite: Suite, client: Client, victim: str) -> None:
        self._suite = suite
        self._client = client
        self._victim = victim
        self._document = WorkflowDocument(source=CHAIN, directory=str(suite.directory))
        self.acknowledged: dict[int, str] = {}
        """Execution ids by number."""
        self.told: tuple[Acknowledgement, ...] = ()

    async def submit(self, number: int) -> str:
        """Submit until it is acknowledged, which is the client's own doing."""
        execution = await self._client.submit(self._document, {"n": number}, request_id=f"request-{number}")
        self.told += (
            Acknowledgement(
                execution_id=execution.execution_id,
                call=Call.SUBMIT,
                time_ms=time.time_ns() // 1_000_000,
                request_id=f"request-{number}",
                body=str(number),
            ),
        )
        return execution.execution_id

    async def submit_all(self) -> None:
        """Submit everything."""
        numbers = iter(range(SUBMISSIONS))
        async with asyncio.TaskGroup() as group:
            for lane in range(LANES):
                group.create_task(self._lane(numbers), name=f"lane {lane}")

    async def _lane(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            self.acknowledged[number] = await self.submit(number)
            if len(self.acknowledged) == KILL_AFTER:
                self._suite.kill(self._victim)


@pytest.mark.parametrize("victim", ["scheduler", "state-manager"])
async def test_what_was_acknowledged_exists_once(victim: str, tmp_path: Path) -> None:
    (tmp_path / "functions.py").write_text("def one_more(n):\n    return n + 1\n")
    with running(tmp_path) as suite:
        async with open_client(suite.address()) as client:
            submitting = Submitting(suite, client, victim)
            await submitting.submit_all()
            acknowledged = submitting.acknowledged
            assert {number: await submitting.submit(number) for number in acknowledged} == acknowledged
            outputs = {number: await output_of(client, each) for number, each in acknowledged.items()}

    assert outputs == {number: {"n": number + 2} for number in range(SUBMISSIONS)}
    history = history_of(suite)
    assert sorted(each.execution_id for each in history.executions) == sorted(acknowledged.values())
    assert check(replace(history, acknowledgements=submitting.told)) == []
    assert {each.state for each in history.executions} == {State.COMPLETED}
    check_logs(suite)


async def output_of(client: Client, execution_id: str) -> object:
    """Return the outputs of an execution when it is over."""
    async for _ in client.watch(execution_id):
        pass
    return json.loads((await client.get(execution_id)).outputs.data)
