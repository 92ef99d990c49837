"""What the standard health service says of a process, overall and per service.

Owns the translation from readiness to health. Must not know what makes a service ready.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

LOST_READINESS_POLL_S: Final = 0.1

# A watcher that does not read holds the health servicer's lock; it must not hold up a stop.
WATCHER_TIMEOUT_S: Final = 1.0

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Readiness:
    """The health servicer of one server; everything is NOT_SERVING until `follow` sees that it is ready.

    `ready` is that of the process, and of all its services but those in `parts`, which have their own.
    """

    def __init__(
        self, service_names: Sequence[str], ready: asyncio.Event, parts: Mapping[str, asyncio.Event] | None = None
    ) -> None:
        self._ready = ready
        self._names: dict[asyncio.Event, list[str]] = {ready: [health.OVERALL_HEALTH]}
        for name in service_names:
            self._names.setdefault((parts or {}).get(name, ready), []).append(name)
        self._servicer = health.aio.HealthServicer()

    async def register(self, server: grpc.aio.Server) -> None:
        """Add the health service to a server that has not started yet."""
        for names in self._names.values():
            await self._set(names, NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def follow(self, on_first: Callable[[], None]) -> None:
        """Show what is ready as health, until cancelled; call `on_first` when the process is for the first time."""
        async with asyncio.TaskGroup() as group:
            for ready, names in self._names.items():
                group.create_task(self._follow(ready, names), name=f"readiness.{names[0]}")
            await self._ready.wait()
            await self._set(self._names[self._ready], SERVING)
            on_first()

    async def _follow(self, ready: asyncio.Event, names: Sequence[str]) -> None:
        while True:
            await ready.wait()
            await self._set(names, SERVING)
            while ready.is_set():  # noqa: ASYNC110  # an Event has no wait for its clearing
                await asyncio.sleep(LOST_READINESS_POLL_S)
            await self._set(names, NOT_SERVING)

    async def end(self) -> None:
        """Show NOT_SERVING everywhere, for good."""
        try:
            async with asyncio.timeout(WATCHER_TIMEOUT_S):
                await self._servicer.enter_graceful_shutdown()
        except TimeoutError:
            pass

    async def _set(self, names: Sequence[str], status: int) -> None:
        for name in names:
            await self._servicer.set(name, status)
