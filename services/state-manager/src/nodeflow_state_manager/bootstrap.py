"""Builds the state-manager: the only place that knows which adapters there are, and wires them."""

import asyncio
from collections.abc import Sequence

import grpc.aio
from nodeflow.state_manager.v1 import (
    artifact_service_pb2,
    artifact_service_pb2_grpc,
    state_manager_service_pb2,
    state_manager_service_pb2_grpc,
)

from nodeflow_state_manager.adapters.artifact_directory import ArtifactDirectory
from nodeflow_state_manager.adapters.sqlite import open_sqlite
from nodeflow_state_manager.artifact_servicer import ArtifactServicer
from nodeflow_state_manager.config import StateManagerSettings
from nodeflow_state_manager.driver import LogDriver
from nodeflow_state_manager.ports import ArtifactFiles, Store
from nodeflow_state_manager.servicer import StateManagerServicer


class StateManager:
    """The service as a process runs it; see nodeflow_shared.server.Service."""

    name = "state-manager"
    service_names: Sequence[str] = (
        state_manager_service_pb2.DESCRIPTOR.services_by_name["StateManagerService"].full_name,
        artifact_service_pb2.DESCRIPTOR.services_by_name["ArtifactService"].full_name,
    )

    def __init__(self, settings: StateManagerSettings, store: Store, files: ArtifactFiles) -> None:
        self._store = store
        self._files = files
        self._driver = LogDriver(store, waiting_limit_bytes=settings.waiting_limit_bytes)
        self._servicer = StateManagerServicer(
            store, self._driver, max_lease_timeout_ms=round(settings.max_lease_timeout_s * 1_000)
        )
        self._artifacts = ArtifactServicer(store, files)
        self.ready: asyncio.Event = self._driver.ready

    def register(self, server: grpc.aio.Server) -> None:
        """Add both services."""
        state_manager_service_pb2_grpc.add_StateManagerServiceServicer_to_server(self._servicer, server)
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(self._artifacts, server)

    async def run(self) -> None:
        """Commit what arrives, until drained."""
        await self._driver.run()

    async def drain(self) -> None:
        """Commit what waits, and end the Append streams."""
        await self._driver.drain()

    async def close(self) -> None:
        """Close files and database."""
        await self._files.close()
        await self._store.close()


async def build(
    settings: StateManagerSettings, *, store: Store | None = None, artifact_files: ArtifactFiles | None = None
) -> StateManager:
    """Build the service on SQLite and a directory, or on what is given; raises StartupError."""
    if store is None:
        store = await open_sqlite(settings.data_dir, settings.shard_count)
    if artifact_files is None:
        artifact_files = ArtifactDirectory(settings.data_dir / "artifacts", max_bytes=settings.max_artifact_bytes)
    return StateManager(settings, store, artifact_files)
