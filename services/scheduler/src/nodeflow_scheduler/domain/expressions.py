"""Expressions at run time: what `${…}` gives for one task of one execution.

Owns evaluation and the rendering of arguments. `templates` makes these from a document; nothing here parses text.
Must not know where a scope's values come from. A plain reference is passed on as the bytes that it is: only CEL,
paths into a value and interpolations decode anything, and only values up to 64 KiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol

import cel

from nodeflow_scheduler.domain import json_text
from nodeflow_scheduler.domain.cel_cost import Shape
from nodeflow_scheduler.domain.json_text import JsonValue
from nodeflow_scheduler.domain.values import INLINE_LIMIT_BYTES, Artifacts, Stored, Value
from nodeflow_shared.errors import InvalidInput

ARGUMENTS_LIMIT_BYTES: Final = 1024 * 1024
"""All inline arguments of one task together, and the result of one expression."""
JOINED_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""A text, list or object that is put together from values: an output of an execution may be stored."""
FEW: Final = 16
"""So many parameters may be put together before anybody asks how large they are."""
TEXT_SHOWN: Final = 200

ARGUMENTS_TOO_LARGE: Final = "ARGUMENTS_TOO_LARGE"
VALUE_TOO_LARGE: Final = "VALUE_TOO_LARGE"
EXPRESSION_FAILED: Final = "EXPRESSION_FAILED"

NO_NODES: Final[frozenset[int]] = frozenset()


class ExpressionError(InvalidInput):
    """An expression gives no value for the values at hand; `expression` is its text, `problem` what is wrong."""

    def __init__(self, expression: str, problem: str, *, reason: str = EXPRESSION_FAILED) -> None:
        super().__init__(f"{expression}: {problem}", reason=reason, metadata={"expression": expression[:200]})
        self.expression = expression
        self.problem = problem


class Scope(Protocol):
    """What an execution gives to the expressions of one of its tasks."""

    def input(self, name: str) -> Value:
        """One input; every declared input has a value."""
        ...

    def inputs(self) -> bytes:
        """All inputs, as one JSON object."""
        ...

    def output(self, node: int) -> Value:
        """The output of a node; of a mapped node the list of its tasks' outputs; null of a skipped one."""
        ...

    def outputs_of(self, nodes: Sequence[int]) -> list[Value]:
        """The outputs of nodes, in their order: a call for all that a task gets."""
        ...

    def state_of(self, node: int) -> Value:
        """The state of a node that has come to its end, such as "COMPLETED"."""
        ...

    def files_of(self, node: int) -> Sequence[Artifacts]:
        """The files that a node leaves, by path; of a mapped one those of each of its tasks."""
        ...

    def item(self) -> Value:
        """The item of a mapped node's task."""
        ...

    def index(self) -> int:
        """The place of that item in its list, from 0."""
        ...

    def execution(self) -> Mapping[str, object]:
        """Facts of the execution: `id`, `workflow`, `revision`, `tenant`, `create_time` (RFC 3339)."""
        ...


class Expression(Protocol):
    """A value in a document that may depend on the execution."""

    @property
    def text(self) -> str:
        """How it is written, for messages."""
        ...

    @property
    def nodes(self) -> frozenset[int]:
        """The nodes whose outputs it reads."""
        ...

    def evaluate(self, scope: Scope) -> Value:
        """Its value; raises ExpressionError."""
        ...


