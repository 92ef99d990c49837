"""The `nodeflow` command: its groups of commands, its global options, and the last line of defence against tracebacks.

Owns how the process ends. Must not know what a command does.
"""

import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from nodeflow_sdk.cli import (
    artifacts,
    audit,
    contexts,
    diff,
    executions,
    export,
    graph,
    init,
    logs,
    open_page,
    run,
    submit,
    up,
    validate,
    wait,
    why,
    workers,
    workflows,
)
from nodeflow_sdk.cli.errors import CliError, ExitCode, usage_error
from nodeflow_sdk.cli.session import AddressOption, ContextOption, Interrupted, OutputOption, Session
from nodeflow_sdk.cli.terminal import err, say
from nodeflow_sdk.documents import UnreadableFile
from nodeflow_shared.logs import configure_logs


class CommandGroup(TyperGroup):
    """The group of all commands; what a command raises becomes lines on stderr and an exit code."""

    # Any: typer's base class takes the Context of the click that it carries inside, which is not public.
    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run a command."""
        try:
            return super().invoke(ctx)
        except CliError as error:
            _print_error(error)
            raise typer.Exit(error.exit_code) from None
        except UnreadableFile as error:
            _print_error(usage_error(str(error)))
            raise typer.Exit(ExitCode.USAGE) from None
        except (Interrupted, KeyboardInterrupt):
            raise typer.Exit(ExitCode.INTERRUPTED) from None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401  # as above
        """Find the command; refuse an option before it that it would not heed."""
        name, command, rest = super().resolve_command(ctx, args)
        leaf: Any = command
        path, words = str(name), list(rest)
        while words and words[0] in getattr(leaf, "commands", {}):
            path = f"{path} {words[0]}"
            leaf = leaf.commands[words.pop(0)]
        if not ctx.resilient_parsing and not hasattr(leaf, "commands"):
            _refuse_unheeded(ctx, path, leaf)
        return name, command, rest


# Any: as above.
def _refuse_unheeded(ctx: Any, path: str, leaf: Any) -> None:  # noqa: ANN401
    known = {parameter.name for parameter in leaf.params}
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in known:
            raise usage_error(f"--{name} says nothing to `nodeflow {path}`", f"nodeflow {path} --help")


app = typer.Typer(
    cls=CommandGroup,
    name="nodeflow",
    help="Node Flow: durable workflows. Data goes to stdout, progress to stderr.",
    epilog="Example: nodeflow init my-flows",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    up,
    run,
    submit,
    wait,
    validate,
    executions,
    logs,
    why,
    graph,
    diff,
    open_page,
    export,
    audit,
    artifacts,
    workers,
    workflows,
    contexts,
    init,
):
    module.add_commands(app)


@app.callback()
def options(
    ctx: typer.Context,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Node Flow: durable workflows. Data goes to stdout, progress to stderr."""
    # The channel's own complaints (a lost connection, say) are told by the command in its own words.
    configure_logs("nodeflow", "WARNING", "console")
    ctx.obj = Session(address=address, output=output, context=context)


def _print_error(error: CliError) -> None:
    for line in error.lines():
        err().print(line, soft_wrap=True)


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    try:
        app(prog_name="nodeflow")
    except BrokenPipeError:
        # The reader of our output (`| head`) has enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.SUCCESS)
    except Exception as error:
        if os.environ.get("NODEFLOW_DEBUG"):
            raise
        say(f"error: unexpected {type(error).__name__}: {error}")
        say("This is a fault of Node Flow; NODEFLOW_DEBUG=1 shows where.")
        sys.exit(ExitCode.BUG)
