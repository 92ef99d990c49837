"""What a no-op task costs the worker: `python -m tests.bench.runners [slots]`.

Feeds 50,000 tasks with three small arguments and 32-byte results through core, wire conversions and real runner
processes, without a network, and prints CPU time per task for agent (with the bench's own loop-back) and runners.
"""

import asyncio
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil
from nodeflow.worker_manager.v1 import attempt_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as wm

from nodeflow_worker.adapters.runner_process import RunnerProcesses
from nodeflow_worker.domain import events
from nodeflow_worker.domain import instructions as do
from nodeflow_worker.domain.agent import Agent
from nodeflow_worker.outbound import Waiting
from nodeflow_worker.ports import Beat, Held
from nodeflow_worker.wire import WireReader, WireWriter

TASKS: Final = 50_000
BATCH: Final = 128


class Bench:
    """A worker whose stream is a loop-back: each written update is acknowledged and answered with new assignments."""

    def __init__(self, directory: str, slots: int) -> None:
        self.agent = Agent(slots=slots, max_credits=1024)
        self.runners = RunnerProcesses([], os.environ)
        self.ready = asyncio.Event()
        self.finished = asyncio.Event()
        self._reader = WireReader()
        self._writer = WireWriter(worker_id="w", labels={}, version="0")
        self._waiting = Waiting(lambda: Held(live=(), unacknowledged=()), self._no_beat)
        self._directory = directory
        self._given = 0
        self._done = 0
        self._bid = slots
        self._turn: asyncio.Handle | None = None

    def handle(self, event: events.Event) -> None:
        if isinstance(event, events.RunnerReady):
            self.ready.set()
        for order in self.agent.handle(event, time.monotonic()):
            match order:
                case do.Feed():
                    self.runners.feed(order.runner, order.directory, order.attempts)
                case do.Spawn():
                    self.runners.spawn(order.runner, order.delay_s)
                case do.Report():
                    self._waiting.add(order.started, order.results, order.refused)
                    if self._turn is None:
                        self._turn = asyncio.get_running_loop().call_soon(self._write)
                case do.TellBid():
                    self.agent.handle(events.BeatSent(beat=1), 0.0)
                    self._bid = self.agent.bid.slots + self.agent.bid.credits
                case _:
                    raise AssertionError(order)

    def fill(self) -> None:
        """Give out as much as the bid allows, through the wire's conversions."""
        while (room := min(self._bid - (self._given - self._done), TASKS - self._given, BATCH)) > 0:
            response = wm.ConnectResponse.FromString(self._batches[self._given, room])
            self._given += room
            message = self._reader.read(response)
            assert message is not None
            self.handle(message)

    def prepare(self) -> None:
        """Have messages serialised beforehand: that is another process's work."""
        self._batches = _Batches(self._directory)

    def _write(self) -> None:
        self._turn = None
        message = self._waiting.next()
        if message is None:
            return
        request = wm.ConnectRequest.FromString(self._writer.write(message).SerializeToString())
        results = request.updates.results
        assert all(each.HasField("output") for each in results), results
        self._done += len(results)
        self.handle(events.Acknowledged(result_ids=[each.result_id for each in results]))
        self.fill()
        if self._done == TASKS:
            self.finished.set()

    def _no_beat(self) -> Beat:
        raise AssertionError("no heartbeat is asked for")


class _Batches:
    """Serialised AssignmentBatches of tasks from a number on."""

    def __init__(self, directory: str) -> None:
        function = attempt_pb2.FunctionExecutor(function="noop:noop", directory=directory)
        self._spec = attempt_pb2.TaskSpec(tenant="t", workflow="w", node="n", function=function)
        self._all = [self._assignment(number) for number in range(TASKS)]

    def __getitem__(self, place: tuple[int, int]) -> bytes:
        start, count = place
        batch = attempt_pb2.AssignmentBatch(specs=[self._spec], assignments=self._all[start : start + count])
        return wm.ConnectResponse(assignments=batch).SerializeToString()

    @staticmethod
    def _assignment(number: int) -> attempt_pb2.Assignment:
        return attempt_pb2.Assignment(
            execution_id=f"0192f0c1-0000-7000-8000-{number // 100:012d}",
            task_number=number % 100,
            attempt_number=1,
            shard=number % 64,
            fencing_token=7,
            arguments=b'{"a":"%032d","b":"%032d","c":%d}' % (number, number, number),
        )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _children_cpu_s() -> float:
    return sum(sum(each.cpu_times()[:2]) for each in psutil.Process().children())


async def measure(directory: str, slots: int) -> None:
    bench = Bench(directory, slots)
    bench.prepare()
    bench.runners.listen(bench.handle)
    bench.handle(events.Started())
    await bench.ready.wait()
    cpu, children, began = _cpu_s(), _children_cpu_s(), time.monotonic()
    bench.fill()
    await bench.finished.wait()
    seconds = time.monotonic() - began
    agent, runner = _cpu_s() - cpu, _children_cpu_s() - children
    await bench.runners.close()
    print(f"{slots} slots: {TASKS / seconds:,.0f} tasks/s")
    print(f"agent {agent / TASKS * 1e6:.2f} µs per task (with the loop-back)")
    print(f"runners {runner / TASKS * 1e6:.2f} µs per task")


def main(slots: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "noop.py").write_text("def noop(a, b, c):\n    return a\n")
        asyncio.run(measure(directory, slots))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
