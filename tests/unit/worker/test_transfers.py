"""Transfers: how long one that fails is tried, by what it fails of; and what is too large to be fetched."""

import asyncio
import json

import pytest
from tests.unit.worker.making import attempt

from nodeflow_shared.clock import LoopClock
from nodeflow_shared.errors import Unavailable
from nodeflow_testing.virtual_loop import run
from nodeflow_worker.domain.events import Prepared, Saved, TransferFailed
from nodeflow_worker.domain.values import JSON, MANIFEST, Extra, Reference, State, Stored
from nodeflow_worker.transfers import MAX_ARGUMENTS_BYTES, MAX_AT_ONCE, RETRY_FOR_S, Transfers

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


class Shelf:
    """Has artifacts, and remembers what was asked for."""

    def __init__(self, data: dict[str, bytes]) -> None:
        self._data = data
        self.downloaded: list[str] = []

    async def download(self, tenant: str, digest: str) -> bytes:
        self.downloaded.append(digest)
        return self._data[digest]

    async def upload(self, tenant: str, value: Stored) -> Stored:
        raise AssertionError

    async def upload_file(self, tenant: str, path: str, content_type: str) -> Stored:
        raise AssertionError

    async def download_file(self, tenant: str, digest: str, path: str) -> None:
        raise AssertionError


def by_reference(size_bytes: int, content_type: str = JSON) -> tuple[Reference, ...]:
    value = Stored(content_type=content_type, digest="sha256:1", size_bytes=size_bytes)
    return (Reference(parameter="rows", value=value),)


def fetched(shelf: Shelf, references: tuple[Reference, ...]) -> Told:
    async def fetch() -> list[Told]:
        told: list[Told] = []
        transfers = Transfers(shelf, LoopClock(0), told.append)
        held = attempt(references=references)
        held.state = State.PREPARING
        async with asyncio.TaskGroup() as group:
            transfers.use(group)
            transfers.fetch(held)
        return told

    (told,) = run(fetch)
    return told


def test_arguments_that_are_too_large_are_not_fetched_to_find_that_out() -> None:
    """The worker would have no memory left, and neither would the next one that is given the attempt."""
    too_large = by_reference(MAX_ARGUMENTS_BYTES + 1)
    shelf = Shelf({})
    told = fetched(shelf, too_large)
    assert isinstance(told, TransferFailed)
    assert not told.failure.retryable
    assert "805,306,369 bytes" in told.failure.message
    assert shelf.downloaded == []


def test_the_items_of_a_fan_in_that_are_too_large_together_are_not_fetched() -> None:
    half = MAX_ARGUMENTS_BYTES // 2
    items = [{"artifact": {"digest": f"sha256:{n}", "size_bytes": half}} for n in (2, 3)]
    shelf = Shelf({"sha256:1": json.dumps(items).encode()})
    assert isinstance(fetched(shelf, by_reference(100, MANIFEST)), TransferFailed)
    assert shelf.downloaded == ["sha256:1"]


def test_arguments_by_reference_are_fetched_with_the_items_of_a_fan_in() -> None:
    items = [{"value": 1}, {"artifact": {"digest": "sha256:2", "size_bytes": 3}}]
    manifest = json.dumps(items).encode()
    shelf = Shelf({"sha256:1": manifest, "sha256:2": b"[1]"})
    told = fetched(shelf, by_reference(len(manifest), MANIFEST))
    assert isinstance(told, Prepared)
    assert told.extras == (
        Extra(parameter="rows", content_type=MANIFEST, data=manifest, parts=(("sha256:2", b"[1]"),)),
    )


class SlowShelf(Shelf):
    """Takes a second for each, and notes how many are under way at most."""

    def __init__(self) -> None:
        super().__init__({"sha256:1": b"1"})
        self.under_way = 0
        self.most = 0

    async def download(self, tenant: str, digest: str) -> bytes:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(1.0)
        self.under_way -= 1
        return await super().download(tenant, digest)


def test_only_so_many_are_transferred_at_once() -> None:
    shelf = SlowShelf()

    async def fetch() -> tuple[float, int]:
        told: list[Told] = []
        transfers = Transfers(shelf, LoopClock(0), told.append)
        async with asyncio.TaskGroup() as group:
            transfers.use(group)
            for task in range(3 * MAX_AT_ONCE):
                held = attempt(task, references=by_reference(1))
                held.state = State.PREPARING
                transfers.fetch(held)
        return asyncio.get_running_loop().time(), len(told)

    took_s, told = run(fetch)
    assert took_s == pytest.approx(3.0)
    assert told == 3 * MAX_AT_ONCE
    assert shelf.most == MAX_AT_ONCE
