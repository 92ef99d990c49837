"""A graph drawn in a terminal: a line for each node, and lanes beside them for the edges, as `git log --graph` does.

Owns the lines. A lane is the way to one node that is still to come; all edges to it share the lane. This needs no
layout in two dimensions, keeps a node's words in one line, and grows as wide as the graph, not as large.
"""

from collections.abc import Sequence

from rich.text import Text

from nodeflow_sdk.cli.picture import Box, Picture
from nodeflow_sdk.progress.symbols import ICONS, STYLES

_PLAIN_ICON = "●"


class _Lanes:
    """The columns, each with the node that it leads to."""

    def __init__(self) -> None:
        self.targets: list[str | None] = []

    def column_of(self, name: str) -> int | None:
        return self.targets.index(name) if name in self.targets else None

    def take(self, name: str | None) -> int:
        """Return a free column, now one that leads to `name`."""
        if None not in self.targets:
            self.targets.append(None)
        column = self.targets.index(None)
        self.targets[column] = name
        return column

    def leave(self, column: int) -> None:
        self.targets[column] = None
        while self.targets and self.targets[-1] is None:
            self.targets.pop()


def drawing(picture: Picture) -> list[Text]:
    """Return the lines of a drawing."""
    children: dict[str, list[str]] = {box.name: [] for box in picture.boxes}
    for box in picture.boxes:
        for parent in box.parents:
            children[parent].append(box.name)
    lanes = _Lanes()
    lines: list[Text] = []
    for box in picture.boxes:
        column = lanes.column_of(box.name)
        if column is None:
            column = lanes.take(box.name)
        lines.append(_node_line(lanes, column, box))
        edges = _edges_line(lanes, column, children[box.name])
        if edges:
            lines.append(Text(edges, style="dim"))
    return lines


def _node_line(lanes: _Lanes, column: int, box: Box) -> Text:
    line = Text()
    for place, target in enumerate(lanes.targets):
        if place == column:
            line.append(f"{ICONS.get(box.state, _PLAIN_ICON)} ", STYLES.get(box.state, ""))
        else:
            line.append("│ " if target is not None else "  ", "dim")
    line.append(box.name, "bold")
    if box.state:
        line.append(f" {box.state}", STYLES.get(box.state, ""))
    said = ", ".join(each for each in (box.progress, "" if box.state else box.details) if each)
    if said:
        line.append(f"  {said}", "dim")
    return line


def _edges_line(lanes: _Lanes, column: int, children: Sequence[str]) -> str:
    """Move a node's lane on to its children; returns the line that shows it, empty if the lane ends."""
    joined = [place for child in children if (place := lanes.column_of(child)) is not None]
    fresh = [child for child in children if lanes.column_of(child) is None]
    before = list(lanes.targets)
    if fresh:
        lanes.targets[column] = fresh[0]
    opened = [lanes.take(child) for child in fresh[1:]]
    if not fresh:
        lanes.leave(column)
    if not children:
        return ""
    return _edges(column, bool(fresh), joined, opened, before)


def _edges(column: int, goes_on: bool, joined: list[int], opened: list[int], before: list[str | None]) -> str:
    ends = [column, *joined, *opened]
    first, last = min(ends), max(ends)
    width = max(len(before), last + 1)
    text = ""
    for place in range(width):
        left, right = first < place, place < last
        inside = first <= place <= last
        above = place < len(before) and before[place] is not None
        if place in ends:
            below = goes_on if place == column else True
            text += _corner(left=left, right=right, up=above, down=below)
        else:
            text += "│" if above else "─" if inside else " "
        text += "─" if inside and right else " "
    return text.rstrip()


def _corner(*, left: bool, right: bool, up: bool, down: bool) -> str:
    """Return the sign that joins these directions."""
    return {
        (True, False, True, True): "┤",
        (False, True, True, True): "├",
        (True, True, True, True): "┼",
        (True, False, True, False): "╯",
        (False, True, True, False): "╰",
        (True, True, True, False): "┴",
        (True, False, False, True): "╮",
        (False, True, False, True): "╭",
        (True, True, False, True): "┬",
        (False, False, True, True): "│",
    }[left, right, up, down]
