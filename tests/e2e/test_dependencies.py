"""A worker of another make asks a real suite what its task depends on, over real sockets."""

import asyncio
import json
from pathlib import Path

import pytest
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb
from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.support.asking_worker import DEPENDENCIES, FAN_IN, Asker, key_of, shown
from tests.support.suite import running

from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import Unavailable

DOCUMENT = {"apiVersion": "nodeflow/v1", "kind": "Workflow", "name": "fan-in", "nodes": FAN_IN}


async def test_a_worker_is_told_what_its_task_depends_on_and_again_after_the_scheduler_died(tmp_path: Path) -> None:
    with running(tmp_path, "--slots", "0") as suite:
        async with open_channel(suite.address("worker-manager")) as workers, open_channel(suite.address()) as users:
            asker, client = Asker(workers), SchedulerServiceStub(users)
            serving = asyncio.create_task(asker.run(), name="asker")
            document = WorkflowDocument(source=json.dumps(DOCUMENT).encode(), content_type="application/json")
            request = pb.SubmitExecutionRequest(workflow=pb.WorkflowReference(document=document))
            await client.SubmitExecution(request, timeout=10)
            key = key_of(await asker.last())

            assert shown((await asker.ask(key)).dependencies) == DEPENDENCIES
            told = await client.GetTaskDependencies(
                pb.GetTaskDependenciesRequest(execution_id=key.execution_id, task_number=key.task_number), timeout=10
            )
            assert shown(told.dependencies) == DEPENDENCIES

            suite.kill("scheduler")
            with pytest.raises(Unavailable):
                await asker.ask(key)
            assert shown((await asker.insist(key)).dependencies) == DEPENDENCIES
            asker.complete(await asker.last())
            asker.leave()
            await serving
