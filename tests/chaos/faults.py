"""What is done to the processes of a suite: kill -9, and standing still for a time.

Owns the processes by name, and the faults. Must not know what the suite works on.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
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
    pid: int
    begin: float
    end: float
    """Monotonic, as `begin`: of a kill the same moment, of a stop when it went on."""


async def strike(suite: Suite, fault: Fault, random: Random) -> Struck:
    """Do it, to its end."""
    pid = await _pid_of(suite, fault.victim, random)
    begin = time.monotonic()
    if fault.pause_s is None:
        os.kill(pid, signal.SIGKILL)
        return Struck(fault=fault, pid=pid, begin=begin, end=begin)
    os.kill(pid, signal.SIGSTOP)
    try:
        # The pause is the fault itself: there is nothing to wait for.
        await asyncio.sleep(fault.pause_s)
    finally:
        os.kill(pid, signal.SIGCONT)
    return Struck(fault=fault, pid=pid, begin=begin, end=time.monotonic())


async def _pid_of(suite: Suite, victim: Victim, random: Random) -> int:
    """Return a process id; waits while there is none, because its worker has just been restarted."""
    while True:
        found = list(_pids_of(suite, victim))
        if found:
            return random.choice(found)
        await asyncio.sleep(0.05)


def _pids_of(suite: Suite, victim: Victim) -> Iterator[int]:
    try:
        if victim in SERVICES:
            yield psutil.Process(suite.pid(victim)).pid
            return
        for child in psutil.Process(suite.pid(Victim.WORKER)).children():
            if any(word.endswith(_MARKS[victim]) for word in child.cmdline()):
                yield child.pid
    except psutil.NoSuchProcess:
        return
