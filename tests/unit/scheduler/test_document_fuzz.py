"""Whatever the bytes of a document are: they compile, or every fault is told. Nothing else is ever raised."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from nodeflow_scheduler.domain.document import compile_document
from nodeflow_scheduler.domain.document_faults import DocumentFaults

VALID = """\
apiVersion: nodeflow/v1
kind: Workflow
name: word-count
inputs: {paths: {type: array, items: {type: string}}}
nodes:
  count:
    map: ${inputs.paths}
    function: examples.word_count:count
    with: {path: "${item}"}
    retry: {attempts: 3, backoff: {initial: 1s, factor: 2, max: 30s, jitter: 0.2}}
    timeout: 30s
  total:
    function: examples.word_count:total
    with: {counts: "${nodes.count.output}"}
    when: size(nodes.count.output) > 0
outputs: {total: "${nodes.total.output}"}
"""

words = st.sampled_from(
    [
        *("apiVersion", "nodeflow/v1", "kind", "Workflow", "name", "nodes", "inputs", "outputs", "function", "m:f"),
        *(
            "with",
            "map",
            "needs",
            "when",
            "retry",
            "attempts",
            "backoff",
            "initial",
            "timeout",
            "30s",
            "type",
            "default",
        ),
        *(
            "string",
            "a",
            "b",
            "<<",
            "on_failure",
            "${inputs.a}",
            "${nodes.a.output}",
            "${nodes.b.output + 1}",
            "${item}",
        ),
        *("x ${index} y", "${"),
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(max_size=3), inner, max_size=5),
    max_leaves=20,
)
node_like = st.fixed_dictionaries(
    {"function": st.just("m:f")},
    optional={
        "with": st.dictionaries(st.sampled_from("xy"), values, max_size=2),
        "needs": st.lists(st.sampled_from("abcd"), max_size=2),
        "when": values,
        "map": values,
        "retry": values,
        "timeout": values,
    },
)
nodes_like = st.dictionaries(st.sampled_from("abc"), node_like | values, max_size=3)
documents = values | st.fixed_dictionaries(
    {"apiVersion": st.just("nodeflow/v1"), "kind": st.just("Workflow"), "name": st.just("w"), "nodes": nodes_like},
    optional={
        "inputs": st.dictionaries(st.sampled_from("ab"), values),
        "outputs": st.dictionaries(st.just("o"), values),
    },
)


def never_worse_than_faults(source: bytes) -> None:
    try:
        workflow = compile_document(source, "", "/jobs")
    except DocumentFaults as faults:
        # One without a description would be found here: it has no first fault to tell.
        str(faults.faults[0])
    else:
        assert workflow.nodes


@given(source=st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_workflow_or_faults(source: bytes) -> None:
    never_worse_than_faults(source)


@settings(max_examples=300)
@given(document=documents)
def test_any_mapping_is_a_workflow_or_faults(document: object) -> None:
    never_worse_than_faults(json.dumps(document).encode())


@given(lines=st.lists(st.text(alphabet="ab:-{}[]&*!|>'\"#%@`?, \t", max_size=12), max_size=6))
def test_any_yaml_like_text_is_a_workflow_or_faults(lines: list[str]) -> None:
    never_worse_than_faults("\n".join(lines).encode())


@given(cut=st.integers(0, len(VALID)), other=st.text(max_size=3))
def test_a_damaged_document_is_a_workflow_or_faults(cut: int, other: str) -> None:
    never_worse_than_faults((VALID[:cut] + other + VALID[cut + 1 :]).encode("utf-8", "surrogatepass"))
