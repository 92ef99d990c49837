"""A running suite: all children at once, healthy before it is shown, stopped in order.

Owns the order of start and stop, and suite.json. Must not know what is done with the suite.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from nodeflow_sdk.side_tasks import unwrapped
from nodeflow_sdk.suite.child import Child
from nodeflow_sdk.suite.errors import SuiteError
from nodeflow_sdk.suite.health import wait_until_healthy
from nodeflow_sdk.suite.lock import locked
from nodeflow_sdk.suite.log_files import LogFile
from nodeflow_sdk.suite.observer import SilentObserver, SuiteObserver
from nodeflow_sdk.suite.ports import choose_addresses
from nodeflow_sdk.suite.record import SuiteRecord, remove_record, write_record
from nodeflow_sdk.suite.services import STOP_ORDER, SuiteOptions, SuiteService, environment

START_TIMEOUT_S: Final = 60.0
# A service that drains closes its store and its streams afterwards.
STOP_GRACE_S: Final = 3.0


class Suite:
    """The services of one data directory. `addresses` hold for its whole life, whoever dies."""

    def __init__(self, options: SuiteOptions, observer: SuiteObserver, lock: int) -> None:
        self.data_dir: Path = options.data_dir.resolve()
        addresses = choose_addresses(options.port)
        self.addresses = {service: addresses[service] for service in options.services}
        self.start_time = datetime.now(UTC)
        self._options = options
        self._logs = {service: LogFile(self.data_dir, service) for service in options.services}
        self._published = False
        # In the order of their stop.
        self._children = {
            service: Child(
                service,
                address=self.addresses[service],
                patience=options.patience,
                environment=environment(service, options, self.addresses),
                log=self._logs[service],
                observer=observer,
                lock=lock,
                on_life=self._update_record,
            )
            for service in STOP_ORDER
            if service in self.addresses
        }

    @property
    def scheduler(self) -> str:
        """The address that clients use."""
        return self.addresses[SuiteService.SCHEDULER]

    @property
    def pids(self) -> dict[SuiteService, int]:
        """The process ids of the present lives."""
        return {service: child.pid for service, child in self._children.items()}

    def start(self, lives: asyncio.TaskGroup, outputs: asyncio.TaskGroup) -> None:
        """Start every service: each waits for its peers by itself, so that none waits for another's imports."""
        # Those that others wait for are a little ahead, which shows where there are fewer CPUs than services.
        for service, child in reversed(self._children.items()):
            lives.create_task(child.supervise(outputs), name=f"suite.{service}")

    async def wait_until_healthy(self) -> None:
        """Return when every service serves; raises SuiteError when that takes too long."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S), asyncio.TaskGroup() as group:
                for service, child in self._children.items():
                    group.create_task(self._wait_for(child), name=f"suite.{service}.health")
        except TimeoutError:
            raise SuiteError(self._late()) from None

    def publish(self) -> None:
        """Write suite.json: the suite can be used."""
        write_record(self.data_dir, self._record())
        self._published = True

    async def stop(self) -> None:
        """Withdraw suite.json and stop the services, those that produce first."""
        self._published = False
        # On a disk that was made read-only it stays: whoever finds it there asks whether anybody answers.
        with suppress(OSError):
            remove_record(self.data_dir)
        for child in self._children.values():
            await child.stop(self._options.drain_timeout_s + STOP_GRACE_S)
        for log in self._logs.values():
            log.close()

    async def _wait_for(self, child: Child) -> None:
        await wait_until_healthy(self.addresses[child.service])
        child.steady = True

    def _late(self) -> str:
        late = ", ".join(service for service, child in self._children.items() if not child.steady)
        return f"after {START_TIMEOUT_S:.0f} s these do not answer: {late}; see their logs in {self.data_dir / 'logs'}"

    def _update_record(self) -> None:
        """Tell of a new life. On a full disk the record stays as it was: its addresses hold, a process id is old."""
        if self._published:
            with suppress(OSError):
                write_record(self.data_dir, self._record())

    def _record(self) -> SuiteRecord:
        return SuiteRecord(
            pid=os.getpid(),
            start_time=self.start_time.isoformat(timespec="milliseconds"),
            lasting=self._options.lasting,
            addresses={service.value: address for service, address in self.addresses.items()},
            pids={service.value: pid for service, pid in self.pids.items()},
        )


@asynccontextmanager
async def running_suite(options: SuiteOptions, observer: SuiteObserver | None = None) -> AsyncIterator[Suite]:
    """Run a suite inside the block: healthy when the block begins, stopped in order when it ends. Raises SuiteError."""
    _require_services()
    observer = observer or SilentObserver()
    async with locked(options.data_dir, observer.on_wait) as lock:
        # What a supervisor that was killed has left behind.
        remove_record(options.data_dir)
        suite = Suite(options, observer, lock)
        with unwrapped():
            # Outside of the lives: a service whose output nobody reads any more cannot stop in order.
            async with asyncio.TaskGroup() as outputs:
                with unwrapped():
                    async with asyncio.TaskGroup() as lives:
                        try:
                            suite.start(lives, outputs)
                            await suite.wait_until_healthy()
                            suite.publish()
                            yield suite
                        finally:
                            await suite.stop()


def _require_services() -> None:
    missing = [service for service in SuiteService if find_spec(service.module) is None]
    if missing:
        raise SuiteError(
            f"not installed here: {', '.join(missing)}; install the suite with `pip install 'nodeflow-sdk[embedded]'`"
        )
