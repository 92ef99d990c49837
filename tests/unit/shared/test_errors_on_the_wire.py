"""Errors through a real server and a real channel, for every kind of RPC."""

import asyncio
import base64
import time
import urllib.parse
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest
import structlog.testing
from google.rpc import error_details_pb2

from nodeflow_shared import errors, interceptors
from nodeflow_shared.channel import open_channel
from nodeflow_shared.errors import (
    FieldViolation,
    Internal,
    InvalidInput,
    NodeflowError,
    NotFound,
    Overloaded,
    QuotaExceeded,
    StaleLease,
    Unavailable,
)
from nodeflow_shared.interceptors import ErrorInterceptor
from nodeflow_shared.retry import as_lost_connection
from nodeflow_shared.status import DETAILS_KEY, from_rpc_error, to_status
from nodeflow_shared.streams import Outbox

# Any: bytes have no serialisers to infer types from, and the stubs know contexts of blocking handlers only.
Channel: TypeAlias = Any
Context: TypeAlias = Any
Raise = Callable[[], Exception]

SERVICE = "test.v1.Faults"
KINDS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, NodeflowError)),
    key=lambda kind: kind.__name__,
)


class Faults:
    """Handlers for all kinds of RPC; what they raise is set by the test."""

    def __init__(self) -> None:
        self.make_error: Raise = lambda: NotFound("unset")
        self.closed = asyncio.Event()

    async def unary(self, request: bytes, _: Context) -> bytes:
        if request == b"ok":
            return b"reply"
        raise self.make_error()

    async def collect(self, requests: AsyncIterator[bytes], _: Context) -> bytes:
        async for _request in requests:
            raise self.make_error()
        return b"nothing came"

    async def stream(self, _: bytes, __: Context) -> AsyncIterator[bytes]:
        yield b"first"
        raise self.make_error()

    async def both(self, requests: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request
            raise self.make_error()

    async def endless(self, _: bytes, __: Context) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            self.closed.set()

    async def waiting(self, _: bytes, __: Context) -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            self.closed.set()

    async def writing(self, _: bytes, context: Context) -> None:
        await context.write(b"first")
        raise self.make_error()

    async def stray_cancel(self, _: bytes, __: Context) -> bytes:
        stray: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        stray.cancel()
        return await stray

    async def aborting(self, _: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.DATA_LOSS, "by hand", ((DETAILS_KEY, b"\xff\xff no status"),))
        return b""

    async def mirror(self, requests: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
        outbox: Outbox[bytes] = Outbox(limit=1)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._copy(requests, outbox))
            async for reply in outbox:
                yield reply

    async def _copy(self, requests: AsyncIterator[bytes], outbox: Outbox[bytes]) -> None:
        async for request in requests:
            await outbox.put(request)
        outbox.close()

    def blocking(self, _: bytes, __: Context) -> bytes:
        return b"reply"

    def handlers(self) -> grpc.GenericRpcHandler:
        # Any: the stubs describe blocking behaviors only.
        mine: Any = self
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Unary": grpc.unary_unary_rpc_method_handler(mine.unary),
                "Collect": grpc.stream_unary_rpc_method_handler(mine.collect),
                "Stream": grpc.unary_stream_rpc_method_handler(mine.stream),
                "Both": grpc.stream_stream_rpc_method_handler(mine.both),
                "Endless": grpc.unary_stream_rpc_method_handler(mine.endless),
                "Waiting": grpc.unary_stream_rpc_method_handler(mine.waiting),
                "Writing": grpc.unary_stream_rpc_method_handler(mine.writing),
                "StrayCancel": grpc.unary_unary_rpc_method_handler(mine.stray_cancel),
                "Aborting": grpc.unary_unary_rpc_method_handler(mine.aborting),
                "Mirror": grpc.stream_stream_rpc_method_handler(mine.mirror),
                "Blocking": grpc.unary_unary_rpc_method_handler(mine.blocking),
            },
        )


@asynccontextmanager
async def serving(faults: Faults, address: str = "127.0.0.1:0") -> AsyncIterator[tuple[grpc.aio.Server, str]]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((faults.handlers(),))
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
async def channel(faults: Faults) -> AsyncIterator[Channel]:
    async with serving(faults) as (_, address), open_channel(address) as channel:
        yield channel


def path(method: str) -> str:
    return f"/{SERVICE}/{method}"


async def unary(channel: Channel) -> list[bytes]:
    return [await channel.unary_unary(path("Unary"))(b"", timeout=20)]


async def collect(channel: Channel) -> list[bytes]:
    return [await channel.stream_unary(path("Collect"))(iter([b"1", b"2"]), timeout=20)]


async def stream(channel: Channel) -> list[bytes]:
    return [reply async for reply in channel.unary_stream(path("Stream"))(b"", timeout=20)]


async def both(channel: Channel) -> list[bytes]:
    return [reply async for reply in channel.stream_stream(path("Both"))(iter([b"1", b"2"]), timeout=20)]


async def writing(channel: Channel) -> list[bytes]:
    return [reply async for reply in channel.unary_stream(path("Writing"))(b"", timeout=20)]


