"""The text of CEL expressions, as far as the engine must understand it: tokens, what is read of the scope, macros.

The library parses and evaluates; but its `references()` name only roots (`nodes`), while a dependency is
`nodes.<name>.output`. Knows nothing of the names that exist, and judges nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

ROOTS: Final = frozenset({"inputs", "nodes", "jobs", "item", "index", "matrix", "execution"})

_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<string>
        [bB]?[rR][bB]?(?:\"\"\".*?\"\"\"|'''.*?'''|"[^"\n]*"|'[^'\n]*')
      | [bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    )
  | (?P<number>0[xX][0-9a-fA-F]+[uU]?|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[uU]?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_PLAIN_STRING: Final = re.compile(r"\"[^\"\\]*\"|'[^'\\]*'")


class Token(NamedTuple):
    """A piece of text: `kind` is string, number, name or mark (one character of punctuation)."""

    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A root of the scope with the constant steps that follow it: `nodes.a.output[0]`."""

    root: str
    steps: tuple[str | int, ...]
    first: int
    """Index of its first token."""
    after: int
    """Index of the token behind it."""


def tokens(text: str, start: int = 0) -> Iterator[Token]:
    """The tokens of CEL from `start` on; space and comments are left out."""
    for match in _TOKEN.finditer(text, start):
        if match.lastgroup != "space":
            yield Token(str(match.lastgroup), match[0], match.start(), match.end())


def closing_brace(text: str, start: int) -> int:
    """Where the brace closes that was opened before `start`, past those of maps and in strings; -1 for nowhere."""
    depth = 1
    for token in tokens(text, start):
        if token.text == "{":
            depth += 1
        elif token.text == "}":
            depth -= 1
            if depth == 0:
                return token.start
    return -1


def accesses(line: Sequence[Token]) -> list[Access]:
    """All that is read of the scope, in the order of the text."""
    found = []
    for position, token in enumerate(line):
        follows_dot = position > 0 and line[position - 1].text == "."
        if token.kind == "name" and token.text in ROOTS and not follows_dot and _text(line, position + 1) != "(":
            steps, after = _steps(line, position + 1)
            found.append(Access(root=token.text, steps=steps, first=position, after=after))
    return found


def bound_names(line: Sequence[Token], macros: frozenset[str]) -> set[str]:
    """The variables that macros bind: `i` in `.map(i, …)`."""
    return {
        line[position + 3].text
        for position in range(len(line) - 4)
        if line[position].text == "."
        and line[position + 1].text in macros
        and line[position + 2].text == "("
        and line[position + 3].kind == "name"
        and line[position + 4].text == ","
    }


def _steps(line: Sequence[Token], position: int) -> tuple[tuple[str | int, ...], int]:
    steps: list[str | int] = []
    while (step := _step(line, position)) is not None:
        value, position = step
        steps.append(value)
    return tuple(steps), position


def _step(line: Sequence[Token], position: int) -> tuple[str | int, int] | None:
    match _text(line, position):
        case ".":
            is_field = (
                position + 1 < len(line) and line[position + 1].kind == "name" and _text(line, position + 2) != "("
            )
            return (line[position + 1].text, position + 2) if is_field else None
        case "[" if _text(line, position + 2) == "]":
            key = line[position + 1]
            if key.kind == "string" and _PLAIN_STRING.fullmatch(key.text):
                return key.text[1:-1], position + 3
            if key.kind == "number" and key.text.isdecimal() and len(key.text) < 10:
                return int(key.text), position + 3
    return None


def _text(line: Sequence[Token], position: int) -> str:
    return line[position].text if position < len(line) else ""
