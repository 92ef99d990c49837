"""One run of the matrix: a suite of its own, a mixed run, faults at seeded moments, and everything that must hold.

Owns the plan that follows from a seed, and the order of a run. Must not know how it is told.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Final

from nodeflow.worker_manager.v1.worker_manager_service_pb2 import WorkerState
from tests.chaos.faults import Fault, Struck, Victim, strike
from tests.chaos.mixed_checks import faults_of_run
from tests.chaos.mixed_run import Seen, run_mixed
from tests.chaos.report_run import check_logs
from tests.chaos.traces import MEMORY_LIMIT_BYTES, Traces
from tests.support.suite import Suite, beside, running

from nodeflow_sdk.client import open_client, open_workers_client

RECOVERY_S: Final = 5.0
"""From the end of a fault until results are committed again; and never longer between two of them afterwards."""
STALL_S: Final = 5.0
"""Until the last execution moves on: it may wait its turn behind the others, but for no lease to end (10 s)."""
SLOTS: Final = 4
WAVES: Final = 2
WAVE: Final = 3
"""Faults in a wave of a storm."""
RUN_TIMEOUT_S: Final = 100.0
SHORT_LEASES: Final = {
    "NODEFLOW_SCHEDULER_LEASE_TIMEOUT_S": "1",
    "NODEFLOW_WORKER_MANAGER_LEASE_TIMEOUT_S": "1",
    "NODEFLOW_WORKER_MANAGER_HEARTBEAT_INTERVAL_S": "0.25",
}


class Kind(StrEnum):
    """What is done to a process."""

    KILL = "kill"
    STOP = "stop"
    """For less than any lease."""
    OVERSLEEP = "oversleep"
    """For longer than leases, which are short then."""


CASES: Final = (
    *((victim, kind) for kind in (Kind.KILL, Kind.STOP) for victim in Victim),
    # Runners and launcher have no lease of their own.
    *((victim, Kind.OVERSLEEP) for victim in Victim if victim not in (Victim.RUNNER, Victim.LAUNCHER)),
)


EVIDENCE: Final[Mapping[Victim, tuple[str, str]]] = {
    Victim.SCHEDULER: ("scheduler", "renewal_failed"),
    Victim.STATE_MANAGER: ("scheduler", "renewal_failed"),
    Victim.WORKER_MANAGER: ("worker", "lease_ending"),
    Victim.WORKER: ("worker", "lease_ending"),
}
"""Where it is told that a lease ended, by who slept through it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A fault, and when it is due."""

    share: float
    """The share of all tasks that are completed by then."""
    delay_s: float = 0.0
    """How long after that."""
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens in a run."""

    seed: int
    planned: Sequence[Planned]
    short_leases: bool = False
    workers: int = 1
    evidence: tuple[str, str] | None = None
    """A log that must tell of something, and the event: that the fault had the consequence that it is meant to have."""

    def __str__(self) -> str:
        """In words."""
        said = "; ".join(f"{each.fault} at {each.share:.0%} and {each.delay_s:.1f} s" for each in self.planned)
        return f"seed {self.seed}: {said}"

    @property
    def loses_agent(self) -> bool:
        """Whether an agent dies."""
        return any(each.fault.victim is Victim.WORKER and each.fault.pause_s is None for each in self.planned)


def plan_case(victim: Victim, kind: Kind, seed: int) -> Plan:
    """Return the plan of one fault."""
    random = Random(f"{victim} {kind} {seed}")
    pauses: Mapping[Kind, float | None] = {
        Kind.KILL: None,
        Kind.STOP: random.uniform(0.3, 3.0),
        Kind.OVERSLEEP: random.uniform(1.2, 3.0),
    }
    planned = Planned(share=random.uniform(0.05, 0.5), fault=Fault(victim=victim, pause_s=pauses[kind]))
    if kind is not Kind.OVERSLEEP:
        return Plan(seed=seed, planned=[planned])
    # Only with another worker does anything begin while the one sleeps.
    workers = 2 if victim is Victim.WORKER else 1
    return Plan(seed=seed, planned=[planned], short_leases=True, workers=workers, evidence=EVIDENCE[victim])


