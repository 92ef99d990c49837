"""What is done to the processes of a suite: kill -9, and standing still for a time.

Owns the processes by name, and the faults. Must not know what the suite works on.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

import psutil
from tests.support.suite import Suite


class Victim(StrEnum):
    """A process of a suite."""

    SCHEDULER = "scheduler"
    STATE_MANAGER = "state-manager"
    WORKER_MANAGER = "worker-manager"
    WORKER = "worker"
    LAUNCHER = "launcher"
    RUNNER = "runner"


SERVICES: Final = (Victim.SCHEDULER, Victim.STATE_MANAGER, Victim.WORKER_MANAGER, Victim.WORKER)
_MARKS: Final = {Victim.LAUNCHER: "launcher/__main__.py", Victim.RUNNER: "nodeflow_worker.runner"}
"""By what the command line of a worker's child is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that happens to one process."""

    victim: Victim
    pause_s: float | None
    """How long it stands still; None: it is killed."""

    def __str__(self) -> str:
        """In words."""
        if self.pause_s is None:
            return f"kill -9 of the {self.victim}"
        return f"stop of the {self.victim} for {self.pause_s:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """A fault that happened."""

    fault: Fault
    end: float
    """When it was over, monotonic: of a kill the moment itself, of a stop when the process went on."""


async def strike(suite: Suite, fault: Fault, random: Random) -> Struck:
    """Do it, to its end. Other faults may strike the same process meanwhile."""
    while True:
        process = await _process_of(suite, fault.victim, random)
        begin = time.monotonic()
        try:
            if fault.pause_s is None:
                process.kill()
                return Struck(fault=fault, end=begin)
            process.suspend()
        except psutil.NoSuchProcess:
            continue  # another fault was quicker
        try:
            # The pause is the fault itself: there is nothing to wait for.
            await asyncio.sleep(fault.pause_s)
        finally:
            with suppress(psutil.NoSuchProcess):
                process.resume()
        return Struck(fault=fault, end=time.monotonic())


async def _process_of(suite: Suite, victim: Victim, random: Random) -> psutil.Process:
    """Return a process; waits while there is none, because its worker has just been restarted."""
    while True:
        found = list(_processes_of(suite, victim))
        if found:
            return random.choice(found)
        await asyncio.sleep(0.05)


def _processes_of(suite: Suite, victim: Victim) -> Iterator[psutil.Process]:
    try:
        if victim in SERVICES:
            yield psutil.Process(suite.pid(victim))
            return
        for child in psutil.Process(suite.pid(Victim.WORKER)).children():
            if any(word.endswith(_MARKS[victim]) for word in child.cmdline()):
                yield child
    except psutil.NoSuchProcess:
        return