Getter = Callable[[Scope], Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The same JSON in every execution."""

    json: bytes
    text: str = ""
    nodes: frozenset[int] = NO_NODES

    def evaluate(self, scope: Scope) -> Value:  # noqa: ARG002 -- a constant needs none
        """The constant itself."""
        return self.json


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A whole value of the scope, passed on without being decoded."""

    text: str
    getter: Getter
    nodes: frozenset[int] = NO_NODES
    output_of: int | None = None
    """The node, if the value is a node's output."""

    def evaluate(self, scope: Scope) -> Value:
        """The value as the scope holds it, which may be a Stored one."""
        return self.getter(scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A place inside a value of the scope, such as `item.path` or `inputs.rows[0].name`: found without CEL."""

    text: str
    root: Reference
    steps: tuple[str | int, ...]

    @property
    def nodes(self) -> frozenset[int]:
        """Those of its root."""
        return self.root.nodes

    def evaluate(self, scope: Scope) -> Value:
        """The JSON of what is found there."""
        value = _decoded(self.root.evaluate(scope), self.root.text, self.text)
        reached = self.root.text
        for step in self.steps:
            value = self._step(value, step, reached)
            reached += f".{step}" if isinstance(step, str) else f"[{step}]"
        return json_text.encode(value)

    def _step(self, value: JsonValue, step: str | int, reached: str) -> JsonValue:
        if isinstance(step, str) and isinstance(value, dict):
            if step in value:
                return value[step]
            raise ExpressionError(self.text, f"{reached} has no field {step!r}; it has {_some(value)}")
        if isinstance(step, int) and isinstance(value, list):
            if step < len(value):
                return value[step]
            raise ExpressionError(self.text, f"{reached} has {len(value)} items, so none at [{step}]")
        wanted = f"field {step!r}" if isinstance(step, str) else f"item [{step}]"
        raise ExpressionError(self.text, f"{reached} is {json_text.kind(value)}, which has no {wanted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A value that a CEL expression reads: where it stands among CEL's variables, and where it comes from."""

    place: tuple[str, ...]
    source: Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Cel:
    """Anything that must be computed. Only the values that it reads are decoded."""

    text: str
    program: cel.Program
    uses: tuple[Use, ...]
    shape: Shape
    nodes: frozenset[int] = NO_NODES

    def evaluate(self, scope: Scope) -> Value:
        """The JSON of the result: timestamps as RFC 3339 strings, durations as seconds (`"1.5s"`)."""
        variables: dict[str, JsonValue] = {}
        values: list[JsonValue] = []
        for use in self.uses:
            value = _decoded(use.source.evaluate(scope), use.source.text, self.text)
            values.append(value)
            _put(variables, use.place, value)
        refusal = self.shape.refusal(values)
        if refusal:
            raise ExpressionError(self.text, refusal)
        try:
            result = json_text.encode(_run(self.program, variables), default=_json_form)
        except (ValueError, TypeError) as error:
            raise ExpressionError(self.text, f"its result is no JSON value: {error}") from None
        except _CelFailed as failure:
            raise ExpressionError(self.text, str(failure)) from None
        if len(result) > ARGUMENTS_LIMIT_BYTES:
            raise ExpressionError(
                self.text, f"its result has {len(result):,} bytes; at most {ARGUMENTS_LIMIT_BYTES:,} are allowed"
            )
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolation:
    """A string with expressions in it: strings are put in as they are, other values as compact JSON."""

    text: str
    parts: tuple[bytes | Expression, ...]
    """Bytes are text that is already escaped as inside a JSON string."""
    nodes: frozenset[int]

    def evaluate(self, scope: Scope) -> Value:
        """The JSON string."""
        parts = (part if isinstance(part, bytes) else self._inside(part, scope) for part in self.parts)
        return b'"' + _joined(self.text, parts) + b'"'

    def _inside(self, part: Expression, scope: Scope) -> bytes:
        value = part.evaluate(scope)
        if isinstance(value, bytes) and len(value) <= INLINE_LIMIT_BYTES and value.startswith(b'"'):
            return value.strip()[1:-1]
        decoded = _decoded(value, part.text, self.text)
        return json_text.encode(json_text.encode(decoded).decode())[1:-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A list or an object with expressions in it: their bytes joined with the JSON around them."""

    text: str
    parts: tuple[bytes | Expression, ...]
    nodes: frozenset[int]

    def evaluate(self, scope: Scope) -> Value:
        """The JSON of the whole."""
        parts = (part if isinstance(part, bytes) else self._inline(part, scope) for part in self.parts)
        return _joined(self.text, parts)

    def _inline(self, part: Expression, scope: Scope) -> bytes:
        value = part.evaluate(scope)
        if isinstance(value, bytes):
            return value
        raise _too_large(self.text, part.text, value)


class Rendered(NamedTuple):
    """The arguments of one task. A named tuple, as it is made once per task: half the price of a frozen dataclass."""

    arguments: bytes
    """The JSON object of all inline arguments."""
    references: tuple[tuple[str, Stored], ...] = ()
    """Parameters whose values are stored, by name; they are not in `arguments`."""


class Arguments:
    """The `with` mapping of a node, compiled."""

    __slots__ = ("_constant", "_getters", "_outputs", "_parts", "_whole", "expressions", "nodes")

    def __init__(self, expressions: Mapping[str, Expression]) -> None:
        self.expressions = dict(expressions)
        """By parameter."""
        self.nodes: frozenset[int] = frozenset().union(*(each.nodes for each in self.expressions.values()))
        """The nodes whose outputs the arguments read."""
        # Odd places are filled by the getters at each rendering; what stands between them never changes.
        self._parts: list[bytes | Stored] = [b"{"]
        getters: list[Getter] = []
        outputs: list[int] = []
        for position, (name, expression) in enumerate(self.expressions.items()):
            self._extend((b"," if position else b"") + json_text.encode(name) + b":")
            if isinstance(expression, Constant):
                self._extend(expression.json)
            else:
                getters.append(expression.getter if isinstance(expression, Reference) else expression.evaluate)
                if isinstance(expression, Reference) and expression.output_of is not None:
                    outputs.append(expression.output_of)
                self._parts += (b"null", b"")
        self._extend(b"}")
        self._getters = tuple(getters)
        self._outputs = tuple(outputs) if len(outputs) == len(getters) <= FEW else None
        self._constant = None if getters else Rendered(self._inline_only(self._parts))
        self._whole = tuple(each.getter for each in self.expressions.values() if isinstance(each, Reference))

    def render(self, scope: Scope) -> Rendered:
        """The arguments for one task; raises ExpressionError.

        The hot path of the scheduler: mostly one call of the scope and one join.
        """
        if self._constant is not None:
            return self._constant
        if self._outputs is not None:
            values = scope.outputs_of(self._outputs)
        elif len(self._getters) <= FEW:
            values = [getter(scope) for getter in self._getters]
        else:
            values = self._many(scope)
        parts = self._parts.copy()
        parts[1::2] = values
        try:
            arguments = b"".join(parts)  # type: ignore[arg-type]  # a Stored value is the rare case, told by the TypeError
        except TypeError:
            return self._with_references(values)
        if len(arguments) > ARGUMENTS_LIMIT_BYTES:
            raise _arguments_too_large(len(arguments))
        return Rendered(arguments)

    def stored(self, scope: Scope) -> Iterator[Stored]:
        """The values that are passed on as they are stored, without computing anything: what is computed never is."""
        return (value for getter in self._whole if isinstance(value := getter(scope), Stored))

    def _many(self, scope: Scope) -> list[Value]:
        """The values of many parameters, as far as they can be passed together."""
        values: list[Value] = []
        size = 0
        for getter in self._getters:
            value = getter(scope)
            size += 0 if isinstance(value, Stored) else len(value)
            if size > ARGUMENTS_LIMIT_BYTES:
                raise _arguments_too_large(size)
            values.append(value)
        return values

    def _extend(self, constant: bytes) -> None:
        last = self._parts[-1]
        assert isinstance(last, bytes)
        self._parts[-1] = last + constant

    def _inline_only(self, parts: list[bytes | Stored]) -> bytes:
        return b"".join(part for part in parts if isinstance(part, bytes))

    def _with_references(self, values: list[Value]) -> Rendered:
        rest = iter(values)
        inline: list[bytes] = []
        references: list[tuple[str, Stored]] = []
        for name, expression in self.expressions.items():
            value = expression.json if isinstance(expression, Constant) else next(rest)
            if isinstance(value, Stored):
                references.append((name, value))
            else:
                inline.append(json_text.encode(name) + b":" + value)
        arguments = b"{" + b",".join(inline) + b"}"
        if len(arguments) > ARGUMENTS_LIMIT_BYTES:
            raise _arguments_too_large(len(arguments))
        return Rendered(arguments, tuple(references))


def truth(expression: Expression, scope: Scope) -> bool:
    """The value of a condition; raises ExpressionError when it is not a boolean."""
    value = expression.evaluate(scope)
    if value == b"true":
        return True
    if value == b"false":
        return False
    decoded = _decoded(value, expression.text, expression.text)
    if isinstance(decoded, bool):
        return decoded
    shown = json_text.encode(decoded).decode()
    shown = shown if len(shown) <= 60 else shown[:60] + "…"
    what = "null" if decoded is None else f"{json_text.kind(decoded)}, {shown}"
    raise ExpressionError(expression.text, f"a condition must give true or false; this gave {what}")


class _CelFailed(Exception):
    """CEL gave no result; the message is for the user."""


def _run(program: cel.Program, variables: dict[str, JsonValue]) -> object:
    """The result of CEL; raises _CelFailed."""
    try:
        return program.execute(variables)
    except KeyError as error:
        raise _CelFailed(f"there is no field {error.args[0]!r}") from None
    except TypeError as error:
        raise _CelFailed(str(error).partition(" CEL does not")[0]) from None
    except (ValueError, RuntimeError, ArithmeticError, LookupError, RecursionError) as error:
        raise _CelFailed(str(error).partition(" Check ")[0]) from None
    except BaseException as error:
        # A panic of the library is no Exception; it must cost one expression, not the scheduler.
        if type(error).__name__ != "PanicException":
            raise
        raise _CelFailed("CEL cannot evaluate this") from None


def _json_form(value: object) -> object:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"
        case bytes():
            raise TypeError("bytes; give text or base64")
        case _:
            raise TypeError(f"a value of CEL's type {type(value).__name__}")


def _decoded(value: Value, name: str, text: str) -> JsonValue:
    if not isinstance(value, bytes) or len(value) > INLINE_LIMIT_BYTES:
        raise _too_large(text, name, value)
    try:
        return json_text.decode(value)
    except ValueError as error:
        raise ExpressionError(text, f"{name} cannot be read: {error}") from None


def _put(variables: dict[str, JsonValue], place: tuple[str, ...], value: JsonValue) -> None:
    level = variables
    for name in place[:-1]:
        inner = level.setdefault(name, {})
        assert isinstance(inner, dict)
        level = inner
    level[place[-1]] = value


def _some(fields: Mapping[str, object]) -> str:
    shown = ", ".join(list(fields)[:8])
    if not shown:
        return "none"
    return shown + (", …" if len(fields) > 8 else "")


def _joined(text: str, parts: Iterable[bytes]) -> bytes:
    """The parts of a value in one; a document may name the same large value any number of times."""
    taken: list[bytes] = []
    size = 0
    for part in parts:
        size += len(part)
        if size > JOINED_LIMIT_BYTES:
            problem = f"it has more than {JOINED_LIMIT_BYTES:,} bytes, too many for one value"
            raise ExpressionError(text[:TEXT_SHOWN], problem, reason=VALUE_TOO_LARGE)
        taken.append(part)
    return b"".join(taken)


def _too_large(text: str, name: str, value: Value) -> ExpressionError:
    size = len(value) if isinstance(value, bytes) else value.size_bytes or len(value.data)
    remedy = f"pass it whole as a parameter: ${{{name}}}"
    if isinstance(value, Stored) and size <= INLINE_LIMIT_BYTES:
        return ExpressionError(
            text, f"{name} is stored as {value.content_type}, not inline JSON; {remedy}", reason=VALUE_TOO_LARGE
        )
    limit = f"expressions compute with values of up to {INLINE_LIMIT_BYTES:,} bytes"
    return ExpressionError(text, f"{name} is too large ({size:,} bytes): {limit}; {remedy}", reason=VALUE_TOO_LARGE)


def _arguments_too_large(size: int) -> ExpressionError:
    return ExpressionError(
        "with",
        f"the arguments have {size:,} bytes together; at most {ARGUMENTS_LIMIT_BYTES:,} are passed inline",
        reason=ARGUMENTS_TOO_LARGE,
    )
