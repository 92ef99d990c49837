"""`nodeflow validate`: whether a document can be scheduled.

Owns the command. Must not know what a document may say: the service judges that.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Annotated

import typer

from nodeflow_sdk.cli.errors import ExitCode
from nodeflow_sdk.cli.faults import invalid_document
from nodeflow_sdk.cli.output import Output, emit, to_document
from nodeflow_sdk.cli.session import AddressOption, ContextOption, OutputOption, Session, client_of, execute, session
from nodeflow_sdk.cli.tables import nodes_table
from nodeflow_sdk.cli.terminal import err, say
from nodeflow_sdk.cli.up import RestartView, suite_options
from nodeflow_sdk.documents import read_document
from nodeflow_sdk.suite.attach import Attachment, find_running
from nodeflow_sdk.suite.errors import SuiteError
from nodeflow_sdk.suite.supervisor import running_suite

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A workflow document, YAML or JSON.")]


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: nodeflow validate workflow.yaml")(validate)


def validate(
    ctx: typer.Context,
    file: FileArgument,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Tell every fault of a document, or its nodes if it is right. Stores nothing.

    Asks the suite that runs here. When there is none, one is started for this, and leaves nothing behind.
    """
    execute(_validate(session(ctx, address, output, context), file))


async def _validate(current: Session, file: Path) -> None:
    document = read_document(file)
    async with suite_to_ask(current) as attachment, client_of(attachment) as client:
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


@asynccontextmanager
async def suite_to_ask(current: Session) -> AsyncIterator[Attachment]:
    """Give the suite that was named, the one that runs here whoever it serves, or one of our own."""
    if current.address is not None:
        yield current.attachment()
        return
    running = await find_running(Path.cwd())
    if running is not None:
        yield running
        return
    say("no suite is running: one is started for this and stopped again (`nodeflow up` keeps one)")
    # Elsewhere: whoever only asks must neither leave files here nor wait for the lock of a run.
    directory = Path(mkdtemp(prefix="nodeflow-validate-"))
    options = suite_options(data_dir=directory, slots=1, path=None, lasting=False)
    failed = False
    try:
        async with running_suite(options, RestartView(err())) as suite:
            yield Attachment(scheduler=suite.scheduler, worker_manager=None, embedded=True, data_dir=suite.data_dir)
    except SuiteError:
        failed = True  # Its words name a log that is in there.
        raise
    finally:
        if not failed:
            rmtree(directory, ignore_errors=True)
