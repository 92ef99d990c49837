"""`nodeflow workflows`: what is registered.

Owns the command. Must not know how workflows are stored.
"""

import time
from typing import Annotated

import typer

from nodeflow_sdk.cli.completion import complete_workflows
from nodeflow_sdk.cli.errors import usage_error
from nodeflow_sdk.cli.output import Output, emit, list_document
from nodeflow_sdk.cli.session import AddressOption, ContextOption, OutputOption, Session, client_of, execute, session
from nodeflow_sdk.cli.tables import workflows_table
from nodeflow_sdk.cli.terminal import say


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: nodeflow workflows word-count")(workflows)


def workflows(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", help="Show the revisions of this workflow.", autocompletion=complete_workflows
        ),
    ] = "",
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """List registered workflows, each at its newest revision; with a NAME, its revisions."""
    execute(_workflows(session(ctx, address, output, context), name))


async def _workflows(current: Session, name: str) -> None:
    async with client_of(current.attachment()) as client:
        found = await client.workflows(name)
    if name and not found:
        raise usage_error(f"there is no workflow {name!r}", "nodeflow workflows, which lists those there are")
    if not found:
        say("no workflows yet; `nodeflow run FILE` registers one")
    emit(
        current.output or Output.TABLE,
        document=lambda: list_document("workflows", found),
        names=[each.revision if name else each.name for each in found],
        table=lambda: workflows_table(found, time.time()),
    )
