"""What `run` and `submit` share: options of a submission, and what is told when one is refused.

Owns that. Must not know what is done with the execution.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from nodeflow.scheduler.v1.workflow_pb2 import Workflow, WorkflowDocument

from nodeflow_sdk.cli.errors import ExitCode, refusal
from nodeflow_sdk.cli.faults import invalid_document
from nodeflow_sdk.client import Client
from nodeflow_shared.errors import AlreadyExists, InvalidInput

InputsOption = Annotated[
    list[str] | None, typer.Option("--input", metavar="K=V", help="An input; repeatable. JSON where it wants JSON.")
]
LabelOption = Annotated[list[str] | None, typer.Option("--label", metavar="K=V", help="A label; repeatable.")]
RequestIdOption = Annotated[
    str, typer.Option("--request-id", metavar="ID", help="A key: a repeat with it starts nothing new.")
]


async def checked(client: Client, file: Path, document: WorkflowDocument) -> Workflow:
    """Return the workflow that a document describes; raises CliError that shows each fault in the file."""
    verdict = await client.validate(document)
    if verdict.faults:
        raise invalid_document(file, document.source, verdict.faults)
    return verdict.workflow


@contextmanager
def refusals() -> Iterator[None]:
    """Make a refused submission an error with exit code 3."""
    try:
        yield
    except (InvalidInput, AlreadyExists) as error:
        raise refusal(error, ExitCode.REFUSED) from error
