"""A seed's life: a suite, its users with their work, and faults; then peace, until everything has come to rest.

Owns the order of these, and the record that is left of them. Must not judge it.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from nodeflow.scheduler.v1.execution_pb2 import Execution, Task
from tests.simulation.seeds.deeds import functions
from tests.simulation.seeds.diary import Diary, Tailing, Watching
from tests.simulation.seeds.faults import Trouble
from tests.simulation.seeds.levels import Levels
from tests.simulation.seeds.narrowness import is_hard, narrowed
from tests.simulation.seeds.overheard import Overheard
from tests.simulation.seeds.owners import two_owners_counted
from tests.simulation.seeds.users import User
from tests.simulation.seeds.work import Work, draw_works
from tests.support.virtual_client import VirtualClient

from nodeflow_sdk.audit.decoding import digest_of, execution_state, task_state
from nodeflow_sdk.audit.history import History, Told, ToldTask, Watched, WatchedBatch
from nodeflow_testing.virtual_loop import run
from nodeflow_testing.virtual_suite import STATE_MANAGER, VirtualSuite

TROUBLE_S: Final = 40.0
"""For about how long faults come."""
SUBMITTING_S: Final = 20.0
REST_S: Final = 1_200.0
"""Once all is mended, everything must be at rest within this time: the longest work takes a third of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a user reads of an execution at rest."""

    execution: Execution
    tasks: Sequence[Task]


@dataclass(slots=True, kw_only=True)
class Life:
    """What is left of a seed's life."""

    seed: int
    diary: Diary = field(default_factory=Diary)
    works: dict[str, Work] = field(default_factory=dict)
    """By execution."""
    cancelled: set[str] = field(default_factory=set)
    """Executions that somebody asked to be cancelled."""
    told: dict[str, Reading] = field(default_factory=dict)
    """At rest."""
    told_again: dict[str, Reading] = field(default_factory=dict)
    """By a scheduler that has just read everything from the log."""
    output: dict[str, Tailing] = field(default_factory=dict)
    """All lines, at rest."""
    unrest: list[str] = field(default_factory=list)
    """Executions, or users without one, that did not come to rest."""
    escaped: BaseException | None = None
    """What ended the run before its time: a defect of the engine, or of the simulator."""
    levels: Levels = field(default_factory=Levels)
    history: History = field(default_factory=History)
    virtual_s: float = 0.0
    mended_s: float = 0.0


def live(seed: int) -> Life:
    """Live a seed's life to its end."""
    life = Life(seed=seed)
    try:
        with narrowed(seed) as settings, life.levels.seen():
            run(lambda: _live(life, settings), seed=seed)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding, and has a story
        life.escaped = error
    return life


async def _live(life: Life, settings: Mapping[str, Mapping[str, object]]) -> None:
    chance = Random(f"{life.seed}")
    works = draw_works(chance)
    slots, workers, schedulers = chance.randrange(1, 5), chance.randrange(2, 4), chance.choice([1, 1, 2])
    quarrels = Random(f"quarrels {life.seed}") if is_hard(life.seed) else None
    schedulers = schedulers if quarrels is None else 2
    async with VirtualSuite(
        functions(), seed=life.seed, workers=workers, schedulers=schedulers, slots=slots, settings=settings
    ) as suite:
        suite.network.overhear = Overheard(life.diary).hear
        life.diary.effects = suite.faults
        users = [User(suite, work, number, life.seed, life.diary) for number, work in enumerate(works, 1)]
        async with asyncio.TaskGroup() as group:
            living = [group.create_task(user.live(SUBMITTING_S), name=user.name) for user in users]
            with two_owners_counted(suite):
                names = [user.name for user in users]
                await Trouble(suite, names, chance, life.diary, quarrels=quarrels).come(TROUBLE_S)
            life.mended_s = asyncio.get_running_loop().time()
            life.diary.note("fault", "all is mended")
            _, restless = await asyncio.wait(living, timeout=REST_S)
            for user, task in zip(users, living, strict=True):
                if task in restless:
                    task.cancel()
                    await _explain(life, user)
        await _read(life, suite, [user for user in users if user.execution_id])


async def _explain(life: Life, user: User) -> None:
    """Ask what each task waits for that is not over."""
    life.unrest.append(user.execution_id or user.name)
    if user.execution_id:
        open_tasks = [task.task_number for task in await user.tasks() if not task.HasField("finish_time")]
        life.diary.explained += [await user.explain(task) for task in open_tasks[:20]]


async def _read(life: Life, suite: VirtualSuite, users: Sequence[User]) -> None:
    """Ask for everything, twice: before and after the services that answer have lost their memory."""
    for user in users:
        life.works[user.execution_id] = user.work
        if user.cancelled:
            life.cancelled.add(user.execution_id)
        life.told[user.execution_id] = Reading(execution=await user.execution(), tasks=await user.tasks())
        life.output[user.execution_id] = await user.lines()
    for name in (*suite.schedulers, STATE_MANAGER):
        await suite.kill(name)
        await suite.restart(name)
    for user in users:
        life.told_again[user.execution_id] = Reading(execution=await user.execution(), tasks=await user.tasks())
    life.virtual_s = asyncio.get_running_loop().time()
    life.history = _history_of(life, suite)


def _history_of(life: Life, suite: VirtualSuite) -> History:
    """Put together what the log holds and what was seen from outside."""
    diary = life.diary
    return replace(
        VirtualClient(suite).history({execution_id: work.graph for execution_id, work in life.works.items()}),
        acknowledgements=tuple(diary.acknowledgements),
        results=tuple(diary.results),
        watched=tuple(_watched(each) for each in diary.watched),
        told=(*diary.told, *(_told(each) for each in life.told.values())),
        explained=tuple(diary.explained),
        queues=life.levels.queues,
        stop_within_ms=None,  # It depends on what was wrong meanwhile: see the verdict.
    )


def _watched(watching: Watching) -> Watched:
    batches = tuple(
        WatchedBatch(cursor=each.cursor, sequences=tuple(event.sequence for event in each.events))
        for each in watching.responses
    )
    return Watched(execution_id=watching.execution_id, watcher=watching.who, batches=batches, ended=watching.ended)


def _told(reading: Reading) -> Told:
    execution = reading.execution
    tasks = [
        ToldTask(task=each.task_number, state=task_state(each.state), attempt=each.attempt_number)
        for each in reading.tasks
    ]
    return Told(
        execution_id=execution.execution_id,
        sequence=execution.last_sequence,
        state=execution_state(execution.state),
        value=digest_of(execution.outputs),
        tasks=tuple(tasks),
    )


def digest(life: Life) -> str:
    """Digest all that a difference between two runs could show in, byte for byte."""
    digest = hashlib.sha256()
    for each in (life.history, life.diary, life.output, life.told, life.told_again, life.unrest):
        digest.update(repr(each).encode())
    return digest.hexdigest()
