"""Many lives: lived on all cores, counted together, and told one by one where they failed.

Owns the processes, and what is said of all seeds. Must not know what a life is made of.
"""

import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from typing import Final

import structlog
from tests.simulation.seeds.faults import EFFECTS, FAULTS_AT_LEAST, KINDS
from tests.simulation.seeds.life import live
from tests.simulation.seeds.story import story_of
from tests.simulation.seeds.verdict import judge
from tests.simulation.seeds.work import TASKS_AT_LEAST
from tests.support import history

from nodeflow_scheduler import library
from nodeflow_scheduler.domain.document import compile_document
from nodeflow_sdk.audit.checkers.findings import Violation

CHUNK: Final = 10
"""Seeds that a process lives one after the other."""
ALL_KINDS_AFTER: Final = 50
"""From so many seeds on every kind of fault must have struck."""
STORIES: Final = 3
DOCUMENTS: Final = 64
"""Those of a life or two."""


@dataclass(slots=True, kw_only=True)
class Report:
    """What is left of some lives."""

    seeds: int = 0
    executions: int = 0
    tasks: int = 0
    virtual_s: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    effects: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)
    stories: list[str] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Count others too."""
        self.seeds += other.seeds
        self.executions += other.executions
        self.tasks += other.tasks
        self.virtual_s += other.virtual_s
        self.struck += other.struck
        self.effects += other.effects
        self.failed += other.failed
        self.stories = (self.stories + other.stories)[:STORIES]

    def missing(self) -> list[str]:
        """Return the kinds of faults that should have struck by now, and never did."""
        if self.seeds < ALL_KINDS_AFTER:
            return []
        return [kind for kind in KINDS if not self.struck[kind]] + [each for each in EFFECTS if not self.effects[each]]


def prepare() -> None:
    """Make this process ready for many lives: services log nothing, and what can never change is made once.

    A compiled document is frozen through and through, so the schedulers of a life, and whoever reads its history, may
    share one. What is loaded by now lives for ever: the collector need not look at it after each life.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    compiled = lru_cache(maxsize=DOCUMENTS)(compile_document)
    for reader in (library, history):
        setattr(reader, compile_document.__name__, compiled)
    gc.freeze()


def report_on(seeds: Sequence[int]) -> Report:
    """Live some lives in this process."""
    report = Report()
    for seed in seeds:
        report.add(_report_on(seed))
    return report


def _report_on(seed: int) -> Report:
    life = live(seed)
    violations = judge(life)
    report = Report(
        seeds=1,
        executions=len(life.works),
        tasks=sum(len(reading.tasks) for reading in life.told.values()),
        virtual_s=life.virtual_s,
        struck=life.diary.struck,
        effects=Counter({name: (life.diary.effects + life.levels.effects)[name] for name in EFFECTS}),
    )
    if life.escaped is None:
        if report.tasks < TASKS_AT_LEAST:
            violations.append(_wanting(f"{report.tasks} tasks are fewer than {TASKS_AT_LEAST}"))
        if report.struck.total() < FAULTS_AT_LEAST:
            violations.append(_wanting(f"{report.struck.total()} faults are fewer than {FAULTS_AT_LEAST}"))
    if violations:
        report.failed.append(seed)
        report.stories.append(story_of(life, violations))
    return report


def _wanting(what: str) -> Violation:
    return Violation(promise="run", place="the simulation", what=what)


def simulate(first: int, count: int, jobs: int, on_progress: Callable[[Report, float], None]) -> tuple[Report, float]:
    """Live `count` lives from a first seed on, in so many processes; returns the report, and seconds of real time."""
    began = time.monotonic()
    report = Report()
    with closing(_reports(first, count, jobs)) as reports:
        for each in reports:
            report.add(each)
            on_progress(report, time.monotonic() - began)
    return report, time.monotonic() - began


def _reports(first: int, count: int, jobs: int) -> Generator[Report]:
    chunks = [range(start, min(start + CHUNK, first + count)) for start in range(first, first + count, CHUNK)]
    if jobs == 1:
        yield from map(report_on, chunks)
        return
    # Spawned: gRPC must not be forked, and each process begins as the others do.
    with ProcessPoolExecutor(min(jobs, len(chunks)), mp_context=get_context("spawn"), initializer=prepare) as pool:
        yield from pool.map(report_on, chunks)


def summary_of(report: Report, seconds: float) -> str:
    """Say what happened, in lines."""
    faults, effects = (
        ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        for counts in (report.struck, report.effects)
    )
    counts = f"{report.executions} executions, {report.tasks} tasks, {report.virtual_s / 3600:.1f} virtual hours"
    lines = [
        f"{report.seeds} seeds in {seconds:.0f} s ({report.seeds / max(seconds, 0.001):.1f} per second): {counts}",
        f"{report.struck.total()} faults struck: {faults}",
        f"of which the suite saw: {effects}",
        *(f"never struck: {kind}" for kind in report.missing()),
        f"violations in {len(report.failed)} seeds" + (f": {report.failed[:20]}" if report.failed else ""),
    ]
    return "\n".join(lines)
