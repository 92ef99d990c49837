"""`nodeflow logs`: what the tasks of an execution wrote.

Owns the command and the form of a line. Must not know how output gets here.
"""

import os
import re
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated, Final

import typer
from nodeflow.common.v1.log_chunk_pb2 import LogStream
from nodeflow.scheduler.v1.log_line_pb2 import LogLine
from nodeflow.scheduler.v1.scheduler_service_pb2 import TailLogsRequest

from nodeflow_sdk.cli.errors import usage_error
from nodeflow_sdk.cli.executions import IdArgument
from nodeflow_sdk.cli.output import Output, to_document, to_json, to_yaml
from nodeflow_sdk.cli.session import AddressOption, ContextOption, OutputOption, Session, client_of, execute, session
from nodeflow_sdk.cli.terminal import say
from nodeflow_sdk.client import Client
from nodeflow_sdk.progress.symbols import clock_time
from nodeflow_shared.errors import NodeflowError

_NODE: Final = re.compile(r"(?P<node>[^\[\]]+)(?:\[(?P<item>[0-9]{1,9})\])?")
_COLOURS: Final = ("36", "35", "34", "32", "96", "95", "94", "92")
_YELLOW, _RED, _PLAIN = "33", "31", "0"
_NO_LINES: Final = "no lines: nothing of what was asked for has written any"


class StreamName(StrEnum):
    """What --stream takes."""

    STDOUT = "stdout"
    STDERR = "stderr"
    NOTICE = "notice"


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs", epilog="Example: nodeflow logs @latest --follow --stream stderr --grep error")(logs)


def logs(
    ctx: typer.Context,
    execution_id: IdArgument,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the execution is over.")] = False,
    node: Annotated[str, typer.Option("--node", help="Only this node, or one of its items: NAME, NAME[3].")] = "",
    task: Annotated[int | None, typer.Option("--task", min=0, help="Only the task with this number.")] = None,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Only this attempt of each task.")] = None,
    stream: Annotated[list[StreamName] | None, typer.Option("--stream", help="Only this stream; repeatable.")] = None,
    grep: Annotated[str, typer.Option("--grep", metavar="TEXT", help="Only lines that contain this text.")] = "",
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="Only the last lines, at most this many.")] = None,
    since_line: Annotated[int, typer.Option("--since-line", min=1, help="Only from this line of each attempt on.")] = 1,
    from_now: Annotated[bool, typer.Option("--from-now", help="Leave out what is there already.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Begin each line with its time.")] = False,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Show what tasks wrote: print, logging, standard output and error. With -o json, one line in each line."""
    named = _NODE.fullmatch(node) if node else None
    if node and named is None:
        raise usage_error(
            f"--node {node!r} names no node", "the name of a node, or NAME[3] for an item of a mapped one"
        )
    request = TailLogsRequest(
        execution_id=execution_id,
        follow=follow,
        from_now=from_now,
        node=named["node"] if named else "",
        map_index=int(named["item"]) if named and named["item"] else None,
        task_number=task,
        attempt_number=attempt or 0,
        first_line=since_line if since_line > 1 else 0,
        streams=[LogStream.Value(f"LOG_STREAM_{each.name}") for each in stream or ()],
        text=grep,
    )
    current = session(ctx, address, output, context)
    execute(_show(current, request, _form(current.output, timestamps=timestamps), tail))


async def _show(current: Session, request: TailLogsRequest, form: Callable[[LogLine], str], tail: int | None) -> None:
    async with client_of(current.attachment()) as client:
        if tail is not None:
            await _show_last(client, request, form, tail)
            if not request.follow:
                return
        seen = 0
        async with aclosing(client.logs(request, on_lost=_tell_lost)) as responses:
            async for response in responses:
                seen += len(response.lines)
                _write(map(form, response.lines))
        if not seen and tail is None:
            say(_NO_LINES)


async def _show_last(client: Client, request: TailLogsRequest, form: Callable[[LogLine], str], count: int) -> None:
    """Show the last lines of what is there, and move the request behind them."""
    stored = TailLogsRequest()
    stored.CopyFrom(request)
    stored.follow = False
    last: deque[LogLine] = deque(maxlen=count)
    async with aclosing(client.logs(stored, on_lost=_tell_lost)) as responses:
        async for response in responses:
            last.extend(response.lines)
            request.cursor = response.cursor
    _write(map(form, last))
    if not last:
        say(_NO_LINES)


def _tell_lost(error: NodeflowError) -> None:
    say(f"the scheduler cannot be reached, waiting for it ({error.message})")


def _write(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def _form(output: Output | None, *, timestamps: bool) -> Callable[[LogLine], str]:
    match output:
        case Output.JSON:
            return lambda line: to_json(to_document(line), indent=None)
        case Output.YAML:
            return lambda line: f"---\n{to_yaml(to_document(line)).rstrip()}"
        case _:
            coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
            return lambda line: _plain(line, timestamps=timestamps, coloured=coloured)


def _plain(line: LogLine, *, timestamps: bool, coloured: bool) -> str:
    """Return `node[3]#2 | text`: the item if there is one, the attempt if it is not the first."""
    item = f"[{line.map_index}]" if line.HasField("map_index") else ""
    again = f"#{line.attempt_number}" if line.attempt_number > 1 else ""
    label, text = f"{line.node}{item}{again}", line.text
    if line.stream == LogStream.LOG_STREAM_NOTICE:
        text = f"({text})"
    if coloured:
        label = _in(_COLOURS[zlib.crc32(line.node.encode()) % len(_COLOURS)], label)
        if line.stream != LogStream.LOG_STREAM_STDOUT:
            text = _in(_YELLOW if line.stream == LogStream.LOG_STREAM_NOTICE else _RED, text)
    time = f"{clock_time(line.read_time)} " if timestamps else ""
    return f"{time}{label} | {text}"


def _in(colour: str, text: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[{_PLAIN}m"
