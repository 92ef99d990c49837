"""The workflow documents that the bench runs.

Owns their shape. Must not know how they are submitted.
"""

import json
from pathlib import Path
from typing import Final

from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument

LAYERS: Final = 10
WIDTH: Final = 10
PARENTS: Final = 3
NODES: Final = LAYERS * WIDTH

WORKLOAD: Final = Path(__file__).parent / "workload"


def layered() -> WorkflowDocument:
    """Return ten layers of ten nodes: each node takes the outputs of three nodes of the layer before."""
    nodes = {_name(layer, place): _node(layer, place) for layer in range(LAYERS) for place in range(WIDTH)}
    return _document("bench-noop", nodes)


def single() -> WorkflowDocument:
    """Return a workflow of one node."""
    return _document("bench-latency", {"only": {"function": "bench_nodes:first"}})


def parents(layer: int, place: int) -> list[str]:
    """Return the names of a node's parents: its own place in the layer before, and the two next to it."""
    return [_name(layer - 1, (place + step) % WIDTH) for step in range(PARENTS)] if layer else []


def _name(layer: int, place: int) -> str:
    return f"n{layer}_{place}"


def _node(layer: int, place: int) -> dict[str, object]:
    if layer == 0:
        return {"function": "bench_nodes:first"}
    outputs = [f"${{nodes.{parent}.output}}" for parent in parents(layer, place)]
    return {"function": "bench_nodes:noop", "with": dict(zip("abc", outputs, strict=True))}


def _document(name: str, nodes: dict[str, dict[str, object]]) -> WorkflowDocument:
    text = json.dumps({"apiVersion": "nodeflow/v1", "kind": "Workflow", "name": name, "nodes": nodes})
    return WorkflowDocument(source=text.encode(), content_type="application/json", directory=str(WORKLOAD.resolve()))
