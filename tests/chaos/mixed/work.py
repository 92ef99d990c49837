"""What the nodes of a mixed run execute; every value follows from the inputs, so that the outputs are known.

Owns the functions. What looks at a run from outside (`tests/chaos/mixed_run.py`) must know what they return and print.
"""

import fcntl
import time
from pathlib import Path

NAP_S = 0.008
LONG_TEXT = 100_000
HELD_S = 1.2
"""Longer than a short lease: it may begin before, and not end, while its worker stands still."""


def begin(number: int, items: int, jobs: int) -> dict[str, list[int]]:
    return {"items": [number * 1_000 + each for each in range(items)], "jobs": list(range(jobs))}


def one_more(n: int) -> int:
    time.sleep(NAP_S)
    return n + 1


def times(n: int, factor: int) -> int:
    time.sleep(NAP_S)
    return n * factor


def add_up(values: list[int]) -> int:
    return sum(values)


def double(n: int, marks: str) -> int:
    """Speak, and fail the first time for every tenth: the retry is needed."""
    print(f"item {n} speaks")
    time.sleep(NAP_S * (1 + n % 3) / 2)
    if n % 10 == 3 and is_first(Path(marks) / f"item-{n}"):
        raise ValueError(f"item {n} wants to be asked twice")
    return n * 2


def is_first(mark: Path) -> bool:
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def hold(number: int, marks: str) -> int:
    """Hold a lock for a while, and say so if it is held already."""
    with (Path(marks) / f"hold-{number}").open("a") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mark.write("overlap\n")
        print("begin", file=mark, flush=True)
        time.sleep(HELD_S)
        print("end", file=mark, flush=True)
    return number


def long_text(number: int) -> str:
    return chr(ord("a") + number % 26) * LONG_TEXT


def length(text: str) -> int:
    return len(text)


def parity(number: int) -> int:
    return number % 2
