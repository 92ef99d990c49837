"""The graph of a document: who waits for whom, and the cycles that make that impossible.

Knows names and indices of nodes, nothing else of them.
"""

from __future__ import annotations

import graphlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_CYCLES_TOLD: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Edges in both directions; nodes are indices."""

    dependencies: tuple[tuple[int, ...], ...]
    successors: tuple[tuple[int, ...], ...]
    roots: tuple[int, ...]


def graph_of(dependencies: Sequence[frozenset[int]]) -> Graph:
    """The graph in which node `i` waits for `dependencies[i]`."""
    successors: list[list[int]] = [[] for _ in dependencies]
    for node, needed in enumerate(dependencies):
        for dependency in needed:
            successors[dependency].append(node)
    return Graph(
        dependencies=tuple(tuple(sorted(needed)) for needed in dependencies),
        successors=tuple(map(tuple, successors)),
        roots=tuple(node for node, needed in enumerate(dependencies) if not needed),
    )


def cycles_of(dependencies: Sequence[frozenset[int]]) -> list[tuple[int, ...]]:
    """Cycles such that without them there are none: each from its first node in document order back to it.

    At most twenty; one edge of each cycle found is taken away to find the next.
    """
    edges = [set(needed) for needed in dependencies]
    found: list[tuple[int, ...]] = []
    while len(found) < _CYCLES_TOLD:
        try:
            graphlib.TopologicalSorter(dict(enumerate(edges))).prepare()
        except graphlib.CycleError as error:
            # The list begins and ends with the same node, and each node is needed by the next.
            ring: list[int] = error.args[1][:-1]
            start = ring.index(min(ring))
            ring = ring[start:] + ring[:start]
            found.append((*ring, ring[0]))
            edges[ring[0]].discard(ring[-1])
        else:
            break
    return found
