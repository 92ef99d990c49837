"""`make run`: analyses Python's own standard library on a suite of its own, and prints what it found.

Shows the whole way: a suite, a document, an execution followed live, its outputs, an artifact.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.execution_pb2 import Execution
from rich.console import Console
from rich.table import Table

from nodeflow_sdk.client import Client, open_client
from nodeflow_sdk.documents import read_document
from nodeflow_sdk.progress import ExecutionView, LiveScreen, PlainScreen, Screen, follow
from nodeflow_sdk.progress.symbols import failure_line, seconds
from nodeflow_sdk.suite import Attachment, SuiteError, SuiteOptions, attached
from nodeflow_shared.errors import NodeflowError

WORKFLOW = Path(__file__).with_name("workflow.yaml")
REPORT = Path("build/stdlib_report/report.json")

out = Console()
err = Console(stderr=True, highlight=False)


async def main() -> int:
    """Run the workflow; returns the exit code."""
    begin = time.monotonic()
    async with attached(SuiteOptions()) as suite:
        kind = "a suite of our own is" if suite.embedded else f"the suite at {suite.scheduler} was"
        err.print(f"{kind} ready after {time.monotonic() - begin:.1f} s")
        async with open_client(suite.scheduler) as client:
            return await analyse(client, suite)


async def analyse(client: Client, suite: Attachment) -> int:
    """Submit the workflow, show it live, and print the report."""
    execution = await client.submit(read_document(WORKFLOW), labels={"example": "stdlib_report"})
    try:
        await follow(client, await screen(client, execution), worker_manager=suite.worker_manager)
    except asyncio.CancelledError:
        await client.cancel(execution.execution_id, "interrupted")
        raise
    finished = await client.get(execution.execution_id)
    if finished.state != ExecutionState.EXECUTION_STATE_COMPLETED:
        err.print(f"{finished.execution_id} did not complete: {failure_line(finished.failure)}", style="red")
        return 1
    outputs = json.loads(await client.read(finished.outputs))
    print_tables(outputs["summary"])
    await save_report(client, finished)
    print_figures(finished)
    return 0


async def screen(client: Client, execution: Execution) -> Screen:
    """Return a live tree on a terminal, plain lines elsewhere."""
    workflow = await client.workflow(execution.workflow, execution.revision)
    view = ExecutionView(execution, workflow.nodes)
    if err.is_terminal:
        return LiveScreen(view, err)
    return PlainScreen(view, write=plain, notice=plain)


def plain(line: str) -> None:
    """Print a line of progress as it is."""
    print(line, file=sys.stderr, flush=True)


def print_tables(summary: dict[str, Any]) -> None:
    """Print the three tables and the totals."""
    out.print(table("Largest modules", summary["largest"], ("module", "lines", "functions", "classes")))
    out.print(table("Deepest nesting", summary["deepest"], ("module", "nesting", "deepest_line")))
    out.print(table("Most imported", summary["most_imported"], ("module", "importers")))
    totals = ", ".join(f"{summary[name]:,} {name}" for name in ("modules", "lines", "functions", "classes"))
    out.print(f"Python {sys.version.split()[0]}: {totals}")


def table(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> Table:
    """Return rows as a table; numbers to the right."""
    drawn = Table(title=title, title_justify="left")
    for column in columns:
        drawn.add_column(column.replace("_", " "), justify="left" if column == "module" else "right")
    for row in rows:
        drawn.add_row(*(f"{row[column]:,}" if column != "module" else row[column] for column in columns))
    return drawn


async def save_report(client: Client, execution: Execution) -> None:
    """Write the whole report, which travelled as an artifact, to a file."""
    [listed] = [task async for task in client.tasks(execution.execution_id, node="report")]
    task = await client.task(execution.execution_id, listed.task_number)
    data = await client.read(task.output)
    write_report(data)
    kept = f"artifact {task.output.artifact.digest[:19]}…" if task.output.HasField("artifact") else "inline result"
    out.print(f"whole report: {REPORT} ({len(data):,} bytes, {kept})", highlight=False)


def write_report(data: bytes) -> None:
    """Write the report's file."""
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_bytes(data)


def print_figures(execution: Execution) -> None:
    """Print how fast it was, and where to look next."""
    took = seconds(execution.finish_time) - seconds(execution.create_time)
    tasks = execution.task_counts.total
    out.print(f"{tasks} tasks in {took:.1f} s: {tasks / max(took, 0.001):,.0f} tasks/s", highlight=False)
    out.print(
        "look next: nodeflow up (keeps this data), then nodeflow ls, nodeflow get @latest, nodeflow watch @latest",
        highlight=False,
    )


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(130)
    except (SuiteError, NodeflowError) as error:
        err.print(f"error: {error}", style="red", markup=False)
        sys.exit(1)
