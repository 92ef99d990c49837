"""What a process is given: its command line, its environment, its standard input.

Owns the mapping from an attempt's arguments, and the names of the facts that every process is told. Must not know how
processes are started.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from nodeflow_worker.domain.values import JSON, MANIFEST, Attempt, Extra, Failure, FailureKind, Reason

SHELL: Final = ("/bin/sh", "-e")
OUTPUT_FILE: Final = "output"
WORK_DIRECTORY: Final = "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One start. `stdin` is None for nothing to read."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    stdin: bytes | None


class NotInvocable(Exception):
    """The arguments are none for a process; `failure` says why."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.failure = Failure(
            kind=FailureKind.PERMANENT, reason=Reason.ARGUMENTS_MISMATCH, message=problem, retryable=False
        )


def invocation_of(attempt: Attempt, environment: Mapping[str, str], root: str) -> Invocation:
    """What to start for an attempt whose directory is `root`; raises NotInvocable.

    The environment is the given one (clean already), then what the node names, then the engine's facts.
    """
    try:
        return _invocation(attempt, environment, root)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        # Values come from artifacts too, whose content types are only what somebody said.
        raise NotInvocable(f"the arguments cannot be used: {error!r}") from error


def _invocation(attempt: Attempt, environment: Mapping[str, str], root: str) -> Invocation:
    process = attempt.spec.process
    if process is None:
        raise NotInvocable("the task runs no process")
    given = _arguments(attempt)
    command = given.get("command")
    if process.script:
        argv: tuple[str, ...] = (*SHELL, "-c", process.script, attempt.spec.node or "script")
    elif isinstance(command, list) and command:
        argv = tuple(_text(word) for word in command)
    else:
        raise NotInvocable("the process has no command")
    named = given.get("env", {})
    if not isinstance(named, dict):
        raise NotInvocable("`env` is no object")
    whole = {"LANG": "C.UTF-8", "HOME": root, **environment, "TMPDIR": root}
    whole.update({name: _text(value) for name, value in named.items()})
    whole.update(facts(attempt, root))
    if any("\0" in each for each in (*argv, *whole, *whole.values())) or any("=" in name for name in whole):
        raise NotInvocable("an argument or an environment variable holds a character that no program can be given")
    return Invocation(argv=argv, environment=whole, stdin=_stdin(attempt, given))


def facts(attempt: Attempt, root: str) -> dict[str, str]:
    """What every process is told about its attempt."""
    told = {
        "NODEFLOW_EXECUTION_ID": attempt.execution_id,
        "NODEFLOW_WORKFLOW": attempt.spec.workflow,
        "NODEFLOW_NODE": attempt.spec.node,
        "NODEFLOW_TASK_NUMBER": str(attempt.task_number),
        "NODEFLOW_ATTEMPT_NUMBER": str(attempt.attempt_number),
        "NODEFLOW_OUTPUT": f"{root}/{OUTPUT_FILE}",
        "NODEFLOW_WORK_DIR": f"{root}/{WORK_DIRECTORY}",
    }
    if attempt.map_index is not None:
        told["NODEFLOW_MAP_INDEX"] = str(attempt.map_index)
    if attempt.spec.directory:
        told["NODEFLOW_WORKFLOW_DIR"] = attempt.spec.directory
    return told


def _arguments(attempt: Attempt) -> dict[str, Any]:  # Any: JSON of the user's
    try:
        given = json.loads(attempt.arguments or b"{}")
    except ValueError as error:
        raise NotInvocable(f"the arguments cannot be read: {error}") from None
    if not isinstance(given, dict):
        raise NotInvocable("the arguments are no object")
    return given


def _text(value: object) -> str:
    """A string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _stdin(attempt: Attempt, given: Mapping[str, object]) -> bytes | None:
    extra = next((each for each in attempt.extras if each.parameter == "stdin"), None)
    if extra is not None:
        return _stdin_of(extra)
    return _encoded(_text(given["stdin"])) if "stdin" in given else None


def _stdin_of(extra: Extra) -> bytes:
    if extra.content_type == MANIFEST:
        parts = dict(extra.parts)
        items = [
            parts[item["artifact"]["digest"]] if "artifact" in item else _encoded(_text(item["value"]))
            for item in json.loads(extra.data)
            if "artifact" in item or "value" in item
        ]
        return b"[" + b",".join(items) + b"]"
    if extra.content_type == JSON and extra.data[:1] == b'"':
        with suppress(ValueError):  # a file of JSON lines goes by that name as well
            return _encoded(str(json.loads(extra.data)))
    return extra.data


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
