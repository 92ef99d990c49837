"""Whole workflows on virtual time: hours of work, failures and crashes, in the time that the code itself takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nodeflow.common.v1 import lifecycle_pb2 as life

from tests.support.checkers import check_history
from tests.support.virtual_client import VirtualClient, value_of
from tests.support.virtual_loop import run
from tests.support.virtual_runners import Raised, Scripted, Value
from tests.support.virtual_suite import SCHEDULER, STATE_MANAGER, WORKER_MANAGER, VirtualSuite

HANGS = float("inf")
LAYERS, WIDTH = 10, 10


def parents_of(node: int) -> list[int]:
    """Three nodes of the layer before."""
    layer, place = divmod(node, WIDTH)
    return [(layer - 1) * WIDTH + (place + step) % WIDTH for step in (0, 1, 3)] if layer else []


def add_up(arguments: dict[str, Any], attempt: int) -> tuple[float, Scripted]:
    """Add the parents' values. Every seventh node raises once; every tenth hangs once, after it has raised if it does."""
    node = arguments["node"]
    raises = 1 if node % 7 == 3 else 0
    hangs = 1 if node % 10 == 5 else 0
    if attempt <= raises:
        return 20.0, Raised()
    if attempt <= raises + hangs:
        return HANGS, Value(None)
    return 60.0 + node * 37 % 240, Value(node + sum(arguments["parents"]))


def layered_nodes() -> dict[str, dict[str, object]]:
    retry = {"attempts": 3, "backoff": {"initial": "5s", "factor": 2, "max": "60s", "jitter": 0.2}}
    return {
        f"n{node}": {
            "function": "work:add_up",
            "with": {"node": node, "parents": [f"${{nodes.n{parent}.output}}" for parent in parents_of(node)]},
            "retry": retry,
            "timeout": "6m",
        }
        for node in range(LAYERS * WIDTH)
    }


def expected_values() -> list[int]:
    values: list[int] = []
    for node in range(LAYERS * WIDTH):
        values.append(node + sum(values[parent] for parent in parents_of(node)))
    return values


def test_a_hundred_nodes_worth_an_hour_take_no_time() -> None:
    async def main() -> None:
        async with VirtualSuite({"work:add_up": add_up}) as suite:
            client = VirtualClient(suite)
            outputs = {f"o{node}": f"${{nodes.n{node}.output}}" for node in range(LAYERS * WIDTH)}
            execution_id = await client.submit(layered_nodes(), outputs=outputs)
            execution = await client.finished(execution_id)
            assert execution.state == life.EXECUTION_STATE_COMPLETED
            assert list(value_of(execution.outputs).items()) == [(f"o{n}", v) for n, v in enumerate(expected_values())]
            tasks = await client.tasks(execution_id)
            assert [each.attempt_number for each in tasks] == [
                1 + (node % 7 == 3) + (node % 10 == 5) for node in range(LAYERS * WIDTH)
            ]
            assert asyncio.get_running_loop().time() > 3600
            print(asyncio.get_running_loop().time())
            graph = [parents_of(node) for node in range(LAYERS * WIDTH)]
            assert check_history(client.history(), {execution_id: graph}) == []

    began = time.process_time()
    run(main)
    print(time.process_time() - began)
