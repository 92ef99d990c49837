"""The graph of an execution as a drawing in a page (SVG).

Owns shapes and sizes; colours are the page's. Must not know how nodes are placed.
"""

from typing import Final
from xml.etree.ElementTree import Element

from nodeflow_sdk.cli.layers import Layout, Vertex, layout_of
from nodeflow_sdk.cli.page_elements import element
from nodeflow_sdk.cli.picture import Box, Picture
from nodeflow_sdk.progress.symbols import ICONS

MAX_BOXES: Final = 400
"""Beyond this, no person can read a drawing."""

_COLUMN, _ROW = 260, 108
_WIDTH, _HEIGHT = 226, 52
_NAME_CHARACTERS, _DETAIL_CHARACTERS = 26, 36


def graph_element(picture: Picture) -> Element:
    """Return the drawing, or a line that says where to get one of so large a graph."""
    if len(picture.boxes) > MAX_BOXES:
        told = f"{len(picture.boxes)} nodes are too many for a drawing here; nodeflow graph … -f dot is for Graphviz."
        return element("p", told, class_="note")
    layout = layout_of({box.name: box.parents for box in picture.boxes})
    boxes = {box.name: box for box in picture.boxes}
    width, height = round(layout.width * _COLUMN), layout.height * _ROW - (_ROW - _HEIGHT) + 4
    return element(
        "svg",
        *(_edge(layout, upper, lower) for upper, lower in layout.segments),
        *(_lane(layout, vertex) for vertex in layout.places if not vertex.is_node),
        *(_node(layout, vertex, boxes[vertex.name]) for vertex in layout.places if vertex.is_node),
        xmlns="http://www.w3.org/2000/svg",
        width=str(width),
        height=str(height),
        viewBox=f"0 0 {width} {height}",
        role="img",
    )


def _point(layout: Layout, vertex: Vertex) -> tuple[float, float]:
    """Return the middle of the upper edge."""
    return layout.places[vertex] * _COLUMN, vertex.layer * _ROW + 2


def _edge(layout: Layout, upper: Vertex, lower: Vertex) -> Element:
    (from_x, from_y), (to_x, to_y) = _point(layout, upper), _point(layout, lower)
    from_y += _HEIGHT
    middle = (from_y + to_y) / 2
    way = f"M{from_x:.0f} {from_y:.0f} C{from_x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}"
    return element("path", d=way, class_="edge")


def _lane(layout: Layout, vertex: Vertex) -> Element:
    x, y = _point(layout, vertex)
    return element("path", d=f"M{x:.0f} {y:.0f} V{y + _HEIGHT:.0f}", class_="edge")


def _node(layout: Layout, vertex: Vertex, box: Box) -> Element:
    x, y = _point(layout, vertex)
    left = x - _WIDTH / 2
    size = {"width": str(_WIDTH), "height": str(_HEIGHT), "rx": "8"}
    behind = [element("rect", x=f"{left + 5:.0f}", y=f"{y + 5:.0f}", **size)] if box.mapped else []
    said = ", ".join(each for each in (f"{ICONS.get(box.state, '')} {box.state}".strip(), box.progress) if each)
    return element(
        "g",
        element("title", " ".join(each for each in (box.name, box.state, box.progress, box.details) if each)),
        *behind,
        element("rect", x=f"{left:.0f}", y=f"{y:.0f}", **size),
        element("text", _cut(box.name, _NAME_CHARACTERS), x=f"{x:.0f}", y=f"{y + 22:.0f}", class_="name"),
        element("text", _cut(said, _DETAIL_CHARACTERS), x=f"{x:.0f}", y=f"{y + 40:.0f}", class_="said"),
        class_=f"node {box.state.lower()}",
    )


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
