"""kill -9 of each service under an open watch and an open tail: each event and each line comes once, in order."""

import asyncio
from collections import Counter
from contextlib import aclosing
from pathlib import Path

from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2
from nodeflow.scheduler.v1.event_pb2 import Event
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.support.suite import Suite, running

from nodeflow_sdk.client import Client, open_client
from nodeflow_sdk.suite.health import wait_until_healthy

ITEMS = 400
LINES = 3

FUNCTIONS = """\
import time

def numbers(count):
    return list(range(count))

def speak(n):
    for line in range(3):
        print(f"{n} says {line}")
    time.sleep(0.02)
"""
WORKFLOW = f"""\
apiVersion: nodeflow/v1
kind: Workflow
name: speakers
nodes:
  numbers: {{function: 'speakers:numbers', with: {{count: {ITEMS}}}}}
  speak: {{function: 'speakers:speak', map: '${{nodes.numbers.output}}', with: {{n: '${{item}}'}}}}
"""


class Followed:
    """What a watch and a tail gave."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.lines: list[str] = []
        self.more = asyncio.Event()

    async def watch(self, client: Client, execution_id: str) -> None:
        async with aclosing(client.watch(execution_id)) as responses:
            async for response in responses:
                self.events += response.events
                self.more.set()

    async def tail(self, client: Client, execution_id: str) -> None:
        request = pb2.TailLogsRequest(execution_id=execution_id, follow=True)
        async with aclosing(client.logs(request)) as responses:
            async for response in responses:
                self.lines += [line.text for line in response.lines]
                self.more.set()

    async def until(self, lines: int) -> None:
        async with asyncio.timeout(60):
            while len(self.lines) < lines:
                self.more.clear()
                await self.more.wait()


async def kill_and_wait(suite: Suite, service: str) -> None:
    killed = suite.kill(service)
    async with asyncio.timeout(30):
        while suite.pid(service) == killed:  # noqa: ASYNC110  # suite.json tells of the next life
            await asyncio.sleep(0.05)
        await wait_until_healthy(suite.address(service))


async def test_a_watch_and_a_tail_go_on_where_they_were(tmp_path: Path) -> None:
    (tmp_path / "speakers.py").write_text(FUNCTIONS)
    document = WorkflowDocument(source=WORKFLOW.encode(), directory=str(tmp_path))
    with running(tmp_path, "--slots", "2") as suite:
        async with open_client(suite.address()) as client:
            execution_id = (await client.submit(document)).execution_id
            followed = Followed()
            async with asyncio.TaskGroup() as group:
                group.create_task(followed.watch(client, execution_id))
                group.create_task(followed.tail(client, execution_id))
                for place, service in enumerate(("state-manager", "scheduler", "worker-manager"), 1):
                    await followed.until(place * ITEMS * LINES // 5)
                    await kill_and_wait(suite, service)
            again = Followed()
            await again.tail(client, execution_id)
    assert [event.sequence for event in followed.events] == list(range(1, len(followed.events) + 1))
    assert followed.lines == again.lines  # in the order in which they are stored, whoever died meanwhile
    # An attempt that was lost with its scheduler is made again, and says it again.
    said = Counter(followed.lines)
    assert said.keys() == {f"{n} says {line}" for n in range(ITEMS) for line in range(LINES)}
    repeated = sum(said.values()) - len(said)
    lost = {event.task.task_number for event in followed.events if event.task.attempt_number > 1}
    assert repeated <= len(lost) * LINES
