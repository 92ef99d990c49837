"""The functions that the bench's workflows execute, in runner processes. Must not do anything worth measuring."""

import itertools
import secrets

# Distinct in every runner process, and cheap: nothing but a counter is read per call.
_numbers = itertools.count(secrets.randbits(100) << 20)


def first() -> str:
    """Return 30 characters that no other call returns: 32 bytes as JSON."""
    return f"{next(_numbers):030x}"


def noop(a: str, b: str, c: str) -> str:
    """Take what three parents returned, and return 30 characters that no other call returns."""
    return f"{next(_numbers):030x}"
