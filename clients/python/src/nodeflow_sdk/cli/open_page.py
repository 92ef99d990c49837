"""`nodeflow open`: an execution as a page in the browser.

Owns the command. Must not know what the page looks like.
"""

import os
import time
import webbrowser
from collections import deque
from contextlib import aclosing
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Final

import typer
from nodeflow.scheduler.v1.log_line_pb2 import LogLine
from nodeflow.scheduler.v1.scheduler_service_pb2 import TailLogsRequest

from nodeflow_sdk.cli.errors import usage_error
from nodeflow_sdk.cli.executions import IdArgument
from nodeflow_sdk.cli.page import Snapshot, page_of
from nodeflow_sdk.cli.session import AddressOption, ContextOption, Session, client_of, execute, session
from nodeflow_sdk.cli.terminal import say, write
from nodeflow_sdk.client import Client

LINES_SHOWN: Final = 200


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("open", epilog="Example: nodeflow open @latest")(open_page)


def open_page(
    ctx: typer.Context,
    execution_id: IdArgument,
    *,
    file: Annotated[
        Path | None,
        typer.Option("-O", "--output-file", metavar="FILE", help="Where to write it. Default: a temporary file."),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Show it in the browser.")] = True,
    address: AddressOption = None,
    context: ContextOption = None,
) -> None:
    """Show an execution as a page: its graph, tasks, failures and last lines, as they are now. Prints the file's name.

    The page is one file that needs nothing else, so it can be sent to somebody.
    """
    snapshot = execute(_snapshot(session(ctx, address, context=context), execution_id))
    target = file or Path(gettempdir()) / f"nodeflow-{snapshot.execution.execution_id}.html"
    try:
        opener = None if file else _ours_alone
        with open(target, "w", encoding="utf-8", opener=opener) as page:  # a Path has no opener
            page.write(page_of(snapshot))
    except OSError as error:
        raise usage_error(f"{target} cannot be written: {error.strerror or error}", "another -O FILE") from None
    write(str(target))
    if browser and not webbrowser.open(target.resolve().as_uri()):
        say("no browser can be started here; open that file in one")


def _ours_alone(path: str, flags: int) -> int:
    """Open what nobody else may read, for it has inputs, outputs and lines: all users share that directory."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


async def _snapshot(current: Session, name: str) -> Snapshot:
    async with client_of(current.attachment()) as client:
        execution = await client.get(name)
        return Snapshot(
            execution=execution,
            workflow=await client.workflow(execution.workflow, execution.revision),
            tasks=[task async for task in client.tasks(execution.execution_id)],
            lines=await _last_lines(client, execution.execution_id),
            now_s=time.time(),
        )


async def _last_lines(client: Client, execution_id: str) -> list[LogLine]:
    last: deque[LogLine] = deque(maxlen=LINES_SHOWN)
    async with aclosing(client.logs(TailLogsRequest(execution_id=execution_id))) as responses:
        async for response in responses:
            last.extend(response.lines)
    return list(last)
