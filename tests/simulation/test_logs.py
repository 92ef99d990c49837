"""Output of attempts on virtual time: every line once and in order, to the end and no further, over every crash."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from nodeflow.common.v1 import lifecycle_pb2 as life
from nodeflow.common.v1 import log_chunk_pb2
from nodeflow.scheduler.v1 import log_line_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb
from tests.simulation.scenarios import simulate
from tests.support.virtual_client import VirtualClient

from nodeflow_testing.virtual_runners import Raised, Scripted, Value
from nodeflow_testing.virtual_suite import SCHEDULER, STATE_MANAGER, WORKER_MANAGER, VirtualSuite

LINES = [f"line {number}" for number in range(1, 61)]


def talk(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
    """Say a line a second for a minute."""
    return 61.0, Value(None, prints=[f"{arguments.get('name', '')}{line}" for line in LINES])


def fail_first(_: dict[str, Any], attempt: int) -> tuple[float, Scripted]:
    return (1.0, Raised()) if attempt == 1 else (1.0, Value(None, prints=("done",)))


def silent(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
    return 1.0, Value(None)


FUNCTIONS = {"f:talk": talk, "f:fail_first": fail_first, "f:silent": silent}
TALK = {"talk": {"function": "f:talk"}}


def texts(lines: list[log_line_pb2.LogLine]) -> list[str]:
    return [line.text for line in lines]


def test_a_tail_follows_to_the_end_and_no_further() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit(TALK)
        began = asyncio.get_running_loop().time()
        seen: list[tuple[float, str]] = []
        async for response in client.stub.TailLogs(pb.TailLogsRequest(execution_id=execution_id, follow=True)):
            seen += [(asyncio.get_running_loop().time() - began, line.text) for line in response.lines]
        assert [text for _, text in seen] == LINES
        # As they appear: the n-th line is there about n seconds after the beginning.
        assert all(number <= when < number + 1 for number, (when, _) in enumerate(seen, 1))
        assert asyncio.get_running_loop().time() - began < 62
        assert (await client.finished(execution_id)).state == life.EXECUTION_STATE_COMPLETED

    simulate(FUNCTIONS, scenario)


def test_lines_say_what_wrote_them_and_when() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        nodes = {
            "each": {"map": ["a", "b"], "function": "f:talk", "with": {"name": "${item}"}},
            "last": {"function": "f:fail_first", "retry": 2, "needs": ["each"]},
        }
        execution_id = await client.submit(nodes)
        await client.finished(execution_id)
        lines = await client.logs(execution_id)
        for item, name in enumerate("ab"):
            mine = [line for line in lines if line.HasField("map_index") and line.map_index == item]
            assert texts(mine) == [f"{name}{line}" for line in LINES]
            assert [line.line_number for line in mine] == list(range(1, 61))
            assert {(line.node, line.attempt_number, line.stream) for line in mine} == {
                ("each", 1, log_chunk_pb2.LOG_STREAM_STDOUT)
            }
            times = [line.read_time.ToMilliseconds() for line in mine]
            assert [later - earlier for earlier, later in pairwise(times)] == [1_000] * 59
        assert [(line.node, line.attempt_number) for line in lines if line.text == "done"] == [("last", 2)]

    simulate(FUNCTIONS, scenario)


def test_filters() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        nodes = {"each": {"map": ["a", "b"], "function": "f:talk", "with": {"name": "${item}"}}, **TALK}
        execution_id = await client.submit(nodes)
        await client.finished(execution_id)
        assert texts(await client.logs(execution_id, node="talk")) == LINES
        assert texts(await client.logs(execution_id, node="each", map_index=1)) == [f"b{line}" for line in LINES]
        assert texts(await client.logs(execution_id, task_number=2)) == [f"a{line}" for line in LINES]
        assert texts(await client.logs(execution_id, node="talk", first_line=59)) == LINES[58:]
        assert texts(await client.logs(execution_id, node="talk", text="e 6")) == ["line 6", "line 60"]
        assert await client.logs(execution_id, attempt_number=2) == []
        assert await client.logs(execution_id, streams=[log_chunk_pb2.LOG_STREAM_STDERR]) == []
        stdout = await client.logs(execution_id, node="talk", streams=[log_chunk_pb2.LOG_STREAM_STDOUT])
        assert texts(stdout) == LINES

    simulate(FUNCTIONS, scenario)


def test_a_tail_from_now_leaves_out_what_was_delivered() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit(TALK)
        await asyncio.sleep(30.5)
        assert texts(await client.logs(execution_id, from_now=True)) == []
        assert texts(await client.logs(execution_id, from_now=True, follow=True)) == LINES[30:]

    simulate(FUNCTIONS, scenario)


def test_a_tail_from_now_has_nothing_of_what_is_over_although_the_store_is_slow_to_say_where_it_ends() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit(TALK)
        await client.finished(execution_id)
        await client.logs(execution_id, follow=True)
        await suite.kill(STATE_MANAGER)
        tail = asyncio.ensure_future(client.logs(execution_id, from_now=True, follow=True))
        await asyncio.sleep(1.5)
        await suite.restart(STATE_MANAGER)
        assert texts(await tail) == []

    simulate(FUNCTIONS, scenario)


def test_a_silent_execution_ends_its_tail_at_once() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit({"one": {"function": "f:silent"}})
        began = asyncio.get_running_loop().time()
        assert await client.logs(execution_id, follow=True) == []
        assert asyncio.get_running_loop().time() - began < 1.2
        assert suite.log_store._chunks == {}

    simulate(FUNCTIONS, scenario)


def test_the_tail_of_a_task_ends_with_the_task() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        nodes = {**TALK, "later": {"function": "f:talk", "needs": ["talk"]}}
        execution_id = await client.submit(nodes)
        assert texts(await client.logs(execution_id, node="talk", follow=True)) == LINES
        assert asyncio.get_running_loop().time() < 65

    simulate(FUNCTIONS, scenario)


@pytest.mark.parametrize("victim", [STATE_MANAGER, WORKER_MANAGER, SCHEDULER])
def test_no_line_is_missed_or_repeated_when_a_service_dies(victim: str) -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit(TALK)
        following = asyncio.ensure_future(client.logs(execution_id, follow=True))
        for _ in range(4):
            await asyncio.sleep(10.25)
            await suite.kill(victim)
            await asyncio.sleep(1.5)
            await suite.restart(victim)
        assert texts(await following) == LINES
        assert texts(await client.logs(execution_id)) == LINES

    simulate(FUNCTIONS, scenario)


def test_what_a_dead_worker_has_delivered_stays_and_is_its_attempts() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit(TALK)
        await asyncio.sleep(20.5)
        [worker] = [name for name, machine in suite._workers.items() if machine.lives[-1].executed]
        await suite.kill(worker)
        lines = await client.logs(execution_id, follow=True)
        assert texts([line for line in lines if line.attempt_number == 1]) == LINES[:20]
        assert texts([line for line in lines if line.attempt_number == 2]) == LINES

    simulate(FUNCTIONS, scenario)


def test_a_worker_that_drains_delivers_all_first() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        execution_id = await client.submit({"one": {"function": "f:fail_first", "retry": 2}})
        await client.finished(execution_id)
        for worker in ("worker-1", "worker-2"):
            await suite.drain(worker)
        assert texts(await client.logs(execution_id)) == ["done"]
        assert suite.drained

    simulate(FUNCTIONS, scenario)
