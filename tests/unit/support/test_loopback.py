"""The network without sockets behaves as gRPC does, as far as our services rely on it."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
import pytest

from nodeflow_shared.errors import InvalidInput, Unavailable
from nodeflow_shared.status import from_rpc_error
from nodeflow_shared.streams import Outbox
from nodeflow_testing.lives import Life
from nodeflow_testing.loopback import CONNECT_TIMEOUT_S, KEEPALIVE_S, KEEPALIVE_SPREAD_S, LoopbackNetwork
from nodeflow_testing.loopback_wires import WINDOW
from nodeflow_testing.virtual_loop import VirtualLoop, run

SERVER = "server:1"

# Any: as in grpc, a context is of every type.
Context = grpc.aio.ServicerContext[Any, Any]


class Servicer:
    """One method of each shape, and a memory of what happened to them."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.told: list[str] = []
        self.gate = asyncio.Event()

    async def shout(self, request: str, context: Context) -> str:
        self.heard.append(request)
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
                self.heard.append(request)
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


def serve(network: LoopbackNetwork, address: str = SERVER, life: Life | None = None) -> Servicer:
    servicer = Servicer()
    codec: dict[str, Any] = {"request_deserializer": bytes.decode, "response_serializer": str.encode}
    handlers: dict[str, Any] = {
        "shout": grpc.unary_unary_rpc_method_handler(servicer.shout, **codec),
        "count": grpc.unary_stream_rpc_method_handler(servicer.count, **codec),
        "join": grpc.stream_unary_rpc_method_handler(servicer.join, **codec),
        "echo": grpc.stream_stream_rpc_method_handler(servicer.echo, **codec),
    }
    network.listen(address, life.context if life else None).add_registered_method_handlers("test.Echo", handlers)
    return servicer


def on_network(scenario: Scenario, seed: int = 0) -> Callable[[], None]:
    def test() -> None:
        async def main() -> None:
            network = LoopbackNetwork(chance=random.Random(seed))
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
    await asyncio.sleep(1)
    assert servicer.told == ["cancelled"]


@on_network
async def test_requests_that_raise_cancel_the_call(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "a"
        raise ValueError("no more")

    with pytest.raises(asyncio.CancelledError):
        await stub.join(broken())


@pytest.mark.parametrize("source", ["client", SERVER])
def test_half_of_a_connection_may_be_dead(source: str) -> None:
    """Messages of one direction are held, those of the other get through, and each end finds out by itself."""

    async def scenario(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
        target = SERVER if source == "client" else "client"
        outbox: Outbox[str] = Outbox()
        call: Any = stub.echo(outbox)
        outbox.offer("a")
        assert await anext(aiter(call)) == "a"
        network.half_open(source, target)
        outbox.offer("b")
        with pytest.raises(grpc.aio.AioRpcError):
            await anext(aiter(call))
        loop = asyncio.get_running_loop()
        assert loop.time() == pytest.approx(KEEPALIVE_S, abs=0.1)
        # The handler had the request only if that was the direction that works.
        assert servicer.heard == (["a", "b"] if source == SERVER else ["a"])
        await asyncio.sleep(KEEPALIVE_SPREAD_S)
        assert servicer.told[-1] == "cancelled"
        assert (await code_of(stub.shout("a")))[0] is grpc.StatusCode.UNAVAILABLE
        network.heal(source, target)
        assert await stub.shout("a") == "A"
        assert network.faults["half_open"] == 1

    on_network(scenario)()


@on_network
async def test_a_half_dead_connection_that_recovers_loses_nothing(
    network: LoopbackNetwork, servicer: Servicer, stub: Stub
) -> None:
    call: Any = stub.count("30")
    assert await anext(aiter(call)) == "0"
    network.half_open(SERVER, "client")
    asyncio.get_running_loop().call_later(KEEPALIVE_S - 1, network.heal, "client", SERVER)
    assert await drained(call) == [str(number) for number in range(1, 30)]


def cut_at(after_s: float, seed: int) -> tuple[bool, bool]:
    """Break the connection under a call; tell whether it was executed, and whether its caller was answered."""
    outcome: list[bool] = []

    async def scenario(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
        network.delay = lambda _source, _target: 1.0
        asyncio.get_running_loop().call_later(after_s, network.cut, "client", SERVER)
        (answer,) = await asyncio.gather(stub.shout("a"), return_exceptions=True)
        answered = answer == "A"
        assert answered or (isinstance(answer, grpc.RpcError) and isinstance(from_rpc_error(answer), Unavailable))
        assert network.faults["cut"] == 1
        assert answered or network.faults["dropped_message"] == 1 or servicer.heard == ["a"]
        outcome[:] = ["a" in servicer.heard, answered]
        assert await stub.shout("b") == "B"  # new calls get through
        assert network.open_calls(SERVER) == []

    on_network(scenario, seed)()
    return outcome[0], outcome[1]


def test_a_call_whose_connection_broke_may_have_been_executed() -> None:
    asked = {cut_at(0.5, seed) for seed in range(40)}
    assert asked == {(False, False), (True, False)}  # the request was on its way: lost, or executed unseen
    answered = {cut_at(1.5, seed) for seed in range(40)}
    assert answered == {(True, False), (True, True)}  # the answer was on its way: lost, or not


def test_of_a_stream_whose_connection_broke_the_first_messages_arrive() -> None:
    counts: set[int] = set()

    async def scenario(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
        network.delay = lambda _source, _target: 1.0
        call: Any = stub.count("100")
        responses: list[str] = []
        asyncio.get_running_loop().call_later(1.5, network.cut, "client", SERVER)

        async def read() -> None:
            async for response in call:
                responses.append(response)  # noqa: PERF401  -- to see what came before the error

        assert (await code_of(read()))[0] is grpc.StatusCode.UNAVAILABLE
        assert responses == [str(number) for number in range(len(responses))]
        counts.add(len(responses))

    for seed in range(20):
        on_network(scenario, seed)()
    assert len(counts) > 5


@on_network
async def test_what_is_sent_again_after_a_break_is_counted(
    network: LoopbackNetwork, servicer: Servicer, stub: Stub
) -> None:
    network.delay = lambda _source, _target: 1.0
    call = asyncio.ensure_future(code_of(stub.shout("a")))
    await asyncio.sleep(0.5)
    network.cut("client", SERVER)
    await call
    await stub.shout("b")
    assert network.faults["repeated_call"] == 0
    await stub.shout("a")
    assert network.faults["repeated_call"] == 1


def test_a_paused_server_may_serve_what_it_was_asked_long_ago() -> None:
    """Its caller has given up by then."""
    heard: set[tuple[str, ...]] = set()

    async def scenario(network: LoopbackNetwork, servicer: Servicer, stub: Stub) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        life = Life(loop)
        paused = serve(network, "paused:1", life)
        calls = Stub(network.connect("paused:1"))
        assert await calls.shout("before") == "BEFORE"
        network.pause("paused:1")
        life.pause()
        code, _ = await code_of(calls.shout("while"))
        assert (code, paused.heard) == (grpc.StatusCode.UNAVAILABLE, ["before"])
        assert loop.time() == pytest.approx(CONNECT_TIMEOUT_S, abs=0.1)
        await asyncio.sleep(60)
        network.resume("paused:1")
        life.resume()
        await asyncio.sleep(1)
        assert network.open_calls("paused:1") == []
        assert await calls.shout("after") == "AFTER"
        heard.add(tuple(paused.heard))

    for seed in range(20):
        on_network(scenario, seed)()
    assert heard == {("before", "after"), ("before", "while", "after")}
