"""Lists of tasks with results: what they tell of is committed, whatever happens while something is stored for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2
from tests.unit.scheduler.making import Lab, report, submit, updates, workflow
from tests.unit.scheduler.replica import Nothing, Replica

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.identity import new_execution_id
from nodeflow_scheduler.domain.messages import ShardsLost
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.library import Library
from nodeflow_scheduler.reading import Reading
from nodeflow_scheduler.servicer import DEFAULT_TENANT, SchedulerServicer, chosen_tasks
from nodeflow_shared.errors import NotFound, Unavailable
from nodeflow_testing.virtual_loop import run

LARGE = b'"%s"' % (b"x" * 60_000)
SHARD = 1


class SlowArtifacts(Nothing):
    """Artifacts that are stored when `answers` says so."""

    async def keep(self, tenant: str, value: Stored) -> None:
        await self.answers.wait()


def test_tasks_of_a_node_that_there_is_not_are_not_found() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"a": {}, "b": {}})))
    request = pb2.ListTasksRequest(node="nix")
    with pytest.raises(NotFound, match="has no node 'nix'; it has a, b"):
        list(chosen_tasks(lab.execution(), request, 0))
    request.node = "b"
    assert list(chosen_tasks(lab.execution(), request, 0)) == [1]


def test_an_execution_that_was_dropped_before_the_answer_was_made_is_not_told() -> None:
    """It may be ahead of the log: what was decided about it and not committed by then never happened."""

    async def main() -> None:
        replica = Replica()
        # Any: what is not used here.
        unused: Any = None
        reading = Reading(replica.driver, unused, unused, Library(unused))
        async with replica.running():
            await replica.ownership.ready.wait()
            execution = (await replica.submit("e1", SHARD)).only
            assert isinstance(execution, Execution)
            await reading.committed(execution)
            replica.driver.inbox.push(ShardsLost(shards=frozenset({SHARD})))
            await asyncio.sleep(0.001)
            with pytest.raises(Unavailable):
                await reading.committed(execution)

    run(main)


@pytest.mark.parametrize("method", ["ListTasks", "GetTask"])
def test_results_that_were_never_committed_are_not_told(method: str) -> None:
    async def main() -> None:
        replica, artifacts = Replica(), SlowArtifacts()
        artifacts.answers.clear()
        # Any: what this method does not use, which is all but two.
        unused: Any = None
        reading = Reading(replica.driver, replica.artifacts, unused, Library(unused))
        servicer = SchedulerServicer(
            intake=unused,
            reading=reading,
            tailing=unused,
            exporting=unused,
            library=unused,
            catalogue=unused,
            artifacts=artifacts,
            uploads=unused,
        )
        name = new_execution_id(1, b"0123456789")
        async with replica.running():
            await replica.ownership.ready.wait()
            mapped = workflow({"many": {"map": [1, 2]}})
            replica.driver.inbox.push(replace(submit(mapped, name, shard=SHARD), tenant=DEFAULT_TENANT))
            await asyncio.sleep(0.001)
            replica.log.prompt = False
            ends = [report(task, LARGE, execution_id=name, token=1, shard=SHARD) for task in (1, 2)]
            replica.driver.inbox.push(updates(results=ends))
            await asyncio.sleep(0.001)
            calls = {
                "ListTasks": pb2.ListTasksRequest(execution_id=name, with_results=True),
                "GetTask": pb2.GetTaskRequest(execution_id=name),
            }
            asking = asyncio.ensure_future(getattr(servicer, method)(calls[method], unused))
            await asyncio.sleep(0.001)
            replica.log.waiting[0].set_result(frozenset({SHARD}))
            replica.log.prompt = True
            await asyncio.sleep(0.001)
            artifacts.answers.set()
            with pytest.raises(Unavailable):
                await asking

    run(main)
