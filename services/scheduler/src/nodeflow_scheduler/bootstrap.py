"""Builds the scheduler: the only place that knows which adapter stands behind which port."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence

import grpc.aio
from nodeflow.scheduler.v1 import scheduler_service_pb2 as service_pb2
from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import add_SchedulerServiceServicer_to_server

from nodeflow_scheduler.adapters.artifacts import GrpcArtifacts
from nodeflow_scheduler.adapters.event_log import GrpcEventLog
from nodeflow_scheduler.adapters.logs import GrpcLogs
from nodeflow_scheduler.adapters.state_manager import GrpcCatalogue, GrpcJournal, GrpcShardLeases
from nodeflow_scheduler.adapters.workers import GrpcWorkers
from nodeflow_scheduler.answering import Answering
from nodeflow_scheduler.config import Settings
from nodeflow_scheduler.domain.admission import Limits
from nodeflow_scheduler.domain.core import Core
from nodeflow_scheduler.domain.messages import Input
from nodeflow_scheduler.driver import INBOX_LIMIT, INBOX_LIMIT_BYTES, Driver
from nodeflow_scheduler.exporting import Exporting
from nodeflow_scheduler.intake import Intake
from nodeflow_scheduler.library import Library
from nodeflow_scheduler.outage import Outage
from nodeflow_scheduler.ownership import Ownership
from nodeflow_scheduler.ports import Question
from nodeflow_scheduler.reading import Reading
from nodeflow_scheduler.servicer import SchedulerServicer
from nodeflow_scheduler.tailing import Tailing
from nodeflow_shared.channel import open_channel
from nodeflow_shared.clock import Clock, SystemClock
from nodeflow_shared.server import WHOLE
from nodeflow_shared.streams import Inbox

Connect = Callable[[str], grpc.aio.Channel]


def limits_of(settings: Settings) -> Limits:
    """What the core may hold."""
    return Limits(
        open_executions=settings.max_open_executions,
        open_tasks=settings.max_open_tasks,
        waiting_submissions=settings.max_waiting_submissions,
    )


class SchedulerService:
    """The scheduler as a process serves it."""

    name = "scheduler"
    parts_ready = WHOLE

    def __init__(
        self, settings: Settings, connect: Connect, clock: Clock, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._store_channel = connect(settings.state_manager)
        self._manager_channels = {address: connect(address) for address in settings.worker_managers}
        core = Core(settings.worker_managers, limits_of(settings))
        outage = Outage()
        self._event_log = GrpcEventLog(self._store_channel, outage)
        artifacts = GrpcArtifacts(self._store_channel)
        catalogue = GrpcCatalogue(self._store_channel)
        journal = GrpcJournal(self._store_channel)
        library = Library(catalogue)
        inbox: Inbox[Input] = Inbox(INBOX_LIMIT, limit_bytes=INBOX_LIMIT_BYTES)
        questions: Inbox[Question] = Inbox(INBOX_LIMIT)
        self._workers = GrpcWorkers(self._manager_channels, settings.instance, inbox, questions)
        self._driver = Driver(
            core=core,
            inbox=inbox,
            log=self._event_log,
            workers=self._workers,
            artifacts=artifacts,
            clock=clock,
            outage=outage,
        )
        self._answering = Answering(self._driver, self._workers, questions)
        leases = GrpcShardLeases(self._store_channel, settings.instance, settings.lease_timeout_s)
        self._ownership = Ownership(
            driver=self._driver,
            leases=leases,
            journal=journal,
            compiled=library,
            log=self._event_log,
            workers=self._workers,
            clock=clock,
        )
        intake = Intake(
            self._driver, self._ownership, catalogue, clock=clock, random_bytes=random_bytes, uploads=artifacts
        )
        reading = Reading(self._driver, journal, catalogue, library)
        self._tailing = Tailing(reading, GrpcLogs(self._store_channel, self._manager_channels))
        self._servicer = SchedulerServicer(
            intake=intake,
            reading=reading,
            tailing=self._tailing,
            exporting=Exporting(reading, journal, catalogue, library),
            library=library,
            catalogue=catalogue,
            artifacts=artifacts,
            uploads=artifacts,
        )
        self._drained = asyncio.Event()

    @property
    def service_names(self) -> Sequence[str]:
        """For reflection and health."""
        return (service_pb2.DESCRIPTOR.services_by_name["SchedulerService"].full_name,)

    @property
    def ready(self) -> asyncio.Event:
        """Set while shards of ours are loaded."""
        return self._ownership.ready

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer."""
        add_SchedulerServiceServicer_to_server(self._servicer, server)

    async def run(self) -> None:
        """Runs until drained."""
        async with asyncio.TaskGroup() as group:
            work = [
                group.create_task(self._event_log.run(), name="event log"),
                group.create_task(self._workers.run(), name="workers"),
                group.create_task(self._driver.run(), name="driver"),
                group.create_task(self._ownership.run(), name="ownership"),
                group.create_task(self._tailing.run(), name="tailing"),
                group.create_task(self._answering.run(), name="answering"),
            ]
            await self._drained.wait()
            for task in work:
                task.cancel()

    async def drain(self) -> None:
        """Ends watches, lets what was decided be committed and answered, and gives the shards back."""
        self._driver.publisher.end()
        await self._driver.settled()
        await self._ownership.release()
        self._drained.set()

    async def close(self) -> None:
        """Closes the channels."""
        await self._store_channel.close()
        for channel in self._manager_channels.values():
            await channel.close()


async def build(
    settings: Settings,
    *,
    connect: Connect = open_channel,
    clock: Clock | None = None,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
) -> SchedulerService:
    """Builds a scheduler inside the running loop."""
    return SchedulerService(settings, connect, clock or SystemClock(), random_bytes)
