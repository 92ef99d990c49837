"""What Tab offers beyond options: executions and workflows of the suite that would be asked.

Owns the short look there. Must never print anything, nor take long: a shell waits for it.
"""

import asyncio
from pathlib import Path
from typing import Final

import typer

from nodeflow_sdk.cli.errors import CliError
from nodeflow_sdk.cli.session import Session, session
from nodeflow_sdk.client import open_client
from nodeflow_sdk.documents import DOCUMENT_SUFFIXES
from nodeflow_sdk.progress.symbols import execution_state
from nodeflow_shared.errors import NodeflowError

_PATIENCE_S: Final = 1.0
_OFFERED: Final = 20


def complete_ids(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the newest executions, with workflow and state as help."""
    try:
        return asyncio.run(asyncio.wait_for(_ids(_current(ctx), incomplete), _PATIENCE_S))
    except (NodeflowError, CliError, TimeoutError):
        return []


def complete_workflows(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return registered workflows."""
    try:
        return asyncio.run(asyncio.wait_for(_workflows(_current(ctx), incomplete), _PATIENCE_S))
    except (NodeflowError, CliError, TimeoutError):
        return []


def complete_documents_and_workflows(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return documents and directories on the way to one, then registered workflows."""
    directory, _, begin = incomplete.rpartition("/")
    before = f"{directory}/" if directory else "/" if incomplete.startswith("/") else ""
    try:
        entries = [each for each in Path(before).iterdir() if each.name.startswith(begin)]
    except OSError:
        entries = []
    hidden = begin.startswith(".")
    documents = [f"{before}{each.name}" for each in entries if each.suffix.lower() in DOCUMENT_SUFFIXES]
    on_the_way = [f"{before}{each.name}/" for each in entries if each.is_dir() and hidden == each.name.startswith(".")]
    return [*sorted(documents), *sorted(on_the_way), *complete_workflows(ctx, incomplete)]


def _current(ctx: typer.Context) -> Session:
    """Return what the line says so far: while completing, no command has run that would have kept it."""
    root = ctx.find_root()
    root.obj = Session(address=root.params.get("address"), context=root.params.get("context"))
    return session(ctx, ctx.params.get("address"), context=ctx.params.get("context"))


async def _ids(current: Session, incomplete: str) -> list[tuple[str, str]]:
    async with open_client(current.attachment().scheduler, patience_s=0) as client:
        found = await client.executions(limit=200)
    offered = [("@latest", "the newest")] if found else []
    offered += [(each.execution_id, f"{each.workflow} {execution_state(each.state)}") for each in found]
    return [each for each in offered if each[0].startswith(incomplete)][:_OFFERED]


async def _workflows(current: Session, incomplete: str) -> list[str]:
    async with open_client(current.attachment().scheduler, patience_s=0) as client:
        return [each.name for each in await client.workflows(limit=200) if each.name.startswith(incomplete)]
