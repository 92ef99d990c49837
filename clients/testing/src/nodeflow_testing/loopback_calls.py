"""One call of the loopback network: its two ends, the bytes between them, and how it can end.

Owns order, flow control, deadlines and cancellation, as gRPC has them. Must not know who listens where.
"""

# ruff: noqa: ANN401  -- Any: messages are of every type here, and only stubs know which

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol, Self, TypeAlias

import grpc
import grpc.aio

from nodeflow_testing.lives import end_if_dead
from nodeflow_testing.loopback_wires import Medium, Pipe, Wire

# In quotes: only the stubs know the class as generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
FindHandler = Callable[[str], Awaitable["Handler | None"]]
"""By the name of a method."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()


OK: Final = Status(grpc.StatusCode.OK)
CANCELLED: Final = Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
DEADLINE: Final = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class Fabric(Medium, Protocol):
    """What a call needs of its network."""

    def begin(self, exchange: "Exchange") -> None:
        """A call is made."""
        ...

    def arrive(self, exchange: "Exchange") -> None:
        """A call has come to its target."""
        ...

    def sent(self, exchange: "Exchange", data: bytes) -> None:
        """A request is sent."""
        ...

    def broken(self, exchange: "Exchange") -> None:
        """A call is ended by its connection, and its caller will see it."""
        ...

    def end(self, exchange: "Exchange") -> None:
        """A call is over at both ends."""
        ...


class Exchange:
    """One call, as the network sees it. It must not hold the client's object: a call that nobody holds is cancelled."""

    def __init__(self, fabric: Fabric, source: str, target: str, method: str, timeout_s: float | None) -> None:
        end_if_dead()
        self._loop = loop = asyncio.get_running_loop()
        self.source = source
        self.target = target
        self.method = method
        self.deadline = None if timeout_s is None else loop.time() + timeout_s
        self._fabric = fabric
        self._out = Wire(fabric, source, target)
        self._back = Wire(fabric, target, source)
        self.requests = Pipe(self._out)
        self.responses = Pipe(self._back)
        self.status: Status | None = None
        """How it ended for the client."""
        self.locally_cancelled = False
        self.poller: asyncio.Task[None] | None = None
        self._server: _ServerEnd | None = None
        self._deadline_timer = None if self.deadline is None else loop.call_at(self.deadline, self._expire)
        fabric.begin(self)
        self._out.carry(fabric.arrive, self)

    # What the client does.

    def sent(self, data: bytes) -> None:
        """A request is on its way."""
        self._fabric.sent(self, data)

    def half_close(self) -> None:
        """No request follows."""
        self._out.carry(self.requests.end)

    def cancel(self) -> bool:
        """End the call from the client's side; tell whether it was open."""
        if self.status is not None:
            return False
        self.locally_cancelled = True
        self._finish(CANCELLED)
        if self.poller is not None:
            self.poller.cancel()
        self._out.carry(self._reset)
        return True

    # What becomes of it.

    def serve(self, find: FindHandler) -> None:
        """Let the target's handler have the call."""
        self._server = _ServerEnd(self, find, self._fabric.context_of(self.target).copy())

    def refuse(self, status: Status) -> None:
        """End the call where nobody serves it."""
        self._back.carry(self._answered, status, None)

    def answer(self, status: Status, data: bytes | None) -> None:
        """The handler is done."""
        self.requests.end()
        self._back.carry(self._answered, status, data)

    def kill_server(self, status: Status) -> None:
        """The target is gone: of what it sent, a part arrives, and then the news."""
        self._note_break()
        self._out.close()
        self._end_server()
        self._back.sever(self._answered, status, None)

    def kill_client(self) -> None:
        """The source is gone: of its requests a part arrives, and then the news."""
        self._back.close()
        self.status = self.status or CANCELLED  # and nobody is woken: whoever waits for it is dead
        self._stop_timer()
        if self.poller is not None:
            self.poller.cancel()
        self._out.sever(self._reset)

    def break_client(self, status: Status) -> None:
        """The source finds its connection broken, and closes it."""
        if self.status is None:
            self._note_break()
            self._finish(status)
            self._out.sever(self._reset)

    def break_server(self, status: Status) -> None:
        """The target finds its connection broken, and closes it."""
        if self._server is not None and self._server.status is None:
            self._note_break()
            self._end_server()
            self._back.sever(self._answered, status, None)

    def cut(self, status: Status) -> None:
        """The connection breaks between the ends: part of what is on its way arrives, and each end finds out."""
        self._note_break()
        self._out.sever(self._reset)
        self._back.sever(self._answered, status, None)

    def resume(self) -> None:
        """The ends reach each other again."""
        self._out.resume()
        self._back.resume()

    def _expire(self) -> None:
        # Each end has its own clock of it; here both are one, but a paused target comes to it later.
        self._finish(DEADLINE)
        self._loop.call_soon(self._end_server, context=self._fabric.context_of(self.target))
        self._out.carry(self._reset)

    def _reset(self) -> None:
        self._end_server()
        self._settle()

    def _settle(self) -> None:
        if self.status is not None and not self._out.busy and (self._server is None or self._server.status is not None):
            self._fabric.end(self)

    def _note_break(self) -> None:
        if self.status is None:
            self._fabric.broken(self)

    def _answered(self, status: Status, data: bytes | None) -> None:
        if data is not None:
            self.responses.deliver(data)
        self._finish(status)
        if self._out.busy:
            self._out.carry(self._settle)
        self._settle()

    def _finish(self, status: Status) -> None:
        """The call is over for the client; what has arrived can still be read."""
        if self.status is None:
            self.status = status
        self._stop_timer()
        self.responses.end()
        self.requests.abandon()

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.cancel()
        self.requests.end()

    def _stop_timer(self) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()


