"""Transfers: how long one that fails is tried, by what it fails of."""

import asyncio

import pytest
from tests.unit.worker.making import attempt

from nodeflow_shared.clock import LoopClock
from nodeflow_shared.errors import Unavailable
from nodeflow_testing.virtual_loop import run
from nodeflow_worker.domain.events import Prepared, Saved, TransferFailed
from nodeflow_worker.domain.values import State, Stored
from nodeflow_worker.transfers import RETRY_FOR_S, Transfers

Told = Prepared | Saved | TransferFailed


class FailingArtifacts:
    """Fails every upload until a time."""

    def __init__(self, error: Unavailable, until_s: float) -> None:
        self._error = error
        self._until_s = until_s

    async def upload(self, tenant: str, value: Stored) -> Stored:
        if asyncio.get_running_loop().time() < self._until_s:
            raise self._error
        return Stored(digest="sha256:1", size_bytes=len(value.data))

    async def upload_file(self, tenant: str, path: str, content_type: str) -> Stored:
        raise AssertionError

    async def download(self, tenant: str, digest: str) -> bytes:
        raise AssertionError

    async def download_file(self, tenant: str, digest: str, path: str) -> None:
        raise AssertionError


@pytest.mark.parametrize(("reason", "outcome"), [("DISK_FULL", Saved), ("UNAVAILABLE", TransferFailed)])
def test_a_full_disk_is_waited_for_as_long_as_it_takes(reason: str, outcome: type[Told]) -> None:
    async def save() -> list[Told]:
        told: list[Told] = []
        artifacts = FailingArtifacts(Unavailable("no", reason=reason, retry_after_s=1.0), 5 * RETRY_FOR_S)
        transfers = Transfers(artifacts, LoopClock(0), told.append)
        held = attempt()
        held.state = State.STORING
        async with asyncio.TaskGroup() as group:
            transfers.use(group)
            transfers.save(held, Stored(data=bytes(100_000)))
        return told

    [told] = run(save)
    assert type(told) is outcome
