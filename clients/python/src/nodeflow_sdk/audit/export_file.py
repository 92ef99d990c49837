"""The file that `nodeflow export` writes: JSON lines, from which the history of each execution can be read back.

Owns the form of the file, which is part of what users rely on: docs/history.md describes it. Must not know where a
history comes from, nor judge it. Only one execution is in memory at a time, when it is written and when it is read.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from nodeflow_sdk.audit.attempts import attempts_of
from nodeflow_sdk.audit.history import (
    Acknowledgement,
    Attempt,
    Call,
    ExecutionHistory,
    Fact,
    History,
    Kind,
    Node,
    State,
)

FORMAT: Final = "nodeflow.history"
VERSION: Final = 1


class Head(Struct, frozen=True, kw_only=True, tag_field="line", tag="head"):
    """The first line. Fields that a later version adds are no fault here: its version is."""

    format: str
    version: int
    time_ms: int = 0
    """When it was written."""


class ExecutionLine(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="line",
    tag="execution",
):
    """An execution; its events, attempts and acknowledgements follow."""

    execution_id: str
    tenant: str
    shard: int
    workflow: str
    revision: str
    request_id: str = ""
    state: State
    task_count: int
    nodes: tuple[Node, ...]


class End(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="line", tag="end"):
    """The last line, so that a file that was cut off is known."""

    execution_count: int


class NotAnExport(Exception):
    """A file is not what `nodeflow export` writes; the message says in which line, and what is wrong."""


_Line = ExecutionLine | Fact | Attempt | Acknowledgement | End


def write_head(time_ms: int) -> bytes:
    """Return the first line."""
    return _encoded(Head(format=FORMAT, version=VERSION, time_ms=time_ms))


def write_execution(execution: ExecutionHistory) -> Iterator[bytes]:
    """Yield the lines of one execution: itself, its events, its attempts, and what the log proves to be accepted."""
    yield _encoded(
        ExecutionLine(
            execution_id=execution.execution_id,
            tenant=execution.tenant,
            shard=execution.shard,
            workflow=execution.workflow,
            revision=execution.revision,
            request_id=execution.request_id,
            state=execution.state,
            task_count=execution.task_count,
            nodes=tuple(execution.graph or ()),
        )
    )
    yield from map(_encoded, execution.facts)
    yield from map(_encoded, attempts_of(execution))
    yield from map(_encoded, _accepted(execution))


def write_end(execution_count: int) -> bytes:
    """Return the last line."""
    return _encoded(End(execution_count=execution_count))


def _encoded(line: Struct) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _accepted(execution: ExecutionHistory) -> Iterator[Acknowledgement]:
    """Yield what callers may have been told, because it is committed."""
    for fact in execution.facts:
        if fact.submission is not None:
            yield Acknowledgement(
                execution_id=execution.execution_id,
                call=Call.SUBMIT,
                time_ms=fact.time_ms,
                tenant=fact.submission.tenant,
                request_id=fact.submission.request_id,
                body=fact.submission.request_digest,
            )
        elif fact.kind is Kind.CANCEL_REQUESTED:
            yield Acknowledgement(
                execution_id=execution.execution_id, call=Call.CANCEL, time_ms=fact.time_ms, tenant=execution.tenant
            )


# ----------------------------------------------------------------------------- reading


def read_export(lines: Iterable[bytes]) -> Iterator[History]:
    """Yield the history of each execution in a file. Raises NotAnExport, which may come after some of them."""
    numbered = enumerate(lines, start=1)
    _check_head(next(numbered, (1, b""))[1])
    decoder = msgspec.json.Decoder(_Line)
    collected: _Collected | None = None
    count = 0
    for number, text in numbered:
        try:
            line = decoder.decode(text)
        except msgspec.DecodeError as error:  # msgspec's ValidationError is one too.
            raise NotAnExport(f"line {number} is none of an export: {error}") from error
        match line:
            case ExecutionLine():
                if collected is not None:
                    yield collected.history()
                collected = _Collected(line)
                count += 1
            case End():
                if collected is not None:
                    yield collected.history()
                _check_end(line, count, next(numbered, None))
                return
            case _:
                if collected is None:
                    raise NotAnExport(f"line {number} belongs to no execution: there is none before it")
                collected.add(line)
    raise NotAnExport('it was cut off: its last line should be the one that begins with {"line":"end"')


def _check_head(text: bytes) -> None:
    try:
        head = msgspec.json.decode(text, type=Head)
    except msgspec.DecodeError as error:
        raise NotAnExport(f"its first line is not that of an export: {error}") from error
    if head.format != FORMAT:
        raise NotAnExport(f"its format is {head.format!r}, not {FORMAT!r}")
    if head.version > VERSION:
        raise NotAnExport(f"it has version {head.version}, and this nodeflow reads up to {VERSION}: use a newer one")
    if head.version < 1:
        raise NotAnExport(f"it has version {head.version}, and the first one is 1")


def _check_end(end: End, count: int, after: tuple[int, bytes] | None) -> None:
    if end.execution_count != count:
        raise NotAnExport(f"its last line says {end.execution_count} executions, and it has {count}")
    if after is not None:
        raise NotAnExport(f"line {after[0]} comes after its end")


class _Collected:
    """The lines of one execution."""

    def __init__(self, line: ExecutionLine) -> None:
        self._line = line
        self._facts: list[Fact] = []
        self._attempts: list[Attempt] = []
        self._acknowledgements: list[Acknowledgement] = []

    def add(self, line: Fact | Attempt | Acknowledgement) -> None:
        """Take in a line."""
        match line:
            case Fact():
                self._facts.append(line)
            case Attempt():
                self._attempts.append(line)
            case Acknowledgement():
                self._acknowledgements.append(line)

    def history(self) -> History:
        """Return all of them."""
        line = self._line
        execution = ExecutionHistory(
            execution_id=line.execution_id,
            tenant=line.tenant,
            shard=line.shard,
            workflow=line.workflow,
            revision=line.revision,
            request_id=line.request_id,
            state=line.state,
            task_count=line.task_count,
            graph=line.nodes,
            facts=tuple(self._facts),
        )
        return History(
            executions=(execution,),
            attempts=tuple(self._attempts),
            acknowledgements=tuple(self._acknowledgements),
        )
