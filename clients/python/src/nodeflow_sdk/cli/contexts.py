"""`nodeflow context`: several suites by name, and the one that is asked when nothing else says so.

Owns the commands. Must not know how a suite is asked.
"""

import re
from dataclasses import replace
from typing import Annotated, Final

import typer
from rich.console import RenderableType

from nodeflow_sdk.cli.context_file import Context, Contexts, contexts_path, read_contexts, write_contexts
from nodeflow_sdk.cli.errors import usage_error
from nodeflow_sdk.cli.output import Output, emit
from nodeflow_sdk.cli.session import OutputOption, chosen_output
from nodeflow_sdk.cli.tables import plain_table
from nodeflow_sdk.cli.terminal import say
from nodeflow_shared.address import parse_address

_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,64}")


def complete_contexts(incomplete: str) -> list[str]:
    """Return the names of contexts, for a shell."""
    return [name for name in read_contexts().by_name if name.startswith(incomplete)]


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The context's name.", autocompletion=complete_contexts)
]


def add_commands(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        name="context",
        help="Suites by name: `--context NAME` with any command, or `context use NAME` for all commands from then on.",
        epilog="Example: nodeflow context ls",
        no_args_is_help=True,
    )
    group.command("set", epilog="Example: nodeflow context set staging --address 127.0.0.1:7420")(set_context)
    group.command("use", epilog="Example: nodeflow context use staging")(use_context)
    group.command("ls", epilog="Example: nodeflow context ls -o json")(list_contexts)
    group.command("rm", epilog="Example: nodeflow context rm staging")(remove_context)
    app.add_typer(group)


def set_context(
    name: NameArgument,
    address: Annotated[str, typer.Option("--address", metavar="HOST:PORT", help="The scheduler.")],
    worker_manager: Annotated[
        str, typer.Option("--worker-manager", metavar="HOST:PORT", help="The worker-manager, for `workers`.")
    ] = "",
) -> None:
    """Give a suite a name, or an existing name another suite."""
    if not _NAME.fullmatch(name):
        raise usage_error(f"{name!r} is no context's name", "1 to 64 of a-z A-Z 0-9 . _ -, like staging")
    _check("--address", address)
    if worker_manager:
        _check("--worker-manager", worker_manager)
    known = read_contexts()
    named = {**known.by_name, name: Context(address=address, worker_manager=worker_manager)}
    write_contexts(replace(known, by_name=named))
    say(f"{name} is {address}, in {contexts_path()}")


def use_context(
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]", help="The context; none for the suite of the directory.", autocompletion=complete_contexts
        ),
    ] = "",
) -> None:
    """Ask a context's suite from now on; without a NAME, the suite of the directory again."""
    known = read_contexts()
    if name:
        known.named(name)
    write_contexts(replace(known, current=name))
    say(f"in use: {name}" if name else "no context is in use")


def list_contexts(ctx: typer.Context, output: OutputOption = None) -> None:
    """List contexts; the one in use has a star."""
    known = read_contexts()
    if not known.by_name:
        say("no contexts yet; nodeflow context set NAME --address HOST:PORT")
    emit(
        chosen_output(ctx, output) or Output.TABLE,
        document=lambda: {
            "contexts": [
                {
                    "name": name,
                    "address": each.address,
                    "workerManager": each.worker_manager,
                    "current": name == known.current,
                }
                for name, each in sorted(known.by_name.items())
            ]
        },
        names=sorted(known.by_name),
        table=lambda: _table(known),
    )


def remove_context(name: NameArgument) -> None:
    """Forget a name; the suite does not notice."""
    known = read_contexts()
    known.named(name)
    left = {each: context for each, context in known.by_name.items() if each != name}
    write_contexts(Contexts(by_name=left, current="" if known.current == name else known.current))
    say(f"{name} is forgotten")


def _table(known: Contexts) -> RenderableType:
    table = plain_table("", "NAME", "ADDRESS", "WORKER-MANAGER")
    for name, each in sorted(known.by_name.items()):
        table.add_row("*" if name == known.current else "", name, each.address, each.worker_manager)
    return table


def _check(option: str, address: str) -> None:
    try:
        parse_address(address)
    except ValueError as error:
        raise usage_error(f"{option} {address!r} {error}") from None
