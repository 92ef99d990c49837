"""Flow control between services: who is behind is not sent on and on (I11)."""

import asyncio
from typing import Any, Final
from unittest.mock import patch

import pytest
from tests.simulation.seeds.levels import Levels
from tests.support.virtual_client import VirtualClient

from nodeflow_scheduler import bootstrap
from nodeflow_sdk.audit.history import QueueLevel
from nodeflow_testing.virtual_loop import run
from nodeflow_testing.virtual_runners import Scripted, Value
from nodeflow_testing.virtual_suite import STATE_MANAGER, VirtualSuite
from nodeflow_worker_manager import wire

ITEMS: Final = 40
WORKERS: Final = 2
INBOX: Final = "inbox of nodeflow_scheduler.bootstrap"


def one_after_the_other(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
    return 2.0 + arguments["place"] * 0.1, Value(arguments["place"])


def levels_of(queue: str, levels: Levels) -> QueueLevel:
    return next(each for each in levels.queues if each.queue == queue)


@pytest.mark.parametrize("room", [2, 4_096])
def test_a_scheduler_whose_log_is_behind_reads_no_results_beyond_its_room(room: int) -> None:
    async def scenario() -> None:
        item = {"function": "f:work", "map": list(range(ITEMS)), "with": {"place": "${item}"}}
        functions = {"f:work": one_after_the_other}
        async with VirtualSuite(functions, workers=WORKERS, slots=ITEMS // WORKERS) as suite:
            client = VirtualClient(suite)
            execution_id = await client.submit({"items": item})
            await asyncio.sleep(1.0)
            suite.pause(STATE_MANAGER)
            await asyncio.sleep(8.0)
            suite.resume(STATE_MANAGER)
            await client.finished(execution_id)
            assert len(suite.executed) == ITEMS

    levels = Levels()
    one_at_a_time = patch.object(wire, "MAX_RESPONSE_BYTES", 1)
    with patch.object(bootstrap, "INBOX_LIMIT", room), one_at_a_time, levels.seen():
        run(scenario)
    level = levels_of(INBOX, levels)
    if room < ITEMS:
        assert level.highest <= room + 2 * WORKERS
    else:
        assert level.highest > ITEMS // 2, "or the room that there is in the other case would mean nothing"
