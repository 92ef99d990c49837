"""A server at its limits: calls beyond them, and streams that are opened and never read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import Overloaded, Unavailable
from nodeflow_shared.interceptors import HEALTH_CHECK, ErrorInterceptor
from nodeflow_shared.status import from_rpc_error

SERVICE = "test.v1.Busy"
LIMIT = 3
TIMEOUT_S = 0.5

Context = grpc.aio.ServicerContext[bytes, bytes]


class Busy:
    """`Flood` sends without end; `Wait` sends one message and then waits for the test."""

    def __init__(self) -> None:
        self.open = 0
        self.sent = 0
        self.over = asyncio.Event()

    async def flood(self, _: bytes, __: Context) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            while True:
                self.sent += 1
                yield bytes(256 << 10)
        finally:
            self.open -= 1

    async def wait(self, _: bytes, __: Context) -> AsyncIterator[bytes]:
        yield b"first"
        await self.over.wait()
        yield b"last"

    async def unary(self, request: bytes, _: Context) -> bytes:
        return request


@asynccontextmanager
async def served(busy: Busy) -> AsyncIterator[Any]:
    mine: Any = busy  # the stubs describe blocking behaviors only
    health, check = HEALTH_CHECK.lstrip("/").split("/")
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor(call_limit=LIMIT, reader_timeout_s=TIMEOUT_S)],
        options=[("grpc.so_reuseport", 0)],
    )
    handlers: dict[str, Any] = {
        "Flood": grpc.unary_stream_rpc_method_handler(mine.flood),
        "Wait": grpc.unary_stream_rpc_method_handler(mine.wait),
    }
    checks: dict[str, Any] = {check: grpc.unary_unary_rpc_method_handler(mine.unary)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, handlers), grpc.method_handlers_generic_handler(health, checks))
    )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with open_channel(address) as channel:
            yield channel
    finally:
        await server.stop(0)


async def read_all(call: Any) -> None:  # noqa: ANN401  # the stubs know blocking calls only
    while await call.read() is not grpc.aio.EOF:
        pass


async def until_closed(busy: Busy) -> None:
    async with asyncio.timeout(20):
        while busy.open:  # noqa: ASYNC110  # the collector closes it, which has no event
            await asyncio.sleep(0.01)


async def test_a_stream_that_nobody_reads_is_held_and_then_ended_and_told_so() -> None:
    busy = Busy()
    async with served(busy) as channel:
        call = channel.unary_stream(f"/{SERVICE}/Flood")(b"")
        await call.read()
        async with asyncio.timeout(20):
            while True:  # flow control holds it, after what the sockets took
                sent = busy.sent
                await asyncio.sleep(TIMEOUT_S / 4)
                if sent == busy.sent:
                    break
        await until_closed(busy)  # although the reader does nothing
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_all(call)
    told = from_rpc_error(caught.value)
    assert (type(told), told.reason) == (Unavailable, "NOT_READING")
    assert "resume after what was read" in told.message


async def test_one_that_has_nothing_to_read_is_no_stalled_reader() -> None:
    busy = Busy()
    async with served(busy) as channel:
        call = channel.unary_stream(f"/{SERVICE}/Wait")(b"")
        assert await call.read() == b"first"
        asyncio.get_running_loop().call_later(3 * TIMEOUT_S, busy.over.set)
        assert await call.read() == b"last"
        assert await call.read() is grpc.aio.EOF


async def test_a_client_that_is_gone_leaves_nothing_behind() -> None:
    busy = Busy()
    async with served(busy) as channel:
        call = channel.unary_stream(f"/{SERVICE}/Flood")(b"")
        await call.read()
        call.cancel()
        await until_closed(busy)


async def test_calls_beyond_the_limit_are_refused_and_the_health_is_told_all_the_same() -> None:
    busy = Busy()
    async with served(busy) as channel:
        calls = [channel.unary_stream(f"/{SERVICE}/Wait")(b"") for _ in range(LIMIT)]
        for call in calls:
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_stream(f"/{SERVICE}/Wait")(b"").read()
        told = from_rpc_error(caught.value)
        assert (type(told), told.retry_after_s) == (Overloaded, 1.0)
        assert await channel.unary_unary(HEALTH_CHECK)(b"?") == b"?"
        busy.over.set()
        assert await calls[0].read() == b"last"
        assert await calls[0].read() is grpc.aio.EOF
        assert await channel.unary_stream(f"/{SERVICE}/Wait")(b"").read() == b"first"
