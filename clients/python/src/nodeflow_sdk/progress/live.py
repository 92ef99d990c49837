"""The live tree on a terminal: the execution, a line for each node, a bar for each mapped one.

Owns the drawing. Must not know how events are had.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Final, Self

from nodeflow.common.v1.lifecycle_pb2 import TaskState
from nodeflow.scheduler.v1.event_pb2 import Event
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nodeflow_sdk.progress.symbols import ICONS, STYLES, execution_state, failure_line, span, task_state
from nodeflow_sdk.progress.view import ExecutionView, NodeView

REFRESH_S: Final = 0.1
_SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_BAR_WIDTH: Final = 28
# What stays on screen first when there are more nodes than lines.
_PRIORITY: Final = {"RUNNING": 0, "FAILED": 1, "QUEUED": 2, "CANCELLED": 3, "PENDING": 4, "COMPLETED": 5, "SKIPPED": 6}


class LiveScreen:
    """Draws the view ten times a second while the block lasts, and leaves the last picture."""

    def __init__(self, view: ExecutionView, console: Console) -> None:
        self.view = view
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()
        self._live.stop()

    async def refresh(self) -> None:
        """Draw again and again: by the loop, not by Live's own thread, because the view changes in the loop."""
        while True:
            self._draw()
            await asyncio.sleep(REFRESH_S)

    def show(self, events: Iterable[Event]) -> None:
        """Take over events; they show with the next refresh."""
        for event in events:
            self.view.apply(event)

    def notice(self, text: str) -> None:
        """Print a line above the tree."""
        self._console.print(Text(text, style="yellow"))

    def _draw(self) -> None:
        room = max(self._console.height - 4, 5)
        self._live.update(render(self.view, now_s=time.time(), room=room), refresh=True)


def render(view: ExecutionView, *, now_s: float, room: int) -> RenderableType:
    """Return the picture of a view at a time (Unix seconds) in at most `room` lines of nodes."""
    table = Table.grid(padding=(0, 1))
    shown = visible(list(view.nodes.values()), room)
    for node in shown:
        table.add_row(*_row(node, now_s))
    parts: list[RenderableType] = [_headline(view, now_s), table]
    if len(shown) < len(view.nodes):
        parts.append(Text(f"  … and {len(view.nodes) - len(shown)} more nodes", style="dim"))
    return Group(*parts)


def visible(nodes: list[NodeView], room: int) -> list[NodeView]:
    """Return the nodes to show, in their own order: those under way or in trouble first if not all fit."""
    if len(nodes) <= room:
        return nodes
    by_interest = sorted(range(len(nodes)), key=lambda at: (_PRIORITY.get(task_state(nodes[at].state), 7), at))
    return [nodes[at] for at in sorted(by_interest[:room])]


def _headline(view: ExecutionView, now_s: float) -> Text:
    state = execution_state(view.state)
    elapsed = (view.end_s if view.end_s is not None else now_s) - view.begin_s
    return Text.assemble(
        (view.workflow, "bold"),
        " ",
        (view.execution_id, "dim"),
        "  ",
        (state, STYLES.get(state, "")),
        f"  {span(elapsed)}",
    )


def _row(node: NodeView, now_s: float) -> tuple[RenderableType, ...]:
    state = task_state(node.state)
    style = STYLES.get(state, "")
    icon = _SPINNER[int(now_s * 10) % len(_SPINNER)] if state == "RUNNING" else ICONS.get(state, "?")
    took = "" if node.begin_s is None else span((node.end_s if node.end_s is not None else now_s) - node.begin_s)
    middle: RenderableType = Text(state.lower(), style=style)
    if node.mapped and node.item_count:
        middle = ProgressBar(total=node.item_count, completed=node.finished_items, width=_BAR_WIDTH)
    return Text(f" {icon}", style=style), Text(node.name), middle, Text(took, style="dim"), _details(node)


def _details(node: NodeView) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    if node.mapped and node.item_count:
        text.append(f"{node.finished_items}/{node.item_count} ")
        running, failed = node.counts[TaskState.TASK_STATE_RUNNING], node.counts[TaskState.TASK_STATE_FAILED]
        if running:
            text.append(f"{running} running ", STYLES["RUNNING"])
        if failed:
            text.append(f"{failed} failed ", STYLES["FAILED"])
        if node.retry_count:
            text.append(f"{node.retry_count} retries ", "yellow")
    elif node.attempt_number > 1:
        text.append(f"attempt {node.attempt_number} ", "yellow")
    if node.last_failure is not None and node.state != TaskState.TASK_STATE_COMPLETED:
        text.append(failure_line(node.last_failure), "red")
    return text