def plan_storm(seed: int) -> Plan:
    """Return a plan of faults of all kinds in waves: those of one wave strike while others still last."""
    random = Random(f"storm {seed}")
    planned = [
        Planned(share=share, delay_s=random.uniform(0, 2), fault=fault)
        for share in sorted(random.uniform(0.02, 0.6) for _ in range(WAVES))
        for fault in _wave(random)
    ]
    return Plan(seed=seed, planned=planned, short_leases=random.random() < 0.5, workers=random.choice([1, 2]))


def _wave(random: Random) -> Sequence[Fault]:
    wave = [
        Fault(victim=random.choice(list(Victim)), pause_s=random.choice([None, random.uniform(0.1, 3.5)]))
        for _ in range(WAVE)
    ]
    # Agent and launcher guard each other: what outlasts the lease of one worker when neither can is not promised.
    agent_stands_still = any(each.victim is Victim.WORKER and each.pause_s for each in wave)
    return [each for each in wave if not (agent_stands_still and each.victim is Victim.LAUNCHER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run in which everything held."""

    silence_s: float
    """The longest time without a completion since the last fault was over."""
    stall_s: float
    """How long it took until the last execution moved on."""


async def run_plan(plan: Plan, directory: Path) -> Measured:
    """Run a plan in an empty directory; raises AssertionError if anything does not hold."""
    marks = directory / "marks"
    marks.mkdir()
    environment = SHORT_LEASES if plan.short_leases else {}
    with (
        running(directory, "--slots", str(SLOTS), environment=environment) as suite,
        _more_workers(suite, plan.workers),
    ):
        traces, disturbance = Traces(suite), _Disturbance(suite, plan)
        async with asyncio.timeout(RUN_TIMEOUT_S), open_client(suite.address()) as client:
            await _until_connected(suite, plan.workers)
            traces.look()
            seen, outcome = await run_mixed(client, marks, disturbance.run)
        traces.look()
        memory = traces.memory()

    wrong = faults_of_run(seen.history(suite), seen, outcome, marks, may_lose_lines=plan.loses_agent)
    assert not wrong, "\n".join(wrong)
    _check_traces(suite, plan, traces)
    assert max(memory.values()) < MEMORY_LIMIT_BYTES, memory
    over = max(each.end for each in disturbance.struck)
    measured = Measured(silence_s=seen.silence_s(over), stall_s=seen.stall_s(over))
    assert measured.silence_s < RECOVERY_S, measured
    assert measured.stall_s < STALL_S, measured
    return measured


async def _until_connected(suite: Suite, workers: int) -> None:
    """Return when so many workers take work."""
    async with open_workers_client(suite.address("worker-manager")) as client:
        while len(await client.workers(WorkerState.WORKER_STATE_CONNECTED)) < workers:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.05)


class _Disturbance:
    """The faults of a plan, as they strike."""

    def __init__(self, suite: Suite, plan: Plan) -> None:
        self.struck: list[Struck] = []
        self._suite = suite
        self._plan = plan
        self._random = Random(f"pids {plan.seed}")

    async def run(self, seen: Seen) -> None:
        """Strike whenever a fault is due."""
        async with asyncio.TaskGroup() as group:
            for each in self._plan.planned:
                group.create_task(self._strike(seen, each), name=str(each.fault))

    async def _strike(self, seen: Seen, planned: Planned) -> None:
        await seen.until(planned.share)
        await asyncio.sleep(planned.delay_s)
        self.struck.append(await strike(self._suite, planned.fault, self._random))


def _check_traces(suite: Suite, plan: Plan, traces: Traces) -> None:
    """Assert what the stopped suite has left behind, and what not."""
    check_logs(suite)
    if plan.evidence is not None:
        log, event = plan.evidence
        assert event in (suite.data_dir / "logs" / f"{log}.log").read_text(), f"the {log} does not tell of {event}"
    assert suite.process.returncode == 0
    assert traces.left_processes() == []
    assert traces.left_directories() == []


@contextmanager
def _more_workers(suite: Suite, workers: int) -> Iterator[None]:
    """Have workers beside that of the suite inside the block, so that there is that number of them."""
    with ExitStack() as stack:
        for number in range(1, workers):
            command = [sys.executable, "-m", "nodeflow_sdk.cli", "worker", "--id", f"worker-{number}", "--slots", "2"]
            stack.enter_context(beside(suite, f"worker-{number}", command))
        yield
