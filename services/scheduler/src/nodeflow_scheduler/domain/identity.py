"""Names of executions, and the shard that each belongs to. Pure: time and randomness are arguments."""

from __future__ import annotations

import re
from hashlib import sha256
from uuid import UUID
from zlib import crc32

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def execution_id_of_request(tenant: str, request_id: str) -> str:
    """The id that follows from the caller's key (a version 8 UUID): a repeat finds the same shard on any replica."""
    digest = bytearray(sha256(f"{tenant}\0{request_id}".encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(digest)))


def new_execution_id(now_ms: int, random: bytes) -> str:
    """A fresh id (a version 7 UUID, RFC 9562): `random` is 10 bytes."""
    value = bytearray(now_ms.to_bytes(6, "big") + random)
    value[6] = value[6] & 0x0F | 0x70
    value[8] = value[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(value)))


def time_in_ms(request_id: str) -> int | None:
    """When a key was drawn, if it is a version 7 UUID: nothing can have been submitted under it before."""
    if not is_execution_id(request_id) or request_id[14] != "7":
        return None
    return int(request_id[:8] + request_id[9:13], 16)


def is_execution_id(text: str) -> bool:
    """Whether it is a whole id, not a prefix or an alias."""
    return _UUID.fullmatch(text) is not None


def shard_of(execution_id: str, shard_count: int) -> int:
    """The shard of an execution."""
    return crc32(execution_id.encode()) % shard_count
