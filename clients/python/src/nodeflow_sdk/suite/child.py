"""One child process: started, its output read, started again when it dies or hangs, stopped.

Owns one service's lives. Must not know what the other services do.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from nodeflow_sdk.suite.errors import SuiteError
from nodeflow_sdk.suite.health import Patience, wait_for_silence
from nodeflow_sdk.suite.log_files import LogFile
from nodeflow_sdk.suite.observer import SuiteObserver
from nodeflow_sdk.suite.services import SuiteService
from nodeflow_shared.retry import reconnect_delays

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 5.0
# A life this long means that the cause of earlier deaths is gone.
STEADY_AFTER_S: Final = 10.0
# Deaths before the first readiness that are put up with.
MAX_EARLY_DEATHS: Final = 3
# The exit code of a service that was told something wrong: another try cannot help.
EXIT_STARTUP: Final = 2
# What the system gets to end a killed process, and what its last output gets to arrive.
LAST_OUTPUT_S: Final = 0.5
MAX_LINE_BYTES: Final = 1024 * 1024


class Child:
    """A service's process, in all its lives."""

    def __init__(
        self,
        service: SuiteService,
        *,
        address: str,
        patience: Patience,
        environment: Mapping[str, str],
        log: LogFile,
        observer: SuiteObserver,
        lock: int | None,
        on_life: Callable[[], None],
    ) -> None:
        self.service = service
        self.steady = False
        """Set by the supervisor once the service was healthy; from then on it is restarted without end."""
        self._address = address
        self._patience = patience
        self._environment = environment
        self._log = log
        self._observer = observer
        self._lock = lock
        self._on_life = on_life
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._starting = asyncio.Lock()
        self._readers: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """The process id of the present or last life; 0 before the first."""
        return self._process.pid if self._process else 0

    async def supervise(self, outputs: asyncio.TaskGroup) -> None:
        """Start the process, and again whenever it ends, until `stop`; raises SuiteError if it cannot start at all."""
        delays, early_deaths = self._new_delays(), 0
        process = await self._begin_life(outputs)
        while process is not None:
            born = asyncio.get_running_loop().time()
            exit_code = await self._live(process)
            if self._stopping.is_set():
                return
            early_deaths += not self.steady
            if not self.steady and (exit_code == EXIT_STARTUP or early_deaths >= MAX_EARLY_DEATHS):
                raise await self._failure(exit_code)
            if asyncio.get_running_loop().time() - born > STEADY_AFTER_S:
                delays = self._new_delays()
            process = await self._begin_next_life(outputs, delays)
            if process is not None:
                self._observer.on_restart(self.service, exit_code, process.pid)

    async def _begin_next_life(
        self, outputs: asyncio.TaskGroup, delays: Iterator[float]
    ) -> asyncio.subprocess.Process | None:
        """Start the process again, unless it was to stop; a system that has no room for it now is asked again."""
        while not await self._stopped_within(next(delays)):
            try:
                return await self._begin_life(outputs)
            except OSError as error:
                if not self.steady:
                    raise
                self._tell(f"the {self.service} cannot be started now: {error.strerror or error}")
        return None

    async def _begin_life(self, outputs: asyncio.TaskGroup) -> asyncio.subprocess.Process | None:
        """Start the process, unless it was to stop; `stop` waits for that, or nobody would ever stop this life."""
        async with self._starting:
            return None if self._stopping.is_set() else await self._start(outputs)

    async def _live(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the end of a life, and return its exit code."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._kill_when_silent(process), name=f"suite.{self.service}.watch")
            exit_code = await process.wait()
            watch.cancel()
        return exit_code

    async def _kill_when_silent(self, process: asyncio.subprocess.Process) -> None:
        await wait_for_silence(self._address, self._patience)
        self._observer.on_silence(self.service, process.pid)
        process.kill()

    async def stop(self, timeout_s: float) -> None:
        """Ask the process to stop, kill it after the timeout, and read its last output."""
        self._stopping.set()
        async with self._starting:
            process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(timeout_s):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await self._finish_reading()

    async def _start(self, outputs: asyncio.TaskGroup) -> asyncio.subprocess.Process:
        # A pipe of our own: asyncio's would make `wait` last until grandchildren that inherited it have ended, too.
        read_end, write_end = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self.service.module,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                # A Ctrl-C at the terminal is for the supervisor, which stops its children in order.
                start_new_session=True,
                pass_fds=() if self._lock is None else (self._lock,),
                env={**os.environ, **self._environment},
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        name = f"suite.{self.service}.output"
        self._readers = [task for task in self._readers if not task.done()]
        self._readers.append(outputs.create_task(self._read(read_end), name=name))
        self._on_life()
        return self._process

    async def _read(self, read_end: int) -> None:
        reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb", buffering=0)
        )
        try:
            while True:
                try:
                    data = await reader.readline()
                except ValueError:
                    data = b"(a line of more than 1 MiB was left out)\n"
                if not data:
                    return
                self._tell(data.decode(errors="replace").rstrip("\n"))
        finally:
            transport.close()

    def _tell(self, line: str) -> None:
        self._log.write(line)
        self._observer.on_line(self.service, line)

    async def _failure(self, exit_code: int) -> SuiteError:
        await self._finish_reading()
        said = "\n".join(f"  {line}" for line in self._log.tail) or "  (it wrote nothing)"
        return SuiteError(
            f"the {self.service} cannot start ({_in_words(exit_code)}); it said last:\n{said}\n"
            f"All of its log: {self._log.path}"
        )

    async def _finish_reading(self) -> None:
        if self._readers:
            _, unfinished = await asyncio.wait(self._readers, timeout=LAST_OUTPUT_S)
            for task in unfinished:
                task.cancel()

    async def _stopped_within(self, delay_s: float) -> bool:
        try:
            async with asyncio.timeout(delay_s):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    def _new_delays(self) -> Iterator[float]:
        return reconnect_delays(FIRST_DELAY_S, LONGEST_DELAY_S, jitter=0)


def _in_words(exit_code: int) -> str:
    return f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
