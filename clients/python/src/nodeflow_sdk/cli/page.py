"""An execution as one page for a browser: nothing to fetch, no scripts.

Owns what the page shows and in which order. Must not know where it is written to.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Final
from xml.etree.ElementTree import Element

from nodeflow.common.v1.failure_pb2 import Failure
from nodeflow.common.v1.log_chunk_pb2 import LogStream
from nodeflow.common.v1.payload_pb2 import Payload
from nodeflow.scheduler.v1.execution_pb2 import Execution, Task
from nodeflow.scheduler.v1.log_line_pb2 import LogLine
from nodeflow.scheduler.v1.workflow_pb2 import Workflow

from nodeflow_sdk.cli.outcome import task_label
from nodeflow_sdk.cli.page_elements import element, to_html
from nodeflow_sdk.cli.page_graph import graph_element
from nodeflow_sdk.cli.picture import picture_of
from nodeflow_sdk.cli.tables import is_telling, stages_of
from nodeflow_sdk.progress.symbols import (
    FINAL_EXECUTION_STATES,
    clock_time,
    execution_state,
    failure_line,
    seconds,
    span,
    task_state,
)

MAX_ROWS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a page shows, as it was at one moment."""

    execution: Execution
    workflow: Workflow
    tasks: Sequence[Task]
    lines: Sequence[LogLine]
    """The last ones."""
    now_s: float


def page_of(snapshot: Snapshot) -> str:
    """Return the page."""
    execution = snapshot.execution
    state = execution_state(execution.state)
    title = f"{execution.workflow} {state}"
    style = files("nodeflow_sdk.cli").joinpath("page.css").read_text(encoding="utf-8")
    picture = picture_of(snapshot.workflow, snapshot.tasks, now_s=snapshot.now_s)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style),
    )
    body = element(
        "body",
        element("h1", execution.workflow, " ", _state(state)),
        _facts(snapshot),
        *_failures(snapshot),
        _section("Graph", element("div", graph_element(picture), class_="wide")),
        _section("Tasks", element("div", *_tasks(snapshot), class_="wide")),
        *_lines(snapshot.lines),
        *_values(execution),
        _footer(snapshot),
    )
    return to_html(element("html", head, body, lang="en"))


def _section(title: str, *content: Element) -> Element:
    return element("section", element("h2", title), *content)


def _state(word: str) -> Element:
    return element("span", word, class_=f"state {word.lower()}")


def _facts(snapshot: Snapshot) -> Element:
    execution = snapshot.execution
    counts = execution.task_counts
    over = execution.HasField("finish_time")
    end_s = seconds(execution.finish_time) if over else snapshot.now_s
    facts = {
        "execution": execution.execution_id,
        "revision": execution.revision,
        "accepted": _moment(seconds(execution.create_time)),
        "took" if over else "so far": span(end_s - seconds(execution.create_time)),
        "tasks": f"{counts.completed} of {counts.total} completed"
        + "".join(
            f", {count} {word}"
            for word, count in (("running", counts.running), ("failed", counts.failed), ("cancelled", counts.cancelled))
            if count
        ),
        "labels": ", ".join(f"{key}={value}" for key, value in sorted(execution.labels.items())),
        "cancelled because": execution.cancel_reason,
    }
    rows = [(element("dt", name), element("dd", value)) for name, value in facts.items() if value]
    return element("dl", *(each for row in rows for each in row))


def _moment(time_s: float) -> str:
    return datetime.fromtimestamp(time_s).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def _failures(snapshot: Snapshot) -> list[Element]:
    if not snapshot.execution.HasField("failure"):
        return []
    return [_section("Why it failed", element("div", *_failure(snapshot.execution.failure), class_="failure"))]


def _failure(failure: Failure) -> list[Element]:
    told = [element("p", failure_line(failure))]
    if failure.traceback:
        told.append(element("pre", failure.traceback.rstrip()))
    if failure.HasField("cause"):
        told += _failure(failure.cause)
    return told


def _tasks(snapshot: Snapshot) -> list[Element]:
    places = {node.name: place for place, node in enumerate(snapshot.workflow.nodes)}
    ordered = sorted(snapshot.tasks, key=lambda task: (places.get(task.node, 0), task.task_number))
    shown = [task for task in ordered if is_telling(task)][:MAX_ROWS]
    stages = stages_of(snapshot.workflow)
    titles = [*(["Stage"] if stages else []), "Task", "State", "Attempt", "Worker", "Began", "Took", "Last failure"]
    head = element("thead", element("tr", *(element("th", title) for title in titles)))
    rows = [_row(task, stages, snapshot.now_s) for task in shown]
    told = [element("table", head, element("tbody", *rows))]
    if len(shown) < len(snapshot.tasks):
        hidden = len(snapshot.tasks) - len(shown)
        told.append(element("p", f"{hidden} more items; nodeflow get ID --all-tasks shows them.", class_="note"))
    return told


def _row(task: Task, stages: dict[str, str], now_s: float) -> Element:
    began = clock_time(task.start_time) if task.HasField("start_time") else ""
    end_s = seconds(task.finish_time) if task.HasField("finish_time") else now_s
    cells: list[Element | str] = [
        *([stages[task.node]] if stages else []),
        task_label(task) + (f" ({task.item_count} items)" if task.item_count else ""),
        _state(task_state(task.state)),
        str(task.attempt_number or ""),
        task.worker_id,
        began,
        span(end_s - seconds(task.start_time)) if began else "",
        failure_line(task.failure) if task.HasField("failure") else "",
    ]
    return element("tr", *(element("td", cell) for cell in cells))


def _lines(lines: Sequence[LogLine]) -> list[Element]:
    if not lines:
        return []
    written: list[Element | str] = []
    for line in lines:
        stream = LogStream.Name(line.stream).removeprefix("LOG_STREAM_").lower()
        item = f"[{line.map_index}]" if line.HasField("map_index") else ""
        label = element("b", f"{clock_time(line.read_time)} {line.node}{item}")
        written += [element("span", label, f" {line.text}", class_=stream), "\n"]
    return [_section(f"The last {len(lines)} lines", element("pre", *written, class_="lines"))]


def _values(execution: Execution) -> Iterable[Element]:
    for title, payload in (("Inputs", execution.inputs), ("Outputs", execution.outputs)):
        if payload.WhichOneof("value") is not None:
            yield _section(title, element("pre", _text_of(payload)))


def _text_of(payload: Payload) -> str:
    if payload.WhichOneof("value") == "artifact":
        digest, size = payload.artifact.digest, payload.artifact.size_bytes
        return f"{digest}, {size} bytes: nodeflow artifacts get {digest}"
    try:
        return json.dumps(json.loads(payload.data or b"null"), indent=2, ensure_ascii=False)
    except ValueError:
        return payload.data.decode(errors="replace")


def _footer(snapshot: Snapshot) -> Element:
    told = f"As it was on {_moment(snapshot.now_s)}."
    if snapshot.execution.state not in FINAL_EXECUTION_STATES:
        told += f" It was under way; nodeflow open {snapshot.execution.execution_id} shows it anew."
    return element("footer", told)
