"""The network without sockets behaves as gRPC does, as far as our services rely on it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
import pytest

from nodeflow_shared.errors import InvalidInput, Unavailable
from nodeflow_shared.status import from_rpc_error
from nodeflow_shared.streams import Outbox
from nodeflow_testing.loopback import KEEPALIVE_S, LoopbackNetwork
from nodeflow_testing.loopback_wires import WINDOW
from nodeflow_testing.virtual_loop import run

SERVER = "server:1"

# Any: as in grpc, a context is of every type.
Context = grpc.aio.ServicerContext[Any, Any]


class Servicer:
    """One method of each shape, and a memory of what happened to them."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.gate = asyncio.Event()

    async def shout(self, request: str, context: Context) -> str:
        if request == "refuse":
            raise InvalidInput("not that", reason="REFUSED")
        return request.upper()

    async def count(self, request: str, context: Context) -> AsyncIterator[str]:
        for number in range(int(request)):
            yield str(number)
            self.told.append(f"sent {number}")

    async def join(self, requests: AsyncIterator[str], context: Context) -> str:
        return ",".join([request async for request in requests])

    async def echo(self, requests: AsyncIterator[str], context: Context) -> AsyncIterator[str]:
        try:
            async for request in requests:
                if request == "wait":
                    await self.gate.wait()
                yield request
        except asyncio.CancelledError:
            self.told.append("cancelled")
            raise


