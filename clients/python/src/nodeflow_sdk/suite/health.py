"""Waits for services through the standard health protocol.

Owns the waiting. Must not know who is waited for.
"""

from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

_OPTIONS: Final = (
    # A service that starts is looked for ten times a second: the default backs off to seconds.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
)
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING


async def wait_until_healthy(address: str) -> None:
    """Return when the service at the address says that it serves; waits for ever, so bound it from outside."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub = _stub(channel)
        while True:
            try:
                async for response in stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
                    if response.status == _SERVING:
                        return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise


async def is_healthy(address: str, timeout_s: float) -> bool:
    """Whether the service at the address answers now and says that it serves."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        try:
            response = await _stub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(response.status == _SERVING)


def _stub(channel: grpc.aio.Channel) -> Any:  # noqa: ANN401  # the type stubs of this library leave its methods out
    return health_pb2_grpc.HealthStub(channel)