Call = Callable[[Channel], Awaitable[list[bytes]]]


async def told(call: Call, channel: Channel) -> NodeflowError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel)
    return from_rpc_error(caught.value)


def content(error: NodeflowError) -> tuple[Any, ...]:
    return (type(error), str(error), error.reason, error.metadata, error.violations, error.retry_after_s)


@pytest.mark.parametrize("call", [unary, collect, stream, both, writing])
async def test_an_error_arrives_as_it_was_raised(faults: Faults, channel: Channel, call: Call) -> None:
    error = InvalidInput(
        "2 faults in the document — größer",
        reason="BAD_DOCUMENT",
        metadata={"document": "a.yaml"},
        violations=[
            FieldViolation("nodes.a.needs[0]", "names no node", "one of: b, c"),
            FieldViolation("nodes.b", "is empty — try: nothing"),
        ],
        retry_after_s=1.25,
    )
    faults.make_error = lambda: error
    assert content(await told(call, channel)) == content(error)


async def test_an_upload_that_is_refused_at_its_beginning_is_told_why(faults: Faults, channel: Channel) -> None:
    """A client that is still sending when the call ends would be told of a broken transport, and try again."""
    faults.make_error = lambda: QuotaExceeded("too much", reason="ARTIFACT_TOO_LARGE")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(32):
            yield bytes(1 << 20)
            await asyncio.sleep(0.001)  # a file is read in between

    async def upload(channel: Channel) -> list[bytes]:
        return [await channel.stream_unary(path("Collect"))(pieces(), timeout=20)]

    for _ in range(10):
        assert content(await told(upload, channel)) == content(faults.make_error())


async def test_a_refused_upload_without_an_end_is_cut_off(
    faults: Faults, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interceptors, "READ_ON_S", 0.2)

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    async def upload(channel: Channel) -> list[bytes]:
        return [await channel.stream_unary(path("Collect"))(pieces(), timeout=20)]

    began_s = time.monotonic()
    await told(upload, channel)
    assert 0.2 <= time.monotonic() - began_s < 10


@pytest.mark.parametrize("reason", [None, "OF_ITS_OWN"])
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_keeps_its_class(
    faults: Faults, channel: Channel, kind: type[NodeflowError], reason: str | None
) -> None:
    faults.make_error = lambda: kind("message", reason=reason)
    error = await told(unary, channel)
    assert type(error) is (Internal if kind is NodeflowError else kind)
    assert (str(error), error.reason, error.metadata) == ("message", reason or kind.reason, {})


async def test_a_derived_class_arrives_as_the_one_it_derives_from(faults: Faults, channel: Channel) -> None:
    class Fenced(StaleLease):
        reason = "FENCED"

    faults.make_error = lambda: Fenced("token 3 is older than 4")
    error = await told(unary, channel)
    assert (type(error), error.reason, error.metadata) == (StaleLease, "FENCED", {})


async def test_the_code_is_canonical_for_callers_that_know_nothing_else(faults: Faults, channel: Channel) -> None:
    for kind in KINDS:
        faults.make_error = lambda kind=kind: kind("message")  # type: ignore[misc]  # a lambda's default has no type
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(channel)
        assert (caught.value.code().name, caught.value.details()) == (kind.code_name, "message")


async def test_more_than_a_trailer_can_carry_is_cut(faults: Faults, channel: Channel) -> None:
    violations = [FieldViolation(f"nodes.n{index}.function", "is missing", "module:name") for index in range(500)]
    faults.make_error = lambda: InvalidInput("ä" * 5000, violations=violations)
    error = await told(unary, channel)
    assert type(error) is InvalidInput
    assert str(error).endswith("ä…")
    kept = error.violations[:-1]
    assert len(kept) > 20
    assert kept == tuple(violations[: len(kept)])
    assert error.violations[-1].description.startswith(f"and {500 - len(kept)} more")


@pytest.mark.parametrize("letter", ["a", "ä", "%", "…", "🙂", "\n"])
def test_no_text_is_too_long_for_a_trailer(letter: str) -> None:
    text = letter * 10_000
    violations = [FieldViolation(text, text, text)] * 10
    status = to_status(InvalidInput(text, metadata={"text": text}, violations=violations, retry_after_s=1))
    encoded = base64.b64encode(status.SerializeToString())
    assert len(encoded) + len(urllib.parse.quote(status.message)) < 8000
    assert status.message.startswith(letter * 50)
    bad = error_details_pb2.BadRequest()
    assert status.details[-1].Unpack(bad)
    assert len(bad.field_violations) > 1
    assert bad.field_violations[0].description.startswith(letter * 20)


@pytest.mark.parametrize("call", [unary, collect, stream, both])
async def test_an_unexpected_error_is_logged_once_and_says_nothing_to_the_caller(
    faults: Faults, channel: Channel, call: Call
) -> None:
    cause = ValueError("password=secret")
    faults.make_error = lambda: cause
    with structlog.testing.capture_logs() as logs:
        error = await told(call, channel)
    assert type(error) is Internal
    assert "secret" not in str(error)
    assert "ValueError" not in str(error)
    [log] = logs
    assert (log["event"], log["method"], log["exc_info"]) == ("rpc_failed", path(call.__name__.title()), cause)


