"""An execution followed through a disturbance, and what it has left behind in the store and the logs.

Owns the real example, how it is followed, and what must hold of it. Must not know what is done to the suite.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.event_pb2 import Event, EventType
from nodeflow.scheduler.v1.scheduler_service_pb2 import WatchExecutionResponse
from tests.support.history import read_history
from tests.support.suite import Suite

from nodeflow_sdk.audit.checkers import check
from nodeflow_sdk.audit.collecting import told_of
from nodeflow_sdk.audit.history import History, Told, Watched, WatchedBatch
from nodeflow_sdk.client import Client, open_client
from nodeflow_sdk.documents import read_document

REPORT: Final = Path(__file__).parents[2] / "examples" / "stdlib_report" / "workflow.yaml"
MIDDLE: Final = 0.3
"""The share of a mapped node's items that are done when something happens to the suite."""


class Progress:
    """What the events so far say of a mapped node's items; and who waits for an event."""

    def __init__(self) -> None:
        self.items = 0
        self.done = 0
        self._wanted: list[tuple[Callable[[Event], bool], asyncio.Event]] = []

    def take(self, event: Event) -> None:
        """Take in the next event."""
        self.items += event.expansion.item_count
        self.done += event.type == EventType.EVENT_TYPE_DATA_AVAILABLE and event.task.HasField("map_index")
        for is_wanted, arrived in self._wanted:
            if is_wanted(event):
                arrived.set()

    @property
    def share(self) -> float:
        """The share of the items that are done."""
        return self.done / self.items if self.items else 0.0

    async def until(self, is_wanted: Callable[[Event], bool]) -> None:
        """Return when such an event arrives."""
        arrived = asyncio.Event()
        self._wanted.append((is_wanted, arrived))
        await arrived.wait()


Disturb = Callable[[Progress], Awaitable[None]]


async def nothing(_: Progress) -> None:
    """Leave the suite alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """An execution that was watched from its first event to its last."""

    execution_id: str
    batches: tuple[WatchedBatch, ...]
    """What arrived, in its order."""
    outages: int
    """How often the watcher lost its connection."""


async def follow(client: Client, execution_id: str, disturb: Disturb, *, at: float = MIDDLE) -> Followed:
    """Watch an execution to its end; `disturb` runs once, beside, when that share of its items is done."""
    progress, batches, outages = Progress(), list[WatchedBatch](), list[Exception]()
    disturbance: asyncio.Task[None] | None = None
    async with asyncio.TaskGroup() as group:
        async for response in client.watch(execution_id, on_lost=outages.append):
            batches.append(batch_of(response))
            for event in response.events:
                progress.take(event)
            if disturbance is None and progress.share >= at:
                disturbance = group.create_task(_run(disturb, progress), name="disturb")
    assert disturbance is not None, f"it ended when {progress.share:.0%} of its items were done"
    return Followed(execution_id=execution_id, batches=tuple(batches), outages=len(outages))


async def _run(disturb: Disturb, progress: Progress) -> None:
    await disturb(progress)


async def submit_report(client: Client) -> str:
    """Start the example, and return its id."""
    return (await client.submit(read_document(REPORT))).execution_id


async def watch_to_the_middle(client: Client, execution_id: str) -> list[WatchedBatch]:
    """Watch an execution until enough of its items are done; returns what was seen."""
    progress, batches = Progress(), list[WatchedBatch]()
    async with aclosing(client.watch(execution_id)) as responses:
        async for response in responses:
            batches.append(batch_of(response))
            for event in response.events:
                progress.take(event)
            if progress.share >= MIDDLE:
                return batches
    raise AssertionError("it ended without a middle")


async def watch_to_the_end(client: Client, execution_id: str, seen: list[WatchedBatch]) -> Followed:
    """Go on watching after what was seen; returns all of it."""
    rest = [batch_of(response) async for response in client.watch(execution_id, seen[-1].cursor)]
    return Followed(execution_id=execution_id, batches=(*seen, *rest), outages=0)


def batch_of(response: WatchExecutionResponse) -> WatchedBatch:
    """Return what a history keeps of a response."""
    return WatchedBatch(cursor=response.cursor, sequences=tuple(event.sequence for event in response.events))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRun:
    """One run of the example, and where it ran."""

    followed: Followed
    state: ExecutionState.ValueType
    report: str
    """The digest of the report."""
    told: Told
    """What readers were told at its end."""


async def run_report(suite: Suite, disturb: Disturb = nothing) -> ReportRun:
    """Run the example to its end, with something done to the suite in the middle."""
    async with open_client(suite.address()) as client:
        followed = await follow(client, await submit_report(client), disturb)
        return await outcome_of(client, followed)


async def outcome_of(client: Client, followed: Followed) -> ReportRun:
    """Return what the suite says of a run of the example that is over."""
    execution = await client.get(followed.execution_id)
    [report] = [task async for task in client.tasks(followed.execution_id, node="report")]
    output = (await client.task(followed.execution_id, report.task_number)).output
    told = await told_of(client, followed.execution_id)
    return ReportRun(followed=followed, state=execution.state, report=output.artifact.digest, told=told)


def history_of(suite: Suite, *followed: Followed) -> History:
    """Return what a stopped suite has left in its store, and what its watchers were told."""
    watched = tuple(Watched(execution_id=each.execution_id, batches=each.batches) for each in followed)
    return replace(read_history(suite.data_dir / "nodeflow.db"), watched=watched)


def check_run(suite: Suite, run: ReportRun) -> History:
    """Assert that every promise was kept, to the watcher and to readers too."""
    history = replace(history_of(suite, run.followed), told=(run.told,))
    assert check(history) == []
    return history


def check_logs(suite: Suite) -> None:
    """Assert that no service has told of an error of its own: who loses a peer warns, and goes on."""
    lines = [line for file in (suite.data_dir / "logs").glob("*.log") for line in file.read_text().splitlines()]
    assert lines
    errors = [line for line in lines if "[error" in line or "[critical" in line or "Traceback" in line]
    assert not errors, "\n".join(errors)


def silence_after_s(history: History, moment_ms: float) -> tuple[float, float]:
    """Return the seconds from a moment to the first result after it, and the longest time between two results after it.

    Results that were on their way at that moment may still be committed: the longest silence sees through them.
    """
    results = sorted(
        fact.time_ms
        for execution in history.executions
        for fact in execution.facts
        if fact.kind == "tasks_completed" and fact.time_ms > moment_ms
    )
    assert results, "there is no result after it"
    longest = max((after - before for before, after in pairwise([moment_ms, *results])))
    return (results[0] - moment_ms) / 1000, longest / 1000
