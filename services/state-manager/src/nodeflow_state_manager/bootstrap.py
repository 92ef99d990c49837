"""Builds the state-manager: the only place that knows which adapters there are, and wires them."""

import asyncio
from collections.abc import Sequence
from typing import Final

import grpc.aio
from nodeflow.state_manager.v1 import (
    artifact_service_pb2,
    artifact_service_pb2_grpc,
    log_service_pb2,
    log_service_pb2_grpc,
    state_manager_service_pb2,
    state_manager_service_pb2_grpc,
)

from nodeflow_shared.errors import StartupError
from nodeflow_state_manager.adapters.artifact_directory import ArtifactDirectory
from nodeflow_state_manager.adapters.sqlite import open_sqlite
from nodeflow_state_manager.adapters.sqlite_logs import open_sqlite_logs
from nodeflow_state_manager.artifact_servicer import ArtifactServicer
from nodeflow_state_manager.config import StateManagerSettings
from nodeflow_state_manager.driver import LogDriver
from nodeflow_state_manager.log_servicer import LogServicer
from nodeflow_state_manager.ports import ArtifactFiles, LogStore, Store
from nodeflow_state_manager.servicer import StateManagerServicer
from nodeflow_state_manager.task_logs import TaskLogs
from nodeflow_state_manager.writability import Writability

_STATE_MANAGER: Final = state_manager_service_pb2.DESCRIPTOR.services_by_name["StateManagerService"].full_name
_ARTIFACTS: Final = artifact_service_pb2.DESCRIPTOR.services_by_name["ArtifactService"].full_name
_LOGS: Final = log_service_pb2.DESCRIPTOR.services_by_name["LogService"].full_name


class StateManager:
    """The service as a process runs it; see nodeflow_shared.server.Service."""

    name = "state-manager"
    service_names: Sequence[str] = (_STATE_MANAGER, _ARTIFACTS, _LOGS)

    def __init__(self, settings: StateManagerSettings, store: Store, files: ArtifactFiles, log_store: LogStore) -> None:
        self._store = store
        self._files = files
        self._log_store = log_store
        of_store = Writability("events", store.check_writable)
        of_logs = Writability("task_logs", log_store.check_writable)
        self._of_files = of_files = Writability("artifacts", files.check_writable)
        self._driver = LogDriver(store, waiting_limit_bytes=settings.waiting_limit_bytes, writability=of_store)
        self._servicer = StateManagerServicer(
            store, self._driver, of_store, max_lease_timeout_ms=round(settings.max_lease_timeout_s * 1_000)
        )
        self._artifacts = ArtifactServicer(store, files, of_store=of_store, of_files=of_files)
        self._task_logs = TaskLogs(log_store)
        self._task_log_driver = LogDriver(
            self._task_logs, waiting_limit_bytes=settings.log_waiting_limit_bytes, writability=of_logs
        )
        self._logs = LogServicer(self._task_logs, self._task_log_driver)
        self.ready: asyncio.Event = of_store.ready
        self.parts_ready = {_ARTIFACTS: of_files.ready, _LOGS: of_logs.ready}

    def register(self, server: grpc.aio.Server) -> None:
        """Add all services."""
        state_manager_service_pb2_grpc.add_StateManagerServiceServicer_to_server(self._servicer, server)
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(self._artifacts, server)
        log_service_pb2_grpc.add_LogServiceServicer_to_server(self._logs, server)

    async def run(self) -> None:
        """Commit what arrives, until drained."""
        async with asyncio.TaskGroup() as group:
            probes = group.create_task(self._of_files.run(), name="artifacts.probes")
            events = group.create_task(self._driver.run(), name="event-log")
            group.create_task(self._task_log_driver.run(), name="task-logs")
            await asyncio.wait([events])
            probes.cancel()

    async def drain(self) -> None:
        """Commit what waits, and end the streams that append or follow."""
        self._task_logs.end()
        await self._task_log_driver.drain()
        await self._driver.drain()

    async def close(self) -> None:
        """Close files and databases."""
        await self._files.close()
        await self._log_store.close()
        await self._store.close()


async def build(
    settings: StateManagerSettings,
    *,
    store: Store | None = None,
    artifact_files: ArtifactFiles | None = None,
    log_store: LogStore | None = None,
) -> StateManager:
    """Build the service on SQLite and a directory, or on what is given; raises StartupError."""
    if store is None:
        store = await open_sqlite(settings.data_dir, settings.shard_count)
    if log_store is None:
        try:
            log_store = await open_sqlite_logs(settings.data_dir)
        except StartupError:
            await store.close()
            raise
    if artifact_files is None:
        artifact_files = ArtifactDirectory(settings.data_dir / "artifacts", max_bytes=settings.max_artifact_bytes)
    return StateManager(settings, store, artifact_files, log_store)
