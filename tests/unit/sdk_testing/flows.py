"""Workflows under test, as a user would have them beside the tests."""

import asyncio
import enum
import logging
import time
from dataclasses import dataclass

from nodeflow_sdk import Backoff, node, process, workflow


class Color(enum.Enum):
    """Travels by its value."""

    RED = "red"
    GREEN = "green"


@dataclass
class Word:
    """Travels as an object."""

    text: str
    color: Color = Color.RED


@node(retries=3, backoff=Backoff(initial="1h", factor=1, jitter=0), timeout="1m")
def count(path: str) -> int:
    print(f"counting {path}")  # noqa: T201  # it is looked for
    logging.getLogger("words").info("counted %s", path)
    return len(path)


@node
def total(counts: list[int]) -> int:
    return sum(counts)


@workflow
def word_count(paths: list[str]) -> int:
    return total(count.map(paths))


@node
async def nap(hours: int) -> int:
    await asyncio.sleep(hours * 3600)
    print("rested")  # noqa: T201
    return hours


@node
def doze(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


@node(timeout="5s")
def short_doze(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


@node
def painted(word: Word) -> Word:
    return Word(text=word.text.upper(), color=Color.GREEN)


@node
def on_a_loop_of_its_own(number: int) -> int:
    async def later() -> int:
        await asyncio.sleep(0)
        return number

    return asyncio.run(later())


@node
def divide(number: int) -> float:
    return 1 / number


sort = process("sort -u {path}", env={"LANG": "C"})


@workflow
def naps(hours: list[int]) -> object:
    return nap.map(hours)


@workflow
def dozes(seconds: float) -> str:
    return doze(seconds)


@workflow
def short_dozes(seconds: float) -> str:
    return short_doze(seconds)


@workflow
def painting(word: Word) -> Word:
    return painted(word)


@workflow
def looping(number: int) -> int:
    return on_a_loop_of_its_own(number)


@workflow
def division(number: int) -> float:
    return divide(number)


@workflow
def sorting(path: str) -> object:
    return sort(path).after(sort(path))
