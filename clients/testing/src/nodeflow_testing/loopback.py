"""A network without sockets: gRPC's asynchronous calls between services that live on one event loop.

Owns who listens where, how long messages take, and who cannot reach whom. Must not know any message. Everything happens
in an order that depends on the loop alone: no threads, no randomness, no real time.
"""

# ruff: noqa: ANN401  -- Any: a channel carries every type, and only stubs know which

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextvars import Context
from functools import partial
from typing import Any, Final, NoReturn, Self

import grpc
import grpc.aio

from nodeflow_shared.interceptors import ErrorInterceptor
from nodeflow_testing.loopback_calls import ClientCall, Exchange, Handler, Status

DELAY_S: Final = 0.000_2
"""How long a message takes one way, unless told otherwise."""
CONNECT_TIMEOUT_S: Final = 5.0
KEEPALIVE_S: Final = 30.0
"""When both ends of a call give up a connection on which nothing arrives any more: the caller after this time, …"""
KEEPALIVE_SPREAD_S: Final = 10.0
"""… and whoever serves it up to that much later: each counts from a moment of its own."""
NOTICE_S: Final = 0.05
"""How long a broken connection may go unnoticed by an end that still reads what came before."""

UNREACHABLE: Final = Status(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; connection refused")
TIMED_OUT: Final = Status(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses; connection timed out")
BROKEN: Final = Status(grpc.StatusCode.UNAVAILABLE, "Socket closed")
SILENT: Final = Status(grpc.StatusCode.UNAVAILABLE, "keepalive watchdog timeout")


class LoopbackNetwork:
    """Servers by address. A process is named by one address, which its own calls give as their source.

    A connection that breaks loses part of what is on its way, as `chance` has it; what both ends do about it is theirs.
    `faults` counts what struck: half_open, cut, dropped_message, and repeated_call and repeated_message for what a
    caller sent again after its connection broke.
    """

    def __init__(
        self,
        delay: Callable[[str, str], float] = lambda _source, _target: DELAY_S,
        *,
        chance: random.Random | None = None,
        faults: Counter[str] | None = None,
    ) -> None:
        self.delay = delay
        """(source, target) → seconds; may be replaced at any time. Messages of one call never overtake each other."""
        self.chance = chance or random.Random(0)
        self.faults: Counter[str] = Counter() if faults is None else faults
        self.overhear: Callable[[str, str, Any], None] | None = None
        """(source, method, message): called for what callers send, as they send it, and get, as they read it."""
        self._servers: dict[str, LoopbackServer] = {}
        self._contexts: dict[str, Context] = {}
        self._outside = Context()
        self._exchanges: dict[Exchange, None] = {}  # a dict, for its order
        self._silent: dict[tuple[str, str], int] = {}
        self._paused: dict[str, int] = {}
        self._troubles = itertools.count(1)
        self._lost: set[tuple[str, str, str, bytes]] = set()

    def listen(self, address: str, context: Context | None = None) -> "LoopbackServer":
        """Have a server answer at an address; what happens there are callbacks of that context."""
        if address in self._servers:
            raise ValueError(f"somebody listens on {address} already")
        self._servers[address] = LoopbackServer(self, address)
        if context is not None:
            self._contexts[address] = context
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
        self._paused.pop(address, None)
        for exchange in list(self._exchanges):
            if exchange.target == address:
                exchange.kill_server(BROKEN)
            elif exchange.source == address:
                exchange.kill_client()
        self._contexts.pop(address, None)

    def cut(self, one: str, other: str) -> None:
        """Break every open call between two processes; new ones get through."""
        between = self._between(one, other)
        for exchange in between:
            exchange.cut(BROKEN)
        self.faults["cut"] += bool(between)

    def partition(self, one: str, other: str) -> None:
        """Let nothing through between two processes; what is sent arrives after `heal`, unless the call gave up."""
        self._silence((one, other), (other, one))
        self.faults["partition"] += 1

    def half_open(self, source: str, target: str) -> None:
        """Let nothing through in one direction. Both ends find out by keepalive, each by itself."""
        self._silence((source, target))
        self.faults["half_open"] += 1

    def heal(self, one: str, other: str) -> None:
        """End a partition, or what is half open."""
        self._silent.pop((one, other), None)
        self._silent.pop((other, one), None)
        for exchange in self._between(one, other):
            exchange.resume()

    def pause(self, address: str) -> None:
        """Have the others find out by keepalive that a process does not answer. Its callbacks are the loop's affair."""
        self._paused[address] = trouble = next(self._troubles)
        for exchange in self._exchanges:
            if address in (exchange.source, exchange.target):
                self._watch(exchange, partial(self._is_paused, address, trouble))

    def resume(self, address: str) -> None:
        """A process answers again."""
        self._paused.pop(address, None)

    def open_calls(self, address: str) -> list[str]:
        """Return the methods of calls that a process serves or makes."""
        return [each.method for each in self._exchanges if address in (each.source, each.target)]

    # What ends of calls need.

    def silent(self, source: str, target: str) -> bool:
        """Whether nothing gets through in this direction."""
        return bool(self._silent) and (source, target) in self._silent

    def context_of(self, address: str) -> Context:
        """Return whose callbacks those are that happen at an address: the network's own, if nobody's."""
        return self._contexts.get(address, self._outside)

    def survivors(self, messages: int) -> int:
        """Decide how many of the messages on their way arrive although their connection broke."""
        return self.chance.randint(0, messages) if messages else 0

    def spare_s(self) -> float:
        """Decide how much later than its last message the end of a broken connection is noticed."""
        return self.chance.choice((0.0, self.chance.uniform(0, NOTICE_S)))

    def message_lost(self) -> None:
        """A message that was on its way will not arrive."""
        self.faults["dropped_message"] += 1

    def begin(self, exchange: Exchange) -> None:
        """A call is made."""
        self._exchanges[exchange] = None
        if self._silent or self._paused:
            self._begin_in_trouble(exchange)

    def arrive(self, exchange: Exchange) -> None:
        """A call has come to its target."""
        server = self._servers.get(exchange.target)
        if server is None:
            exchange.refuse(UNREACHABLE)
        else:
            exchange.serve(server.handler)

    def sent(self, exchange: Exchange, data: bytes) -> None:
        """A request is sent: perhaps again."""
        if self._lost and (exchange.source, exchange.target, exchange.method, data) in self._lost:
            self.faults["repeated_call" if exchange.poller is None else "repeated_message"] += 1

    def broken(self, exchange: Exchange) -> None:
        """A call is ended by its connection, and its caller will see it."""
        for data in exchange.requests.latest:
            self._lost.add((exchange.source, exchange.target, exchange.method, data))

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

    def _between(self, one: str, other: str) -> list[Exchange]:
        pair = {one, other}
        return [each for each in self._exchanges if {each.source, each.target} == pair]

    def _silence(self, *directions: tuple[str, str]) -> None:
        trouble = next(self._troubles)
        self._silent.update(dict.fromkeys(directions, trouble))
        for exchange in self._between(*directions[0]):
            self._watch(exchange, partial(self._is_silent, directions[0], trouble))

    def _is_silent(self, direction: tuple[str, str], trouble: int) -> bool:
        return self._silent.get(direction) == trouble

    def _is_paused(self, address: str, trouble: int) -> bool:
        return self._paused.get(address) == trouble

    def _begin_in_trouble(self, exchange: Exchange) -> None:
        """No connection comes about; whoever is called may have the request all the same, on an older one."""
        source, target = exchange.source, exchange.target
        for direction in ((source, target), (target, source)):
            trouble = self._silent.get(direction)
            if trouble is not None:
                self._watch(exchange, partial(self._is_silent, direction, trouble), CONNECT_TIMEOUT_S, TIMED_OUT)
                return
        trouble = self._paused.get(target)
        if trouble is not None:
            self._watch(exchange, partial(self._is_paused, target, trouble), CONNECT_TIMEOUT_S, TIMED_OUT)

    def _watch(
        self,
        exchange: Exchange,
        lasts: Callable[[], bool],
        patience_s: float = KEEPALIVE_S,
        status: Status = SILENT,
    ) -> None:
        """Have each end give up after some time, as a callback of its own, if the trouble lasts till then."""
        loop = asyncio.get_running_loop()

        def client() -> None:
            if lasts():
                exchange.break_client(status)

        def server() -> None:
            if lasts():
                exchange.break_server(BROKEN)

        loop.call_later(patience_s, client, context=self.context_of(exchange.source))
        later_s = KEEPALIVE_S + self.chance.uniform(0, KEEPALIVE_SPREAD_S)
        loop.call_later(later_s, server, context=self.context_of(exchange.target))


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
        network = self._network

        def serialize(message: Any) -> bytes:
            if network.overhear is not None:
                network.overhear(self._source, method, message)
            return request_serializer(message)

        def deserialize(data: bytes) -> Any:
            message = response_deserializer(data)
            if network.overhear is not None:
                network.overhear(self._source, method, message)
            return message

        def call(request: Any, *, timeout: float | None = None) -> ClientCall:
            if self._closed:
                raise grpc.aio.UsageError("Channel is closed.")
            exchange = Exchange(self._network, self._source, self._target, method, timeout)
            return ClientCall(exchange, serialize, deserialize, request, streaming=streaming)

        return call