async def test_a_group_of_errors_for_the_caller_is_the_first_of_them(faults: Faults, channel: Channel) -> None:
    faults.make_error = lambda: ExceptionGroup("group", [NotFound("no such thing"), Unavailable("later")])
    assert content(await told(unary, channel)) == content(NotFound("no such thing"))
    faults.make_error = lambda: ExceptionGroup("group", [NotFound("no such thing"), ValueError("ours")])
    assert type(await told(unary, channel)) is Internal


async def test_a_cancellation_that_is_not_the_calls_does_not_hang_the_caller(channel: Channel) -> None:
    async def call(channel: Channel) -> list[bytes]:
        return [await asyncio.wait_for(channel.unary_unary(path("StrayCancel"))(b""), 20)]

    error = await told(call, channel)
    assert (type(error), error.reason) == (Unavailable, "ABANDONED")


@pytest.mark.parametrize("method", ["Endless", "Waiting"])
async def test_a_cancelled_stream_closes_its_generator(faults: Faults, channel: Channel, method: str) -> None:
    call = channel.unary_stream(path(method))(b"")
    with structlog.testing.capture_logs() as logs:
        await anext(aiter(call))
        call.cancel()
        async with asyncio.timeout(20):
            await faults.closed.wait()
    assert logs == []


async def test_foreign_and_broken_details_are_tolerated(channel: Channel) -> None:
    async def call(channel: Channel) -> list[bytes]:
        return [await channel.unary_unary(path("Aborting"))(b"", timeout=20)]

    error = await told(call, channel)
    assert (type(error), str(error), error.reason) == (Internal, "by hand", "DATA_LOSS")


async def test_a_method_that_does_not_exist_is_unimplemented(channel: Channel) -> None:
    async def call(channel: Channel) -> list[bytes]:
        return [await channel.unary_unary(path("Nope"))(b"", timeout=20)]

    error = await told(call, channel)
    assert (type(error), error.reason) == (Internal, "UNIMPLEMENTED")


async def test_outboxes_carry_a_stream_both_ways(channel: Channel) -> None:
    outbox: Outbox[bytes] = Outbox(limit=2)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        call = channel.stream_stream(path("Mirror"))(outbox)
        replies = group.create_task(_gather(call))
        for index in range(100):
            await outbox.put(b"%d" % index)
        outbox.close()
    assert replies.result() == [b"%d" % index for index in range(100)]


async def _gather(call: AsyncIterable[bytes]) -> list[bytes]:
    return [reply async for reply in call]


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2", Unavailable),
        (grpc.StatusCode.UNKNOWN, "Stream removed", Unavailable),
        (grpc.StatusCode.INTERNAL, "Internal error from Core", Unavailable),
        (grpc.StatusCode.CANCELLED, "", Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Stream removed (received metadata size exceeds limit)", Overloaded),
        (grpc.StatusCode.INTERNAL, "a bug", Internal),
        (grpc.StatusCode.UNKNOWN, "", Internal),
    ],
)
def test_what_the_transport_says_of_itself(code: grpc.StatusCode, message: str, kind: type[NodeflowError]) -> None:
    broken = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), message)
    assert type(from_rpc_error(broken)) is kind
    assert (as_lost_connection(broken) is not None) is (kind is Unavailable)


@pytest.mark.parametrize("words", ["SERVER: Received message", "CLIENT: Sent message"])
def test_a_message_that_is_too_large_is_no_overload(words: str) -> None:
    """Or it would be sent again and again."""
    empty = grpc.aio.Metadata()
    details = f"{words} larger than max (68157609 vs. 67108864)"
    error = from_rpc_error(grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, empty, empty, details))
    assert (type(error), error.reason, error.retry_after_s) == (InvalidInput, "MESSAGE_TOO_LARGE", None)
    assert error.message == "a message of 68,157,609 bytes is too large; at most 67,108,864 are allowed"


async def test_a_blocking_handler_is_refused(channel: Channel, caplog: pytest.LogCaptureFixture) -> None:
    async def call(channel: Channel) -> list[bytes]:
        return [await channel.unary_unary(path("Blocking"))(b"", timeout=20)]

    assert type(await told(call, channel)) is Internal
    assert "neither a coroutine function nor an async generator function" in caplog.text


async def test_a_server_that_stops_is_unavailable_and_found_again_soon() -> None:
    async with serving(Faults()) as (server, address), open_channel(address) as opened:
        channel: Channel = opened
        stream = channel.unary_stream(path("Waiting"))(b"")
        assert await anext(aiter(stream)) == b"first"
        await server.stop(0)
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            await anext(aiter(stream))
        assert as_lost_connection(broken.value) is not None
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(path("Unary"))(b"ok", timeout=20)
        error = from_rpc_error(refused.value)
        assert (type(error), error.reason) == (Unavailable, "UNAVAILABLE")
        assert address in str(error)
        async with serving(Faults(), address):
            reply = channel.unary_unary(path("Unary"))(b"ok", timeout=5, wait_for_ready=True)
            assert await reply == b"reply"
