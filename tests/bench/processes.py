"""The processor time of each process of a suite, and of the client that drives it.

Owns who counts as what. Must not know what the processes do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psutil

from nodeflow_sdk.suite import Suite, SuiteService

RUNNERS: Final = "runners"
CLIENT: Final = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTimes:
    """Seconds of processor time, user and system, of single processes."""

    by_process: Mapping[str, Mapping[int, float]]

    def per_node(self, before: "CpuTimes", nodes: int) -> dict[str, float]:
        """Return what each process used since `before`, in microseconds per node."""
        return {
            name: round(sum(_since(pid, used, before.by_process[name]) for pid, used in times.items()) * 1e6 / nodes, 2)
            for name, times in self.by_process.items()
        }


def read_cpu_times(suite: Suite) -> CpuTimes:
    """Read the counters of all processes of the suite, and of this one."""
    pids: dict[str, list[int]] = {service.value: [pid] for service, pid in suite.pids.items()}
    pids[RUNNERS] = runner_pids(suite)
    pids[CLIENT] = [psutil.Process().pid]
    return CpuTimes(by_process={name: {pid: _used(pid) for pid in each} for name, each in pids.items()})


def runner_pids(suite: Suite) -> list[int]:
    """Return the processes that the worker has started."""
    return [child.pid for child in psutil.Process(suite.pids[SuiteService.WORKER]).children(recursive=True)]


def _used(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _since(pid: int, used: float, before: Mapping[int, float]) -> float:
    # A runner that was started in between counts from its birth.
    return used - before.get(pid, 0.0)
