"""`nodeflow graph`: a workflow as a drawing, as Mermaid, or for Graphviz; with its states for an execution.

Owns the command and what a target is. Must not know how a graph is drawn.
"""

import re
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from nodeflow.scheduler.v1.execution_pb2 import Execution
from nodeflow.scheduler.v1.workflow_pb2 import Workflow, WorkflowDocument

from nodeflow_sdk.cli.completion import complete_documents_and_workflows
from nodeflow_sdk.cli.drawing import drawing
from nodeflow_sdk.cli.graph_texts import dot_text, mermaid_text
from nodeflow_sdk.cli.picture import Picture, picture_of
from nodeflow_sdk.cli.session import AddressOption, ContextOption, Session, client_of, execute, session
from nodeflow_sdk.cli.submission import checked
from nodeflow_sdk.cli.terminal import out, write
from nodeflow_sdk.cli.validate import suite_to_ask
from nodeflow_sdk.client import Client
from nodeflow_sdk.documents import DOCUMENT_SUFFIXES, read_document
from nodeflow_shared.errors import NotFound

_ID: Final = re.compile(r"@latest|[0-9a-f][0-9a-f-]{3,35}")


class GraphFormat(StrEnum):
    """What -f takes."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("graph", epilog="Example: nodeflow graph workflow.yaml -f mermaid")(graph)


def graph(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_documents_and_workflows,
            metavar="FILE|ID|NAME",
            help="A document, an execution (with its states), or a workflow's name.",
        ),
    ],
    form: Annotated[
        GraphFormat,
        typer.Option("-f", "--format", help="text: a drawing; mermaid: for Markdown pages; dot: for Graphviz."),
    ] = GraphFormat.TEXT,
    address: AddressOption = None,
    context: ContextOption = None,
) -> None:
    """Draw a workflow: nodes from top to bottom, with an edge to each node that waits for them."""
    file = Path(target)
    is_file = file.is_file() or "/" in target or file.suffix.lower() in DOCUMENT_SUFFIXES
    current = session(ctx, address, context=context)
    work = _of_document(current, file, read_document(file)) if is_file else _of_suite(current, target)
    picture = execute(work)
    match form:
        case GraphFormat.TEXT:
            for line in drawing(picture):
                out().print(line, soft_wrap=True)
        case GraphFormat.MERMAID:
            write(mermaid_text(picture))
        case GraphFormat.DOT:
            write(dot_text(picture))


async def _of_document(current: Session, file: Path, document: WorkflowDocument) -> Picture:
    async with suite_to_ask(current) as attachment, client_of(attachment) as client:
        return picture_of(await checked(client, file, document))


async def _of_suite(current: Session, target: str) -> Picture:
    async with client_of(current.attachment()) as client:
        found = await _execution(client, target)
        if found is None:
            return picture_of(await client.workflow(target))
        workflow = await client.workflow(found.workflow, found.revision)
        return await _with_states(client, workflow, found)


async def _execution(client: Client, target: str) -> Execution | None:
    """Return the execution that is meant; None if the target can only be a workflow's name."""
    if not _ID.fullmatch(target):
        return None
    try:
        return await client.get(target)
    except NotFound:
        if target.startswith("@") or len(target) == 36:
            raise
        return None


async def _with_states(client: Client, workflow: Workflow, execution: Execution) -> Picture:
    tasks = [task async for task in client.tasks(execution.execution_id)]
    return picture_of(workflow, tasks, now_s=time.time())
