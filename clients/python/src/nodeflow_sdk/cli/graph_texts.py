"""A graph as Mermaid and as Graphviz text.

Owns the two languages and their escapes. Must not know where the graph comes from.
"""

from collections.abc import Mapping
from typing import Final

from nodeflow_sdk.cli.picture import Box, Picture

_FILLS: Final[Mapping[str, str]] = {
    "PENDING": "#eeeeee",
    "QUEUED": "#fff3bf",
    "RUNNING": "#a5d8ff",
    "COMPLETED": "#b2f2bb",
    "FAILED": "#ffc9c9",
    "CANCELLED": "#eebefa",
    "SKIPPED": "#dee2e6",
}


def mermaid_text(picture: Picture) -> str:
    """Return a Mermaid flowchart; a mapped node has the shape of a subroutine, states have colours."""
    numbers = {box.name: f"n{number}" for number, box in enumerate(picture.boxes)}
    lines = ["flowchart TD"]
    for box in picture.boxes:
        label = "<br/>".join(_mermaid(each) for each in _label(box))
        left, right = ("[[", "]]") if box.mapped else ("[", "]")
        lines.append(f'  {numbers[box.name]}{left}"{label}"{right}')
    lines += [f"  {numbers[parent]} --> {numbers[box.name]}" for box in picture.boxes for parent in box.parents]
    for state, fill in _FILLS.items():
        members = ",".join(numbers[box.name] for box in picture.boxes if box.state == state)
        if members:
            lines += [f"  classDef {state.lower()} fill:{fill},color:#000", f"  class {members} {state.lower()}"]
    return "\n".join(lines)


def dot_text(picture: Picture) -> str:
    """Return a Graphviz digraph; a mapped node has two borders, states have colours."""
    lines = [f"digraph {_quoted(picture.name)} {{", "  node [shape=box, style=filled, fillcolor=white];"]
    for box in picture.boxes:
        label = "\\n".join(_escaped(each) for each in _label(box))
        fill = f', fillcolor="{_FILLS[box.state]}"' if box.state in _FILLS else ""
        borders = ", peripheries=2" if box.mapped else ""
        lines.append(f'  {_quoted(box.name)} [label="{label}"{fill}{borders}];')
    lines += [f"  {_quoted(parent)} -> {_quoted(box.name)};" for box in picture.boxes for parent in box.parents]
    return "\n".join([*lines, "}"])


def _label(box: Box) -> list[str]:
    said = f"{box.state} {box.progress}".strip() if box.state else box.details
    return [each for each in (box.name, said) if each]


def _mermaid(text: str) -> str:
    for sign, entity in {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;"}.items():
        text = text.replace(sign, entity)
    return text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'
