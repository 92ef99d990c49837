"""What must come of a work: computed from what was meant, and from what befell its tasks by no fault of theirs.

Owns the model of an execution that is left to run. Must not use any code of the engine: a model that shares its code
shares its mistakes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tests.simulation.seeds.deeds import value_of
from tests.simulation.seeds.work import CONTINUE, Node, Work


class End(StrEnum):
    """How a task ends, in the words of the lifecycle."""

    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"


@dataclass(slots=True, kw_only=True)
class Foretold:
    """The end and the result of each node, and of each item of mapped ones."""

    ends: list[End] = field(default_factory=list)
    results: list[object] = field(default_factory=list)
    broken: list[bool] = field(default_factory=list)
    """Of each node, whether it or any node before it fails."""
    items: dict[int, list[tuple[End, object]]] = field(default_factory=dict)

    def items_of(self, node: Node) -> list[object]:
        """The list that a mapped node is mapped over; nothing if it is given none."""
        items = self.results[node.map_of] if node.map_of is not None else list(node.map_list or ())
        return items if isinstance(items, list) else []

    @property
    def fails(self) -> bool:
        """Whether any node does."""
        return End.FAILED in self.ends


Misfortunes = Mapping[tuple[int, int | None], object]
"""(node, item's place) of the tasks that failed although their deeds would have succeeded."""


def foretell(work: Work, unlucky: Misfortunes) -> Foretold:
    """Say what comes of a work in which nobody interferes. (With fail_fast, what ended before the failure is left.)"""
    told = Foretold()
    for place, node in enumerate(work.nodes):
        end, result = _foretell_node(work, place, node, told, unlucky)
        told.broken.append(end is End.FAILED or any(told.broken[each] for each in node.dependencies))
        told.ends.append(end)
        told.results.append(result)
    return told


def _foretell_node(work: Work, place: int, node: Node, told: Foretold, unlucky: Misfortunes) -> tuple[End, object]:
    if any(told.broken[each] for each in node.dependencies):
        return (End.SKIPPED if work.on_failure == CONTINUE else End.CANCELLED), None
    if node.when is not None and not _holds(node.when, told):
        return End.SKIPPED, None
    values = [told.results[each] for each in node.values]
    if not node.mapped:
        return _foretell_task(node, None, values, lucky=(place, None) not in unlucky)
    items = told.results[node.map_of] if node.map_of is not None else list(node.map_list or ())
    if not isinstance(items, list):
        return End.FAILED, None  # null is no list
    tasks = [
        _foretell_task(node, item, values, lucky=(place, index) not in unlucky) for index, item in enumerate(items)
    ]
    told.items[place] = tasks
    if work.on_failure != CONTINUE and any(end is End.FAILED for end, _ in tasks):
        return End.FAILED, None
    return End.COMPLETED, [result for _, result in tasks]


def _foretell_task(node: Node, item: object, values: list[object], *, lucky: bool) -> tuple[End, object]:
    if node.deed.never_succeeds(item) or not lucky:
        return End.FAILED, None
    return End.COMPLETED, value_of(node.deed, item, values)


def _holds(when: tuple[int, int, int], told: Foretold) -> bool:
    node, divisor, rest = when
    result = told.results[node]
    return isinstance(result, int) and result % divisor == rest


def outputs_of(work: Work, told: Foretold) -> dict[str, object]:
    """Return the outputs of an execution that completes."""
    return {work.nodes[place].name: told.results[place] for place in work.told}


def digest_of(result: object) -> str:
    """Return the digest under which a result is stored, if it is."""
    data = json.dumps(result, separators=(",", ":"), ensure_ascii=False).encode()
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
