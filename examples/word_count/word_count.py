"""The functions of the word-count workflow; nothing in them knows Node Flow."""

from pathlib import Path

HERE = Path(__file__).parent


def count(path: str) -> int:
    """Return the number of words in a text file; a relative path is taken from this directory."""
    return len((HERE / path).read_text(encoding="utf-8").split())


def total(counts: list[int]) -> int:
    """Return the sum."""
    return sum(counts)
