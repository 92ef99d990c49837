"""A network without sockets: gRPC's asynchronous calls between services that live on one event loop.

Owns who listens where, how long messages take, and who cannot reach whom. Must not know any message. Everything happens
in an order that depends on the loop alone: no threads, no randomness, no real time.
"""

# ruff: noqa: ANN401  -- Any: a channel carries every type, and only stubs know which

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, Self

import grpc
import grpc.aio

from nodeflow_shared.interceptors import ErrorInterceptor
from nodeflow_testing.loopback_calls import ClientCall, Exchange, Handler, Status

DELAY_S: Final = 0.000_2
"""How long a message takes one way, unless told otherwise."""
CONNECT_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 30.0
"""When both ends of a call give up a connection on which nothing arrives any more."""

UNREACHABLE: Final = Status(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; connection refused")
TIMED_OUT: Final = Status(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; connection timed out")
BROKEN: Final = Status(grpc.StatusCode.UNAVAILABLE, "Socket closed")
SILENT: Final = Status(grpc.StatusCode.UNAVAILABLE, "keepalive watchdog timeout")


class LoopbackNetwork:
    """Servers by address. A process is named by one address, which its own calls give as their source."""

    def __init__(self, delay: Callable[[str, str], float] = lambda _source, _target: DELAY_S) -> None:
        self.delay = delay
        """(source, target) → seconds; may be replaced at any time. Messages of one call never overtake each other."""
        self._servers: dict[str, LoopbackServer] = {}
        self._exchanges: dict[Exchange, None] = {}  # a dict, for its order
        self._parted: set[frozenset[str]] = set()

    def listen(self, address: str) -> "LoopbackServer":
        """Have a server answer at an address."""
        if address in self._servers:
            raise ValueError(f"somebody listens on {address} already")
        self._servers[address] = LoopbackServer(self, address)
        return self._servers[address]

    def connect(self, address: str, *, source: str = "client") -> grpc.aio.Channel:
        """Return a channel; as in gRPC, whether anybody listens shows with each call."""
        return LoopbackChannel(self, source, address)

    def connector(self, source: str) -> Callable[[str], grpc.aio.Channel]:
        """Return what a process of that address uses in place of `open_channel`."""
        return lambda address: self.connect(address, source=source)

    def kill(self, address: str) -> None:
        """End a process as a crash does: nobody listens there, and whatever it had under way is broken."""
        self._servers.pop(address, None)
        for exchange in list(self._exchanges):
            if exchange.target == address:
                exchange.kill_server(BROKEN)
            elif exchange.source == address:
                exchange.kill_client()

    def partition(self, one: str, other: str) -> None:
        """Let nothing through between two processes; what is sent arrives after `heal`, unless the call gave up."""
        pair = frozenset((one, other))
        self._parted.add(pair)
        asyncio.get_running_loop().call_later(KEEPALIVE_S, self._give_up, pair, SILENT, tuple(self._between(pair)))

    def heal(self, one: str, other: str) -> None:
        """End a partition."""
        pair = frozenset((one, other))
        self._parted.discard(pair)
        for exchange in self._between(pair):
            exchange.resume()

    def parted(self, one: str, other: str) -> bool:
        """Whether nothing gets through between two processes."""
        return bool(self._parted) and frozenset((one, other)) in self._parted

    def open_calls(self, address: str) -> list[str]:
        """Return the methods of calls that a process serves or makes."""
        return [each.method for each in self._exchanges if address in (each.source, each.target)]

    # What ends of calls need.

    def begin(self, exchange: Exchange) -> None:
        """A call is made."""
        self._exchanges[exchange] = None
        pair = frozenset((exchange.source, exchange.target))
        if pair in self._parted:
            loop = asyncio.get_running_loop()
            loop.call_later(CONNECT_TIMEOUT_S, self._give_up, pair, TIMED_OUT, (exchange,))

    def arrive(self, exchange: Exchange) -> None:
        """A call has come to its target."""
        server = self._servers.get(exchange.target)
        if server is None:
            exchange.refuse(UNREACHABLE)
        else:
            exchange.serve(server.handler)

    def end(self, exchange: Exchange) -> None:
        """A call is over at both ends. Idempotent."""
        self._exchanges.pop(exchange, None)

    def stop_listening(self, address: str) -> None:
        """Refuse further calls at an address."""
        self._servers.pop(address, None)

    def cancel_calls(self, *, source: str | None = None, target: str | None = None) -> None:
        """End calls in order: those of a channel that is closed, or those of a server that stops."""
        for exchange in list(self._exchanges):
            if (exchange.source, exchange.target) == (source, target):
                exchange.cancel()
            elif source is None and exchange.target == target:
                exchange.kill_server(BROKEN)

    def _between(self, pair: frozenset[str]) -> list[Exchange]:
        return [each for each in self._exchanges if {each.source, each.target} == pair]

    def _give_up(self, pair: frozenset[str], status: Status, exchanges: Sequence[Exchange]) -> None:
        if pair in self._parted:
            for exchange in exchanges:
                exchange.give_up(status)


class LoopbackServer(grpc.aio.Server):
    """What `add_XServicer_to_server` needs; every call passes through the real ErrorInterceptor."""

    def __init__(self, network: LoopbackNetwork, address: str) -> None:
        self._network = network
        self._address = address
        self._methods: dict[str, Handler] = {}
        self._interceptor = ErrorInterceptor()

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Serve the methods of a service."""
        self._methods.update({f"/{service_name}/{name}": each for name, each in method_handlers.items()})

    def add_generic_rpc_handlers(self, generic_rpc_handlers: object) -> None:
        """Do nothing: the same methods are registered by name as well."""

    async def handler(self, method: str) -> "Handler | None":
        """Return what serves a method, wrapped as a real server's is."""
        details = _CallDetails(method, ())

        async def continuation(_: grpc.HandlerCallDetails) -> "Handler | None":
            return self._methods.get(method)

        return await self._interceptor.intercept_service(continuation, details)

    async def stop(self, grace: float | None) -> None:
        """Refuse further calls, and break those that are open after the grace time."""
        self._network.stop_listening(self._address)
        if grace:
            await asyncio.sleep(grace)
        self._network.cancel_calls(target=self._address)

    async def start(self) -> None:
        """Do nothing: whoever listens is reachable."""

    async def wait_for_termination(self, timeout: float | None = None) -> NoReturn:  # noqa: ASYNC109  # the base's
        """Refuse: nothing here ends by itself."""
        raise NotImplementedError

    def add_insecure_port(self, address: str) -> int:
        """Refuse: `listen` gave the address."""
        raise NotImplementedError

    def add_secure_port(self, address: str, server_credentials: object) -> int:
        """Refuse: there is nothing to protect."""
        raise NotImplementedError


class _CallDetails(grpc.HandlerCallDetails):
    def __init__(self, method: str, invocation_metadata: tuple[()]) -> None:
        self.method = method
        self.invocation_metadata = invocation_metadata


class LoopbackChannel(grpc.aio.Channel):
    """What generated stubs need."""

    def __init__(self, network: LoopbackNetwork, source: str, target: str) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._closed = False

    def unary_unary(self, method: str, *codec: Any, **more: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._callable(False, method, *codec, **more)

    def unary_stream(self, method: str, *codec: Any, **more: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._callable(False, method, *codec, **more)

    def stream_unary(self, method: str, *codec: Any, **more: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._callable(True, method, *codec, **more)

    def stream_stream(self, method: str, *codec: Any, **more: Any) -> Any:
        """See grpc.aio.Channel."""
        return self._callable(True, method, *codec, **more)

    async def close(self, grace: float | None = None) -> None:
        """Cancel the calls that are open."""
        self._closed = True
        self._network.cancel_calls(source=self._source, target=self._target)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> NoReturn:
        """Refuse: a call tells more."""
        raise NotImplementedError

    async def wait_for_state_change(self, last_observed_state: object) -> NoReturn:
        """Refuse: see get_state."""
        raise NotImplementedError

    async def channel_ready(self) -> NoReturn:
        """Refuse: see get_state."""
        raise NotImplementedError

    def _callable(
        self,
        streaming: bool,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = True,
    ) -> Callable[..., ClientCall]:
        def call(request: Any, *, timeout: float | None = None) -> ClientCall:
            if self._closed:
                raise grpc.aio.UsageError("Channel is closed.")
            exchange = Exchange(self._network, self._source, self._target, method, timeout)
            return ClientCall(exchange, request_serializer, response_deserializer, request, streaming=streaming)

        return call
