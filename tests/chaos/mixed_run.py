"""About 2,000 tasks of mixed shapes in a few executions at a time, each submitted with a key and watched to its end.

Owns how the run is driven and what its clients saw. Must not know what is done to the suite meanwhile.
"""

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.event_pb2 import EventType
from nodeflow.scheduler.v1.log_line_pb2 import LogLine
from nodeflow.scheduler.v1.scheduler_service_pb2 import TailLogsRequest, WatchExecutionResponse
from tests.chaos import mixed_document
from tests.chaos.report_run import batch_of
from tests.support.history import read_history
from tests.support.suite import Suite

from nodeflow_sdk.audit.collecting import told_of
from nodeflow_sdk.audit.history import Acknowledgement, Call, History, Told, Watched, WatchedBatch
from nodeflow_sdk.client import Client

EXECUTIONS: Final = math.ceil(2_000 / mixed_document.TASKS)
LANES: Final = 6


@dataclass(slots=True)
class Seen:
    """What the clients of a run saw, as they saw it."""

    acknowledged: dict[int, str] = field(default_factory=dict)
    """Execution ids by number."""
    acknowledgements: list[Acknowledgement] = field(default_factory=list)
    watched: dict[int, list[WatchedBatch]] = field(default_factory=dict)
    """What its watcher was told of each execution."""
    completions: list[tuple[float, int]] = field(default_factory=list)
    """When the end of a task arrived (monotonic), and of which execution it was."""
    overs: dict[int, float] = field(default_factory=dict)
    """When the watch of each execution ended (monotonic)."""
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def share(self) -> float:
        """The share of all tasks that are known to be completed."""
        return len(self.completions) / (EXECUTIONS * mixed_document.TASKS)

    async def until(self, share: float) -> None:
        """Return when that share of all tasks is completed."""
        while self.share < share:
            arrived = self._arrived
            await arrived.wait()

    def acknowledge(self, number: int, execution_id: str) -> None:
        """Take in that a submission was acknowledged."""
        self.acknowledged[number] = execution_id
        self.acknowledgements.append(
            Acknowledgement(
                execution_id=execution_id,
                call=Call.SUBMIT,
                time_ms=round(time.time() * 1_000),
                request_id=request_id_of(number),
                body=str(number),
            )
        )

    def take(self, number: int, response: WatchExecutionResponse) -> None:
        """Take in a response of an execution's watch."""
        self.watched.setdefault(number, []).append(batch_of(response))
        completed = sum(event.type == EventType.EVENT_TYPE_DATA_AVAILABLE for event in response.events)
        if completed:
            self.completions += [(time.monotonic(), number)] * completed
            self._arrived.set()
            self._arrived = asyncio.Event()

    def history(self, suite: Suite) -> History:
        """Return what the stopped suite has left in its store, and what was seen from here."""
        watched = tuple(
            Watched(execution_id=execution_id, batches=tuple(self.watched.get(number, ())))
            for number, execution_id in self.acknowledged.items()
        )
        history = read_history(suite.data_dir / "nodeflow.db")
        return replace(history, watched=watched, acknowledgements=tuple(self.acknowledgements))

    def silence_s(self, since: float) -> float:
        """Return the longest time without a completion after a moment, over all executions together."""
        moments = [since, *(moment for moment, _ in self.completions if moment > since)]
        return max((after - before for before, after in pairwise(moments)), default=0.0)

    def stall_s(self, since: float) -> float:
        """Return the longest time after a moment until an execution that had begun moved on or ended."""
        waits = []
        for number, over in self.overs.items():
            moments = [moment for moment, each in self.completions if each == number]
            if moments[0] < since < over:
                waits.append(next((each for each in moments if each > since), over) - since)
        return max(waits, default=0.0)


Disturb = Callable[[Seen], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the suite says of a run that is over."""

    found: dict[int, str]
    """Execution ids by number, as a repeat of each submission gives them."""
    states: dict[int, ExecutionState.ValueType]
    outputs: dict[int, Any]  # Any: what JSON may hold
    lines: dict[int, list[LogLine]]
    """All lines of each execution."""
    told: tuple[Told, ...]
    """What readers were told at the end."""


async def run_mixed(client: Client, marks: Path, disturb: Disturb) -> tuple[Seen, Outcome]:
    """Run all executions to their ends; `disturb` runs beside them."""
    seen, numbers = Seen(), iter(range(EXECUTIONS))
    await client.register(mixed_document.document())
    async with asyncio.TaskGroup() as group:
        disturbance = group.create_task(_run(disturb, seen), name="disturb")
        async with asyncio.TaskGroup() as lanes:
            for lane in range(LANES):
                lanes.create_task(_lane(client, marks, seen, numbers), name=f"lane {lane}")
        assert disturbance.done(), f"the run ended before all was done to it: {seen.share:.0%}"
    return seen, await _outcome(client, marks, seen)


async def _run(disturb: Disturb, seen: Seen) -> None:
    await disturb(seen)


async def _lane(client: Client, marks: Path, seen: Seen, numbers: Iterator[int]) -> None:
    for number in numbers:
        execution_id = await _submit(client, marks, seen, number)
        async for response in client.watch(execution_id):
            seen.take(number, response)
        seen.overs[number] = time.monotonic()


async def _submit(client: Client, marks: Path, seen: Seen, number: int) -> str:
    inputs = {"number": number, "marks": str(marks)}
    execution = await client.submit(mixed_document.NAME, inputs, request_id=request_id_of(number))
    seen.acknowledge(number, execution.execution_id)
    return execution.execution_id


def request_id_of(number: int) -> str:
    """The key of a submission."""
    return f"mixed-{number}"


async def _outcome(client: Client, marks: Path, seen: Seen) -> Outcome:
    acknowledged = dict(seen.acknowledged)
    executions = {number: await client.get(each) for number, each in acknowledged.items()}
    return Outcome(
        found={number: await _submit(client, marks, seen, number) for number in acknowledged},
        states={number: each.state for number, each in executions.items()},
        outputs={
            number: json.loads(await client.read(each.outputs)) if each.HasField("outputs") else None
            for number, each in executions.items()
        },
        lines={number: await _lines(client, each) for number, each in acknowledged.items()},
        told=tuple([await told_of(client, each) for each in acknowledged.values()]),
    )


async def _lines(client: Client, execution_id: str) -> list[LogLine]:
    request = TailLogsRequest(execution_id=execution_id, follow=True)
    return [line async for response in client.logs(request) for line in response.lines]
