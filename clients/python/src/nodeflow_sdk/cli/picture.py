"""What a drawing of a workflow shows: boxes with words, and edges.

Owns the choice of words. Must not know in which form the graph is drawn.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from nodeflow.common.v1.lifecycle_pb2 import TaskState
from nodeflow.scheduler.v1.execution_pb2 import Task
from nodeflow.scheduler.v1.workflow_pb2 import Workflow

from nodeflow_sdk.progress.symbols import FINAL_TASK_STATES, seconds, span, task_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A node."""

    name: str
    executes: str
    mapped: bool
    condition: str
    parents: tuple[str, ...]
    state: str = ""
    """In words, `RUNNING`; empty for a workflow that is not looked at as an execution."""
    progress: str = ""
    """What else an execution tells: items, attempts, how long it took."""

    @property
    def details(self) -> str:
        """What it executes and when, in one line."""
        said = [
            self.executes,
            "for each item" if self.mapped else "",
            f"when {self.condition}" if self.condition else "",
        ]
        return ", ".join(each for each in said if each)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A workflow to draw; parents come before their children."""

    name: str
    boxes: tuple[Box, ...]


def picture_of(workflow: Workflow, tasks: Iterable[Task] = (), *, now_s: float = 0.0) -> Picture:
    """Return what to draw, with the states of an execution's tasks if they are given."""
    whole: dict[str, Task] = {}
    items: dict[str, Counter[TaskState.ValueType]] = {}
    for task in tasks:
        if task.HasField("map_index"):
            items.setdefault(task.node, Counter())[task.state] += 1
        else:
            whole[task.node] = task
    boxes = {
        node.name: Box(
            name=node.name,
            executes=node.summary,
            mapped=node.mapped,
            condition=node.condition,
            parents=tuple(node.dependencies),
            state=task_state(whole[node.name].state) if node.name in whole else "",
            progress=_progress(whole[node.name], items.get(node.name), now_s) if node.name in whole else "",
        )
        for node in workflow.nodes
    }
    return Picture(name=workflow.name, boxes=tuple(_in_order(boxes)))


def _progress(task: Task, items: Counter[TaskState.ValueType] | None, now_s: float) -> str:
    said = []
    if items is not None:
        over = sum(items[state] for state in FINAL_TASK_STATES)
        said.append(f"{over}/{items.total()} items")
        if items[TaskState.TASK_STATE_FAILED]:
            said.append(f"{items[TaskState.TASK_STATE_FAILED]} failed")
    if task.attempt_number > 1:
        said.append(f"attempt {task.attempt_number}")
    if task.HasField("start_time"):
        end_s = seconds(task.finish_time) if task.HasField("finish_time") else now_s
        said.append(span(end_s - seconds(task.start_time)))
    return ", ".join(said)


def _in_order(boxes: dict[str, Box]) -> list[Box]:
    """Return parents before children, each branch as far down as it goes before the next one."""
    children: dict[str, list[str]] = {name: [] for name in boxes}
    missing = {name: len(box.parents) for name, box in boxes.items()}
    for name, box in boxes.items():
        for parent in box.parents:
            children[parent].append(name)
    stack = [name for name in reversed(boxes) if not missing[name]]
    ordered = []
    while stack:
        name = stack.pop()
        ordered.append(boxes[name])
        for child in reversed(children[name]):
            missing[child] -= 1
            if not missing[child]:
                stack.append(child)
    return ordered
