"""The `process` of a node, compiled: what is the same for all its tasks, and what each is given.

Owns the rules that span its fields, and that no value of a user ever becomes a part of a script's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from nodeflow_scheduler.domain.document_faults import FaultList, Path, short
from nodeflow_scheduler.domain.document_model import ProcessModel
from nodeflow_scheduler.domain.expressions import Arguments, Expression
from nodeflow_scheduler.domain.json_text import JsonValue, kind
from nodeflow_scheduler.domain.templates import Hole, Names, compile_value, split
from nodeflow_scheduler.domain.workflow import ProcessLimits, ProcessSpec

OWN_PREFIX: Final = "NODEFLOW_"
"""Environment variables of this prefix are the engine's facts of the attempt."""

MATRIX_PREFIX: Final = "MATRIX_"
"""Environment variables of this prefix are a job's values of its matrix."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS: Final = re.compile(r"\s*((inputs|nodes|jobs|execution|item|index|matrix)\s*[.\[]|[A-Za-z_]\w*\s*\()")
"""What is an expression for certain: no shell has a variable of such a name."""
_MATRIX: Final = re.compile(r"\s*matrix\.(\w+)\s*")
_PER_ITEM: Final = re.compile(r"\s*(item|index)\s*")
_COMMAND_HINT: Final = 'such as command: ["sort", "-u", "${inputs.path}"]'


def compile_process(
    model: ProcessModel, names: Names, faults: FaultList, place: Path, *, script: str = "script"
) -> tuple[ProcessSpec, Arguments]:
    """What runs, and its arguments: `command`, `env` and `stdin`, each as far as the document has it.

    `script` is what the document calls that field.
    """
    _check_program(model, names, faults, place, script)
    for position, pattern in enumerate(model.artifacts):
        _check_pattern(pattern, faults, (*place, "artifacts", position))
    limits = model.limits
    spec = ProcessSpec(
        script=model.script or "",
        command=_shown(model),
        artifacts=tuple(model.artifacts),
        limits=ProcessLimits(
            memory_bytes=limits.memory or 0,
            cpu_time_ms=limits.cpu_time or 0,
            open_files=limits.open_files or 0,
            directory_bytes=limits.directory or 0,
        ),
    )
    return spec, Arguments(dict(_given(model, names, faults, place)))


def _given(model: ProcessModel, names: Names, faults: FaultList, place: Path) -> Iterator[tuple[str, Expression]]:
    if model.command is not None:
        yield "command", compile_value(model.command, names, faults, (*place, "command"))
    if model.env:
        check_environment(model.env, faults, (*place, "env"))
        yield "env", compile_value(model.env, names, faults, (*place, "env"))
    if "stdin" in model.model_fields_set:
        yield "stdin", compile_value(model.stdin, names, faults, (*place, "stdin"))


def _check_program(model: ProcessModel, names: Names, faults: FaultList, place: Path, script: str) -> None:
    if (model.command is None) == (model.script is None):
        both = model.command is not None
        what = "has both `command` and `script`" if both else "has neither `command` nor `script`"
        faults.add(place, what, "take one out" if both else f"{_COMMAND_HINT}, or script: |")
    if model.command is not None:
        _check_command(model.command, faults, (*place, "command"))
    if model.script is not None:
        _check_script(model.script, names, faults, (*place, script))


def _check_command(command: list[JsonValue], faults: FaultList, place: Path) -> None:
    if not command or command[0] == "":
        faults.add(place, "names no program", _COMMAND_HINT)
    for position, word in enumerate(command):
        _check_word(word, faults, (*place, position), "join its parts, or pass them by `stdin`")


def check_environment(environment: Mapping[str, JsonValue], faults: FaultList, place: Path) -> None:
    """Note what cannot be an environment variable."""
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name):
            hint = "use letters, digits and _, no digit first"
            faults.add((*place, name), f"{short(name)!r} cannot be the name of an environment variable", hint)
        elif name.startswith(OWN_PREFIX):
            faults.add((*place, name), f"{OWN_PREFIX}… is told by the engine", "choose another name")
        else:
            _check_word(value, faults, (*place, name), "write text, or an expression")


def _check_word(word: JsonValue, faults: FaultList, place: Path, hint: str) -> None:
    if isinstance(word, list | dict) or word is None:
        faults.add(place, f"must be text, not {kind(word)}", hint)
    elif isinstance(word, str) and "\0" in word:
        faults.add(place, "holds a zero byte, which no program can be given", "take it out")


def _check_script(script: str, names: Names, faults: FaultList, place: Path) -> None:
    """Values come by the environment: spliced into the text, they could be read as commands."""
    if not script.strip():
        faults.add(place, "is empty", "write what /bin/sh is to run")
    if "\0" in script:
        faults.add(place, "holds a zero byte, which no shell reads", "take it out")
    for part in split(script):
        if not isinstance(part, Hole):
            continue
        if (matrix := _MATRIX.fullmatch(part.text)) is not None:
            hint = f'write "${MATRIX_PREFIX}{matrix[1].upper()}", a variable of the environment'
            faults.add(place, f"${{{short(part.text.strip())}}} cannot stand in a script", hint)
        elif _OURS.match(part.text) or (names.item and _PER_ITEM.fullmatch(part.text)):
            text = short(part.text.strip())
            hint = f'pass it by env: {{VALUE: "${{{text}}}"}}, and write "$VALUE" in the script'
            faults.add(place, f"${{{text}}} cannot stand in a script", hint)


def _check_pattern(pattern: str, faults: FaultList, place: Path) -> None:
    steps = pattern.split("/")
    if not pattern or pattern.startswith("/") or ".." in steps or "\0" in pattern:
        hint = "such as out/*.csv, below the working directory"
        faults.add(place, f"{short(pattern)!r} is not a path below the working directory", hint)


def _shown(model: ProcessModel) -> str:
    """The command line for people; of a script its first line."""
    if model.command is not None:
        return short(" ".join(str(word) for word in model.command), 200)
    lines = [line.strip() for line in (model.script or "").splitlines() if line.strip() and line[0] != "#"]
    return short(lines[0], 200) if lines else ""