class Stub:
    """As a generated one."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        codec = (str.encode, bytes.decode)
        self.shout = channel.unary_unary("/test.Echo/shout", *codec)
        self.count = channel.unary_stream("/test.Echo/count", *codec)
        self.join = channel.stream_unary("/test.Echo/join", *codec)
        self.echo = channel.stream_stream("/test.Echo/echo", *codec)
        self.nothing = channel.unary_unary("/test.Echo/nothing", *codec)


Scenario = Callable[[LoopbackNetwork, Servicer, Stub], Coroutine[Any, Any, None]]


def serve(network: LoopbackNetwork) -> Servicer:
    servicer = Servicer()
    codec: dict[str, Any] = {"request_deserializer": bytes.decode, "response_serializer": str.encode}
    handlers: dict[str, Any] = {
        "shout": grpc.unary_unary_rpc_method_handler(servicer.shout, **codec),
        "count": grpc.unary_stream_rpc_method_handler(servicer.count, **codec),
        "join": grpc.stream_unary_rpc_method_handler(servicer.join, **codec),
        "echo": grpc.stream_stream_rpc_method_handler(servicer.echo, **codec),
    }
    network.listen(SERVER).add_registered_method_handlers("test.Echo", handlers)
    return servicer


def on_network(scenario: Scenario) -> Callable[[], None]:
    def test() -> None:
        async def main() -> None:
            network = LoopbackNetwork()
            servicer = serve(network)
            await scenario(network, servicer, Stub(network.connect(SERVER)))

        run(main)

    return test


async def code_of(call: Any) -> tuple[grpc.StatusCode, str | None]:  # noqa: ANN401  # any call
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details()


async def drained(call: Any) -> list[str]:  # noqa: ANN401  # any call
    return [response async for response in call]


@on_network
async def test_all_four_shapes(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    async def three() -> AsyncIterator[str]:
        for text in ("a", "b", "c"):
            yield text

    assert await stub.shout("a") == "A"
    assert await drained(stub.count("3")) == ["0", "1", "2"]
    assert await stub.join(three()) == "a,b,c"
    assert await drained(stub.echo(three())) == ["a", "b", "c"]
    await asyncio.sleep(1)
    assert network.open_calls(SERVER) == []


@on_network
async def test_errors_arrive_with_their_details(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.shout("refuse")
    error = from_rpc_error(raised.value)
    assert (type(error), error.message, error.reason) == (InvalidInput, "not that", "REFUSED")
    assert (await code_of(stub.nothing("a")))[0] is grpc.StatusCode.UNIMPLEMENTED


@on_network
async def test_nobody_listens(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    nowhere = Stub(network.connect("nowhere:1"))
    assert (await code_of(nowhere.shout("a")))[0] is grpc.StatusCode.UNAVAILABLE


@on_network
async def test_a_deadline_ends_both_ends(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    outbox: Outbox[str] = Outbox()
    outbox.offer("wait")
    code, _ = await code_of(drained(stub.echo(outbox, timeout=7)))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert asyncio.get_running_loop().time() == 7.0
    await asyncio.sleep(1)
    assert servicer.told == ["cancelled"]


@on_network
async def test_a_killed_server_breaks_its_calls(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    outbox: Outbox[str] = Outbox()
    outbox.offer("a")
    call = stub.echo(outbox)
    assert await anext(aiter(call)) == "a"
    network.kill(SERVER)
    code, details = await code_of(drained(call))
    assert (code, details) == (grpc.StatusCode.UNAVAILABLE, "Socket closed")
    assert servicer.told == ["cancelled"]
    assert (await code_of(stub.shout("a")))[0] is grpc.StatusCode.UNAVAILABLE
    serve(network)
    assert await stub.shout("a") == "A"


@on_network
async def test_a_killed_client_cancels_its_handlers(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    outbox: Outbox[str] = Outbox()
    outbox.offer("a")
    call = stub.echo(outbox)
    assert await anext(aiter(call)) == "a"
    network.kill("client")
    await asyncio.sleep(1)
    assert servicer.told == ["cancelled"]
    assert network.open_calls(SERVER) == []


@pytest.mark.parametrize("how", ["by the call", "by its reader"])
def test_a_cancellation_reaches_the_handler(how: str) -> None:
    async def scenario(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
        outbox: Outbox[str] = Outbox()
        outbox.offer("wait")
        call: Any = stub.echo(outbox)
        reader = asyncio.create_task(drained(call))
        await asyncio.sleep(1)
        assert call.cancel() if how == "by the call" else reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await asyncio.sleep(1)
        assert servicer.told == ["cancelled"]
        assert network.open_calls(SERVER) == []

    on_network(scenario)()


@on_network
async def test_a_call_that_nobody_holds_is_cancelled(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    counting: Any = stub.count("1000")
    assert await anext(aiter(counting)) == "0"
    assert network.open_calls(SERVER) == ["/test.Echo/count"]
    del counting
    await asyncio.sleep(1)
    assert network.open_calls(SERVER) == []
    assert len(servicer.told) <= WINDOW + 1


@on_network
async def test_a_sender_waits_for_a_slow_reader(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    call: Any = stub.count("100")
    responses = aiter(call)
    await asyncio.sleep(1)
    assert len(servicer.told) == WINDOW
    assert [await anext(responses) for _ in range(5)] == ["0", "1", "2", "3", "4"]
    await asyncio.sleep(1)
    assert len(servicer.told) == WINDOW + 5

    outbox: Outbox[str] = Outbox(limit=1)
    waiting: Any = stub.echo(outbox)
    await outbox.put("wait")
    sent: list[int] = []

    async def send() -> None:
        while True:
            await outbox.put("more")
            sent.append(1)

    sender = asyncio.create_task(send())
    await asyncio.sleep(1)
    # The handler has the first; the window is full; the call's sender holds one, and the outbox one.
    assert len(sent) == WINDOW + 2
    sender.cancel()
    waiting.cancel()


@on_network
async def test_messages_keep_their_order_whatever_they_take(
    network: LoopbackNetwork, servicer: Servicer, stub: Stub
) -> None:
    delays = iter([5.0, 1.0, 0.0, 3.0] * 10)
    network.delay = lambda _source, _target: next(delays)
    assert await drained(stub.count("8")) == [str(number) for number in range(8)]


@on_network
async def test_what_is_sent_into_a_short_partition_arrives(
    network: LoopbackNetwork, servicer: Servicer, stub: Stub
) -> None:
    outbox: Outbox[str] = Outbox()
    call: Any = stub.echo(outbox)
    outbox.offer("a")
    assert await anext(aiter(call)) == "a"
    network.partition("client", SERVER)
    outbox.offer("b")
    outbox.close()
    asyncio.get_running_loop().call_later(KEEPALIVE_S - 1, network.heal, "client", SERVER)
    assert await drained(call) == ["b"]
    assert asyncio.get_running_loop().time() > KEEPALIVE_S - 1


@on_network
async def test_a_long_partition_breaks_calls(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    outbox: Outbox[str] = Outbox()
    call: Any = stub.echo(outbox)
    outbox.offer("a")
    assert await anext(aiter(call)) == "a"
    network.partition("client", SERVER)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await drained(call)
    assert isinstance(from_rpc_error(raised.value), Unavailable)
    assert asyncio.get_running_loop().time() == pytest.approx(KEEPALIVE_S, abs=0.1)
    assert (await code_of(stub.shout("a")))[0] is grpc.StatusCode.UNAVAILABLE
    network.heal("client", SERVER)
    assert await stub.shout("a") == "A"
    assert servicer.told == ["cancelled"]


@on_network
async def test_requests_that_raise_cancel_the_call(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "a"
        raise ValueError("no more")

    with pytest.raises(asyncio.CancelledError):
        await stub.join(broken())
