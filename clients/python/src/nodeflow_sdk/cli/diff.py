"""`nodeflow diff`: two executions side by side, and where they differ.

Owns the comparison. Must not know why they differ.
"""

import json
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer
from nodeflow.common.v1.payload_pb2 import Payload
from nodeflow.scheduler.v1.execution_pb2 import Execution, Task
from rich.console import Group, RenderableType
from rich.text import Text

from nodeflow_sdk.cli.completion import complete_ids
from nodeflow_sdk.cli.output import Output, emit, to_json
from nodeflow_sdk.cli.session import AddressOption, ContextOption, OutputOption, Session, client_of, execute, session
from nodeflow_sdk.cli.tables import plain_table
from nodeflow_sdk.client import Client
from nodeflow_sdk.payloads import is_json
from nodeflow_sdk.progress.symbols import execution_state, seconds, span, task_state

_SHOWN: Final = 60
_ID_HELP: Final = "An execution's id, a prefix that no other has, or @latest."

IdToCompare = Annotated[str, typer.Argument(metavar="ID", help=_ID_HELP, autocompletion=complete_ids)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One fact about both; `node` is empty for facts about the executions."""

    node: str = ""
    fact: str
    left: str
    right: str
    same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What is known of one execution."""

    execution: Execution
    nodes: dict[str, Task]
    """Nodes with their results; for mapped ones the node as a whole."""


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("diff", epilog="Example: nodeflow diff @latest @latest --all")(diff)


def diff(
    ctx: typer.Context,
    left: IdToCompare,
    right: IdToCompare,
    *,
    show_all: Annotated[bool, typer.Option("--all", help="Show also what is the same.")] = False,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Compare two executions: revision, inputs, outputs; and for each node its state, attempts, result and duration.

    Durations are told, and are not a difference. The exit code is 0 also when they differ.
    """
    sides = execute(_sides(session(ctx, address, output, context), left, right))
    lines = [line for line in compared(*sides) if show_all or not line.same]
    chosen = session(ctx, address, output, context).output or Output.TABLE
    emit(
        chosen,
        document=lambda: _document(*sides, lines),
        names=sorted({f"{line.node}.{line.fact}".lstrip(".") for line in lines if not line.same}),
        table=lambda: _table(*sides, lines),
    )


async def _sides(current: Session, left: str, right: str) -> tuple[Side, Side]:
    async with client_of(current.attachment()) as client:
        return await _side(client, left), await _side(client, right)


async def _side(client: Client, name: str) -> Side:
    execution = await client.get(name)
    workflow = await client.workflow(execution.workflow, execution.revision)
    # A node's task has the node's place in the workflow as its number; items come after all nodes.
    nodes: dict[str, Task] = {}
    async with aclosing(client.tasks(execution.execution_id, with_results=True)) as tasks:
        async for task in tasks:
            if task.task_number >= len(workflow.nodes):
                break
            nodes[task.node] = task
    return Side(execution=execution, nodes=nodes)


def compared(left: Side, right: Side) -> list[Line]:
    """Return every fact of both: those of the executions, then those of each node, in the order of the left one."""
    lines = list(_execution_lines(left.execution, right.execution))
    for node in dict.fromkeys((*left.nodes, *right.nodes)):
        lines += _node_lines(node, left.nodes.get(node), right.nodes.get(node))
    return lines


def _execution_lines(left: Execution, right: Execution) -> Iterable[Line]:
    yield _line("workflow", left.workflow, right.workflow)
    yield _line("revision", left.revision, right.revision)
    yield _line("state", execution_state(left.state), execution_state(right.state))
    yield from _value_lines("inputs", left.inputs, right.inputs)
    yield from _value_lines("outputs", left.outputs, right.outputs)
    yield Line(fact="duration", left=_took(left), right=_took(right), same=True)


def _node_lines(node: str, left: Task | None, right: Task | None) -> Iterable[Line]:
    if left is None or right is None:
        is_there = ("no such node", "there is one")
        yield Line(
            node=node, fact="node", left=is_there[left is not None], right=is_there[right is not None], same=False
        )
        return
    yield _line("state", task_state(left.state), task_state(right.state), node=node)
    yield _line("attempts", str(left.attempt_number), str(right.attempt_number), node=node)
    if left.item_count or right.item_count:
        yield _line("items", str(left.item_count), str(right.item_count), node=node)
    yield _line("result", _words(left.output), _words(right.output), node=node)
    yield Line(node=node, fact="duration", left=_task_took(left), right=_task_took(right), same=True)


def _line(fact: str, left: str, right: str, *, node: str = "") -> Line:
    return Line(node=node, fact=fact, left=left, right=right, same=left == right)


def _value_lines(fact: str, left: Payload, right: Payload) -> Iterable[Line]:
    """Return a line for each name of two JSON objects, or one for values that are none."""
    ours, theirs = _value(left), _value(right)
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        yield _line(fact, _words(left), _words(right))
        return
    for name in dict.fromkeys((*ours, *theirs)):
        yield _line(f"{fact}.{name}", _json_at(ours, name), _json_at(theirs, name))


# Any: a value of a user is any JSON.
def _value(payload: Payload) -> Any:  # noqa: ANN401
    if payload.WhichOneof("value") == "artifact" or not is_json(payload):
        return None
    return json.loads(payload.data or b"{}")


def _json_at(values: dict[str, Any], name: str) -> str:
    return to_json(values[name], indent=None) if name in values else "—"


def _words(payload: Payload) -> str:
    match payload.WhichOneof("value"):
        case "artifact":
            return f"{payload.artifact.digest} ({payload.artifact.size_bytes} bytes)"
        case "data" if is_json(payload):
            return to_json(json.loads(payload.data), indent=None) if payload.data else ""
        case "data":
            return f"{len(payload.data)} bytes of {payload.content_type}"
        case _:
            return "—"


def _took(execution: Execution) -> str:
    return (
        span(seconds(execution.finish_time) - seconds(execution.create_time))
        if execution.HasField("finish_time")
        else "—"
    )


def _task_took(task: Task) -> str:
    known = task.HasField("start_time") and task.HasField("finish_time")
    return span(seconds(task.finish_time) - seconds(task.start_time)) if known else "—"


def _document(left: Side, right: Side, lines: list[Line]) -> dict[str, object]:
    return {
        "left": left.execution.execution_id,
        "right": right.execution.execution_id,
        "differences": sum(not line.same for line in lines),
        "lines": [asdict(line) for line in lines],
    }


def _table(left: Side, right: Side, lines: list[Line]) -> RenderableType:
    table = plain_table("NODE", "FACT", left.execution.execution_id, right.execution.execution_id)
    for line in lines:
        style = "" if line.same else "yellow"
        table.add_row(line.node, line.fact, Text(_cut(line.left), style=style), Text(_cut(line.right), style=style))
    different = sum(not line.same for line in lines)
    verdict = f"{different} differences" if different != 1 else "1 difference"
    return Group(table, Text(verdict)) if lines else Text(verdict)


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
