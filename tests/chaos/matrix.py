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

from tests.chaos.faults import Fault, Struck, Victim, strike
from tests.chaos.mixed_checks import faults_of_run
from tests.chaos.mixed_run import Seen, run_mixed
from tests.chaos.report_run import check_logs
from tests.chaos.traces import MEMORY_LIMIT_BYTES, Traces
from tests.support.suite import Suite, beside, running

from nodeflow_sdk.client import open_client

RECOVERY_S: Final = 5.0
"""From the end of a fault until results are committed again; and never longer between two of them afterwards."""
STALL_S: Final = 9.0
"""Until the last execution moves on: it may wait its turn behind the others, but for no lease to end (10 s)."""
SLOTS: Final = 4
STORM_FAULTS: Final = 6
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A fault, and when it is due."""

    share: float
    """The share of all tasks that are completed by then."""
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens in a run."""

    seed: int
    planned: Sequence[Planned]
    short_leases: bool = False
    workers: int = 1

    def __str__(self) -> str:
        """In words."""
        said = "; ".join(f"{each.fault} at {each.share:.0%}" for each in self.planned)
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
    oversleeps = kind is Kind.OVERSLEEP
    # Only with another worker does anything begin while the one sleeps.
    workers = 2 if oversleeps and victim is Victim.WORKER else 1
    return Plan(seed=seed, planned=[planned], short_leases=oversleeps, workers=workers)


def plan_storm(seed: int) -> Plan:
    """Return a plan of many faults of all kinds."""
    random = Random(f"storm {seed}")
    planned = [
        Planned(
            share=share,
            fault=Fault(victim=random.choice(list(Victim)), pause_s=random.choice([None, random.uniform(0.1, 3.5)])),
        )
        for share in sorted(random.uniform(0.02, 0.8) for _ in range(STORM_FAULTS))
    ]
    return Plan(seed=seed, planned=planned, short_leases=random.random() < 0.5, workers=random.choice([1, 2]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A run in which everything held."""

    silence_s: float
    """The longest time without a completion since the last fault was over."""
    stall_s: float
    """How long it took until the last execution moved on."""


async def run_plan(plan: Plan, directory: Path) -> Measured:
    """Run a plan in an empty directory; raises AssertionError if anything does not hold."""
    random, struck = Random(f"pids {plan.seed}"), list[Struck]()

    async def disturb(seen: Seen) -> None:
        for each in plan.planned:
            await seen.until(each.share)
            traces.look()
            struck.append(await strike(suite, each.fault, random))

    marks = directory / "marks"
    marks.mkdir()
    settings = SHORT_LEASES if plan.short_leases else {}
    with running(directory, "--slots", str(SLOTS), environment=settings) as suite, _more_workers(suite, plan.workers):
        traces = Traces(suite)
        async with asyncio.timeout(RUN_TIMEOUT_S), open_client(suite.address()) as client:
            seen, outcome = await run_mixed(client, marks, disturb)
        traces.look()
        memory = traces.memory()

    wrong = faults_of_run(seen.history(suite), seen, outcome, marks, may_lose_lines=plan.loses_agent)
    assert not wrong, "\n".join(wrong)
    check_logs(suite)
    assert suite.process.returncode == 0
    assert traces.left_processes() == []
    assert traces.left_directories() == []
    assert max(memory.values()) < MEMORY_LIMIT_BYTES, memory
    over = struck[-1].end
    measured = Measured(silence_s=seen.silence_s(over), stall_s=seen.stall_s(over))
    assert measured.silence_s < RECOVERY_S, measured
    assert measured.stall_s < STALL_S, measured
    return measured


@contextmanager
def _more_workers(suite: Suite, workers: int) -> Iterator[None]:
    """Have workers beside that of the suite inside the block, so that there is that number of them."""
    with ExitStack() as stack:
        for number in range(1, workers):
            command = [sys.executable, "-m", "nodeflow_sdk.cli", "worker", "--id", f"worker-{number}", "--slots", "2"]
            stack.enter_context(beside(suite, f"worker-{number}", command))
        yield
