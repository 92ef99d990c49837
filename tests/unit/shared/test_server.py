"""A service in this process: readiness, reflection, the order of a stop, and what is refused at the start."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import structlog.testing
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.unit.shared.probe import PART, SERVICE, Probe, ProbeSettings

from nodeflow_shared.channel import open_channel
from nodeflow_shared.server import StartupError, serve

DEADLINE_S = 20
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A probe that is served in this process on a real port."""

    channel: grpc.aio.Channel
    process: asyncio.Task[None]
    address: str

    async def echo(self, method: str = "Echo") -> bytes:
        channel: Any = self.channel  # bytes have no serialisers to infer types from
        reply: bytes = await channel.unary_unary(f"/{SERVICE}/{method}")(b"hello", timeout=DEADLINE_S)
        return reply

    async def health(self, service: str) -> int:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)  # its stub file names no methods
        reply = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
        return int(reply.status)

    async def watch_health(self, service: str) -> AsyncIterator[int]:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)  # its stub file names no methods
        async for reply in stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S):
            yield int(reply.status)


def free_address() -> str:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{reserved.getsockname()[1]}"


@asynccontextmanager
async def served(probe: Probe, **values: object) -> AsyncIterator[Running]:
    address = free_address()
    settings = ProbeSettings.model_validate({"bind": address, **values})
    process = asyncio.create_task(serve(probe, settings), name="probe")
    async with open_channel(address) as channel:
        running = Running(channel=channel, process=process, address=address)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await channel.channel_ready()
            yield running
        finally:
            process.cancel()
            await asyncio.wait([process])


async def ended(running: Running) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await running.process


async def test_health_follows_readiness_overall_and_per_service() -> None:
    probe = Probe()
    probe.ready.clear()
    async with served(probe) as running:
        overall, own = running.watch_health(""), running.watch_health(SERVICE)
        assert [await anext(overall), await anext(own)] == [NOT_SERVING, NOT_SERVING]
        probe.ready.set()
        assert [await anext(overall), await anext(own)] == [SERVING, SERVING]
        probe.ready.clear()
        assert [await anext(overall), await anext(own)] == [NOT_SERVING, NOT_SERVING]
        probe.ready.set()
        assert [await anext(overall), await anext(own)] == [SERVING, SERVING]


async def test_a_part_that_is_out_of_order_alone_says_so_alone() -> None:
    probe = Probe()
    async with served(probe) as running:
        part = running.watch_health(PART)
        assert await anext(part) == NOT_SERVING
        probe.part_ready.set()
        assert await anext(part) == SERVING
        probe.part_ready.clear()
        assert await anext(part) == NOT_SERVING
        assert [await running.health(""), await running.health(SERVICE)] == [SERVING, SERVING]


async def test_reflection_lists_the_services() -> None:
    async with served(Probe()) as running:
        channel: Any = running.channel  # the stub file knows blocking channels only
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        replies = [reply async for reply in stub.ServerReflectionInfo(iter([request]), timeout=DEADLINE_S)]
    [reply] = replies
    assert sorted(service.name for service in reply.list_services_response.service) == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        PART,
        SERVICE,
    ]


async def test_a_drain_shows_not_serving_first_and_serves_to_its_end() -> None:
    class Drained(Probe):
        async def drain(self) -> None:
            self.history += [f"{await running.health('')} {await running.health(SERVICE)}"]
            self.ready.set()  # too late to count
            await super().drain()

    probe = Drained()
    probe.may_drain.clear()
    async with served(probe) as running:
        watch = running.watch_health("")
        assert await anext(watch) == SERVING
        # The watch is open to the very end: it must not hold up the stop.
        os.kill(os.getpid(), signal.SIGTERM)
        assert await anext(watch) == NOT_SERVING
        await probe.draining.wait()
        assert await running.echo() == b"hello"
        assert [await running.health(""), await running.health(SERVICE)] == [NOT_SERVING, NOT_SERVING]
        assert not running.process.done()
        probe.may_drain.set()
        await ended(running)
        with pytest.raises(grpc.aio.AioRpcError):
            await running.echo()
    assert probe.history == [f"{NOT_SERVING} {NOT_SERVING}", "drain", "ran", "closed"]


