"""The state-manager's artifact files in memory, for runs on virtual time; they pass tests/contract/store."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Final

from nodeflow_shared.errors import NotFound, QuotaExceeded
from nodeflow_state_manager.domain.names import check_digest, check_tenant, invalid
from nodeflow_state_manager.ports import StoreFull
from nodeflow_testing.lives import end_if_dead
from nodeflow_testing.simulated_disk import Disk, DiskFull

PIECE_BYTES: Final = 1 << 20


class MemoryArtifactFiles:
    """See nodeflow_state_manager.ports.ArtifactFiles. Bytes are there whole, or not at all, whatever crashes."""

    def __init__(self, *, max_bytes: int = 1 << 30, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self._max_bytes = max_bytes
        self._bytes: dict[tuple[str, str], bytes] = {}

    async def receive(self, tenant: str, pieces: AsyncIterator[bytes], expected_digest: str) -> tuple[str, int]:
        data = bytearray()
        async for piece in pieces:
            data += piece
            if len(data) > self._max_bytes:
                raise QuotaExceeded(f"the artifact is larger than {self._max_bytes} bytes, the limit")
        await self.check_writable(0)
        await asyncio.sleep(self.disk.next_sync_s())
        end_if_dead()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if expected_digest not in ("", digest):
            raise invalid("header.digest", f"the bytes have digest {digest}, not {expected_digest}")
        self._bytes[check_tenant(tenant), digest] = bytes(data)
        return digest, len(data)

    async def check_writable(self, room_bytes: int) -> None:
        try:
            self.disk.require_room()
        except DiskFull:
            raise StoreFull("the artifact directory refuses: disk is full", retry_after_s=1.0) from None

    async def read(self, tenant: str, digest: str) -> AsyncIterator[bytes]:
        data = self._bytes.get((check_tenant(tenant), check_digest(digest)))
        if data is None:
            raise NotFound(f"there is no artifact {digest}", reason="ARTIFACT_NOT_FOUND")
        for start in range(0, len(data), PIECE_BYTES):
            yield data[start : start + PIECE_BYTES]

    async def close(self) -> None:
        """Keep everything, as a directory does."""
