"""A virtual suite for code that is not on its loop, such as a test: time passes only while something is asked of it.

Owns the loop, and the suite on it from the first call to `close`. Must not know what is asked.
"""

import asyncio
import random
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final, TypeVar

from nodeflow_testing.machine_clock import MachineClock
from nodeflow_testing.python_calls import Stubs, heard
from nodeflow_testing.python_processes import PythonProcesses
from nodeflow_testing.python_runners import PythonRunners
from nodeflow_testing.virtual_loop import OutOfTime, VirtualLoop
from nodeflow_testing.virtual_processes import Equipment
from nodeflow_testing.virtual_suite import VirtualSuite

T = TypeVar("T")

# As long as the services allow: time that passes costs renewals and heartbeats, about 10 ms of real time for an hour.
LEASE_TIMEOUT_S: Final = 300.0
HEARTBEAT_INTERVAL_S: Final = 150.0


class SteppedSuite:
    """The suite, with workers that call the functions of this process. `stubs` may change at any time."""

    def __init__(self, *, workers: int = 1, slots: int = 8, seed: int = 0, horizon_s: float) -> None:
        self.stubs = Stubs()
        self._built = partial(VirtualSuite, workers=workers, slots=slots, seed=seed)
        self._random = random.Random(seed).getstate()
        self._path = sys.path[:]
        self._loop = VirtualLoop(horizon_s)
        self._suite: VirtualSuite | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[VirtualSuite] = self._loop.create_future()
        self._aborted: asyncio.Future[None] = self._loop.create_future()
        self._closing = asyncio.Event()

    @property
    def now_s(self) -> float:
        """Virtual seconds since the beginning."""
        return self._loop.time()

    async def suite(self) -> VirtualSuite:
        """Return the suite once it is ready, started with the first call. On its loop only."""
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="suite")
        return await asyncio.shield(self._ready)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, to its end; from a running loop too, which waits meanwhile.

        Raises what ends the suite, or what a node raised that is no Exception; and OutOfTime after `horizon_s`.
        """
        if asyncio._get_running_loop() is None:  # the one way to ask without an exception
            return self._run(work)
        outcome: list[T] = []
        errors: list[BaseException] = []
        context = copy_context()

        def run() -> None:
            try:
                outcome.append(context.run(self._run, work))
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                errors.append(error)

        thread = threading.Thread(target=run, name="nodeflow-virtual")
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return outcome[0]

    def close(self) -> None:
        """Stop the suite, and raise what was raised where nobody was listening."""
        try:
            if self._keeper is not None and not self._keeper.done() and not self._aborted.done():
                self.call(self._stopped())
        finally:
            with self._entered():
                self._loop.run_until_complete(self._cancelled_rest())
            self._loop.close()
            sys.path[:] = [each for each in sys.path if each in self._path]
        if self._loop.stray and not self._aborted.done():
            raise ExceptionGroup("raised where nobody was listening", self._loop.stray)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._entered():
            task = self._loop.create_task(work, name="call")
            try:
                return self._loop.run_until_complete(self._watched(task))
            except OutOfTime:
                task.cancel()
                self._loop.run_until_complete(asyncio.wait([task]))
                raise

    async def _watched(self, task: asyncio.Task[T]) -> T:
        """Await a task, unless the suite ends or the run is aborted before."""
        ends: list[asyncio.Future[Any]] = [task, self._aborted]
        if self._keeper is None:
            await self.suite()
        assert self._keeper is not None
        await asyncio.wait([*ends, self._keeper], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            await (self._aborted if self._aborted.done() else self._keeper)
        return await task

    async def _keep(self) -> None:
        try:
            async with self._built(
                equip=self._equip,
                lease_timeout_s=LEASE_TIMEOUT_S,
                heartbeat_interval_s=HEARTBEAT_INTERVAL_S,
                shards=1,
            ) as suite:
                self._ready.set_result(suite)
                await self._closing.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    def _equip(self, context: Context, clock: MachineClock) -> Equipment:
        return Equipment(
            runners=PythonRunners(self.stubs, self._abort, context=context, clock=clock),
            processes=PythonProcesses(self.stubs, self._abort, clock),
        )

    def _abort(self, error: BaseException) -> None:
        if not self._aborted.done():
            self._aborted.set_exception(error)

    async def _stopped(self) -> None:
        self._closing.set()
        assert self._keeper is not None
        await asyncio.wait([self._keeper])

    async def _cancelled_rest(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    @contextmanager
    def _entered(self) -> Iterator[None]:
        """While inside, `random` repeats itself from run to run, and what tasks write is theirs."""
        state = random.getstate()
        random.setstate(self._random)
        try:
            with heard():
                yield
        finally:
            self._random = random.getstate()
            random.setstate(state)
