"""`nodeflow submit`: one execution or many, started and left to themselves.

Owns the command. Must not know how executions go on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from nodeflow.scheduler.v1.scheduler_service_pb2 import Submission
from nodeflow.scheduler.v1.workflow_pb2 import Workflow, WorkflowDocument

from nodeflow_sdk.cli.completion import complete_documents_and_workflows
from nodeflow_sdk.cli.inputs import LINES_SUFFIXES, read_input_file, read_input_lines, split_pairs, typed
from nodeflow_sdk.cli.output import Output, emit
from nodeflow_sdk.cli.session import AddressOption, ContextOption, OutputOption, Session, client_of, execute, session
from nodeflow_sdk.cli.submission import InputsOption, LabelOption, RequestIdOption, add_source, checked, refusals
from nodeflow_sdk.cli.terminal import say
from nodeflow_sdk.client import Client
from nodeflow_sdk.documents import DOCUMENT_SUFFIXES, read_document
from nodeflow_sdk.payloads import to_payload

BATCH: Final = 1_000
"""Executions of one call: few enough for one message even with large inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to start, as it was typed."""

    file: Path | None
    """Where the document is; None for a registered workflow."""
    reference: WorkflowDocument | str
    many: bool
    inputs: list[dict[str, object]]
    """One for each execution."""
    pairs: dict[str, str]
    """For all of them."""
    labels: dict[str, str]
    request_id: str


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit", epilog="Example: nodeflow submit workflow.yaml --input paths='[\"data/zen.txt\"]'")(submit)


def submit(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME",
            help="A workflow document, or a registered workflow by its name or sha256: revision.",
            autocompletion=complete_documents_and_workflows,
        ),
    ],
    *,
    inputs: InputsOption = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input-file",
            metavar="F.json|F.jsonl",
            help="A JSON object of inputs; in a .jsonl one in each line, an execution for each. --input goes before.",
        ),
    ] = None,
    label: LabelOption = None,
    request_id: RequestIdOption = "",
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Start an execution, or one for each line of a .jsonl file, and print the ids once they are durable.

    Needs a running suite. With many, the request id of each is `--request-id`, `:` and its line's number.
    """
    many = input_file is not None and input_file.suffix.lower() in LINES_SUFFIXES
    listed = [{}] if input_file is None else read_input_lines(input_file) if many else [read_input_file(input_file)]
    file = _file(target)
    order = Order(
        file=file,
        reference=target if file is None else read_document(file),
        many=many,
        inputs=listed,
        pairs=split_pairs("--input", inputs or ()),
        labels=split_pairs("--label", label or ()),
        request_id=request_id,
    )
    execute(_submit(session(ctx, address, output, context), order))


async def _submit(current: Session, order: Order) -> None:
    ids: list[str] = []
    async with client_of(current.attachment()) as client:
        workflow = await _workflow(client, order)
        everywhere: dict[str, object] = dict(typed(order.pairs, workflow.inputs_schema))
        directory = order.file.resolve().parent if order.file is not None else Path(workflow.document.directory)
        await add_source(client, workflow, directory, everywhere)
        for begin in range(0, len(order.inputs), BATCH):
            submissions = _submissions(order, everywhere, begin)
            with refusals():
                started = await client.submit_many(order.reference, submissions)
            ids += started
            if order.many and current.output in (None, Output.NAME):
                _print(current, started)  # Those that are durable, even if a later batch is refused.
    if not order.many or current.output not in (None, Output.NAME):
        _print(current, ids)
    what_next = f" {len(ids)} times" if order.many else f"; `nodeflow wait {ids[0]}` waits for its end"
    say(f"submitted {workflow.name}{what_next}")


def _file(target: str) -> Path | None:
    """Return the file that is meant; None for a registered workflow."""
    file = Path(target)
    meant = file.is_file() or "/" in target or file.suffix.lower() in DOCUMENT_SUFFIXES
    return file if meant and not target.startswith("sha256:") else None


async def _workflow(client: Client, order: Order) -> Workflow:
    """Return the workflow with the schema of its inputs."""
    reference = order.reference
    if order.file is not None and not isinstance(reference, str):
        return await checked(client, order.file, reference)
    name = str(reference)
    return await (client.workflow("", name) if name.startswith("sha256:") else client.workflow(name))


def _submissions(order: Order, everywhere: dict[str, object], begin: int) -> list[Submission]:
    return [
        Submission(
            inputs=to_payload({**inputs, **everywhere}),
            request_id=f"{order.request_id}:{number}" if order.request_id and order.many else order.request_id,
            labels=order.labels,
        )
        for number, inputs in enumerate(order.inputs[begin : begin + BATCH], begin + 1)
    ]


def _print(current: Session, ids: list[str]) -> None:
    emit(
        current.output or Output.NAME,
        document=lambda: {"executions": [{"executionId": each} for each in ids]},
        names=ids,
        table=lambda: "\n".join(ids),
    )
