"""The faults of a workflow document: collected all at once, each with its place, its line and what would be right.

Knows nothing of what a document may say.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from nodeflow_shared.errors import FieldViolation, InvalidInput

INVALID_DOCUMENT: Final = "INVALID_DOCUMENT"

FAULTS_LIMIT: Final = 100
"""More faults than this are counted, not told: whoever has a hundred has one cause."""

Path = tuple[str | int, ...]
"""A place in a document: keys and list positions from the top."""

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with a document."""

    path: str
    """Its place, such as `nodes.count.with.path`; empty for the document as a whole."""
    description: str
    hint: str = ""
    """What would be right."""
    line: int | None = None
    """From 1."""

    def __str__(self) -> str:
        """One line for people."""
        place = f"line {self.line}: " if self.line is not None else ""
        where = f"{self.path}: " if self.path else ""
        return place + where + self.description + (f" ({self.hint})" if self.hint else "")


class DocumentFaults(InvalidInput):
    """A document cannot be used; `faults` has one entry per fault, in the order of the document."""

    def __init__(self, faults: Iterable[Fault], *, left_out: int = 0) -> None:
        self.faults = tuple(faults)
        count = len(self.faults) + left_out
        more = f" (and {count - 1:,} more)" if count > 1 else ""
        super().__init__(
            f"the workflow document is not valid: {self.faults[0]}{more}",
            reason=INVALID_DOCUMENT,
            violations=[
                FieldViolation(each.path, _with_line(each.description, each.line), each.hint) for each in self.faults
            ],
        )


@dataclass(slots=True, kw_only=True)
class FaultList:
    """Collects faults while a document is read."""

    line_of: Callable[[Path], int | None] = lambda _: None
    """The line of a place in the document, or of what is nearest around it."""
    _found: dict[tuple[Path, str], tuple[str, int | None]] = field(default_factory=dict)
    _left_out: int = 0

    def add(self, path: Path, description: str, hint: str = "", line: int | None = None) -> None:
        """Note one fault; the same fault of the same place counts once. `line` is given where the path has several."""
        if (path, description) in self._found:
            return
        if len(self._found) >= FAULTS_LIMIT:
            self._left_out += 1
        else:
            self._found[path, description] = (hint, line)

    @property
    def found(self) -> bool:
        """Whether anything has been noted."""
        return bool(self._found)

    def raise_if_any(self) -> None:
        """Raise DocumentFaults if anything has been noted."""
        if self._found:
            raise self.error()

    def error(self) -> DocumentFaults:
        """All that has been noted, which must not be nothing."""
        faults = [
            Fault(path=spelled(path), description=description, hint=hint, line=line or self.line_of(path))
            for (path, description), (hint, line) in self._found.items()
        ]
        faults.sort(key=lambda fault: fault.line or 0)
        return DocumentFaults(faults, left_out=self._left_out)


def spelled(path: Path) -> str:
    """A place as people write it: `nodes.count.needs[0]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f"[{short(step)!r}]"
    return text


def meant(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint that names what the author probably meant among what is known."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else otherwise


def short(text: str, limit: int = 60) -> str:
    """Text of others, cut to a length that is fit for a message."""
    return text if len(text) <= limit else text[:limit] + "…"


def _with_line(description: str, line: int | None) -> str:
    return description if line is None else f"{description} (line {line})"
