"""A process that starts, serves health, drains and exits as every service does, and does nothing else.

What it does at its start and stop is told by files in its data directory, so that a test can watch and disturb it.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc.aio
from pydantic_settings import SettingsConfigDict

from nodeflow_shared.server import WHOLE, Service, run_service
from nodeflow_shared.settings import ServiceSettings


class IdleService:
    """Is ready at once and waits for the end."""

    service_names: Sequence[str] = ()
    parts_ready = WHOLE

    def __init__(self, name: str, notes: Path) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self._notes = notes
        self._end = asyncio.Event()

    def register(self, server: grpc.aio.Server) -> None:
        pass

    async def run(self) -> None:
        self.ready.set()
        await self._end.wait()

    async def drain(self) -> None:
        self._end.set()

    async def close(self) -> None:
        with (self._notes / "stopped").open("a") as file:
            file.write(f"{self.name}\n")


def main(name: str) -> int:
    """Run the service called `name`, as its module does."""
    notes = Path(os.environ["IDLE_SERVICE_NOTES"])
    if (notes / f"break-{name}").exists():
        sys.stderr.write(f"{name} has no disk\n")
        return int((notes / f"break-{name}").read_text())
    prefix = f"NODEFLOW_{name.replace('-', '_').upper()}_"

    class Settings(ServiceSettings):
        model_config = SettingsConfigDict(env_prefix=prefix, extra="ignore", frozen=True)

    async def build(settings: Settings) -> Service:
        return IdleService(name, notes)

    return run_service(Settings, build)
