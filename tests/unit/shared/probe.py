"""A service that does nothing, for tests of how services live: in the test's process, or a program of its own."""

import asyncio
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, get_args

import grpc
import grpc.aio
from pydantic_settings import SettingsConfigDict

from nodeflow_shared import server
from nodeflow_shared.logs import get_log
from nodeflow_shared.server import StartupError, run_service
from nodeflow_shared.settings import ServiceSettings

Stuck = Literal["never_end", "fail_and_never_end", "block_in_close"]
"""Ways not to come to an end."""
SERVICE = "test.v1.Probe"
PART = "test.v1.Part"


class ProbeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="NODEFLOW_PROBE_")

    mode: Literal["serve", "hang", "crash", "misconfigured", "crash_in_build", "hang_in_build"] | Stuck = "serve"


class Probe:
    """Serves `Echo`; a test opens its gates. By itself it becomes ready at once and drains at once."""

    name = "probe"
    service_names: Sequence[str] = (SERVICE, PART)

    def __init__(self, mode: str = "serve") -> None:
        self.ready = asyncio.Event()
        self.ready.set()
        self.part_ready = asyncio.Event()
        self.parts_ready = {PART: self.part_ready}
        self.draining = asyncio.Event()
        self.may_drain = asyncio.Event()
        self.may_drain.set()
        self.end = asyncio.Event()
        self.called = asyncio.Event()
        self.closing = asyncio.Event()
        self.failure: Exception | None = None
        self.history: list[str] = []
        self._mode = mode

    def register(self, server: grpc.aio.Server) -> None:
        # Any: the stubs describe blocking behaviors only.
        echo: Any = self._echo
        late: Any = self._echo_after_the_end
        handlers: dict[str, Any] = {
            "Echo": grpc.unary_unary_rpc_method_handler(echo),
            "EchoAfterTheEnd": grpc.unary_unary_rpc_method_handler(late),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def run(self) -> None:
        if self._mode == "crash":
            raise ValueError("the probe failed")
        if self._mode == "misconfigured":
            raise StartupError("the probe's database is not there")
        if self._mode in ("never_end", "fail_and_never_end"):
            await _never_end()
        await self.end.wait()
        if self.failure is not None:
            raise self.failure
        self.history.append("ran")
        asyncio.get_running_loop().call_later(0.05, self.closing.set)

    async def drain(self) -> None:
        self.draining.set()
        self.history.append("drain")
        if self._mode == "fail_and_never_end":
            raise ValueError("the drain failed")
        if self._mode == "hang":
            get_log().info("draining")
            await asyncio.Event().wait()
        await self.may_drain.wait()
        self.end.set()

    async def close(self) -> None:
        self.history.append("closed")
        if self._mode == "block_in_close":
            threading.Event().wait()

    async def _echo(self, request: bytes, _: object) -> bytes:
        return request

    async def _echo_after_the_end(self, request: bytes, _: object) -> bytes:
        self.called.set()
        await self.closing.wait()
        return request


async def _never_end() -> None:
    """Hang, whoever cancels it."""
    while True:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def build(settings: ProbeSettings) -> Probe:
    if settings.mode == "crash_in_build":
        raise ValueError("nothing was built")
    if settings.mode == "hang_in_build":
        get_log().info("building")
        await asyncio.Event().wait()
    if settings.mode in get_args(Stuck):
        server.STOP_MARGIN_S = 0.5  # type: ignore[misc]  # tests have no time
    return Probe(settings.mode)


if __name__ == "__main__":
    sys.exit(run_service(ProbeSettings, build))
