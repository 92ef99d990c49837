"""The only place where the worker is built and wired."""

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import version

import grpc.aio

from nodeflow_shared.channel import open_channel
from nodeflow_shared.clock import Clock, SystemClock
from nodeflow_shared.errors import StartupError
from nodeflow_shared.server import WHOLE
from nodeflow_worker.adapters.local_processes import LocalProcesses
from nodeflow_worker.adapters.runner_process import RunnerProcesses
from nodeflow_worker.adapters.session_journal import SessionJournal
from nodeflow_worker.adapters.session_locks import SessionLocks
from nodeflow_worker.adapters.worker_manager import WorkerManager
from nodeflow_worker.adapters.working_trees import WorkingTrees
from nodeflow_worker.config import Settings
from nodeflow_worker.domain.agent import Agent
from nodeflow_worker.domain.output import OutputBuffer
from nodeflow_worker.driver import Driver
from nodeflow_worker.ports import Journal, Processes, Runners, Sessions
from nodeflow_worker.wire import WireWriter


class WorkerService:
    """The worker as a process serves it: no RPC of its own, only health and reflection."""

    name = "worker"
    parts_ready = WHOLE
    service_names: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        driver: Driver,
        runners: Runners,
        processes: Processes,
        sessions: Sessions,
        journal: Journal,
        channel: grpc.aio.Channel,
        ready: asyncio.Event,
    ) -> None:
        self.ready = ready
        self._driver = driver
        self._runners = runners
        self._processes = processes
        self._sessions = sessions
        self._journal = journal
        self._channel = channel

    def register(self, server: grpc.aio.Server) -> None:
        """Add nothing: a worker is a client."""

    async def run(self) -> None:
        """Work until drained."""
        await self._driver.run()

    async def drain(self) -> None:
        """Begin to drain; `run` returns when it is done."""
        self._driver.drain()

    async def close(self) -> None:
        """Kill the runners and the processes, and close the rest; whatever fails, all the others are closed as well."""
        async with AsyncExitStack() as last_first:
            last_first.callback(self._sessions.close)
            last_first.push_async_callback(self._journal.close)
            last_first.push_async_callback(self._channel.close)
            last_first.push_async_callback(self._processes.close)
            last_first.push_async_callback(self._runners.close)


async def build(
    settings: Settings,
    *,
    connect: Callable[[str], grpc.aio.Channel] = open_channel,
    clock: Clock | None = None,
    runners: Runners | None = None,
    processes: Processes | None = None,
    sessions: Sessions | None = None,
    journal: Journal | None = None,
) -> WorkerService:
    """Build a worker from its settings; tests put in a channel, a clock and what executes tasks of their own."""
    channel = connect(settings.worker_manager)
    writer = WireWriter(worker_id=settings.worker_id, labels=settings.labels, version=version("nodeflow-worker"))
    manager = WorkerManager(channel, writer)
    local = LocalProcesses(settings.state_dir / settings.worker_id, os.environ, WorkingTrees(manager.download_file))
    processes = processes or local
    runners = runners or RunnerProcesses(settings.path, os.environ, local.watch)
    sessions = sessions or _session_locks(settings)
    journal = journal or SessionJournal(settings.state_dir / settings.worker_id)
    ready = asyncio.Event()
    driver = Driver(
        agent=Agent(slots=settings.slots, max_credits=settings.max_credits),
        runners=runners,
        processes=processes,
        manager=manager,
        artifacts=manager,
        log_sink=manager,
        outputs=OutputBuffer(
            limit_bytes=settings.log_buffer_bytes, attempt_limit_bytes=settings.attempt_log_limit_bytes
        ),
        sessions=sessions,
        journal=journal,
        clock=clock or SystemClock(),
        ready=ready,
    )
    return WorkerService(
        driver=driver,
        runners=runners,
        processes=processes,
        sessions=sessions,
        journal=journal,
        channel=channel,
        ready=ready,
    )


def _session_locks(settings: Settings) -> SessionLocks:
    try:
        return SessionLocks(settings.state_dir / settings.worker_id)
    except OSError as error:
        raise StartupError(
            f"cannot use {settings.state_dir} for the locks of sessions: {error.strerror}; "
            "set NODEFLOW_WORKER_STATE_DIR to a directory that this user can write"
        ) from error
