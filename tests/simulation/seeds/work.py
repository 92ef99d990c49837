"""Random workflows: graphs of many shapes, whose nodes do deeds.

Owns what is submitted, as documents and as what they mean. Must not know users, faults or the engine.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from tests.simulation.seeds.deeds import ENDLESS, FUNCTIONS, Deed, Manner

from nodeflow_sdk.audit.history import Graph, graph_of_parents

TASKS_AT_LEAST: Final = 200
"""Nodes of a seed's work, all together; the items of mapped nodes come on top."""

FAIL_FAST, CONTINUE, CANCEL_DEPENDENTS = "fail_fast", "continue", "cancel_dependents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node, as it is meant."""

    name: str
    deed: Deed
    function: str
    values: tuple[int, ...] = ()
    """Nodes whose results it gets."""
    needs: tuple[int, ...] = ()
    """Nodes that it waits for, without their results."""
    when: tuple[int, int, int] | None = None
    """(node, divisor, rest): it runs only if that node's result, a number, leaves this rest."""
    map_of: int | None = None
    """The node whose list it is mapped over."""
    map_list: tuple[int, ...] | None = None
    """The list it is mapped over, if it stands in the document."""
    process: bool = False
    """A process does its deed, not a function."""
    attempts: int = 1
    backoff: Mapping[str, object] = field(default_factory=dict)
    timeout_s: int | None = None

    @property
    def mapped(self) -> bool:
        """Whether it runs once for each item of a list."""
        return self.map_of is not None or self.map_list is not None

    @property
    def dependencies(self) -> tuple[int, ...]:
        """All nodes that it waits for, ascending."""
        condition = (self.when[0],) if self.when else ()
        items = (self.map_of,) if self.map_of is not None else ()
        return tuple(sorted({*self.values, *self.needs, *condition, *items}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A workflow that is executed once."""

    name: str
    shape: str
    nodes: tuple[Node, ...]
    on_failure: str = CANCEL_DEPENDENTS
    timeout_s: int | None = None

    @property
    def graph(self) -> Graph:
        """What depends on what, for checkers."""
        return graph_of_parents([node.dependencies for node in self.nodes])

    @property
    def told(self) -> Sequence[int]:
        """The nodes whose results are outputs of the execution: those that are small."""
        return [place for place, node in enumerate(self.nodes) if not node.deed.bulk]

    def document(self, note: str = "") -> WorkflowDocument:
        """Write it; with another `note` it is another revision."""
        source: dict[str, object] = {
            "apiVersion": "nodeflow/v1",
            "kind": "Workflow",
            "name": self.name,
            "on_failure": self.on_failure,
            "nodes": {node.name: self._node(node) for node in self.nodes},
            "outputs": {self.nodes[place].name: f"${{nodes.{self.nodes[place].name}.output}}" for place in self.told},
        }
        if note:
            source["description"] = note
        if self.timeout_s is not None:
            source["timeout"] = f"{self.timeout_s}s"
        return WorkflowDocument(source=json.dumps(source).encode(), content_type="application/json")

    def _node(self, node: Node) -> dict[str, object]:
        arguments: dict[str, object] = {"deed": node.deed.written()}
        for place in node.values:
            arguments[f"v{place:04}"] = f"${{nodes.{self.nodes[place].name}.output}}"
        if node.mapped:
            arguments["item"] = "${item}"
        written: dict[str, object] = (
            {"process": {"command": [node.function], "env": arguments}}
            if node.process
            else {"function": node.function, "with": arguments}
        )
        if node.needs:
            written["needs"] = [self.nodes[place].name for place in node.needs]
        if node.when is not None:
            place, divisor, rest = node.when
            result = f"nodes.{self.nodes[place].name}.output"
            written["when"] = f"{result} != null && {result} % {divisor} == {rest}"
        if node.map_of is not None:
            written["map"] = f"${{nodes.{self.nodes[node.map_of].name}.output}}"
        elif node.map_list is not None:
            written["map"] = list(node.map_list)
        if node.attempts > 1:
            written["retry"] = {"attempts": node.attempts, "backoff": dict(node.backoff)}
        if node.timeout_s is not None:
            written["timeout"] = f"{node.timeout_s}s"
        return written


def draw_works(chance: Random) -> list[Work]:
    """Draw works until they have enough nodes."""
    works: list[Work] = []
    while sum(len(work.nodes) for work in works) < TASKS_AT_LEAST:
        works.append(_draw_work(chance, len(works)))
    return works


def _draw_work(chance: Random, number: int) -> Work:
    shape = chance.choice(sorted(SHAPES))
    graph = SHAPES[shape](chance)
    quiet = chance.random() < 0.5
    """Half of all works have no node that fails for good, so that all of them runs."""
    nodes: list[Node] = []
    for place, parents in enumerate(graph):
        nodes.append(_draw_node(chance, place, parents, nodes, quiet=quiet))
    policies = (CANCEL_DEPENDENTS, CANCEL_DEPENDENTS, CONTINUE, CONTINUE, FAIL_FAST)
    return Work(
        name=f"work{number}",
        shape=shape,
        nodes=tuple(nodes),
        on_failure=chance.choice(policies),
        timeout_s=chance.randrange(20, 120) if chance.random() < 0.08 else None,
    )


def _draw_node(chance: Random, place: int, parents: Sequence[int], before: Sequence[Node], *, quiet: bool) -> Node:
    yields = chance.randrange(1, 9) if chance.random() < 0.12 else 0
    bulk = 70_000 if not yields and chance.random() < 0.02 else 0
    map_of, map_list = _draw_map(chance, parents, before) if not bulk and not yields else (None, None)
    mapped = map_of is not None or map_list is not None
    fails, manner, attempts = _draw_failures(chance, quiet=quiet)
    deed = Deed(
        salt=chance.randrange(1 << 32),
        takes_s=_draw_duration(chance),
        fails=fails,
        manner=manner,
        stumbles=chance.randrange(3, 9) if mapped and not quiet and chance.random() < 0.2 else 0,
        yields=yields,
        bulk=bulk,
        prints=chance.randrange(1, 6) if chance.random() < 0.15 else 0,
    )
    silent = [each for each in parents if chance.random() < 0.15]
    return Node(
        name=f"n{place}",
        deed=deed,
        function=chance.choice(FUNCTIONS),
        values=tuple(each for each in parents if each not in silent and each != map_of),
        needs=tuple(silent),
        when=_draw_condition(chance, parents, before),
        map_of=map_of,
        map_list=map_list,
        # An environment holds no artifacts.
        process=chance.random() < 0.1 and not any(before[each].deed.bulk for each in parents),
        attempts=attempts,
        backoff={
            "initial": f"{chance.choice([10, 200, 1_000, 4_000])}ms",
            "factor": chance.choice([1, 2, 3]),
            "max": "8s",
            "jitter": chance.choice([0, 0.2, 1]),
        },
        timeout_s=12 if manner is Manner.HANGS or chance.random() < 0.05 else None,
    )


def _draw_duration(chance: Random) -> float:
    """Most tasks are quick; a few take long. (A deed takes up to twice its time.)"""
    return chance.choice([0.000_5, 0.01, 0.1, 0.5, 1.0, 1.0, 2.0, 3.0, chance.choice([0.2, 5.0])])


def _draw_failures(chance: Random, *, quiet: bool) -> tuple[int, Manner, int]:
    """(attempts that fail, how, attempts that there may be)."""
    manner = chance.choice([Manner.RAISES, Manner.RAISES, Manner.DIES, Manner.HANGS])
    luck = chance.random()
    if luck < 0.85:
        return 0, Manner.RAISES, chance.choice([1, 1, 1, 4])
    fails = chance.randrange(1, 3)
    if luck < 0.97 or quiet:
        return fails, manner, fails + chance.randrange(1, 3)
    return ENDLESS, manner, fails


def _draw_condition(chance: Random, parents: Sequence[int], before: Sequence[Node]) -> tuple[int, int, int] | None:
    numbers = [each for each in parents if _gives_number(before[each])]
    if not numbers or chance.random() > 0.12:
        return None
    return chance.choice(numbers), (divisor := chance.randrange(2, 5)), chance.randrange(divisor)


def _draw_map(
    chance: Random, parents: Sequence[int], before: Sequence[Node]
) -> tuple[int | None, tuple[int, ...] | None]:
    lists = [each for each in parents if before[each].deed.yields and not before[each].mapped]
    if lists and chance.random() < 0.7:
        return chance.choice(lists), None
    if chance.random() < 0.03:
        return None, tuple(chance.randrange(1_000) for _ in range(chance.randrange(13)))
    return None, None


def _gives_number(node: Node) -> bool:
    return not (node.mapped or node.deed.yields or node.deed.bulk)


# ------------------------------------------------------------------------------- shapes


def _chain(chance: Random) -> list[list[int]]:
    return [[place - 1] if place else [] for place in range(chance.randrange(5, 16))]


def _fan(chance: Random) -> list[list[int]]:
    width = chance.randrange(10, 60)
    return [[], *([0] for _ in range(width)), list(range(1, width + 1))]


def _diamonds(chance: Random) -> list[list[int]]:
    graph: list[list[int]] = [[]]
    for _ in range(chance.randrange(2, 7)):
        top, sides = len(graph) - 1, chance.randrange(2, 5)
        graph += [[top] for _ in range(sides)]
        graph.append(list(range(top + 1, top + 1 + sides)))
    return graph


def _layers(chance: Random) -> list[list[int]]:
    width, graph = chance.randrange(3, 9), list[list[int]]()
    for layer in range(chance.randrange(3, 8)):
        above = range((layer - 1) * width, layer * width)
        graph += [sorted(chance.sample(above, chance.randrange(1, 4))) if layer else [] for _ in range(width)]
    return graph


def _heap(chance: Random) -> list[list[int]]:
    """Anything may depend on anything before it, or on nothing."""
    size = chance.randrange(10, 50)
    return [sorted(chance.sample(range(place), min(place, chance.randrange(4)))) for place in range(size)]


def _alone(chance: Random) -> list[list[int]]:
    return [[] for _ in range(chance.randrange(1, 4))]


SHAPES: Final[Mapping[str, Callable[[Random], list[list[int]]]]] = {
    "chain": _chain,
    "fan": _fan,
    "diamonds": _diamonds,
    "layers": _layers,
    "heap": _heap,
    "alone": _alone,
}
"""For each shape, what draws the nodes that each node depends on."""
