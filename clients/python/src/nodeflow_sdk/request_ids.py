"""Keys of submissions that name none. Owns their form; what a key means is the scheduler's."""

import secrets
import time
import uuid


def new_request_id() -> str:
    """Return a fresh key, a version 7 UUID (RFC 9562): its time tells the scheduler that it is new."""
    value = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + secrets.token_bytes(10))
    value[6] = value[6] & 0x0F | 0x70
    value[8] = value[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(value)))
