"""What a process finds in its working directory: the source of a pipeline, and files of earlier jobs.

Owns how they get there, and that nothing is written elsewhere. Must not know processes.
"""

import asyncio
import json
import os
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath
from typing import Any, Final

from nodeflow_shared.errors import DeadlineExceeded, NodeflowError, Overloaded, Unavailable
from nodeflow_shared.retry import reconnect_delays
from nodeflow_worker.domain import failures
from nodeflow_worker.domain.invocation import WORK_DIRECTORY
from nodeflow_worker.domain.values import Attempt, Failure

RETRY_FOR_S: Final = 60.0
"""How long a store that cannot be reached is asked again."""
ARCHIVE: Final = "source.tar"

Download = Callable[[str, str, str], Awaitable[None]]
"""(tenant, digest, path): writes an artifact to a file; raises NodeflowError, OSError."""


class NotFilled(Exception):
    """A working directory could not be filled; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class WorkingTrees:
    """Fills working directories."""

    def __init__(self, download: Download) -> None:
        self._download = download

    async def fill(self, attempt: Attempt, root: str) -> None:
        """Put all that belongs there into the working directory of an attempt; raises NotFilled."""
        given: dict[str, Any] = json.loads(attempt.arguments or b"{}")  # Any: JSON of the scheduler's expressions
        work = Path(root, WORK_DIRECTORY)
        try:
            if "source" in given:
                await self._unpack(attempt, given["source"]["digest"], root)
            for name, file in given.get("files", {}).items():
                path = _place(work, name)
                await self._fetch(attempt, file["digest"], path, f"the file {name!r}")
        except OSError as error:
            raise NotFilled(failures.not_filled("a file", str(error), retryable=True)) from error

    async def _unpack(self, attempt: Attempt, digest: str, root: str) -> None:
        archive = Path(root, ARCHIVE)
        await self._fetch(attempt, digest, archive, "the source")
        unpacking = asyncio.ensure_future(asyncio.to_thread(_extract, archive, Path(root, WORK_DIRECTORY)))
        try:
            await asyncio.shield(unpacking)
        except asyncio.CancelledError:
            await asyncio.wait([unpacking])  # A thread cannot be stopped, and its directory is removed next.
            raise
        os.unlink(archive)  # noqa: PTH108

    async def _fetch(self, attempt: Attempt, digest: str, path: Path, what: str) -> None:
        loop = asyncio.get_running_loop()
        gives_up_at = loop.time() + RETRY_FOR_S
        for delay_s in reconnect_delays():
            try:
                return await self._download(attempt.spec.tenant, digest, str(path))
            except NodeflowError as error:
                may_pass = isinstance(error, Unavailable | DeadlineExceeded | Overloaded)
                if not may_pass or loop.time() + delay_s > gives_up_at:
                    raise NotFilled(failures.not_filled(what, error.message, retryable=may_pass)) from error
            await asyncio.sleep(delay_s)
        raise AssertionError("delays have no end")


def _extract(archive: Path, work: Path) -> None:
    try:
        with tarfile.open(archive, "r:*") as file:
            file.extractall(work, filter="data")
    except (tarfile.TarError, EOFError, ValueError) as error:
        cause = f"the source cannot be unpacked: {error}; it must be a tar archive, of files that lead nowhere else"
        raise NotFilled(failures.source_unusable(cause)) from error


def _place(work: Path, name: str) -> Path:
    """Where a file goes, with the directories above it; a symbolic link of the source must not lead it elsewhere."""
    steps = PurePosixPath(name).parts
    path = work.joinpath(*steps)
    if not steps or name.startswith("/") or ".." in steps:
        raise NotFilled(failures.source_unusable(f"{name!r} is not a path below the working directory"))
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(work.resolve()) or path.is_dir():
        raise NotFilled(failures.source_unusable(f"{name!r} cannot be written: something of the source is in its way"))
    path.unlink(missing_ok=True)
    return path
