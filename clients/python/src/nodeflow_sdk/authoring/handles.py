"""What stands for a value that does not exist yet: an input of the workflow, the output of a node, a field of either.

Owns what may be done with it (pass it on, take a field or an item, order by it) and the refusal of everything that
would look at the value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn

from nodeflow_sdk.authoring.errors import WiringError, calling_place
from nodeflow_sdk.authoring.graph import Recording
from nodeflow_sdk.authoring.schemas import ANY, Schema, field_of, fields_of, item_of, types_of

_REMEDY: Final = "compute it inside a node, and pass that node's output on"


class Handle:
    """A value that is known only when the workflow runs."""

    def __init__(self, recording: Recording, expression: str, label: str, schema: Schema, hint: str) -> None:
        self._recording = recording
        self._expression = expression
        self._label = label
        self._schema = schema
        self._hint = hint

    def __repr__(self) -> str:
        return f"<{self._label}{f': {self._hint}' if self._hint else ''}>"

    def __getitem__(self, key: object) -> Handle:
        """Return a handle of a field or of an item."""
        types = types_of(self._schema)
        if isinstance(key, int) and not isinstance(key, bool):
            if key < 0:
                raise self._refusal(f"[{key}]", f"count items from 0, or {_REMEDY}")
            if "array" not in types:
                raise self._refusal(f"[{key}]", f"it is no list but {self._hint}")
            return self._inner(f"[{key}]", item_of(self._schema))
        if isinstance(key, str):
            if "object" not in types:
                raise self._refusal(f"[{key!r}]", f"it is no object but {self._hint}")
            return self._field(key, f"[{key!r}]")
        raise self._refusal(f"[{key!r}]", f"take a field by its name or an item by its number, or {_REMEDY}")

    def __getattr__(self, name: str) -> Handle:
        """Return a handle of a field of a dataclass; anything else there may be is not known yet."""
        if name.startswith("__") or "_recording" not in self.__dict__:
            raise AttributeError(name)
        if name not in (fields_of(self._schema) or ()):
            raise self._refusal(f".{name}", f'take a field with ["{name}"], or {_REMEDY}')
        return self._field(name, f".{name}")

    def _field(self, name: str, written: str) -> Handle:
        known = fields_of(self._schema)
        if known is not None and name not in known:
            raise self._refusal(written, f"its fields are {', '.join(known)}")
        if not name or any(each in name for each in '"\\\n${}'):
            raise self._refusal(written, f"such a name cannot stand in an expression; {_REMEDY}")
        plain = name.isascii() and name.isidentifier()
        return self._inner(f".{name}" if plain else f'["{name}"]', field_of(self._schema, name))

    def _inner(self, step: str, schema: Schema) -> Handle:
        return Handle(self._recording, f"{self._expression}{step}", f"{self._label}{step}", schema, "")

    def _refusal(self, written: str, remedy: str) -> WiringError:
        problem = f"{written} needs the value of {self._label}, which is known only when the workflow runs"
        return WiringError(calling_place(), problem, remedy)

    def _refuse(self, written: str, remedy: str) -> NoReturn:
        raise self._refusal(written, remedy)


class WorkflowInput(Handle):
    """An input of the workflow."""


class NodeOutput(Handle):
    """The output of a node; of a mapped node, the list of the outputs of its items."""

    def __init__(self, recording: Recording, node: str, label: str, schema: Schema = ANY, hint: str = "") -> None:
        super().__init__(recording, f"nodes.{node}.output", label, schema, hint)
        self._node = node

    def after(self, *others: NodeOutput) -> NodeOutput:
        """Let the node wait until others have completed, without taking their data; returns this handle."""
        for other in others:
            self._recording.order(self._node, node_behind(other, self._recording, "after"), calling_place())
        return self


def node_behind(other: object, recording: Recording, what: str) -> str:
    """Return the node that a handle comes from; raises WiringError if there is none in this workflow."""
    if not isinstance(other, NodeOutput):
        raise WiringError(
            calling_place(), f"{what}() takes outputs of nodes, not {other!r}", "pass what the call of a node returned"
        )
    if other._recording is not recording:  # noqa: SLF001  # handles are one thing, in two places
        raise foreign(other, recording)
    return other._node  # noqa: SLF001


def foreign(handle: Handle, recording: Recording | None) -> WiringError:
    """Return the error of using a handle outside of its workflow."""
    own = handle._recording  # noqa: SLF001
    where = f"in {recording}" if recording is not None else "outside of it"
    return WiringError(
        calling_place(),
        f"{handle!r} belongs to {own} and is used {where}",
        "pass values between workflows by running them",
    )


def _refusing(written: str, remedy: str) -> Callable[..., NoReturn]:
    def method(self: Handle, *_: object, **__: object) -> NoReturn:
        self._refuse(written, remedy)

    return method


_TEXT: Final = "build the text inside a node"
_ASKING: Final = (
    ("a condition (if, while, and, or, not)", ("bool",), "use when= of the node that depends on it"),
    ("iteration", ("iter", "reversed"), "map a node over it: some_node.map(…)"),
    ("str() (also of print)", ("str",), _TEXT),
    ("an f-string", ("format",), _TEXT),
    ("a set or the key of a dict", ("hash",), "use it as a value, or in a list"),
    ("len()", ("len",), _REMEDY),
    ("in", ("contains",), _REMEDY),
    ("a call", ("call",), _REMEDY),
    ("+", ("add", "radd", "iadd"), _REMEDY),
    ("-", ("sub", "rsub", "isub", "neg"), _REMEDY),
    ("*", ("mul", "rmul", "imul"), _REMEDY),
    ("/", ("truediv", "rtruediv"), _REMEDY),
    ("//", ("floordiv", "rfloordiv"), _REMEDY),
    ("%", ("mod", "rmod"), _REMEDY),
    ("**", ("pow", "rpow"), _REMEDY),
    ("@", ("matmul", "rmatmul"), _REMEDY),
    ("&", ("and", "rand"), _REMEDY),
    ("|", ("or", "ror"), _REMEDY),
    ("^", ("xor", "rxor"), _REMEDY),
    ("<<", ("lshift", "rlshift"), _REMEDY),
    (">>", ("rshift", "rrshift"), _REMEDY),
    ("==", ("eq",), _REMEDY),
    ("!=", ("ne",), _REMEDY),
    ("<", ("lt",), _REMEDY),
    ("<=", ("le",), _REMEDY),
    (">", ("gt",), _REMEDY),
    (">=", ("ge",), _REMEDY),
    ("abs()", ("abs",), _REMEDY),
    ("int()", ("int", "index", "trunc"), _REMEDY),
    ("float()", ("float", "complex"), _REMEDY),
    ("round()", ("round", "floor", "ceil"), _REMEDY),
    ("bytes()", ("bytes",), _REMEDY),
    ("open() and Path()", ("fspath",), _REMEDY),
    ("await", ("await",), "a workflow only wires nodes: write it with def, without await"),
    ("with", ("enter", "exit"), _REMEDY),
)
"""All that Python might ask of a value: what was written, the methods behind it, and what to do instead."""

for _written, _names, _remedy in _ASKING:
    for _name in _names:
        setattr(Handle, f"__{_name}__", _refusing(_written, _remedy))
