"""`nodeflow open`: a page that is whole by itself, whatever users' texts hold, and a graph that can be read."""

import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from nodeflow.common.v1.failure_pb2 import Failure
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.common.v1.log_chunk_pb2 import LogStream
from nodeflow.common.v1.payload_pb2 import ArtifactReference, Payload
from nodeflow.scheduler.v1.execution_pb2 import Task
from nodeflow.scheduler.v1.log_line_pb2 import LogLine
from nodeflow.scheduler.v1.workflow_pb2 import Node, Workflow
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import BEGIN_S, EXECUTION_ID, FakeServices, execution

from nodeflow_sdk.cli.layers import Vertex, layout_of
from nodeflow_sdk.cli.page import Snapshot, page_of
from nodeflow_sdk.cli.page_graph import MAX_BOXES

EVIL = "</pre><script>alert('&amp;')</script>\x00\x1b[31mred\x1b[0m"
VOID = {"meta"}


class Structure(HTMLParser):
    """Elements that are open, the ones that were seen, and all text outside of the style."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def checked(page: str) -> Structure:
    """Parse a page; every element ends where it should, and nothing is fetched or executed."""
    structure = Structure()
    structure.feed(page)
    structure.close()
    assert structure.open == []
    assert not {tag for tag, _ in structure.seen} & {"script", "link", "img", "iframe", "object", "base"}
    for _, attributes in structure.seen:
        assert not set(attributes) & {"src", "href", "action", "onload", "onclick"}
    [style] = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    [drawing] = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    ElementTree.fromstring(drawing)  # noqa: S314  # it is ours
    return structure


def snapshot(**changed: object) -> Snapshot:
    workflow = Workflow(
        name="w",
        nodes=[Node(name="count", summary="m:count", mapped=True), Node(name="total", dependencies=["count"])],
    )
    count = Task(node="count", task_number=0, state=TaskState.TASK_STATE_RUNNING, item_count=2)
    items = [Task(node="count", map_index=n, task_number=2 + n, state=TaskState.TASK_STATE_QUEUED) for n in range(2)]
    total = Task(node="total", task_number=1, state=TaskState.TASK_STATE_PENDING)
    facts: dict[str, object] = {
        "execution": execution(),
        "workflow": workflow,
        "tasks": [count, total, *items],
        "lines": [],
        "now_s": BEGIN_S + 5.0,
    }
    return Snapshot(**{**facts, **changed})  # type: ignore[arg-type]  # each under its own name


def test_a_page_shows_state_graph_tasks_and_lines() -> None:
    lines = [LogLine(node="count", map_index=1, text="hello", stream=LogStream.LOG_STREAM_STDERR)]
    page = page_of(snapshot(lines=lines))
    text = checked(page).text
    for told in ("COMPLETED", EXECUTION_ID, "▶ RUNNING, 0/2 items", "count (2 items)", "count[1]", "hello"):
        assert told in text, told
    assert '<g class="node running">' in page
    assert '<span class="stderr">' in page


def test_users_texts_stay_texts() -> None:
    failure = Failure(reason="R", message=EVIL, traceback=EVIL, cause=Failure(message=EVIL))
    run = execution(state=ExecutionState.EXECUTION_STATE_FAILED, outputs=Payload(data=EVIL.encode(errors="replace")))
    run.failure.CopyFrom(failure)
    run.labels["k"] = EVIL
    tasks = [Task(node="a", state=TaskState.TASK_STATE_FAILED, worker_id=EVIL, failure=failure)]
    nodes = Workflow(name="w", nodes=[Node(name="a", summary=EVIL, condition=EVIL)])
    lines = [LogLine(node="a", text=EVIL)]
    page = page_of(snapshot(execution=run, tasks=tasks, workflow=nodes, lines=lines))
    text = checked(page).text
    assert text.count("<script>alert('&amp;')</script>\ufffdred") >= 6
    assert "\x1b" not in page
    assert "\x00" not in page


def test_a_page_of_something_under_way_says_so() -> None:
    running = execution(state=ExecutionState.EXECUTION_STATE_RUNNING)
    running.ClearField("finish_time")
    text = checked(page_of(snapshot(execution=running))).text
    assert "so far5.0s" in text
    assert f"nodeflow open {EXECUTION_ID} shows it anew" in text


def test_large_outputs_are_named_and_too_large_graphs_are_not_drawn() -> None:
    stored = execution(outputs=Payload(artifact=ArtifactReference(digest="sha256:1", size_bytes=9)))
    assert "nodeflow artifacts get sha256:1" in page_of(snapshot(execution=stored))
    many = Workflow(name="w", nodes=[Node(name=f"n{number}") for number in range(MAX_BOXES + 1)])
    page = page_of(snapshot(workflow=many, tasks=[]))
    assert "<svg" not in page
    assert f"{MAX_BOXES + 1} nodes are too many" in page


async def test_open_writes_the_page_where_it_is_told(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.lines = [LogLine(node="count", text=f"line {number}") for number in range(300)]
    fakes.scheduler.tasks = [Task(node="count"), Task(node="total", task_number=1)]
    done = await cli("open", "@latest", "--no-browser", "-O", "run.html")
    assert (done.code, done.out, done.err) == (0, "run.html\n", "")
    text = checked((cli.directory / "run.html").read_text()).text
    assert "The last 200 lines" in text
    assert ("line 99\n" in text, "line 100\n" in text) == (False, True)
    lost = await cli("open", "@latest", "--no-browser", "-O", "none/run.html")
    assert (lost.code, lost.out) == (2, "")
    assert f"{Path('none/run.html')} cannot be written: No such file or directory" in lost.err


async def test_a_page_among_everybodys_files_is_for_its_owner_alone(cli: Cli, fakes: FakeServices) -> None:
    cli.environment["TMPDIR"] = str(cli.directory)
    command = ("open", "@latest", "--no-browser")
    assert (await cli(*command)).code == 0
    [page] = cli.directory.glob("nodeflow-*.html")
    assert page.stat().st_mode & 0o777 == 0o600
    assert (await cli(*command)).out == f"{page}\n"  # anew, in its place
    page.unlink()
    page.symlink_to("elsewhere")
    assert "cannot be written" in (await cli(*command)).err
    assert not (cli.directory / "elsewhere").exists()


PARENTS = [
    {"a": "", "b": "a", "c": "b"},
    {"a": "", "b": "a", "c": "a", "d": "bc"},
    {"a": "", "b": "a", "c": "b", "d": "ac", "e": "ad"},
    {"a": "", "b": "", "c": "ab", "d": "ab", "e": "cd", "f": "", "g": "aef"},
]


@pytest.mark.parametrize("parents", PARENTS)
def test_nodes_are_below_their_parents_beside_each_other_and_edges_go_layer_by_layer(parents: dict[str, str]) -> None:
    layout = layout_of(parents)
    layers = {vertex.name: vertex.layer for vertex in layout.places if vertex.is_node}
    assert layers.keys() == parents.keys()
    assert all(layers[parent] < layers[child] for child, before in parents.items() for parent in before)
    assert all(lower.layer == upper.layer + 1 for upper, lower in layout.segments)
    for one, other in combinations(layout.places, 2):
        if one.layer == other.layer and one.is_node and other.is_node:
            assert abs(layout.places[one] - layout.places[other]) >= 1
    assert all(0 <= place <= layout.width for place in layout.places.values())
    ways = {upper: [lower for each, lower in layout.segments if each == upper] for upper, _ in layout.segments}
    for child, before in parents.items():
        for parent in before:
            assert reaches(ways, Vertex(parent, layers[parent], is_node=True), child)


def reaches(ways: dict[Vertex, list[Vertex]], begin: Vertex, child: str) -> bool:
    below = [each for each in ways.get(begin, []) if each.name == child]
    return any(each.is_node or reaches(ways, each, child) for each in below)


def test_edges_that_need_not_cross_do_not() -> None:
    """Listed crosswise, two chains are drawn beside each other."""
    places = layout_of({"a": "", "b": "", "y": "b", "x": "a"}).places
    x = {vertex.name: place for vertex, place in places.items()}
    assert (x["a"] < x["b"]) == (x["x"] < x["y"])
