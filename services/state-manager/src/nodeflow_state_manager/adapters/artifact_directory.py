"""Artifacts as files: `<root>/<tenant>/<first two digits>/<digest>`, written whole or not at all.

Owns paths, hashing and what makes a file durable. Must not know who refers to an artifact. Names are checked here
once more, where they become paths.
"""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO, Final, TypeVar

from nodeflow_shared.errors import NotFound, QuotaExceeded
from nodeflow_state_manager.adapters.room import RETRY_AFTER_S, check_room
from nodeflow_state_manager.domain.names import check_digest, check_tenant, invalid
from nodeflow_state_manager.ports import StoreFailed, StoreFull

T = TypeVar("T")

PIECE_BYTES: Final = 1 << 20
THREADS: Final = 4

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# No tenant's name begins with a dot.
INCOMING: Final = ".incoming"


class ArtifactDirectory:
    """See ports.ArtifactFiles. Opening it removes what uploads left that were cut off."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._incoming = root / INCOMING
        self._max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="artifacts")
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)

    async def receive(self, tenant: str, pieces: AsyncIterator[bytes], expected_digest: str) -> tuple[str, int]:
        """See ports.ArtifactFiles."""
        upload = await self._in_thread(lambda: _Upload(self._incoming))
        try:
            async for piece in pieces:
                if upload.size + len(piece) > self._max_bytes:
                    raise QuotaExceeded(
                        f"the artifact is larger than {self._max_bytes} bytes, the limit", reason="ARTIFACT_TOO_LARGE"
                    )
                await self._in_thread(lambda data=piece: upload.write(data))  # type: ignore[misc]  # a default, not a parameter
            digest = upload.digest()
            if expected_digest and expected_digest != digest:
                raise invalid("header.digest", f"the bytes have digest {digest}, not {expected_digest}")
            await self._in_thread(lambda: upload.keep(self._path(tenant, digest)))
        finally:
            upload.discard()
        return digest, upload.size

    async def read(self, tenant: str, digest: str) -> AsyncIterator[bytes]:
        """See ports.ArtifactFiles."""
        path = self._path(tenant, digest)
        file = await self._in_thread(lambda: _open(path, digest))
        try:
            while piece := await self._in_thread(lambda: file.read(PIECE_BYTES)):
                yield piece
        finally:
            file.close()

    async def check_writable(self, room_bytes: int) -> None:
        """See ports.ArtifactFiles."""
        await asyncio.to_thread(check_room, self._root, room_bytes)

    async def close(self) -> None:
        """See ports.ArtifactFiles."""
        await asyncio.to_thread(self._threads.shutdown)

    def _path(self, tenant: str, digest: str) -> Path:
        name = check_digest(digest).removeprefix("sha256:")
        return self._root / check_tenant(tenant) / name[:2] / name

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            kind = StoreFull if error.errno in NO_ROOM else StoreFailed
            raise kind(f"the artifact directory refuses: {error.strerror}", retry_after_s=RETRY_AFTER_S) from error


class _Upload:
    """A file that is being received."""

    def __init__(self, directory: Path) -> None:
        descriptor, name = mkstemp(dir=directory)
        self._path = Path(name)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def keep(self, path: Path) -> None:
        """Make the bytes durable under their name: first they, then the name, then the directories that lead to it."""
        os.fsync(self._file.fileno())
        directory = path.parent
        directory.mkdir(parents=True, exist_ok=True)
        self._path.replace(path)
        for each in (directory, directory.parent, directory.parent.parent):
            _sync_directory(each)

    def discard(self) -> None:
        """Close the file, and remove it unless it was kept."""
        self._file.close()
        with suppress(FileNotFoundError):
            self._path.unlink()


def _open(path: Path, digest: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise NotFound(f"there is no artifact {digest}", reason="ARTIFACT_NOT_FOUND") from None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
