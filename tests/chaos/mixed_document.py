"""One workflow of mixed shapes: a chain, a fan, a map with a fan-in, retries that are needed, conditions, an artifact,
processes with files; and what must come of it.

Owns the document and the expected outputs and lines. Must not know how it is run.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument

DIRECTORY: Final = Path(__file__).parent / "mixed"
NAME: Final = "mixed"
CHAIN: Final = 12
FAN: Final = 8
ITEMS: Final = 150
JOBS: Final = 6
HOLDS: Final = 2
"""Executions with this remainder of 4 have a function that takes longer than a short lease."""
LONG_TEXT: Final = 100_000
# Every fault may cost an attempt that counts: a runner's death is blamed on the task that it was executing.
RETRY: Final = {"attempts": 20, "backoff": {"initial": "50ms", "factor": 1.5, "max": "500ms", "jitter": 0.2}}
Json = dict[str, Any]  # Any: what JSON may hold


def document() -> WorkflowDocument:
    """Return the workflow; its functions are imported from beside its script."""
    return WorkflowDocument(
        source=json.dumps(
            {
                "apiVersion": "nodeflow/v1",
                "kind": "Workflow",
                "name": NAME,
                "inputs": {"number": {"type": "integer"}, "marks": {"type": "string"}},
                "nodes": {name: {**node, "retry": RETRY} for name, node in _nodes().items()},
                "outputs": {name: f"${{nodes.{name}.output}}" for name in ("total", "joined", "length", "jobs")}
                | {"chain": f"${{nodes.step{CHAIN - 1}.output}}"},
            }
        ).encode(),
        content_type="application/json",
        directory=str(DIRECTORY),
    )


def _nodes() -> Mapping[str, Json]:
    begin = {"number": "${inputs.number}", "items": ITEMS, "jobs": JOBS}
    return {
        "begin": {"function": "work:begin", "with": begin},
        **dict(_chain()),
        **dict(_fan()),
        "double": {
            "map": "${nodes.begin.output.items}",
            "function": "work:double",
            "with": {"n": "${item}", "marks": "${inputs.marks}"},
        },
        "total": {"function": "work:add_up", "with": {"values": "${nodes.double.output}"}},
        "even": {
            "function": "work:parity",
            "with": {"number": "${inputs.number}"},
            "when": "${inputs.number % 2 == 0}",
        },
        "odd": {"function": "work:parity", "with": {"number": "${inputs.number}"}, "when": "${inputs.number % 2 == 1}"},
        "hold": {
            "function": "work:hold",
            "with": {"number": "${inputs.number}", "marks": "${inputs.marks}"},
            "when": f"${{inputs.number % 4 == {HOLDS}}}",
        },
        "text": {"function": "work:long_text", "with": {"number": "${inputs.number}"}},
        "length": {"function": "work:length", "with": {"text": "${nodes.text.output}"}},
        "job": {
            "map": "${nodes.begin.output.jobs}",
            "process": {
                "script": (DIRECTORY / "job.sh").read_text(),
                "env": {
                    "JOB": "${item}",
                    "MARKS": "${inputs.marks}",
                    "NAP": "${inputs.number % 4 == 1 && item == 0 ? '1.2' : '0.06'}",
                },
                "artifacts": ["out/number"],
            },
        },
        "jobs": {
            "process": {
                "script": 'grep -o "number" | wc -l | tr -d " " > "$NODEFLOW_OUTPUT"',
                "stdin": "${nodes.job.output}",
            }
        },
    }


def _chain() -> Iterator[tuple[str, Json]]:
    before = "${inputs.number}"
    for place in range(CHAIN):
        yield f"step{place}", {"function": "work:one_more", "with": {"n": before}}
        before = f"${{nodes.step{place}.output}}"


def _fan() -> Iterator[tuple[str, Json]]:
    for place in range(FAN):
        arguments = {"n": "${inputs.number}", "factor": place}
        yield f"fan{place}", {"function": "work:times", "with": arguments, "needs": ["begin"]}
    values = [f"${{nodes.fan{place}.output}}" for place in range(FAN)]
    yield "joined", {"function": "work:add_up", "with": {"values": values}}


TASKS: Final = len(_nodes()) + ITEMS + JOBS
"""Of one execution."""


def outputs(number: int) -> Json:
    """What an execution must give."""
    items = range(number * 1_000, number * 1_000 + ITEMS)
    return {
        "chain": number + CHAIN,
        "joined": number * sum(range(FAN)),
        "total": 2 * sum(items),
        "length": LONG_TEXT,
        "jobs": JOBS,
    }


def lines(number: int, node: str, map_index: int) -> list[str]:
    """What the accepted attempt of a task must have written; its two streams may be in any order to each other."""
    match node:
        case "double":
            return [f"item {number * 1_000 + map_index} speaks"]
        case "job":
            return [f"job {map_index} {what}" for what in ("begins", "ends", "in the middle")]
        case _:
            return []
