"""What a CEL expression can cost at most, estimated from its shape and the values it reads, before it is evaluated.

The library has no cost bound and cannot be interrupted, and its `map` and `filter` copy the list they build for every
item: their time grows with the square of its length (measured: 1,000 items 20 ms, 4,000 items 0.3 s, 32,000 items
20 s). So the estimate is from above, in steps of about 40 ns, and what exceeds the budget is refused with a clear
error. Sizes are counted in values and keys: a list of 100 numbers has 101. Knows nothing of scopes and documents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from nodeflow_scheduler.domain.cel_source import Access, Token
from nodeflow_scheduler.domain.json_text import JsonValue

BUDGET_STEPS: Final = 5_000_000
"""About 0.2 seconds."""

MACROS: Final = frozenset({"all", "exists", "exists_one", "existsOne", "filter", "map"})

_PATTERN_STEPS: Final = 500
_CLASS_STEPS: Final = 2_000
_HOSTILE_PATTERN_STEPS: Final = 400_000
"""Patterns are compiled at each use: a class such as `\\w` takes 0.1 ms, counted repetitions up to 16 ms in all."""

_CHARACTERS_PER_STEP: Final = 512
_ENORMOUS: Final = 1e30


@dataclass(slots=True, kw_only=True)
class Segment:
    """A part of an expression, without the macros in it."""

    steps: int = 0
    reads: list[int] = field(default_factory=list)
    """Indices of the values that it reads, each as often as it reads it."""
    items: int = 0
    """How often it names variables that macros bind."""
    joins: int = 0
    """How many times it may join or repeat values: every `+` and `,`."""
    macros: list[Macro] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Macro:
    """A loop over a list."""

    name: str
    body: Segment
    growth: float = 1
    """How much longer its list may be than any that is read: what was joined before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What of an expression's text matters for its cost."""

    whole: Segment

    def refusal(self, values: Sequence[JsonValue]) -> str:
        """Why it must not be evaluated with these values; empty when it may."""
        if not self.whole.macros and self.whole.joins < 8:
            return ""
        sizes, longest = [], 1
        for value in values:
            size, length = _measured(value)
            sizes.append(size)
            longest = max(longest, length)
        longest = max(longest, self.whole.joins + 1)
        estimate = _estimate(self.whole, sizes, longest, sum(sizes) + self.whole.joins)
        if estimate.steps <= BUDGET_STEPS:
            return ""
        return (
            f"it would take too long for these values (a list of {longest:,} items, {sum(sizes):,} values in all); "
            "compute this in a node's function"
        )


def shape_of(line: Sequence[Token], reads: Mapping[int, int], found: Sequence[Access], bound: set[str]) -> Shape:
    """The shape of an expression. `reads` tells for the first token of each access which value it reads."""
    return Shape(
        whole=_Shaper(line=line, reads=reads, ends={each.first: each.after for each in found}, bound=bound).shaped()
    )


@dataclass(slots=True, kw_only=True)
class _Shaper:
    line: Sequence[Token]
    reads: Mapping[int, int]
    ends: Mapping[int, int]
    bound: set[str]
    closed_growth: float = 1
    """Of the loops that have ended."""
    segments: list[Segment] = field(default_factory=lambda: [Segment()])
    """The whole, and in it the bodies of the loops that are open."""
    open_macros: list[tuple[int, Macro]] = field(default_factory=list)
    """With the depth of brackets at which each ends."""

    def shaped(self) -> Segment:
        depth, position = 0, 0
        while position < len(self.line):
            text = self.line[position].text
            if text in {"(", "[", "{"}:
                depth += 1
                self._open(position, depth)
            elif text in {")", "]", "}"}:
                self._close(depth)
                depth -= 1
            self._count(self.segments[-1], position)
            position = self.ends.get(position, position + 1)
        return self.segments[0]

    def _open(self, position: int, depth: int) -> None:
        if position < 2 or self.line[position - 2].text != "." or self.line[position - 1].text not in MACROS:
            return
        growth = self.closed_growth
        for segment in self.segments:
            growth = min(growth * (1 + segment.joins), _ENORMOUS)
        # The comma behind the loop's variable joins nothing.
        macro = Macro(name=self.line[position - 1].text, body=Segment(joins=-1), growth=growth)
        self.segments[-1].macros.append(macro)
        self.segments.append(macro.body)
        self.open_macros.append((depth, macro))

    def _close(self, depth: int) -> None:
        if self.open_macros and self.open_macros[-1][0] == depth:
            _, macro = self.open_macros.pop()
            self.segments.pop()
            if macro.name == "map":
                self.closed_growth = min(self.closed_growth * max(1, 1 + macro.body.joins), _ENORMOUS)

    def _count(self, segment: Segment, position: int) -> None:
        token = self.line[position]
        segment.steps += 1
        if token.text in {"+", ","}:
            segment.joins += 1
        elif position in self.reads:
            segment.reads.append(self.reads[position])
        elif token.text in self.bound:
            segment.items += 1
        elif token.text == "matches":
            segment.steps += self._pattern_steps(position)

    def _pattern_steps(self, position: int) -> int:
        pattern = self.line[position + 2] if position + 2 < len(self.line) else None
        if pattern is None or pattern.kind != "string" or "{" in pattern.text:
            return _HOSTILE_PATTERN_STEPS
        return _PATTERN_STEPS * (1 + len(pattern.text) // 16) + _CLASS_STEPS * pattern.text.count("\\")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimate:
    """Of one evaluation of a segment or of a loop."""

    steps: float
    result: float
    """How many values it gives at most."""


def _estimate(segment: Segment, sizes: Sequence[int], longest: float, total: float) -> _Estimate:
    """Items of a list count as their share of it, so that a loop over them adds up to the list."""
    leaves = sum(sizes[read] for read in segment.reads) + segment.items * total / longest
    loops = [_loop_estimate(macro, sizes, longest, total) for macro in segment.macros]
    joins = max(0, segment.joins)
    return _Estimate(
        # A chain of joins copies what was joined before.
        steps=segment.steps + leaves * (1 + joins) + sum(loop.steps for loop in loops),
        result=max(1.0, leaves + joins + sum(loop.result for loop in loops)),
    )


def _loop_estimate(macro: Macro, sizes: Sequence[int], longest: float, total: float) -> _Estimate:
    rounds, total = longest * macro.growth, total * macro.growth
    body = _estimate(macro.body, sizes, rounds, total)
    match macro.name:
        case "map":
            return _Estimate(steps=rounds * body.steps + rounds**2 / 2 * body.result, result=rounds * body.result)
        case "filter":
            return _Estimate(steps=rounds * body.steps + rounds * total / 2, result=total)
        case _:
            return _Estimate(steps=rounds * body.steps, result=1)


def _measured(value: JsonValue) -> tuple[int, int]:
    """How many values it holds, and the length of its longest list or mapping."""
    size, longest, rest = 0, 1, [value]
    while rest:
        each = rest.pop()
        size += 1
        if isinstance(each, str):
            size += len(each) // _CHARACTERS_PER_STEP
        elif isinstance(each, list):
            longest = max(longest, len(each))
            rest.extend(each)
        elif isinstance(each, dict):
            longest = max(longest, len(each))
            size += len(each)
            rest.extend(each.values())
    return size, longest
