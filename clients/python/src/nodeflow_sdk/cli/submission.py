"""What `run` and `submit` share: options of a submission, and what is told when one is refused.

Owns that. Must not know what is done with the execution.
"""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from nodeflow.scheduler.v1.workflow_pb2 import Workflow, WorkflowDocument

from nodeflow_sdk.cli.errors import CliError, ExitCode, refusal
from nodeflow_sdk.cli.faults import invalid_document
from nodeflow_sdk.cli.terminal import say
from nodeflow_sdk.client import Client
from nodeflow_sdk.sources import SOURCE_INPUT, UnusableSource, packed
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


async def add_source(client: Client, workflow: Workflow, directory: Path, inputs: MutableMapping[str, object]) -> None:
    """Pack and store the source of a pipeline, and add its address to the inputs, unless they have one.

    Raises CliError.
    """
    if not workflow.source_path or SOURCE_INPUT in inputs:
        return
    path = directory / workflow.source_path
    try:
        with packed(path) as source:
            stored = await client.upload_file(source.archive, "application/x-tar")
    except UnusableSource as error:
        raise CliError(str(error), ExitCode.REFUSED, hint=f"pipeline {workflow.name} has `source`") from error
    what = f"{source.file_count:,} files" if source.file_count else path.name
    say(f"source {stored.digest[:19]}: {what}, {stored.size_bytes:,} bytes")
    inputs[SOURCE_INPUT] = {"digest": stored.digest, "size_bytes": stored.size_bytes}


@contextmanager
def refusals() -> Iterator[None]:
    """Make a refused submission an error with exit code 3."""
    try:
        yield
    except (InvalidInput, AlreadyExists) as error:
        raise refusal(error, ExitCode.REFUSED) from error
