"""What the standard health service of a process says."""

import asyncio

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
PATIENCE_S = 20.0


async def health_becomes(channel: grpc.aio.Channel, service: str, wanted: int) -> None:
    """Wait until a service (the process as a whole, if empty) is healthy, or is not."""
    stub = health_pb2_grpc.HealthStub(channel)
    async with asyncio.timeout(PATIENCE_S):
        async for response in stub.Watch(health_pb2.HealthCheckRequest(service=service)):  # type: ignore[attr-defined]  # the stubs leave it out
            if response.status == wanted:
                return
