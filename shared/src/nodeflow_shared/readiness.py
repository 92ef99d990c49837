"""What the standard health service says of a process, overall and per service.

Owns the translation from readiness to health. Must not know what makes a service ready.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

LOST_READINESS_POLL_S: Final = 0.1

# A watcher that does not read holds the health servicer's lock; it must not hold up a stop.
WATCHER_TIMEOUT_S: Final = 1.0

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Readiness:
    """The health servicer of one server; everything is NOT_SERVING until `follow` sees `ready` set."""

    def __init__(self, service_names: Sequence[str]) -> None:
        self._names = (health.OVERALL_HEALTH, *service_names)
        self._servicer = health.aio.HealthServicer()

    async def register(self, server: grpc.aio.Server) -> None:
        """Add the health service to a server that has not started yet."""
        await self._set_all(NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def follow(self, ready: asyncio.Event, on_first: Callable[[], None]) -> None:
        """Show `ready` as health, until cancelled; call `on_first` when it is set for the first time."""
        await ready.wait()
        await self._set_all(SERVING)
        on_first()
        while True:
            while ready.is_set():  # noqa: ASYNC110  # an Event has no wait for its clearing
                await asyncio.sleep(LOST_READINESS_POLL_S)
            await self._set_all(NOT_SERVING)
            await ready.wait()
            await self._set_all(SERVING)

    async def end(self) -> None:
        """Show NOT_SERVING everywhere, for good."""
        try:
            async with asyncio.timeout(WATCHER_TIMEOUT_S):
                await self._servicer.enter_graceful_shutdown()
        except TimeoutError:
            pass

    async def _set_all(self, status: int) -> None:
        for name in self._names:
            await self._servicer.set(name, status)
