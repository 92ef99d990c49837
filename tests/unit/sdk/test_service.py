"""The worker of `serving`: what happens to it when whoever wants it is interrupted while it starts."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from nodeflow_sdk.client import Client
from nodeflow_sdk.running import service
from nodeflow_sdk.running.orders import Submittable
from nodeflow_sdk.running.runs import Runs

T = TypeVar("T")


class HomeHere:
    """The loop of the test, and a suite that runs elsewhere."""

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        raise AssertionError("nobody is outside of the loop")

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        return await work

    async def client(self, address: str | None) -> Client:
        raise AssertionError("nothing is registered before there is a worker")

    async def worker_manager(self, _address: str | None, _named: str | None, /) -> str | None:
        return "127.0.0.1:1"


async def test_a_worker_that_nobody_waits_for_any_more_is_stopped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    starting, stopped = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def never_ready(_address: str, *, path: tuple[Path, ...], slots: int | None) -> AsyncIterator[str]:
        try:
            starting.set()
            await asyncio.Event().wait()
            yield "never"
        finally:
            stopped.set()

    monkeypatch.setattr(service, "lone_worker", never_ready)
    flow = Submittable(source=b"", directory="/", whole=(), value=dict, at_fault=AssertionError)
    serving = asyncio.ensure_future(Runs(cast(Any, HomeHere()))._served([flow], None, None, None))
    await starting.wait()
    serving.cancel()
    await asyncio.wait([serving], timeout=10)
    assert serving.cancelled()
    assert stopped.is_set()
