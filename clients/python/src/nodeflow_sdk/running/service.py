"""The functions of this process, served by a worker beside it for as long as somebody wants.

Owns the service from its beginning to its end, as coroutines of the home's loop. Must not know who wants it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from nodeflow_sdk.running.background import import_path
from nodeflow_sdk.running.home import Home
from nodeflow_sdk.running.orders import Submittable
from nodeflow_sdk.suite.lone_worker import lone_worker


class Service:
    """A worker that serves workflows. Without a worker-manager nothing is started: the suite imports what we do."""

    def __init__(self, workflows: Sequence[Submittable], slots: int | None) -> None:
        # A function's own directory comes first with each task; what it imports besides is found where we find it.
        own = (Path(each.directory) for each in workflows)
        self._path = tuple(dict.fromkeys([*own, *import_path()]))
        self._slots = slots
        self._stopping = asyncio.Event()
        self._held: asyncio.Task[None] | None = None
        self.worker_id = ""
        """Empty if the suite itself serves."""

    async def begin(self, home: Home, suite: str | None, worker_manager: str | None) -> None:
        """Return once the worker takes work. Raises SuiteError or NodeflowError."""
        address = await home.worker_manager(suite, worker_manager)
        if address is None:
            return
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._held = asyncio.get_running_loop().create_task(self._hold(address, ready), name="serving")
        self.worker_id = await ready

    async def end(self) -> None:
        """Let the worker finish what it has, and leave; one that has not begun yet is stopped."""
        self._stopping.set()
        if self._held is None:
            return
        if not self.worker_id:
            self._held.cancel()
        await asyncio.wait([self._held])
        if not self._held.cancelled():
            self._held.result()

    async def _hold(self, address: str, ready: asyncio.Future[str]) -> None:
        try:
            async with lone_worker(address, path=self._path, slots=self._slots) as worker_id:
                ready.set_result(worker_id)
                await self._stopping.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)
