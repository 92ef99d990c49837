"""The only place that builds the worker-manager's parts and wires them.

Owns the composition. Must not decide anything else.
"""

import asyncio
from collections.abc import Callable

import grpc.aio
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as pb
from nodeflow.worker_manager.v1 import worker_manager_service_pb2_grpc as pb_grpc

from nodeflow_shared.channel import open_channel
from nodeflow_shared.clock import Clock, SystemClock
from nodeflow_shared.server import WHOLE
from nodeflow_worker_manager.adapters.state_manager import GrpcArtifacts, GrpcLogs, GrpcRegistry
from nodeflow_worker_manager.config import Settings
from nodeflow_worker_manager.directory import WorkerDirectory
from nodeflow_worker_manager.driver import Driver
from nodeflow_worker_manager.log_relay import LogRelay
from nodeflow_worker_manager.ports import Artifacts, Registry
from nodeflow_worker_manager.servicer import WorkerManagerServicer
from nodeflow_worker_manager.wire import WorkerWriter


class WorkerManager:
    """The service that a process serves."""

    name = "worker-manager"
    parts_ready = WHOLE
    service_names = (pb.DESCRIPTOR.services_by_name["WorkerManagerService"].full_name,)

    def __init__(
        self, driver: Driver, logs: LogRelay, servicer: WorkerManagerServicer, channel: grpc.aio.Channel
    ) -> None:
        self.ready: asyncio.Event = driver.ready
        self._logs = logs
        self._driver = driver
        self._servicer = servicer
        self._channel = channel

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer to the server."""
        pb_grpc.add_WorkerManagerServiceServicer_to_server(self._servicer, server)

    async def run(self) -> None:
        """Work until drained."""
        await self._driver.run()

    async def drain(self) -> None:
        """End all streams, so that their peers go elsewhere or come back to our successor."""
        self._logs.drain()
        self._driver.drain()

    async def close(self) -> None:
        """Close the channel to the state-manager."""
        await self._channel.close()


async def build(
    settings: Settings,
    *,
    connect: Callable[[str], grpc.aio.Channel] = open_channel,
    clock: Clock | None = None,
    registry: Registry | None = None,
    artifacts: Artifacts | None = None,
) -> WorkerManager:
    """Build the service; call it inside the running loop. Adapters that are given replace the state-manager's."""
    clock = clock or SystemClock()
    channel = connect(settings.state_manager)
    registry = registry or GrpcRegistry(channel)
    driver = Driver(
        registry,
        clock,
        lease_timeout_s=settings.lease_timeout_s,
        register_timeout_s=settings.register_timeout_s,
    )
    writer = WorkerWriter(lease_timeout_s=settings.lease_timeout_s, heartbeat_interval_s=settings.heartbeat_interval_s)
    directory = WorkerDirectory(driver, registry, clock)
    logs = LogRelay(GrpcLogs(channel), driver, clock, lease_timeout_s=settings.lease_timeout_s)
    servicer = WorkerManagerServicer(driver, directory, artifacts or GrpcArtifacts(channel), logs, writer)
    return WorkerManager(driver, logs, servicer, channel)
