"""What workflow and pipeline documents have in common: sections, inputs, retries, cycles, the digest of a meaning.

Knows neither nodes nor jobs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from nodeflow_scheduler.domain.document_faults import FaultList, Path, short
from nodeflow_scheduler.domain.document_graph import cycles_of
from nodeflow_scheduler.domain.document_model import NAME_HINT, NAME_PATTERN, RetryModel
from nodeflow_scheduler.domain.inputs import Schema, schema_problems
from nodeflow_scheduler.domain.json_text import JsonValue, kind
from nodeflow_scheduler.domain.workflow import Backoff, NodeSpec, RetryPolicy

_DEFAULT_LONGEST_MS: Final = 60_000
_SECTIONS: Final = {
    "nodes": "each node",
    "inputs": "the JSON Schema of each input",
    "outputs": "the value of each output",
}


def section(document: Mapping[str, JsonValue], name: str, faults: FaultList) -> dict[str, JsonValue]:
    """A part of a document that has names and what belongs to them; empty if it is none."""
    value = document.get(name, {})
    if not isinstance(value, dict):
        faults.add((name,), f"must be a mapping, not {kind(value)}", f"write {_SECTIONS[name]} under its name")
        return {}
    for key in value:
        if not re.fullmatch(NAME_PATTERN, key):
            faults.add((name, key), f"{short(key)!r} is not a name", NAME_HINT)
    return value


def schemas_of(inputs: Mapping[str, JsonValue], faults: FaultList) -> dict[str, Schema]:
    """The schemas of inputs; those that are none are noted and left out."""
    schemas: dict[str, Schema] = {}
    for name, schema in inputs.items():
        problems = schema_problems(schema)
        for problem in problems:
            faults.add(("inputs", name, *problem.path), problem.description, problem.hint)
        if not problems and isinstance(schema, dict):
            schemas[name] = schema
    return schemas


def refuse_cycles(specs: Sequence[NodeSpec], faults: FaultList, place_of: Callable[[int], Path]) -> None:
    """Note what waits for itself."""
    for cycle in cycles_of([frozenset(spec.dependencies) for spec in specs]):
        names = [specs[node].name for node in cycle]
        if len(names) > 12:
            names = [*names[:6], "…", *names[-5:]]
        hint = "take one of these references, or an entry of `needs`, out"
        noun = "jobs" if specs[cycle[0]].stage else "nodes"
        faults.add(place_of(cycle[0]), f"these {noun} wait for each other: {' → '.join(names)}", hint)


def retry_policy(model: RetryModel) -> RetryPolicy:
    """How often and when a task is tried again."""
    backoff = model.backoff
    longest = backoff.max if backoff.max is not None else max(backoff.initial, _DEFAULT_LONGEST_MS)
    return RetryPolicy(
        attempts=model.attempts,
        backoff=Backoff(initial_ms=backoff.initial, factor=backoff.factor, max_ms=longest, jitter=backoff.jitter),
    )


def digest_of(meaning: Mapping[str, object]) -> str:
    """The revision of what means this."""
    canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
