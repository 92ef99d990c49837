"""`nodeflow wait`: an execution's end, from wherever it was started.

Owns the command. Must not know how an execution is followed.
"""

import asyncio
from typing import Annotated

import typer

from nodeflow_sdk.cli.errors import CliError, ExitCode
from nodeflow_sdk.cli.executions import IdArgument, tell_outcome
from nodeflow_sdk.cli.outcome import exit_code_of
from nodeflow_sdk.cli.results import SilentWaiting, print_result
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
from nodeflow_sdk.progress import ExecutionView, follow
from nodeflow_sdk.progress.symbols import execution_state


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("wait", epilog="Example: nodeflow wait @latest --timeout 60")(wait)


def wait(
    ctx: typer.Context,
    execution_id: IdArgument,
    *,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Give up after so long. Default: never.")
    ] = None,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Wait until an execution is over and print its outputs, as `run` does; the exit code says how it ended."""
    raise typer.Exit(execute(_wait(session(ctx, address, output, context), execution_id, timeout)))


async def _wait(current: Session, name: str, timeout_s: float | None) -> int:
    attachment = current.attachment()
    async with client_of(attachment) as client:
        execution = await client.get(name)
        execution_id = execution.execution_id
        workflow = await client.workflow(execution.workflow, execution.revision)
        screen = SilentWaiting(ExecutionView(execution, workflow.nodes))
        try:
            async with asyncio.timeout(timeout_s):
                await follow(client, screen, worker_manager=known_worker_manager(attachment))
        except TimeoutError:
            state = execution_state((await client.get(execution_id)).state)
            raise CliError(
                f"{execution_id} is still {state} after {timeout_s:g} s",
                ExitCode.FAILED,
                hint=f"nodeflow why {execution_id}, which tells what it waits for; or wait again",
            ) from None
        finished = await client.get(execution_id)
        await tell_outcome(client, finished)
        await print_result(client, current.output, finished)
    return exit_code_of(finished)
