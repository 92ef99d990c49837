"""How processes end, in the words of results and failures.

Owns the named failures, and the two forms of an output file. Must not know how processes are watched.
"""

import json
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

from nodeflow_worker.domain.values import Failure, FailureKind, ProcessSpec, Reason

MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
MAX_ARTIFACTS: Final = 1_000
STDERR_KEPT_BYTES: Final = 64 * 1024
STDERR_LINES: Final = 20
STDERR_CHARS: Final = 4_096

_LINE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)=(.*)")
_TOO_MANY_FILES: Final = b"Too many open files"


class Limit(StrEnum):
    """What a process may use only so much of; the values are those that the launcher tells."""

    MEMORY = "memory"
    CPU_TIME = "cpu_time"
    DIRECTORY = "directory"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExit:
    """The end of a process: its exit code (or minus the signal that ended it), and the end of its stderr."""

    code: int
    exceeded: Limit | None = None
    stderr: bytes = b""


def failure_of(end: ProcessExit, process: ProcessSpec) -> Failure | None:
    """Why an end is a failure; None if it is none."""
    limits = process.limits
    said = _last_lines(end.stderr)
    match end.exceeded:
        case Limit.MEMORY:
            return _user(Reason.MEMORY_LIMIT, f"it used more than {limits.memory_bytes:,} bytes of memory{said}")
        case Limit.CPU_TIME:
            return _user(Reason.CPU_TIME_LIMIT, f"it used more than {limits.cpu_time_s:g} s of processor time{said}")
        case Limit.DIRECTORY:
            what = f"its files took more than {limits.directory_bytes:,} bytes"
            return _user(Reason.DIRECTORY_LIMIT, f"{what}{said}")
        case None:
            pass
    if end.code == 0:
        return None
    if limits.open_files and _TOO_MANY_FILES in end.stderr:
        return _user(Reason.OPEN_FILES_LIMIT, f"it wanted more than {limits.open_files} open files{said}")
    return _user(Reason.PROCESS_EXITED, f"{exit_in_words(end.code)}{said}")


def not_started(program: str, errno_text: str, *, permanent: bool) -> Failure:
    """It could not be started: there is no such program, or the machine lacks something."""
    return Failure(
        kind=FailureKind.PERMANENT if permanent else FailureKind.SYSTEM,
        reason=Reason.COMMAND_NOT_FOUND if permanent else Reason.PROCESS_NOT_STARTED,
        message=f"{program!r} could not be started: {errno_text}",
        retryable=not permanent,
    )


def launcher_lost() -> Failure:
    """What starts and watches processes is gone, and they with it."""
    message = "the process was ended together with the launcher that watched it"
    return Failure(kind=FailureKind.SYSTEM, reason=Reason.RUNNER_LOST, message=message, retryable=True)


def artifacts_missing(patterns: Sequence[str]) -> Failure:
    """Declared files are not there."""
    named = ", ".join(map(repr, patterns))
    return _user(Reason.ARTIFACTS_MISSING, f"it left no files that match {named}, which its node declares as artifacts")


def too_many_artifacts() -> Failure:
    """Globs match more than anybody can have meant."""
    message = f"its artifacts are more than {MAX_ARTIFACTS:,} files, which is the most that is kept: pack them into one"
    return Failure(kind=FailureKind.PERMANENT, reason=Reason.TOO_MANY_ARTIFACTS, message=message, retryable=False)


def read_output(data: bytes) -> bytes | Failure:
    """The output as JSON: a JSON document as it is, `name=value` lines as an object of strings, null for nothing."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return _bad_output(f"it is not UTF-8 text: byte {error.start} is wrong")
    text = text.strip()
    if not text:
        return b"null"
    lines = [_LINE.fullmatch(line.rstrip("\r")) for line in text.split("\n") if line.strip()]
    if all(lines):
        return _json({line[1]: line[2] for line in lines if line is not None})
    try:
        return _json(json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError) as error:
        if text[0] in '{["':
            return _bad_output(f"it begins like JSON and is none: {error}")
    wrong = next(number for number, line in enumerate(lines, start=1) if line is None)
    return _bad_output(f"line {wrong} of it is not name=value, and the whole is not JSON")


def not_readable(cause: str) -> Failure:
    """What it left cannot be looked at: it took rights away from itself, for one."""
    return _user(Reason.OUTPUT_INVALID, f"its output or its artifacts cannot be read: {cause}")


def output_too_large(size: int) -> Failure:
    """The output file has more than anybody can take."""
    message = f"its output has {size:,} bytes; {MAX_OUTPUT_BYTES:,} at most are read: declare the file as an artifact"
    return Failure(kind=FailureKind.PERMANENT, reason=Reason.RESULT_TOO_LARGE, message=message, retryable=False)


def exit_in_words(code: int) -> str:
    """How a process ended."""
    if code >= 0:
        return f"it exited with code {code}"
    try:
        return f"it was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"it was ended by signal {-code}"


def _bad_output(problem: str) -> Failure:
    return _user(Reason.OUTPUT_INVALID, f"what it wrote to NODEFLOW_OUTPUT cannot be used: {problem}")


def _user(reason: Reason, message: str) -> Failure:
    return Failure(kind=FailureKind.USER, reason=reason, message=message, retryable=True)


def _last_lines(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").rstrip().splitlines()[-STDERR_LINES:]
    text = "\n".join(lines)[-STDERR_CHARS:]
    return f"; its last words:\n{text}" if text else ""


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
