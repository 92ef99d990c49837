"""`nodeflow ls`, `get`, `watch` and `cancel`: executions that exist.

Owns the commands. Must not know how an execution comes about.
"""

import re
import sys
import time
from typing import Annotated, Final

import typer
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.execution_pb2 import Execution
from rich.text import Text

from nodeflow_sdk.cli.completion import complete_ids
from nodeflow_sdk.cli.errors import usage_error
from nodeflow_sdk.cli.inputs import split_pairs
from nodeflow_sdk.cli.outcome import exit_code_of, outcome_lines
from nodeflow_sdk.cli.output import Output, emit, list_document, to_document
from nodeflow_sdk.cli.screens import screen_for
from nodeflow_sdk.cli.session import (
    AddressOption,
    ContextOption,
    OutputOption,
    Session,
    client_of,
    execute,
    known_worker_manager,
    session,
)
from nodeflow_sdk.cli.tables import execution_details, executions_table
from nodeflow_sdk.cli.terminal import say, write
from nodeflow_sdk.client import Client
from nodeflow_sdk.progress.follow import follow
from nodeflow_sdk.progress.symbols import execution_state

IdArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="An execution's id, a prefix that no other has, or @latest.",
        autocompletion=complete_ids,
    ),
]
_LABEL_KEY: Final = re.compile(r"[A-Za-z0-9._/-]{1,63}")
_STATES = [name.removeprefix("EXECUTION_STATE_") for name in ExecutionState.keys()[1:]]

_OTHER_WORDS: Final = {"SUCCESS": "COMPLETED", "SUCCEEDED": "COMPLETED", "CANCELED": "CANCELLED"}


def add_commands(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("ls", epilog="Example: nodeflow ls --state FAILED --workflow word-count --limit 5")(list_executions)
    app.command("get", epilog="Example: nodeflow get @latest -o json")(get)
    app.command("watch", epilog="Example: nodeflow watch @latest")(watch)
    app.command("cancel", epilog="Example: nodeflow cancel @latest --reason 'wrong input'")(cancel)


def list_executions(
    ctx: typer.Context,
    *,
    state: Annotated[str | None, typer.Option("--state", help=f"One of {', '.join(_STATES)}.")] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", help="The workflow's name.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label; repeatable.")] = None,
    filter_text: Annotated[
        str, typer.Option("--filter", help='Further terms: create_time >= "2026-01-31T00:00:00Z"')
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most how many.")] = 50,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """List executions, newest first."""
    terms = filter_terms(state, workflow, split_pairs("--label", label or ()), filter_text)
    execute(_list(session(ctx, address, output, context), terms, limit))


def get(
    ctx: typer.Context,
    execution_id: IdArgument,
    *,
    all_tasks: Annotated[bool, typer.Option("--all-tasks", help="Show every item of large maps.")] = False,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Show an execution with its tasks."""
    execute(_get(session(ctx, address, output, context), execution_id, all_tasks=all_tasks))


def watch(
    ctx: typer.Context,
    execution_id: IdArgument,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Follow an execution to its end; the exit code says how it ended. With -o json, one event in each line."""
    raise typer.Exit(execute(_watch(session(ctx, address, output, context), execution_id)))


def cancel(
    ctx: typer.Context,
    execution_id: IdArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who look at it later.")] = "",
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Cancel an execution: nothing new starts, and what runs is told to stop."""
    execute(_cancel(session(ctx, address, output, context), execution_id, reason))


def filter_terms(state: str | None, workflow: str | None, labels: dict[str, str], further: str) -> str:
    """Return one filter; raises CliError for a state that does not exist."""
    terms = []
    if state is not None:
        wanted = _OTHER_WORDS.get(state.upper(), state.upper())
        if wanted not in _STATES:
            raise usage_error(f"--state {state!r} is no state of an execution", f"one of {', '.join(_STATES)}")
        terms.append(f'state = "{wanted}"')
    if workflow is not None:
        terms.append(f"workflow = {_quoted(workflow)}")
    terms += [f"labels.{_label_key(key)} = {_quoted(value)}" for key, value in labels.items()]
    if further:
        terms.append(further)
    return " AND ".join(terms)


async def _list(current: Session, terms: str, limit: int) -> None:
    async with client_of(current.attachment()) as client:
        found = await client.executions(terms, limit=limit)
    if not found:
        say("no executions" + (f" with {terms}" if terms else " yet; start one with `nodeflow run FILE`"))
    if found or current.output in (Output.JSON, Output.YAML):
        emit(
            current.output or Output.TABLE,
            document=lambda: list_document("executions", found),
            names=[each.execution_id for each in found],
            table=lambda: executions_table(found, time.time()),
        )


async def _get(current: Session, execution_id: str, *, all_tasks: bool) -> None:
    async with client_of(current.attachment()) as client:
        execution = await client.get(execution_id)
        wants_tasks = current.output is not Output.NAME
        tasks = [task async for task in client.tasks(execution.execution_id)] if wants_tasks else []
        workflow = await client.workflow(execution.workflow, execution.revision)
    emit(
        current.output or Output.TABLE,
        document=lambda: {"execution": to_document(execution), **list_document("tasks", tasks)},
        names=[execution.execution_id],
        table=lambda: execution_details(execution, tasks, workflow, time.time(), all_tasks=all_tasks),
    )


async def _watch(current: Session, execution_id: str) -> int:
    attachment = current.attachment()
    async with client_of(attachment) as client:
        execution = await client.get(execution_id)
        workflow = await client.workflow(execution.workflow, execution.revision)
        # The events are what was asked for: they are data, so they go to stdout.
        screen = screen_for(execution, workflow, current.output, to=sys.stdout, write=write)
        await follow(client, screen, worker_manager=known_worker_manager(attachment))
        finished = await client.get(execution.execution_id)
        await tell_outcome(client, finished)
    return exit_code_of(finished)


async def tell_outcome(client: Client, execution: Execution) -> None:
    """Print how an execution ended, on stderr."""
    for line in await outcome_lines(client, execution):
        say(line)


async def _cancel(current: Session, execution_id: str, reason: str) -> None:
    async with client_of(current.attachment()) as client:
        execution = await client.cancel(execution_id, reason)
    emit(
        current.output or Output.TABLE,
        document=lambda: {"execution": to_document(execution)},
        names=[execution.execution_id],
        table=lambda: Text(f"{execution.execution_id} {execution_state(execution.state)}"),
    )


def _label_key(key: str) -> str:
    if not _LABEL_KEY.fullmatch(key):
        raise usage_error(f"--label {key!r} is no label's key", "1 to 63 of A-Z a-z 0-9 . _ / -, like --label team=a")
    return key


def _quoted(text: str) -> str:
    if '"' in text or "\\" in text:
        raise usage_error(f"{text!r} cannot be looked for: it has a quote or a backslash", "write it with --filter")
    return f'"{text}"'
