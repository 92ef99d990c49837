"""`nodeflow run`: a document, submitted and followed to its end.

Owns the command, the embedded suite of a single run, and what Ctrl-C means. Must not know how a suite works.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from nodeflow.scheduler.v1.execution_pb2 import Execution
from nodeflow.scheduler.v1.workflow_pb2 import Workflow, WorkflowDocument

from nodeflow_sdk.cli.errors import CliError, ExitCode, usage_error
from nodeflow_sdk.cli.executions import tell_outcome
from nodeflow_sdk.cli.inputs import read_input_file, split_pairs, typed
from nodeflow_sdk.cli.outcome import exit_code_of
from nodeflow_sdk.cli.results import SilentWaiting, print_result
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
from nodeflow_sdk.cli.submission import InputsOption, LabelOption, RequestIdOption, add_source, checked, refusals
from nodeflow_sdk.cli.terminal import err, say, write
from nodeflow_sdk.cli.up import DataDirOption, PathOption, RestartView, SlotsOption, suite_options
from nodeflow_sdk.cli.validate import FileArgument
from nodeflow_sdk.client import Client
from nodeflow_sdk.documents import read_document
from nodeflow_sdk.progress import ExecutionView, Screen, follow
from nodeflow_sdk.running.pending import Pending
from nodeflow_sdk.suite.attach import Attachment, attached
from nodeflow_sdk.suite.services import SuiteOptions
from nodeflow_shared.errors import NodeflowError


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to run, as it was typed."""

    file: Path
    document: WorkflowDocument
    pairs: dict[str, str]
    base_inputs: dict[str, object]
    labels: dict[str, str]
    request_id: str
    watch: bool
    detach: bool


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: nodeflow run workflow.yaml --input paths='[\"data/zen.txt\"]' --watch")(run)


def run(
    ctx: typer.Context,
    file: FileArgument,
    *,
    inputs: InputsOption = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input-file", metavar="F.json", help="A JSON object of inputs; --input goes before."),
    ] = None,
    label: LabelOption = None,
    request_id: RequestIdOption = "",
    watch: Annotated[
        bool | None, typer.Option("--watch/--no-watch", help="Show it while it runs. Default: on a terminal.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the id once it is accepted, and leave; needs a running suite.")
    ] = False,
    data_dir: DataDirOption = Path(".nodeflow"),
    slots: SlotsOption = None,
    path: PathOption = None,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Run a document to its end and print its outputs as JSON; with -o, the execution.

    Uses the suite that runs here. When there is none, one is started for this run, with its data in --data-dir.
    """
    order = Order(
        file=file,
        document=read_document(file),
        pairs=split_pairs("--input", inputs or ()),
        base_inputs=read_input_file(input_file) if input_file is not None else {},
        labels=split_pairs("--label", label or ()),
        request_id=request_id,
        watch=sys.stderr.isatty() if watch is None else watch,
        detach=detach,
    )
    options = suite_options(data_dir=data_dir, slots=slots, path=path, lasting=False)
    own = [name for name, given in (("--slots", slots), ("--path", path)) if given]
    raise typer.Exit(execute(_run(session(ctx, address, output, context), order, options, own)))


async def _run(current: Session, order: Order, options: SuiteOptions, own: Sequence[str]) -> int:
    async with _suite(current, options) as attachment:
        if own and not attachment.embedded:
            raise _not_ours(own, attachment)
        if order.detach and attachment.embedded:
            raise CliError("--detach needs a suite that goes on", ExitCode.USAGE, hint="start one with `nodeflow up`")
        async with client_of(attachment) as client:
            workflow, execution = await _submit(client, order)
            if order.detach:
                write(execution.execution_id)
                return ExitCode.SUCCESS
            await _follow(client, order, attachment, execution, workflow)
            finished = await client.get(execution.execution_id)
            await tell_outcome(client, finished)
            await print_result(client, current.output, finished)
            return exit_code_of(finished)


def _not_ours(options: Sequence[str], attachment: Attachment) -> CliError:
    """Return what to say of options that only a suite of this run's own could follow."""
    said = " and ".join(options)
    return usage_error(
        f"{said} cannot be heeded: the suite at {attachment.scheduler} runs already, with workers of its own",
        "leave that out, add a worker with `nodeflow worker`, or stop that suite (Ctrl-C where it runs) and repeat",
    )


@asynccontextmanager
async def _suite(current: Session, options: SuiteOptions) -> AsyncIterator[Attachment]:
    if current.address is not None:
        yield current.attachment()
        return
    async with attached(options, RestartView(err())) as attachment:
        if attachment.embedded:
            logs = options.data_dir / "logs"
            say(f"no suite is running: this run has its own until it ends (data {options.data_dir}, logs {logs})")
        yield attachment


async def _submit(client: Client, order: Order) -> tuple[Workflow, Execution]:
    """Submit the order; raises CliError that shows what is wrong with the document or the inputs."""
    workflow = await checked(client, order.file, order.document)
    inputs = {**order.base_inputs, **typed(order.pairs, workflow.inputs_schema)}
    await add_source(client, workflow, order.file.resolve().parent, inputs)
    pending = Pending()
    submission = client.submit(order.document, inputs, request_id=order.request_id, labels=order.labels)
    try:
        with refusals():
            execution = await pending.answer(client, submission)
    except asyncio.CancelledError:
        # Nobody was told its id, so nobody would cancel it later; and a suite of our own would go on with it next time.
        say("interrupted: what was being submitted is cancelled")
        await pending.undo()
        raise
    say(f"execution {execution.execution_id} of {workflow.name}")
    return workflow, execution


async def _follow(
    client: Client, order: Order, attachment: Attachment, execution: Execution, workflow: Workflow
) -> None:
    screen: Screen = SilentWaiting(ExecutionView(execution, workflow.nodes))
    if order.watch:
        screen = screen_for(execution, workflow, None, to=sys.stderr, write=say)
    try:
        await follow(client, screen, worker_manager=known_worker_manager(attachment))
    except asyncio.CancelledError:
        await _leave(client, attachment, execution)
        raise


async def _leave(client: Client, attachment: Attachment, execution: Execution) -> None:
    """Ctrl-C: a suite of our own takes the execution with it, another one goes on with it."""
    if not attachment.embedded:
        say(f"left; {execution.execution_id} goes on: `nodeflow watch {execution.execution_id}` or `nodeflow cancel …`")
        return
    try:
        await client.cancel(execution.execution_id, "interrupted")
        say(f"cancelled {execution.execution_id}")
    except NodeflowError as error:
        say(f"{execution.execution_id} could not be cancelled: {error.message}")
