"""`process(…)`: a command or a script as a node.

Owns the placeholders of a command, and their form in a document. Must not know how a process is run.
"""

import inspect
import json
import shlex
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from nodeflow_sdk.authoring.errors import Place, WiringError, calling_place
from nodeflow_sdk.authoring.graph import Recording, current_recording
from nodeflow_sdk.authoring.handles import NodeOutput, node_behind
from nodeflow_sdk.authoring.hints import Hints
from nodeflow_sdk.authoring.options import Backoff, Duration, NodeOptions, duration
from nodeflow_sdk.authoring.vertex import Vertex

_UNREADABLE: Final = "write {name} for a value, {{ and }} for braces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a process and all that it starts may use together; one that is exceeded ends it, and is named."""

    memory: str = ""
    """Resident: `"512Mi"`, `"2Gi"`."""
    cpu_time: Duration | None = None
    open_files: int | None = None
    directory: str = ""
    """All files that it keeps, like `memory`."""

    def document(self) -> dict[str, object]:
        """Return its form in a document; raises ValueError."""
        cpu_time = None if self.cpu_time is None else duration("cpu_time", self.cpu_time)
        fields = {
            "memory": self.memory,
            "cpu_time": cpu_time,
            "open_files": self.open_files,
            "directory": self.directory,
        }
        return {name: value for name, value in fields.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What runs: texts with placeholders."""

    command: tuple[str, ...] = ()
    script: str = ""
    env: Mapping[str, str]
    stdin: str | None = None
    rest: Mapping[str, object]
    """Fields of the document without placeholders."""

    def parameters(self) -> list[str]:
        """Return the names of the placeholders in the order in which they appear; raises ValueError."""
        texts = [*self.command, *self.env.values(), *([self.stdin] if self.stdin is not None else [])]
        names = [name for text in texts for _, name in _pieces(text) if name is not None]
        return list(dict.fromkeys(names))

    def document(self, arguments: Mapping[str, object]) -> dict[str, object]:
        """Return the process as a document has it, with arguments in the place of placeholders."""
        fields: dict[str, object] = (
            {"script": self.script} if self.script else {"command": [_filled(text, arguments) for text in self.command]}
        )
        if self.env:
            fields["env"] = {name: _filled(text, arguments) for name, text in self.env.items()}
        if self.stdin is not None:
            fields["stdin"] = _filled(self.stdin, arguments)
        return {"process": {**fields, **self.rest}}


class Process:
    """A command or a script as a node; its placeholders are its parameters, in the order in which they appear."""

    def __init__(self, vertex: Vertex, place: Place) -> None:
        self._vertex = vertex
        self._place = place

    def __repr__(self) -> str:
        return f"<process {self._vertex.title}>"

    @property
    def title(self) -> str:
        """The name of its first node in a workflow; the next ones are `title_2` and so on."""
        return self._vertex.title

    def __call__(self, *args: object, **kwargs: object) -> Any:  # noqa: ANN401  # what it writes is any JSON value
        """Record a call in a workflow; the output is what the process writes to the file that NODEFLOW_OUTPUT names."""
        return self._vertex.called(self._recording(), calling_place(), args, kwargs)

    def map(self, items: Iterable[Any], **kwargs: object) -> Any:  # noqa: ANN401
        """Run once for each item, which is the first parameter that is not among `kwargs`."""
        return self._vertex.mapped(self._recording(), calling_place(), items, kwargs)

    def after(self, *others: object) -> "Process":
        """Return this node such that its next call waits for others to complete."""
        recording = self._recording()
        for other in others:
            node_behind(other, recording, "after")
        outputs = tuple(each for each in others if isinstance(each, NodeOutput))
        return Process(replace(self._vertex, after=(*self._vertex.after, *outputs)), self._place)

    def _recording(self) -> Recording:
        recording = current_recording()
        if recording is None:
            problem = f"process {self._vertex.title} is called outside of a workflow"
            raise WiringError(
                calling_place(), problem, "processes run on workers; call it in a function with @workflow"
            )
        return recording


def process(
    command: str | Sequence[str] = (),
    /,
    *,
    script: str = "",
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    artifacts: Sequence[str] = (),
    limits: Limits | None = None,
    name: str = "",
    retries: int = 0,
    backoff: Backoff | None = None,
    timeout: Duration | None = None,
    when: str | bool | None = None,
) -> Process:
    """Make a node of a command: `sort = process("sort -u {path}")`, which a workflow calls as `sort(path)`.

    No shell reads a command: a value stays one argument whatever is in it. `script` is for `/bin/sh -e`, without
    placeholders: it gets values by `env`, such as `env={"FILE": "{path}"}`. `stdin="{text}"` gives a value to standard
    input. `artifacts` are globs of files that it leaves. The other options are those of `@node`. Raises WiringError.
    """
    place = calling_place()
    options = NodeOptions(name=name, retries=retries, backoff=backoff, timeout=timeout, when=when)
    try:
        words = tuple(shlex.split(command) if isinstance(command, str) else command)
        if bool(words) == bool(script):
            raise ValueError("takes either a command or a script")
        rest: dict[str, object] = {"artifacts": list(artifacts)} if artifacts else {}
        if limits is not None:
            rest["limits"] = limits.document()
        program = Program(command=words, script=script, env=env or {}, stdin=stdin, rest=rest)
        title = name or _title(words)
        vertex = Vertex(title=title, hints=_hints(program), options=options.document(), executes=program.document)
    except ValueError as error:
        raise WiringError(place, f"process(): {error}") from None
    return Process(vertex, place)


def _hints(program: Program) -> Hints:
    names = program.parameters()
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    return Hints(signature=inspect.Signature(parameters), parameters=dict.fromkeys(names, Any), result=Any)


def _title(words: Sequence[str]) -> str:
    if not words:
        return "script"
    program = words[0].rpartition("/")[2]
    made = "".join(each if each.isascii() and (each.isalnum() or each in "_-") else "_" for each in program)[:63]
    return made if made[:1].isalpha() else f"_{made}"[:63]


def _pieces(text: str) -> list[tuple[str, str | None]]:
    """Return literal texts, each with the name of the placeholder that follows it; raises ValueError."""
    try:
        found = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be read ({error}); {_UNREADABLE}") from None
    for _, name, specification, conversion in found:
        if name is not None and (not name.isidentifier() or specification or conversion):
            raise ValueError(f"{text!r} has the placeholder {{{name}}}, which is no name; {_UNREADABLE}")
    return [(literal, name) for literal, name, _, _ in found]


def _filled(text: str, arguments: Mapping[str, object]) -> object:
    """Return a text as a document has it; one that is a placeholder alone is the value itself."""
    pieces = _pieces(text)
    if len(pieces) == 1 and not pieces[0][0] and pieces[0][1] is not None:
        return arguments[pieces[0][1]]
    filled = ""
    for literal, name in pieces:
        filled = _joined(filled, literal.replace("${", "$${"))
        if name is not None:
            value = arguments[name]
            filled = _joined(filled, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return filled


def _joined(before: str, after: str) -> str:
    """Return two texts of a document as one: dollar signs at the end of the first stay what they are."""
    text = before.rstrip("$")
    dollars = before[len(text) :]
    if dollars and after.startswith("${"):
        # They would escape the expression behind them.
        return f"{text}${{'{dollars}'}}{after}"
    if dollars and after.startswith("{"):
        # The last of them would begin an expression.
        return f"{before}${after}"
    return before + after
