"""`nodeflow graph`: each form of a drawing, from a document, a workflow and an execution."""

from collections.abc import Mapping

from nodeflow.common.v1.lifecycle_pb2 import TaskState
from nodeflow.scheduler.v1.execution_pb2 import Task
from nodeflow.scheduler.v1.workflow_pb2 import Node, Workflow
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import BEGIN_S, EXECUTION_ID, FakeServices

from nodeflow_sdk.cli.drawing import drawing
from nodeflow_sdk.cli.graph_texts import dot_text, mermaid_text
from nodeflow_sdk.cli.picture import picture_of


def drawn(parents: Mapping[str, str]) -> list[str]:
    """Return the drawing of nodes with one-letter names, each with the letters of its parents."""
    nodes = [Node(name=name, dependencies=list(before)) for name, before in parents.items()]
    return [line.plain.rstrip() for line in drawing(picture_of(Workflow(name="w", nodes=nodes)))]


def test_a_chain_has_a_lane_and_what_is_apart_has_none() -> None:
    assert drawn({"a": "", "b": "a", "c": ""}) == ["● a", "│", "● b", "● c"]


def test_a_diamond_opens_and_closes() -> None:
    assert drawn({"a": "", "b": "a", "c": "a", "d": "bc"}) == [
        "● a",
        "├─╮",
        "● │ b",
        "│ │",
        "│ ● c",
        "├─╯",
        "● d",
    ]


def test_an_edge_passes_behind_a_lane_that_it_does_not_join() -> None:
    """`a` leads to b, c and d; `e` waits for b and d, `f` for c alone."""
    assert drawn({"a": "", "b": "a", "c": "a", "d": "a", "e": "bd", "f": "c"}) == [
        "● a",
        "├─┬─╮",
        "● │ │ b",
        "│ │ │",
        "│ ● │ c",
        "│ │ │",
        "│ ● │ f",
        "│   ● d",
        "├───╯",
        "● e",
    ]


def test_parents_come_first_however_they_are_listed() -> None:
    assert drawn({"last": "", "z": ""})[0] == "● last"
    names = [box.name for box in picture_of(Workflow(nodes=[Node(name="b", dependencies=["a"]), Node(name="a")])).boxes]
    assert names == ["a", "b"]


def test_names_and_conditions_are_escaped_in_each_language() -> None:
    odd = Workflow(name='q"', nodes=[Node(name="a", summary="m:f", condition='x < "1" && #', mapped=True)])
    assert mermaid_text(picture_of(odd)).splitlines()[1] == (
        '  n0[["a<br/>m:f, for each item, when x #lt; #quot;1#quot; #amp;#amp; #35;"]]'
    )
    assert dot_text(picture_of(odd)).splitlines() == [
        'digraph "q\\"" {',
        "  node [shape=box, style=filled, fillcolor=white];",
        '  "a" [label="a\\nm:f, for each item, when x < \\"1\\" && #", peripheries=2];',
        "}",
    ]


async def test_a_document_and_a_workflow_are_drawn_without_states(cli: Cli, fakes: FakeServices) -> None:
    for target in ("workflow.yaml", "word-count"):
        done = await cli("graph", target)
        assert done.code == 0, done.err
        lines = [line.rstrip() for line in done.out.splitlines()]
        assert lines == ["● count  word_count:count, for each item", "│", "● total  word_count:total"]
    assert (await cli("graph", "none.yaml")).code == 2
    assert (await cli("graph", "ffffffff-0000-7000-8000-000000000009")).code == 2


async def test_an_execution_is_drawn_with_its_states(cli: Cli, fakes: FakeServices) -> None:
    count = Task(node="count", task_number=0, state=TaskState.TASK_STATE_RUNNING, item_count=2)
    ends = (TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_FAILED)
    items = [Task(node="count", map_index=n, task_number=2 + n, state=state) for n, state in enumerate(ends)]
    total = Task(node="total", task_number=1, state=TaskState.TASK_STATE_COMPLETED, attempt_number=2)
    total.start_time.FromSeconds(BEGIN_S)
    total.finish_time.FromSeconds(BEGIN_S + 2)
    fakes.scheduler.tasks = [count, total, *items]
    lines = [line.rstrip() for line in (await cli("graph", EXECUTION_ID)).out.splitlines()]
    assert lines == ["▶ count RUNNING  2/2 items, 1 failed", "│", "✓ total COMPLETED  attempt 2, 2.0s"]
    mermaid = (await cli("graph", "@latest", "-f", "mermaid")).out.splitlines()
    assert mermaid[-4:] == [
        "  classDef running fill:#a5d8ff,color:#000",
        "  class n0 running",
        "  classDef completed fill:#b2f2bb,color:#000",
        "  class n1 completed",
    ]
