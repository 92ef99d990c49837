"""Waits for services, and for their silence, through the standard health protocol.

Owns the waiting. Must not know who is waited for, nor what is done about it.
"""

import asyncio
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When a service that lives is taken for hung: it has left several probes in a row without any answer.

    Probes are counted, not seconds: whoever probes may have stood still too.
    """

    probe_s: float = 5.0
    """From one probe to the next, and what each gets to be answered."""
    probes: int = 6
    first_probes: int = 24
    """The same, for a service that has never answered yet: it may still be starting."""


async def wait_for_silence(address: str, patience: Patience) -> None:
    """Return when the service at the address answers no more; that it does not serve is an answer, too."""
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub, silent, limit = _stub(channel), 0, patience.first_probes
        while silent < limit:
            next_at = loop.time() + patience.probe_s
            if await _answers(stub, patience.probe_s):
                silent, limit = 0, patience.probes
            else:
                silent += 1
            await asyncio.sleep(next_at - loop.time())


async def _answers(stub: Any, timeout_s: float) -> bool:  # noqa: ANN401  # as of `_stub`
    try:
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return True


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


async def answers(address: str, timeout_s: float) -> bool:
    """Whether anything answers at the address; that it does not serve is an answer, too."""
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        return await _answers(_stub(channel), timeout_s)


def _stub(channel: grpc.aio.Channel) -> Any:  # noqa: ANN401  # the type stubs of this library leave its methods out
    return health_pb2_grpc.HealthStub(channel)
