"""`nodeflow audit`: the promises of the engine, checked on a live suite or on an exported file.

Owns the command and how findings look. Must not know what a promise is.
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from nodeflow_sdk.audit.auditing import Audit
from nodeflow_sdk.audit.checkers import CHECKERS
from nodeflow_sdk.audit.checkers.findings import Violation
from nodeflow_sdk.audit.collecting import collect
from nodeflow_sdk.audit.export_file import NotAnExport, read_export
from nodeflow_sdk.cli.completion import complete_ids
from nodeflow_sdk.cli.errors import ExitCode, usage_error
from nodeflow_sdk.cli.output import Document, Output, emit
from nodeflow_sdk.cli.session import (
    AddressOption,
    ContextOption,
    OutputOption,
    Session,
    chosen_output,
    client_of,
    execute,
    session,
)
from nodeflow_sdk.cli.tables import plain_table


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("audit", epilog="Example: nodeflow audit --from run.jsonl -o json")(audit)


def audit(
    ctx: typer.Context,
    execution_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID…]",
            help="Executions: an id, a prefix that no other has, or @latest. Default: all.",
            autocompletion=complete_ids,
            show_default=False,
        ),
    ] = None,
    *,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the newest, at most this many.")] = None,
    file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Audit what `nodeflow export` wrote, not a suite.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as -o json.")] = False,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Check what the engine promises: read the logs of executions, and judge whether each promise was kept.

    The exit code is 1 if one was broken. Executions that go on are judged by what has happened so far.
    """
    form = chosen_output(ctx, Output.JSON if as_json else output) or Output.TABLE
    if execution_ids and limit is not None:
        raise usage_error("both executions and --limit are given", "one of them")
    if file is None:
        judged = execute(_audit_suite(session(ctx, address, output, context), execution_ids, limit))
    elif execution_ids or limit is not None:
        raise usage_error("--from audits the whole file", f"nodeflow audit --from {file}")
    elif named := _suite_named(ctx):
        raise usage_error(f"--from audits a file, and {named} names a suite", "one of them")
    else:
        judged = _audit_file(file)
    emit(
        form,
        document=lambda: _document(judged),
        names=[promise for promise, count in judged.violation_counts.items() if count],
        table=lambda: _table(judged),
    )
    if judged.violation_count:
        raise typer.Exit(ExitCode.FAILED)


def _suite_named(ctx: typer.Context) -> str:
    """Return the option on the command line that names a suite, before or after the command; empty if there is none."""
    for name in ("address", "context"):
        sources = (each.get_parameter_source(name) for each in (ctx, ctx.find_root()))
        if any(source is not None and source.name == "COMMANDLINE" for source in sources):
            return f"--{name}"
    return ""


async def _audit_suite(current: Session, execution_ids: list[str] | None, limit: int | None) -> Audit:
    judged = Audit()
    async with client_of(current.attachment()) as client:
        if execution_ids:
            found = [(await client.get(each)).execution_id for each in execution_ids]
            for execution_id in dict.fromkeys(found):
                judged.add(await collect(client, execution_id))
        else:
            async for execution in client.every_execution(limit=limit):
                judged.add(await collect(client, execution.execution_id))
    return judged


def _audit_file(file: Path) -> Audit:
    judged = Audit()
    try:
        with file.open("rb") as lines:
            for history in read_export(lines):
                judged.add(history)
    except NotAnExport as error:
        raise usage_error(f"{file} is no export: {error}", "a file that `nodeflow export ID -O FILE` wrote") from error
    except OSError as error:
        raise usage_error(f"{file} cannot be read: {error.strerror or error}") from None
    return judged


def _document(judged: Audit) -> Document:
    return {
        "executions": judged.execution_count,
        "violations": judged.violation_count,
        "promises": [
            {
                "promise": checker.promise,
                "says": checker.says,
                "judged": dict(judged.findings[checker.promise].judged),
                "violation_count": judged.violation_counts[checker.promise],
                "violations": [asdict(each) for each in judged.findings[checker.promise].violations],
            }
            for checker in CHECKERS
        ],
    }


def _table(judged: Audit) -> RenderableType:
    table = plain_table("PROMISE", "SAYS", "VIOLATIONS", "JUDGED")
    for checker in CHECKERS:
        findings, count = judged.findings[checker.promise], judged.violation_counts[checker.promise]
        words = _words(findings.judged)
        verdict = Text(str(count), style="red" if count else "green") if words else Text("—", style="dim")
        table.add_row(checker.promise, checker.says, verdict, words or Text("nothing here shows it", style="dim"))
    lines = [Text(str(each), style="red") for each in _violations(judged)]
    hidden = judged.violation_count - len(lines)
    if hidden:
        lines.append(Text(f"… and {hidden} more"))
    return Group(table, *([Text("")] if lines else []), *lines, Text(""), Text(_verdict(judged)))


def _words(judged: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in judged.items() if count)


def _violations(judged: Audit) -> list[Violation]:
    return [violation for findings in judged.findings.values() for violation in findings.violations]


def _verdict(judged: Audit) -> str:
    executions = f"{judged.execution_count:,} {'execution' if judged.execution_count == 1 else 'executions'}"
    if not judged.violation_count:
        unseen = [checker.promise for checker in CHECKERS if not _words(judged.findings[checker.promise].judged)]
        return f"{executions}: every promise was kept" + (f"; nothing here shows {', '.join(unseen)}" if unseen else "")
    broken = [promise for promise, count in judged.violation_counts.items() if count]
    return f"{executions}: broken were {', '.join(broken)}"
