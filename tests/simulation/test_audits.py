"""Audits of a suite that goes on: what is collected while executions run, fail, wait and end shows no violation."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tests.simulation.scenarios import simulate
from tests.simulation.test_crashes import FUNCTIONS, NODES
from tests.support.virtual_client import VirtualClient

from nodeflow_sdk.audit.checkers import check
from nodeflow_sdk.audit.collecting import collect
from nodeflow_sdk.audit.history import History, State
from nodeflow_sdk.client import Client
from nodeflow_testing.virtual_runners import Raised, Scripted
from nodeflow_testing.virtual_suite import SCHEDULER, STATE_MANAGER, VirtualSuite, address_of


def fail(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
    return 2.0, Raised()


def auditor(suite: VirtualSuite) -> Client:
    return Client(suite.network.connect(address_of(SCHEDULER)))


def whole(histories: Iterable[History]) -> History:
    """Return histories as one."""
    many = list(histories)
    return replace(
        many[0],
        executions=tuple(each for history in many for each in history.executions),
        told=tuple(each for history in many for each in history.told),
        watched=tuple(each for history in many for each in history.watched),
        explained=tuple(each for history in many for each in history.explained),
    )


def test_an_execution_is_audited_at_every_moment_of_its_life() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit(NODES)
        states, sequences = set(), set()
        while State.COMPLETED not in states:
            history = await collect(auditor(suite), execution_id)
            assert check(history) == []
            states.add(history.executions[0].state)
            sequences.add(len(history.executions[0].facts))
            await asyncio.sleep(3.1)
        assert states == {State.RUNNING, State.COMPLETED}
        assert len(sequences) > 10

    simulate(FUNCTIONS, scenario)


def test_executions_that_wait_fail_are_cancelled_or_have_no_worker_are_audited() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        backoff = {"attempts": 2, "backoff": {"initial": "1h"}}
        waiting = await client.submit({"a": {"function": "f:fail", "retry": backoff}})
        failed = await client.submit({"a": {"function": "f:fail", "retry": {"attempts": 1}}})
        skipped = await client.submit({"a": {"function": "f:total", "when": "false"}})
        empty = await client.submit({"a": {"map": [], "function": "f:total"}}, outputs={"a": "${nodes.a.output}"})
        running = await client.submit({"a": {"function": "f:long"}})
        cancelled = await client.submit({"a": {"function": "f:long"}})
        await asyncio.sleep(10)
        await client.cancel(cancelled, "enough")
        for name in [name for name in suite.names if name.startswith("worker-") and name != "worker-manager"]:
            await suite.kill(name)
        stranded = await client.submit({"a": {"function": "f:total"}})
        ids = [waiting, failed, skipped, empty, running, cancelled, stranded]
        history = whole([await collect(auditor(suite), each) for each in ids])
        assert check(history) == []
        assert [each.state for each in history.executions] == [
            State.RUNNING,
            State.FAILED,
            State.COMPLETED,
            State.COMPLETED,
            State.RUNNING,
            State.CANCELLED,
            State.RUNNING,
        ]

    simulate({**FUNCTIONS, "f:fail": fail}, scenario)


def test_what_crashes_have_interrupted_is_audited() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit(NODES)
        for name in (SCHEDULER, STATE_MANAGER, "worker-1"):
            await asyncio.sleep(7)
            await suite.kill(name)
            await suite.restart(name)
            await asyncio.sleep(1)
            assert check(await collect(auditor(suite), execution_id)) == []
        await client.finished(execution_id)
        history = await collect(auditor(suite), execution_id)
        assert check(history) == []
        assert len({fact.token for fact in history.executions[0].facts}) > 1

    simulate(FUNCTIONS, scenario)
