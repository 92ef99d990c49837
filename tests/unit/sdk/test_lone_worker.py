"""The worker of `serving`, with a worker-manager that a test plays: what it leaves."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from tests.unit.sdk.fake_services import FakeServices

from nodeflow_sdk.suite import lone_worker


def open_logs() -> list[str]:
    """Files of this process that are logs of a worker."""
    names: list[str] = []
    for each in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # other threads close theirs while this looks
            names.append(str(each.readlink()))
    return [name for name in names if "/logs/worker.log" in name]


async def test_it_leaves_no_file_open(fakes: FakeServices, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    async def connected(_address: str, _worker_id: str) -> None:
        """It never does, with a worker-manager that lists workers only; but it says so."""
        while not open_logs():  # noqa: ASYNC110  # another task writes it
            await asyncio.sleep(0.01)
        written.extend(open_logs())

    monkeypatch.setattr(lone_worker, "_connected", connected)
    async with lone_worker.lone_worker(fakes.address, path=(), slots=1) as worker_id:
        assert worker_id.endswith("-serve-1")
    assert len(written) == 1
    assert open_logs() == []
