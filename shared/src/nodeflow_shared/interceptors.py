"""What every RPC of every service passes through: errors become rich statuses.

Owns the one place where an exception turns into a gRPC status. Must not know any method.
"""

import asyncio
import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias, cast

import grpc
import grpc.aio
from grpc_status import rpc_status

from nodeflow_shared.call_limit import CallLimit
from nodeflow_shared.errors import Internal, NodeflowError, Unavailable
from nodeflow_shared.logs import get_log
from nodeflow_shared.stalled_readers import StalledReaders
from nodeflow_shared.status import to_status

# Any: requests and replies are of every type here. In quotes: only the stubs know the classes as generic.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Behavior = Callable[[Any, Context], Any]

READ_ON_S: Final = 10.0
HEALTH_CHECK: Final = "/grpc.health.v1.Health/Check"
"""Answered however full the server is: it works, and that is what is asked."""

_log = get_log()


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns NodeflowError into its status, and any other exception into INTERNAL, logged here once as `rpc_failed`.

    Handlers are coroutines, or async generators where the response is a stream; they never abort by hand. With a limit,
    calls beyond it are refused, but for checks of the health; with a timeout, streams that nobody reads are ended.
    """

    def __init__(self, *, call_limit: int | None = None, reader_timeout_s: float | None = None) -> None:
        self._calls = CallLimit(call_limit) if call_limit is not None else None
        self._readers = StalledReaders(reader_timeout_s) if reader_timeout_s is not None else None

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Return the method's handler, wrapped."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        calls = None if method == HEALTH_CHECK else self._calls
        reads_on = handler.request_streaming and not handler.response_streaming
        return _wrap(handler, _Guards(method=method, reads_on=reads_on, calls=calls, readers=self._readers))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guards:
    """What is around the handler of one method."""

    method: str
    reads_on: bool
    """Whether the rest of an upload is read when it failed."""
    calls: CallLimit | None
    readers: StalledReaders | None

    def count(self) -> AbstractContextManager[None]:
        """Count the call while it is served; raises Overloaded."""
        return self.calls.serve() if self.calls is not None else nullcontext()


def _wrap(handler: Handler, guards: _Guards) -> Handler:
    behavior = handler.unary_unary or handler.stream_unary or handler.unary_stream or handler.stream_stream
    # The stub describes blocking behaviors only; in an aio server all are asynchronous.
    guarded: Any = _guard(cast("Behavior", behavior), guards)
    serde = {"request_deserializer": handler.request_deserializer, "response_serializer": handler.response_serializer}
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler(guarded, **serde)
        case True, False:
            return grpc.stream_unary_rpc_method_handler(guarded, **serde)
        case False, True:
            return grpc.unary_stream_rpc_method_handler(guarded, **serde)
        case _:
            return grpc.stream_stream_rpc_method_handler(guarded, **serde)


def _guard(behavior: Behavior, guards: _Guards) -> Behavior:
    if inspect.isasyncgenfunction(behavior):
        return _guard_generator(behavior, guards)
    if inspect.iscoroutinefunction(behavior):
        return _guard_coroutine(behavior, guards)
    raise TypeError(f"the handler of {guards.method} is neither a coroutine function nor an async generator function")


def _guard_coroutine(behavior: Behavior, guards: _Guards) -> Behavior:
    async def guarded(request: object, context: Context) -> object:
        try:
            with guards.count():
                return await behavior(request, context)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # the one place that maps every error
            if guards.reads_on and isinstance(error, NodeflowError):
                await _read_on(cast("AsyncIterable[object]", request))
            await _end(error, guards.method, context)

    return guarded


async def _read_on(requests: AsyncIterable[object]) -> None:
    """Read the rest of an upload that failed, for some time.

    A client of grpc.aio that is still sending when its call ends sees "Internal error from Core" (grpc/grpc#36066), and
    never what the server said.
    """
    try:
        async with asyncio.timeout(READ_ON_S):
            async for _ in requests:
                pass
    except TimeoutError:
        pass


def _guard_generator(behavior: Behavior, guards: _Guards) -> Behavior:
    async def guarded(request: object, context: Context) -> AsyncIterator[object]:
        reader = guards.readers.follow(guards.method, context) if guards.readers is not None else None
        try:
            with guards.count():
                # Closed here and now when the call ends early: the handler's `finally` must not wait for the collector.
                async with aclosing(behavior(request, context)) as responses:
                    async for response in responses:
                        if reader is None:
                            yield response
                        else:
                            reader.sending()
                            yield response
                            reader.sent()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # the one place that maps every error
            await _end(error, guards.method, context)
        finally:
            if reader is not None:
                reader.sent()

    return guarded


async def _end(error: BaseException, method: str, context: Context) -> NoReturn:
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise error
        # Nobody cancelled this call: something that it awaited was. Left alone, the client would wait for ever.
        error = Unavailable("the server gave up the call; it may be stopping", reason="ABANDONED")
    if isinstance(error, ExceptionGroup):
        error = _told_by_all(error) or error
    if isinstance(error, grpc.aio.BaseError) or context.done():
        raise error  # grpc's own: an abort under way, or a call that is over
    if not isinstance(error, NodeflowError) or isinstance(error, Internal):
        _log.error("rpc_failed", method=method, exc_info=error)
    if not isinstance(error, NodeflowError):
        error = Internal("internal error; the server's log has the details")
    await context.abort_with_status(rpc_status.to_status(to_status(error)))
    raise AssertionError("abort always raises")


def _told_by_all(group: ExceptionGroup[Exception]) -> NodeflowError | None:
    """Return the first error of a handler's TaskGroup if it failed with nothing but errors meant for the caller."""
    told, rest = group.split(NodeflowError)
    if rest is not None or told is None:
        return None
    first = told.exceptions[0]
    return _told_by_all(first) if isinstance(first, ExceptionGroup) else first
