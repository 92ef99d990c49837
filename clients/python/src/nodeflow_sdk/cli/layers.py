"""A graph in layers: each node below all that it waits for, and edges that keep out of the way of nodes.

Owns the layout (Sugiyama: layers by longest path, order by barycentres). Must not know what is drawn, or how.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

SWEEPS: Final = 4
"""How often the order is improved downwards and upwards; more changes little."""
LANE_WIDTH: Final = 0.15
"""What an edge that passes a layer takes in it, in widths of a node."""


@dataclass(frozen=True, slots=True)
class Vertex:
    """A node in its layer, or the place where all edges to a node pass through a layer above it."""

    name: str
    layer: int
    is_node: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where everything is: x from 0 in widths of a node (its middle), y by layer from 0."""

    places: Mapping[Vertex, float]
    segments: Sequence[tuple[Vertex, Vertex]]
    """Parts of edges, each from one layer to the next."""
    width: float
    height: int


def layout_of(parents: Mapping[str, Iterable[str]]) -> Layout:
    """Lay a graph out. Parents come before their children."""
    layer_of: dict[str, int] = {}
    for name, before in parents.items():
        layer_of[name] = 1 + max((layer_of[each] for each in before), default=-1)
    segments = _segments(parents, layer_of)
    layers: list[list[Vertex]] = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for vertex in dict.fromkeys([*(Vertex(n, at, is_node=True) for n, at in layer_of.items()), *_ends(segments)]):
        layers[vertex.layer].append(vertex)
    _order(layers, segments)
    widths = [sum(map(_width, layer)) for layer in layers]
    width = max(widths, default=0.0)
    places: dict[Vertex, float] = {}
    for layer, own_width in zip(layers, widths, strict=True):
        left = (width - own_width) / 2
        for vertex in layer:
            places[vertex] = left + _width(vertex) / 2
            left += _width(vertex)
    return Layout(places=places, segments=segments, width=width, height=len(layers))


def _segments(parents: Mapping[str, Iterable[str]], layer_of: Mapping[str, int]) -> list[tuple[Vertex, Vertex]]:
    """Return the parts of all edges; those to one node share their way once they meet."""
    found: dict[tuple[Vertex, Vertex], None] = {}
    for child, before in parents.items():
        end = layer_of[child]
        for parent in before:
            begin = layer_of[parent]
            way = [Vertex(parent, begin, is_node=True)]
            way += [Vertex(child, layer, is_node=layer == end) for layer in range(begin + 1, end + 1)]
            found.update(dict.fromkeys(pairwise(way)))
    return list(found)


def _ends(segments: Iterable[tuple[Vertex, Vertex]]) -> Iterable[Vertex]:
    for segment in segments:
        yield from segment


def _order(layers: list[list[Vertex]], segments: Iterable[tuple[Vertex, Vertex]]) -> None:
    """Bring each vertex near those that it is connected with, layer by layer, down and up again."""
    above: dict[Vertex, list[Vertex]] = {}
    below: dict[Vertex, list[Vertex]] = {}
    for upper, lower in segments:
        above.setdefault(lower, []).append(upper)
        below.setdefault(upper, []).append(lower)
    for _ in range(SWEEPS):
        for near, order in ((above, range(1, len(layers))), (below, range(len(layers) - 2, -1, -1))):
            for number in order:
                _sort(layers[number], layers[number + (-1 if near is above else 1)], near)


def _sort(layer: list[Vertex], neighbours: Sequence[Vertex], near: Mapping[Vertex, Sequence[Vertex]]) -> None:
    positions = {vertex: (place + 0.5) / len(neighbours) for place, vertex in enumerate(neighbours)}
    wanted: dict[Vertex, float] = {}
    for place, vertex in enumerate(layer):
        connected = [positions[each] for each in near.get(vertex, ())]
        wanted[vertex] = sum(connected) / len(connected) if connected else (place + 0.5) / len(layer)
    layer.sort(key=wanted.__getitem__)


def _width(vertex: Vertex) -> float:
    return 1.0 if vertex.is_node else LANE_WIDTH
