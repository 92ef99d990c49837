"""`nodeflow validate`: whether a document can be scheduled.

Owns the command. Must not know what a document may say: the service judges that.
"""

from pathlib import Path
from typing import Annotated

import typer

from nodeflow_sdk.cli.errors import ExitCode
from nodeflow_sdk.cli.faults import invalid_document
from nodeflow_sdk.cli.output import Output, emit, to_document
from nodeflow_sdk.cli.session import AddressOption, OutputOption, Session, client_of, execute, session
from nodeflow_sdk.cli.tables import nodes_table
from nodeflow_sdk.cli.terminal import say
from nodeflow_sdk.documents import read_document

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A workflow document, YAML or JSON.")]


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: nodeflow validate workflow.yaml")(validate)


def validate(
    ctx: typer.Context, file: FileArgument, address: AddressOption = None, output: OutputOption = None
) -> None:
    """Tell every fault of a document, or its nodes if it is right. Stores nothing."""
    execute(_validate(session(ctx, address, output), file))


async def _validate(current: Session, file: Path) -> None:
    document = read_document(file)
    async with client_of(current.attachment()) as client:
        verdict = await client.validate(document)
    if not verdict.faults:
        say(f"{file} is valid: {verdict.workflow.name} {verdict.workflow.revision}")
    elif current.output in (None, Output.TABLE):
        raise invalid_document(file, document.source, verdict.faults)
    emit(
        current.output or Output.TABLE,
        document=lambda: to_document(verdict),
        names=[verdict.workflow.name] if verdict.workflow.name else [],
        table=lambda: nodes_table(verdict.workflow),
    )
    if verdict.faults:
        raise typer.Exit(ExitCode.REFUSED)
