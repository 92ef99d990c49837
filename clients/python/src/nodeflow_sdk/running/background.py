"""The loop that serves a process: a thread of its own, so that scripts, notebooks and running loops are served alike.

Owns the thread, and the suites that are open. All gRPC of a process is on this one loop. A suite is started when it is
first needed and stopped when the process ends.
"""

import asyncio
import atexit
import logging
import os
import sys
import sysconfig
import threading
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from nodeflow_sdk.client import CALL_TIMEOUT_S, Client, open_client
from nodeflow_sdk.running.told import TOLD, shortened
from nodeflow_sdk.suite.attach import Attachment, attached
from nodeflow_sdk.suite.errors import SuiteError
from nodeflow_sdk.suite.health import answers
from nodeflow_sdk.suite.record import find_record
from nodeflow_sdk.suite.services import SuiteOptions, SuiteService
from nodeflow_shared.address import parse_address
from nodeflow_shared.errors import InvalidInput, NodeflowError, Unavailable

T = TypeVar("T")

# The standard library's: a script that configured nothing sees it on standard error.
_log = logging.getLogger("nodeflow")

ADDRESS_VARIABLE: Final = "NODEFLOW_ADDRESS"
WORKER_MANAGER_VARIABLE: Final = "NODEFLOW_WORKER_MANAGER"
STOP_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """A suite, and a client of its scheduler."""

    client: Client
    attachment: Attachment


class Background:
    """A loop in a thread, started with the first call; `close` is called when the process ends."""

    def __init__(self) -> None:
        self._pid = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._open: dict[str, asyncio.Task[None]] = {}
        self._ready: dict[str, asyncio.Future[Connected]] = {}

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it; it is cancelled if this is interrupted."""
        future = self._submit(work)
        try:
            return future.result()
        except TOLD as error:
            raise shortened(error) from error.__cause__
        except BaseException:
            future.cancel()
            raise

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, and await it on another."""
        try:
            return await asyncio.wrap_future(self._submit(work))
        except TOLD as error:
            raise shortened(error) from error.__cause__

    async def client(self, address: str | None) -> Client:
        """Return a client of the suite at an address, or of the one of this directory. On the loop only."""
        return (await self.connected(address)).client

    async def worker_manager(self, address: str | None, named: str | None) -> str | None:
        """Return where workers of that suite connect; None for one that was started for this process."""
        attachment = (await self.connected(address)).attachment
        if attachment.embedded:
            return None
        found = named or os.environ.get(WORKER_MANAGER_VARIABLE) or attachment.worker_manager
        record = find_record(Path.cwd())
        if not found and record is not None and record[1].addresses.get(SuiteService.SCHEDULER) == attachment.scheduler:
            found = record[1].addresses.get(SuiteService.WORKER_MANAGER)
        if not found:
            raise SuiteError(
                f"nothing here says where the worker-manager of {attachment.scheduler} is; "
                f'name it: worker_manager="host:port", or {WORKER_MANAGER_VARIABLE}'
            )
        return found

    async def connected(self, address: str | None) -> Connected:
        """Return the suite at an address, or the one of this directory, started if there is none. On the loop only."""
        address = address or os.environ.get(ADDRESS_VARIABLE) or None
        key = address or str(Path.cwd())
        holder = self._open.get(key)
        if holder is None or holder.done():
            ready: asyncio.Future[Connected] = asyncio.get_running_loop().create_future()
            self._ready[key] = ready
            # Held in a field; its end is awaited by the thread's main coroutine.
            self._open[key] = asyncio.get_running_loop().create_task(self._hold(address, ready), name=f"suite {key}")
        return await asyncio.shield(self._ready[key])

    def close(self) -> None:
        """Stop the suites that were started, and end the thread."""
        with self._lock:
            thread, loop, stopping = self._thread, self._loop, self._stopping
        if thread is None or loop is None or stopping is None or not thread.is_alive():
            return
        loop.call_soon_threadsafe(stopping.set)
        thread.join(STOP_TIMEOUT_S)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._thread is not None and self._pid != os.getpid():
            work.close()
            raise SuiteError(
                "this process was forked from one that had talked to a suite, and cannot; start it anew, say with "
                'multiprocessing.get_context("spawn")'
            )
        with self._lock:
            if self._thread is None:
                self._start()
            loop = self._loop
        assert loop is not None
        return asyncio.run_coroutine_threadsafe(work, loop)

    def _start(self) -> None:
        self._pid = os.getpid()
        started = threading.Event()
        # A daemon: the interpreter would otherwise wait for it before it runs `close`.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="nodeflow-background", daemon=True
        )
        self._thread.start()
        started.wait()
        atexit.register(self.close)

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        started.set()
        await self._stopping.wait()
        if self._open:
            await asyncio.wait(self._open.values())

    async def _hold(self, address: str | None, ready: asyncio.Future[Connected]) -> None:
        """Keep a suite open until the process ends; what prevents that is told to who waits for it."""
        assert self._stopping is not None
        try:
            async with _attachment(address) as attachment, open_client(attachment.scheduler, on_wait=_warn) as client:
                ready.set_result(Connected(client=client, attachment=attachment))
                await self._stopping.wait()
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to the caller, not to this task
            if not ready.done():
                ready.set_exception(error)


def _warn(error: NodeflowError) -> None:
    _log.warning("waiting for the scheduler, and trying again: %s", error.message)


@asynccontextmanager
async def _attachment(address: str | None) -> AsyncIterator[Attachment]:
    if address is not None:
        await _check(address)
        yield Attachment(scheduler=address, worker_manager=None, embedded=False)
        return
    async with attached(SuiteOptions(path=import_path())) as attachment:
        yield attachment


async def _check(address: str) -> None:
    """Raise Unavailable if a suite that is named cannot be there: gRPC would guess a port, and tell of sockets."""
    try:
        parse_address(address)
    except ValueError as error:
        raise InvalidInput(f"the address of the suite, {address!r}, {error}") from None
    if not await answers(address, CALL_TIMEOUT_S):
        raise Unavailable(
            f"no Node Flow scheduler answers at {address}; start a suite with `nodeflow up`, "
            f'or name another: suite="host:port", or {ADDRESS_VARIABLE}'
        )


def import_path() -> tuple[Path, ...]:
    """Return the directories that this process imports from, for workers that do not have them by themselves."""
    own = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    found = [Path(entry).resolve() for entry in sys.path if entry not in ("", "..")]
    return tuple(dict.fromkeys([Path.cwd(), *(path for path in found if path.is_dir() and path not in own)]))