class ClientCall:
    """What a stub's call returns: awaitable where one response comes, iterable where many do."""

    def __init__(
        self,
        exchange: Exchange,
        serialize: Callable[[Any], bytes],
        deserialize: Callable[[bytes], Any],
        request: Any,
        *,
        streaming: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._exchange = exchange
        self._serialize = serialize
        self._deserialize = deserialize
        if streaming:
            poller = self._loop.create_task(self._poll(request), name=f"requests {exchange.method}")
            exchange.poller = poller
        else:
            data = serialize(request)
            exchange.requests.push(data)
            exchange.sent(data)

    def __del__(self) -> None:
        # As in gRPC: nobody holds the call any more, so nobody wants it. (A loop that is closed has no calls.)
        if not self._loop.is_closed():
            self._exchange.cancel()

    def cancel(self) -> bool:
        """End the call; tell whether it was open."""
        return self._exchange.cancel()

    def cancelled(self) -> bool:
        """Whether it was ended by `cancel`, from this side."""
        return self._exchange.locally_cancelled

    def done(self) -> bool:
        """Whether it is over."""
        return self._exchange.status is not None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._response().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        data = await self._take()
        if data is not None:
            return self._deserialize(data)
        self._raise_for_status()
        raise StopAsyncIteration

    async def _response(self) -> Any:
        data = await self._take()
        if data is None:
            self._raise_for_status()
            raise AssertionError("a call that ends well has a response")
        return self._deserialize(data)

    async def _take(self) -> bytes | None:
        try:
            data = await self._exchange.responses.take()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self.cancelled():
            raise asyncio.CancelledError
        return data

    def _raise_for_status(self) -> None:
        status = self._exchange.status
        if self.cancelled():
            raise asyncio.CancelledError
        if status is not None and status.code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                status.code, grpc.aio.Metadata(), grpc.aio.Metadata(*status.trailers), status.details
            )

    async def _poll(self, requests: AsyncIterator[Any]) -> None:
        """Send what the iterator gives. As in gRPC, one item is lost when the call ended meanwhile."""
        try:
            async for request in requests:
                if self.done():
                    return
                data = self._serialize(request)
                await self._exchange.requests.send(data)
                self._exchange.sent(data)
            if not self.done():
                self._exchange.half_close()
        except asyncio.CancelledError:
            self.cancel()
            raise
        except Exception:  # noqa: BLE001  # gRPC cancels the call and logs the error, no more
            self.cancel()


class _ServerEnd:
    """A handler at work on a call."""

    def __init__(self, exchange: Exchange, find: FindHandler, context: Context) -> None:
        self._exchange = exchange
        self._find = find
        self.status: Status | None = None
        self._aborted = OK
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._run(), name=f"handle {exchange.method}", context=context)

    def cancel(self) -> None:
        """The call is over: end the handler, and whoever reads its requests."""
        if self.status is None:
            self.status = CANCELLED
            self._task.cancel()

    async def _run(self) -> None:
        data = None
        status = OK
        try:
            data = await self._handle()
        except grpc.aio.AbortError:
            status = self._aborted
        except Exception as error:  # noqa: BLE001  # what the interceptor let through: gRPC tells it so
            status = Status(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")
        if self.status is None:
            self.status = status
            self._exchange.answer(status, data)

    async def _handle(self) -> bytes | None:
        """Run the handler; returns the one response, serialised, unless it yields them."""
        handler = await self._find(self._exchange.method)
        if handler is None:
            self.abort(Status(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
        context = _Context(self._exchange, self)
        requests: Any = _Requests(self._exchange, self, handler.request_deserializer)
        if not handler.request_streaming:
            requests = await anext(requests)
        # The stubs describe blocking behaviors; those of an aio server are asynchronous.
        behavior: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        serialize: Callable[[Any], bytes] = handler.response_serializer  # type: ignore[assignment]  # ours always have one
        if not handler.response_streaming:
            return serialize(await behavior(requests, context))
        responses: AsyncGenerator[Any] = behavior(requests, context)
        async with aclosing(responses):
            async for response in responses:
                await self._exchange.responses.send(serialize(response))
        return None

    def abort(self, status: Status) -> NoReturn:
        """End the handler with a status."""
        self._aborted = status
        raise grpc.aio.AbortError


class _Requests:
    """What a handler reads requests from."""

    def __init__(self, exchange: Exchange, server: _ServerEnd, deserialize: Any) -> None:
        self._exchange = exchange
        self._server = server
        self._deserialize = deserialize

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        data = await self._exchange.requests.take()
        if data is not None:
            return self._deserialize(data)
        if self._server.status is not None and self._server.status is not CANCELLED:
            raise grpc.aio.UsageError("RPC already finished.")
        raise StopAsyncIteration


class _Context:
    """As much of a servicer's context as our servicers and the interceptor use."""

    def __init__(self, exchange: Exchange, server: _ServerEnd) -> None:
        self._exchange = exchange
        self._server = server

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline."""
        deadline = self._exchange.deadline
        return None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())

    def invocation_metadata(self) -> grpc.aio.Metadata:
        """Return what the caller sent beside its request: nothing."""
        return grpc.aio.Metadata()

    def cancelled(self) -> bool:
        """Whether the caller is gone."""
        return self._server.status is CANCELLED

    def done(self) -> bool:
        """Whether the call is over."""
        return self._server.status is not None

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        """End the call with an error."""
        self._server.abort(Status(code, details))

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a rich error."""
        trailers = tuple(status.trailing_metadata or ())
        self._server.abort(Status(status.code, status.details, trailers))
