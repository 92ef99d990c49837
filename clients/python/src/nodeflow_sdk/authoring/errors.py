"""What is wrong with a definition, and the line at fault.

Owns that error and the finding of the line. Must not know what can be wrong.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Final

_OWN: Final = f"{Path(__file__).parents[1]}/"


@dataclass(frozen=True, slots=True)
class Place:
    """A line of the user's code."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class WiringError(TypeError):
    """A workflow or a node is defined in a way that cannot run; the message begins with `file:line`.

    `place` is that line, `problem` what is wrong there, `remedy` what to write instead.
    """

    def __init__(self, place: Place, problem: str, remedy: str = "") -> None:
        super().__init__(f"{place}: {problem}{f'; {remedy}' if remedy else ''}")
        self.place = place
        self.problem = problem
        self.remedy = remedy


def calling_place() -> Place:
    """Return the line of the user's code that called into this package."""
    frame = sys._getframe(1)  # noqa: SLF001  # the documented way to the caller; inspect.stack reads every source file
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)


def place_of(function: Callable[..., object]) -> Place:
    """Return the line where a function is defined."""
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        return Place(code.co_filename, code.co_firstlineno)
    return calling_place()