async def test_calls_in_flight_and_the_end_of_the_work_are_waited_for() -> None:
    class LateRunner(Probe):
        async def run(self) -> None:
            await super().run()
            # The drain has returned, and the server still answers.
            self.history.append((await running.echo("Echo")).decode())

    probe = LateRunner()
    async with served(probe) as running:
        late = asyncio.ensure_future(running.echo("EchoAfterTheEnd"))
        await probe.called.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await late == b"hello"
        await ended(running)
    assert probe.history == ["drain", "ran", "hello", "closed"]


async def test_a_service_that_returns_by_itself_stops_the_process() -> None:
    probe = Probe()
    async with served(probe) as running:
        probe.end.set()
        await ended(running)
    assert probe.history == ["ran", "drain", "closed"]


async def test_a_drain_that_takes_too_long_is_cut_off_and_all_is_closed() -> None:
    probe = Probe()
    probe.may_drain.clear()
    async with served(probe, drain_timeout_s=0.1) as running:
        with structlog.testing.capture_logs() as logs:
            os.kill(os.getpid(), signal.SIGTERM)
            await ended(running)
    assert probe.history == ["drain", "closed"]
    assert [log["event"] for log in logs if log["event"] != "ready"] == ["stopping", "drain_timed_out", "stopped"]


async def test_a_failure_of_the_service_ends_the_process_and_closes_it() -> None:
    probe = Probe()
    probe.failure = ValueError("disk full")
    async with served(probe) as running:
        probe.end.set()
        with pytest.raises(ExceptionGroup) as caught:
            await ended(running)
    assert caught.value.exceptions == (probe.failure,)
    assert probe.history == ["closed"]


async def test_the_signal_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    async with served(Probe()) as running:
        os.kill(os.getpid(), signal.SIGINT)
        await ended(running)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def refusal(probe: Probe, **values: object) -> str:
    with pytest.raises(StartupError) as caught:
        async with asyncio.timeout(DEADLINE_S):
            await serve(probe, ProbeSettings.model_validate(values))
    assert probe.history == ["closed"]
    return str(caught.value)


async def test_a_port_in_use_is_refused_and_the_message_names_the_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        message = await refusal(Probe(), bind=address)
    assert message == (
        f"cannot listen on {address}: the port is in use; set NODEFLOW_PROBE_BIND or stop the other process"
    )


async def test_a_second_server_on_the_same_port_is_refused_and_the_first_goes_on() -> None:
    async with served(Probe()) as running:
        assert "the port is in use" in await refusal(Probe(), bind=running.address)
        assert await running.echo() == b"hello"


async def test_an_address_that_is_not_ours_is_refused() -> None:
    assert "this machine has no such address" in await refusal(Probe(), bind="192.0.2.1:7420", insecure=True)


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "example.org:7420"])
async def test_an_address_that_others_can_reach_is_refused_unless_insecure(bind: str) -> None:
    message = await refusal(Probe(), bind=bind)
    assert f"refusing to listen on {bind}" in message
    assert "NODEFLOW_PROBE_BIND" in message
    assert "NODEFLOW_PROBE_INSECURE=true" in message


async def test_insecure_allows_an_address_that_others_can_reach() -> None:
    probe = Probe()
    settings = ProbeSettings.model_validate({"bind": "0.0.0.0:0", "insecure": True})
    probe.end.set()
    async with asyncio.timeout(DEADLINE_S):
        await serve(probe, settings)
    assert probe.history == ["ran", "drain", "closed"]


async def test_the_address_is_announced_when_ready_and_withdrawn_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "address"
    file.write_text("127.0.0.1:1")  # of an earlier process that was killed
    probe = Probe()
    probe.ready.clear()
    async with served(probe, announce_file=file) as running:
        assert not file.exists()
        assert await running.health("") == NOT_SERVING
        probe.ready.set()
        async with asyncio.timeout(DEADLINE_S):
            while not file.exists():  # noqa: ASYNC110  # it is the file that readers wait for
                await asyncio.sleep(0.01)
        assert file.read_text() == running.address
        assert await running.health("") == SERVING
        probe.end.set()
        await ended(running)
    assert [path.name for path in tmp_path.iterdir()] == []  # noqa: ASYNC240  # nothing else runs
