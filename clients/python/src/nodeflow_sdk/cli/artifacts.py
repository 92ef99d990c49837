"""`nodeflow artifacts ls` and `get`: results and files that are stored as artifacts, and any result as bytes.

Owns the commands. Must not know where artifacts are kept.
"""

import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated, Final

import typer
from nodeflow.common.v1.lifecycle_pb2 import TaskState
from nodeflow.common.v1.payload_pb2 import Payload
from nodeflow.scheduler.v1.execution_pb2 import Execution, Task
from rich.console import RenderableType

from nodeflow_sdk.cli.errors import CliError, ExitCode, usage_error
from nodeflow_sdk.cli.executions import IdArgument
from nodeflow_sdk.cli.outcome import task_label
from nodeflow_sdk.cli.output import Output, emit
from nodeflow_sdk.cli.session import AddressOption, ContextOption, OutputOption, Session, client_of, execute, session
from nodeflow_sdk.cli.tables import plain_table
from nodeflow_sdk.cli.task_names import task_name
from nodeflow_sdk.cli.terminal import say
from nodeflow_sdk.client import Client
from nodeflow_shared.errors import NotFound

_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An artifact, and where it is referred to."""

    where: str
    """`node`, `node[0]`, `node:file` or `outputs.name`."""
    digest: str
    size_bytes: int
    content_type: str


def add_commands(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        name="artifacts",
        help="Results that are stored as artifacts, and files that processes left.",
        epilog="Example: nodeflow artifacts ls @latest",
        no_args_is_help=True,
    )
    group.command("ls", epilog="Example: nodeflow artifacts ls @latest")(list_artifacts)
    group.command("get", epilog="Example: nodeflow artifacts get @latest/total -O total.json")(get_artifact)
    app.add_typer(group)


def list_artifacts(
    ctx: typer.Context,
    execution_id: IdArgument,
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """List the artifacts of an execution: of its tasks' results, its tasks' files, and its outputs."""
    current = session(ctx, address, output, context)
    found = execute(_list(current, execution_id))
    if not found:
        say("no artifacts: results up to 64 KiB are kept inline, and `nodeflow artifacts get ID/NODE` has them too")
    emit(
        current.output or Output.TABLE,
        document=lambda: {"artifacts": [asdict(each) for each in found]},
        names=[each.digest for each in found],
        table=lambda: _table(found),
    )


def get_artifact(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIGEST|ID/NODE[INDEX][:FILE]|ID",
            help="A digest; a task's result, or a file that it left; an execution's outputs.",
        ),
    ],
    file: Annotated[
        Path | None, typer.Option("-O", "--output-file", metavar="FILE", help="Where to write it. Default: stdout.")
    ] = None,
    address: AddressOption = None,
    context: ContextOption = None,
) -> None:
    """Write the bytes of an artifact, of a task's result, or of an execution's outputs."""
    execute(_get(session(ctx, address, context=context), source, file))


async def _list(current: Session, name: str) -> list[Found]:
    async with client_of(current.attachment()) as client:
        execution = await client.get(name)
        completed = TaskState.TASK_STATE_COMPLETED
        tasks = client.tasks(execution.execution_id, state=completed, with_results=True)
        found = [each async for task in tasks for each in _of_task(task)]
        return [*found, *_of_outputs(execution)]


def _of_task(task: Task) -> Iterator[Found]:
    label = task_label(task)
    files = [(f"{label}:{name}", payload) for name, payload in sorted(task.artifacts.items())]
    for where, payload in ((label, task.output), *files):
        if payload.WhichOneof("value") == "artifact":
            yield _found(where, payload)


def _of_outputs(execution: Execution) -> Iterator[Found]:
    """Outputs are one JSON object, in which an artifact stands as `{"artifact": {…}, "content_type": …}`."""
    if execution.outputs.WhichOneof("value") == "artifact":
        yield _found("outputs", execution.outputs)
        return
    outputs = json.loads(execution.outputs.data or b"{}")
    for name, value in outputs.items():
        artifact = value.get("artifact") if isinstance(value, dict) else None
        if isinstance(artifact, dict) and isinstance(artifact.get("digest"), str):
            yield Found(
                where=f"outputs.{name}",
                digest=artifact["digest"],
                size_bytes=int(artifact.get("size_bytes", 0)),
                content_type=str(value.get("content_type") or _JSON),
            )


def _found(where: str, payload: Payload) -> Found:
    return Found(
        where=where,
        digest=payload.artifact.digest,
        size_bytes=payload.artifact.size_bytes,
        content_type=payload.content_type or _JSON,
    )


def _table(found: list[Found]) -> RenderableType:
    table = plain_table("WHERE", "SIZE", "TYPE", "DIGEST")
    for each in found:
        table.add_row(each.where, _size(each.size_bytes), each.content_type, each.digest)
    return table


def _size(size_bytes: int) -> str:
    size, unit = float(size_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


async def _get(current: Session, source: str, file: Path | None) -> None:
    async with client_of(current.attachment()) as client:
        payload = await _payload(client, source)
        if payload.WhichOneof("value") != "artifact":
            await _write(_inline(payload.data), file, digest="")
            return
        try:
            await _write(client.download(payload.artifact.digest), file, digest=payload.artifact.digest)
        except NotFound as error:
            raise CliError(
                error.message, ExitCode.USAGE, hint="nodeflow artifacts ls ID, which lists digests"
            ) from error


async def _payload(client: Client, source: str) -> Payload:
    payload = Payload()
    if source.startswith("sha256:"):
        payload.artifact.digest = source
        return payload
    named, _, file_name = source.partition(":")
    name = task_name(named)
    if not name.node:
        execution = await client.get(name.execution_id)
        if not execution.HasField("outputs"):
            raise CliError(f"{execution.execution_id} has no outputs", ExitCode.FAILED, hint=f"nodeflow get {named}")
        return execution.outputs
    explained = await name.explained(client)
    task = await client.task(explained.task.execution_id, explained.task.task_number)
    if file_name:
        return _file_of(task, file_name)
    if task.state != TaskState.TASK_STATE_COMPLETED:
        raise CliError(f"{task_label(task)} has no result", ExitCode.FAILED, hint=f"nodeflow why {named}")
    return task.output


def _file_of(task: Task, file_name: str) -> Payload:
    files = task.artifacts
    if file_name not in files:
        known = ", ".join(sorted(files)) or "none"
        raise usage_error(f"{task_label(task)} left no artifact {file_name!r}", f"one of those that it left: {known}")
    return files[file_name]


async def _inline(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _write(data: AsyncIterator[bytes], file: Path | None, *, digest: str) -> None:
    """Write to stdout, or to a file that is there with all its bytes or not at all; checks the digest."""
    if file is None:
        await _copy(data, sys.stdout.buffer, digest)
        sys.stdout.buffer.flush()
        return
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        try:
            with partial.open("wb") as target:
                size = await _copy(data, target, digest)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise usage_error(f"{file} cannot be written: {error.strerror or error}", "another -O FILE") from None
    say(f"{file}: {size} bytes")


async def _copy(data: AsyncIterator[bytes], target: IO[bytes], digest: str) -> int:
    seen, size = hashlib.sha256(), 0
    async for each in data:
        target.write(each)
        seen.update(each)
        size += len(each)
    if digest and digest != f"sha256:{seen.hexdigest()}":
        raise CliError(f"what came is not {digest}: it has another digest", ExitCode.BUG, hint="the same once more")
    return size
