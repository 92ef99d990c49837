"""`nodeflow export`: what the log holds of executions, in a file that can be kept and audited anywhere.

Owns the command. Must not know the form of the file.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from nodeflow_sdk.audit.decoding import execution_of
from nodeflow_sdk.audit.export_file import write_end, write_execution, write_head
from nodeflow_sdk.cli.completion import complete_ids
from nodeflow_sdk.cli.errors import usage_error
from nodeflow_sdk.cli.session import AddressOption, ContextOption, Session, client_of, execute, session
from nodeflow_sdk.cli.terminal import say

IdArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="ID…",
        help="Executions: an id, a prefix that no other has, or @latest.",
        autocompletion=complete_ids,
        show_default=False,
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", epilog="Example: nodeflow export @latest -O run.jsonl")(export)


def export(
    ctx: typer.Context,
    execution_ids: IdArguments,
    *,
    file: Annotated[
        Path | None, typer.Option("-O", "--output-file", metavar="FILE", help="Where to write it. Default: stdout.")
    ] = None,
    address: AddressOption = None,
    context: ContextOption = None,
) -> None:
    """Write everything that the log holds of executions: events, attempts, and what is known to be accepted.

    One JSON value in each line; docs/history.md describes them. Values are left out: their digests tell them apart.
    """
    execute(_export(session(ctx, address, context=context), execution_ids, file))


async def _export(current: Session, execution_ids: list[str], file: Path | None) -> None:
    async with client_of(current.attachment()) as client:
        # Every id is looked up before anything is written.
        found = [(await client.get(each)).execution_id for each in execution_ids]
        chosen = list(dict.fromkeys(found))
        with _writing(file) as write:
            write(write_head(time.time_ns() // 1_000_000))
            for execution_id in chosen:
                for line in write_execution(execution_of(await client.export(execution_id))):
                    write(line)
            write(write_end(len(chosen)))
    if file is not None:
        say(f"{len(chosen)} {'execution' if len(chosen) == 1 else 'executions'} written to {file}")


@contextmanager
def _writing(file: Path | None) -> Iterator[Callable[[bytes], object]]:
    if file is None:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    try:
        with file.open("wb") as stream:
            yield stream.write
    except OSError as error:
        raise usage_error(f"{file} cannot be written: {error.strerror or error}") from None
