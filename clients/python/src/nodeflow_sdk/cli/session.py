"""What every command shares: which suite is asked, in which form data is printed, and how a command runs.

Owns the global options and the way from a coroutine to an exit code. Must not know any command.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from nodeflow_sdk.cli.context_file import read_contexts
from nodeflow_sdk.cli.errors import CliError, ExitCode, from_api, usage_error
from nodeflow_sdk.cli.output import Output
from nodeflow_sdk.cli.terminal import say
from nodeflow_sdk.client import Client, open_client
from nodeflow_sdk.side_tasks import unwrapped
from nodeflow_sdk.suite.attach import Attachment, default_attachment
from nodeflow_sdk.suite.errors import SuiteError
from nodeflow_sdk.suite.record import find_record
from nodeflow_sdk.suite.services import SuiteService
from nodeflow_shared.address import parse_address
from nodeflow_shared.errors import NodeflowError
from nodeflow_shared.shutdown import stop_signals

T = TypeVar("T")

AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        envvar="NODEFLOW_ADDRESS",
        metavar="HOST:PORT",
        help="The scheduler. Default: the suite of this directory or one above (.nodeflow/suite.json), "
        "else 127.0.0.1:7420.",
    ),
]
WorkerManagerOption = Annotated[
    str | None,
    typer.Option(
        "--worker-manager",
        envvar="NODEFLOW_WORKER_MANAGER",
        metavar="HOST:PORT",
        help="The worker-manager. Default: that of the suite found.",
    ),
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        envvar="NODEFLOW_CONTEXT",
        metavar="NAME",
        help="The suite of this name, see `nodeflow context`. Default: the one that `context use` chose.",
    ),
]
OutputOption = Annotated[Output | None, typer.Option("-o", "--output", help="The form of the data on stdout.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The global options of one command."""

    address: str | None = None
    output: Output | None = None
    context: str | None = None
    """The context that was asked for by name, with its address in `address`."""
    worker_manager: str | None = None
    """That of the context."""

    def attachment(self) -> Attachment:
        """Return where the suite should be; whether it is there was not asked."""
        found = default_attachment(Path.cwd())
        if self.address is None or self.address == found.scheduler:
            return found
        try:
            parse_address(self.address)
        except ValueError as error:
            raise usage_error(f"--address (or NODEFLOW_ADDRESS) {self.address!r} {error}") from None
        return Attachment(scheduler=self.address, worker_manager=self.worker_manager, embedded=False)


class Interrupted(Exception):
    """Ctrl-C or SIGTERM ended the command."""


def session(
    ctx: typer.Context, address: str | None = None, output: Output | None = None, context: str | None = None
) -> Session:
    """Return the options given after the command, or else before it; then those of the context in use.

    Raises CliError when both an address and a context are named: they may be different suites.
    """
    before = ctx.find_root().obj
    if not isinstance(before, Session):
        before = Session()
    chosen = Session(
        address=address or before.address, output=output or before.output, context=context or before.context
    )
    if chosen.address is None:
        return _in_context(chosen)
    if chosen.context is not None:
        raise usage_error(
            f"both an address, {chosen.address}, and the context {chosen.context!r} are named",
            "one of --address (or NODEFLOW_ADDRESS) and --context (or NODEFLOW_CONTEXT)",
        )
    return chosen


def chosen_output(ctx: typer.Context, output: Output | None) -> Output | None:
    """Return the form given after the command, or else before it."""
    before = ctx.find_root().obj
    return output or (before.output if isinstance(before, Session) else None)


def _in_context(chosen: Session) -> Session:
    known = read_contexts()
    name = chosen.context or known.current
    if not name:
        return chosen
    context = known.named(name)
    return replace(chosen, context=name, address=context.address, worker_manager=context.worker_manager or None)


@asynccontextmanager
async def client_of(attachment: Attachment) -> AsyncIterator[Client]:
    """Connect to the scheduler of a suite; errors of the API become errors for a person."""
    async with open_client(attachment.scheduler, on_wait=_say_waiting) as client:
        try:
            yield client
        except NodeflowError as error:
            raise from_api(error, attachment.scheduler) from error


def _say_waiting(error: NodeflowError) -> None:
    say(f"waiting, and trying again: {error.message}")


def worker_manager_of(current: Session, named: str | None) -> str:
    """Return the worker-manager's address; raises CliError if nothing says where it is."""
    if named is not None:
        try:
            parse_address(named)
        except ValueError as error:
            raise usage_error(f"--worker-manager {named!r} {error}") from None
        return named
    attachment = current.attachment()
    if attachment.worker_manager is None:
        raise usage_error(
            f"nothing here says where the worker-manager of {attachment.scheduler} is",
            "--worker-manager HOST:PORT, or NODEFLOW_WORKER_MANAGER",
        )
    return attachment.worker_manager


def known_worker_manager(attachment: Attachment) -> str | None:
    """Return the worker-manager's address if it is known to belong to that scheduler."""
    found = find_record(Path.cwd())
    if attachment.embedded or (found and found[1].addresses.get(SuiteService.SCHEDULER) == attachment.scheduler):
        return attachment.worker_manager
    return None


# Any: what a coroutine yields and is sent is asyncio's business.
def execute(work: Coroutine[Any, Any, T]) -> T:
    """Run a command to its end, or to Ctrl-C; what is wrong comes out as CliError or Interrupted."""
    try:
        return asyncio.run(_until_interrupted(work))
    except SuiteError as error:
        raise CliError(str(error), ExitCode.UNREACHABLE) from error


async def _until_interrupted(work: Coroutine[Any, Any, T]) -> T:
    stop = asyncio.Event()
    with stop_signals(stop), unwrapped():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work, name="command")
            waiter = group.create_task(stop.wait(), name="signals")
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
            task.cancel()
    if task.cancelled():
        raise Interrupted
    return task.result()
