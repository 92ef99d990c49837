"""Expressions to compile, and a scope to evaluate them in."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st

from nodeflow_scheduler.domain.document_faults import DocumentFaults, FaultList
from nodeflow_scheduler.domain.expressions import Expression
from nodeflow_scheduler.domain.json_text import JsonValue
from nodeflow_scheduler.domain.templates import Names, compile_condition, compile_value
from nodeflow_scheduler.domain.values import Artifacts, Value

NODES = {"a": 0, "b": 1, "a-b": 2}
INPUTS = ("x", "y", "file-name")

json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@dataclass
class FixedScope:
    """A scope of given values; whatever is read is noted."""

    given_inputs: Mapping[str, JsonValue] = field(default_factory=dict)
    outputs: Mapping[int, Value] = field(default_factory=dict)
    given_item: Value = b"null"
    given_index: int = 0
    read: list[str] = field(default_factory=list)
    states: Mapping[int, Value] = field(default_factory=dict)
    files: Mapping[int, Sequence[Artifacts]] = field(default_factory=dict)

    def input(self, name: str) -> Value:
        self.read.append(f"inputs.{name}")
        return compact(self.given_inputs[name])

    def inputs(self) -> bytes:
        self.read.append("inputs")
        return compact(dict(self.given_inputs))

    def output(self, node: int) -> Value:
        self.read.append(f"nodes[{node}]")
        return self.outputs[node]

    def outputs_of(self, nodes: Sequence[int]) -> list[Value]:
        return [self.output(node) for node in nodes]

    def state_of(self, node: int) -> Value:
        return self.states[node]

    def files_of(self, node: int) -> Sequence[Artifacts]:
        return self.files[node]

    def item(self) -> Value:
        return self.given_item

    def index(self) -> int:
        return self.given_index

    def execution(self) -> Mapping[str, object]:
        return {"id": "e-1", "workflow": "word-count", "revision": "sha256:0", "tenant": "default", "create_time": ""}


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def compiled(value: JsonValue, *, item: bool = True) -> Expression:
    faults = FaultList()
    expression = compile_value(value, Names(inputs=INPUTS, nodes=NODES, item=item), faults, ("with",))
    faults.raise_if_any()
    return expression


def condition(value: JsonValue) -> Expression:
    faults = FaultList()
    expression = compile_condition(value, Names(inputs=INPUTS, nodes=NODES), faults, ("when",))
    faults.raise_if_any()
    return expression


def evaluated(value: JsonValue, scope: FixedScope | None = None) -> JsonValue:
    result = compiled(value).evaluate(scope or FixedScope())
    assert isinstance(result, bytes)
    decoded: JsonValue = json.loads(result)
    return decoded


def fault_of(value: JsonValue, *, item: bool = True) -> str:
    with pytest.raises(DocumentFaults) as caught:
        compiled(value, item=item)
    return "; ".join(map(str, caught.value.faults))
