"""Values of a document with `${…}` in them, compiled to expressions.

Owns the notation: what is a constant, a reference, CEL, an interpolation; and every fault that can be found before
anything runs. Knows nothing of the rest of the document: `Names` says what an expression may refer to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Final, Literal

import cel

from nodeflow_scheduler.domain import json_text
from nodeflow_scheduler.domain.cel_cost import MACROS, shape_of
from nodeflow_scheduler.domain.cel_source import ROOTS, Access, Token, accesses, bound_names, closing_brace, tokens
from nodeflow_scheduler.domain.document_faults import FaultList, Path, meant, short
from nodeflow_scheduler.domain.expressions import (
    NO_NODES,
    Cel,
    Constant,
    Expression,
    Getter,
    Interpolation,
    Reference,
    Scope,
    Structure,
    Use,
)
from nodeflow_scheduler.domain.expressions import Path as ValuePath
from nodeflow_scheduler.domain.json_text import JsonValue
from nodeflow_scheduler.domain.values import NULL, Value

EXPRESSION_LIMIT_CHARS: Final = 4096

EXECUTION_FACTS: Final = ("id", "workflow", "revision", "tenant", "create_time")

FUNCTIONS: Final = frozenset(
    {"bytes", "contains", "double", "duration", "dyn", "endsWith", "int", "matches", "size", "startsWith", "string"}
    | {"timestamp", "type", "uint", "getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate"}
    | {"getDayOfWeek", "getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
"""What the library implements; macros are not among a program's functions."""

_OTHER_WORDS: Final[Mapping[str, str]] = {
    "len": "size(…)",
    "length": "size(…)",
    "str": "string(…)",
    "float": "double(…)",
    "any": "list.exists(x, …)",
    "lower": "a node's function",
    "join": "a node's function",
    "sum": "a node's function",
}

_SUCCESS: Final = frozenset({"SUCCESS", "SUCCEEDED", "COMPLETED"})

CEL_EXAMPLE = "such as size(inputs.paths) > 0"
_SYNTAX_ERROR: Final = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What an expression may refer to in its place."""

    inputs: Sequence[str] = ()
    nodes: Mapping[str, int]
    """Every node with its index."""
    own: str = ""
    """The node that the expression belongs to, which must not read itself."""
    item: bool = False
    """Whether there is an item: in `with` of a mapped node."""
    root: Literal["nodes", "jobs"] = "nodes"
    """What the document calls them. The item of a job is `matrix`."""
    varied: Sequence[str] = ()
    """What the item of a job has: the names of its matrix."""

    @property
    def noun(self) -> str:
        """One of them."""
        return self.root[:-1]

    @property
    def roots(self) -> Sequence[str]:
        """All that an expression can begin with in such a document."""
        per_item = ("item", "index") if self.root == "nodes" else ("matrix",)
        return ("inputs", self.root, "execution", *per_item)


def compile_value(value: JsonValue, names: Names, faults: FaultList, path: Path) -> Expression:
    """The expression of any value in a document. Faults are noted, and then it is a constant."""
    match value:
        case str():
            return _Template(names, faults, path).text(value)
        case list() | dict():
            return _Structure(names, faults).compiled(value, path)
        case _:
            return _constant(value, faults, path)


def compile_condition(value: JsonValue, names: Names, faults: FaultList, path: Path) -> Expression:
    """The expression of `when`: CEL with or without `${…}` around it, or a plain boolean."""
    template = _Template(names, faults, path)
    if isinstance(value, bool):
        return _constant(value, faults, path)
    if not isinstance(value, str):
        faults.add(path, "must be a condition", "write CEL, such as: size(nodes.count.output) > 0")
        return _NOTHING
    parts = list(split(value.strip()))
    holes = [part for part in parts if isinstance(part, Hole)]
    if not holes:
        return template.expression(value)
    if len(parts) > 1:
        faults.add(path, "must be one condition, not text around ${…}", "leave out ${ and }: a condition is CEL anyway")
        return _NOTHING
    return template.hole(holes[0])


@dataclass(frozen=True, slots=True)
class Hole:
    """A `${…}`; `closed` is false when its brace never closes."""

    text: str
    closed: bool = True


def split(text: str) -> Iterator[str | Hole]:
    """Text and holes in their order; `$${` stands for the characters `${`."""
    literal, position = "", 0
    while (start := text.find("${", position)) >= 0:
        if start > position and text[start - 1] == "$":
            literal += text[position : start - 1] + "${"
            position = start + 2
            continue
        literal += text[position:start]
        if literal:
            yield literal
        literal = ""
        end = closing_brace(text, start + 2)
        if end < 0:
            yield Hole(text[start + 2 :], closed=False)
            return
        yield Hole(text[start + 2 : end])
        position = end + 1
    literal += text[position:]
    if literal:
        yield literal


_NOTHING: Final = Constant(json=NULL)


def _constant(value: JsonValue, faults: FaultList, path: Path) -> Constant:
    try:
        return Constant(json=json_text.encode(value), text=short(str(value)))
    except ValueError as error:
        faults.add(path, f"is no JSON value: {error}")
        return _NOTHING


@dataclass(frozen=True, slots=True)
class _Structure:
    """Lists and mappings: JSON around the expressions in them."""

    names: Names
    faults: FaultList

    def compiled(self, value: JsonValue, path: Path) -> Expression:
        parts: list[bytes | Expression] = []
        for part in self._parts(value, path):
            if isinstance(part, bytes) and parts and isinstance(last := parts[-1], bytes):
                parts[-1] = last + part
            else:
                parts.append(part)
        text = short(json.dumps(value, ensure_ascii=False, default=str))
        if len(parts) == 1 and isinstance(only := parts[0], bytes):
            return Constant(json=only, text=text)
        nodes = NO_NODES.union(*(part.nodes for part in parts if not isinstance(part, bytes)))
        return Structure(text=text, parts=tuple(parts), nodes=nodes)

    def _parts(self, value: JsonValue, path: Path) -> Iterator[bytes | Expression]:
        match value:
            case list():
                yield b"["
                for position, child in enumerate(value):
                    if position:
                        yield b","
                    yield from self._parts(child, (*path, position))
                yield b"]"
            case dict():
                yield b"{"
                for position, (key, child) in enumerate(value.items()):
                    yield (b"," if position else b"") + self._key(key, path) + b":"
                    yield from self._parts(child, (*path, key))
                yield b"}"
            case _:
                expression = compile_value(value, self.names, self.faults, path)
                yield expression.json if isinstance(expression, Constant) else expression

    def _key(self, key: str, path: Path) -> bytes:
        if any(isinstance(part, Hole) for part in split(key)):
            self.faults.add((*path, key), "an expression cannot stand in a key", "compute the whole object with CEL")
        return _constant(key, self.faults, path).json


@dataclass(frozen=True, slots=True)
class _Template:
    """Text: a constant, one expression, or an interpolation."""

    names: Names
    faults: FaultList
    path: Path

    def text(self, text: str) -> Expression:
        parts = list(split(text))
        if not any(isinstance(part, Hole) for part in parts):
            return _constant("".join(part for part in parts if isinstance(part, str)), self.faults, self.path)
        if len(parts) == 1 and isinstance(only := parts[0], Hole):
            return self.hole(only)
        compiled = tuple(
            self.hole(part) if isinstance(part, Hole) else _constant(part, self.faults, self.path).json[1:-1]
            for part in parts
        )
        nodes = NO_NODES.union(*(part.nodes for part in compiled if not isinstance(part, bytes)))
        return Interpolation(text=text, parts=compiled, nodes=nodes)

    def hole(self, hole: Hole) -> Expression:
        if not hole.closed:
            shown = short(hole.text.strip())
            self.faults.add(
                self.path, f"${{{shown} has no closing brace", "write ${…}, or $${ for these characters themselves"
            )
            return _NOTHING
        return self.expression(hole.text)

    def expression(self, source: str) -> Expression:
        text = source.strip()
        if not text:
            self.faults.add(self.path, "the expression is empty", "write one, such as ${inputs.name}")
            return _NOTHING
        if len(text) > EXPRESSION_LIMIT_CHARS:
            size = f"{len(text):,} characters; at most {EXPRESSION_LIMIT_CHARS:,} are allowed"
            self.faults.add(self.path, f"the expression has {size}", "compute this in a node's function")
            return _NOTHING
        line = list(tokens(text))
        found = accesses(line)
        if any("state" in access.steps for access in found):
            text = with_state_words(text)
            line = list(tokens(text))
            found = accesses(line)
        sources = [self._source(text, access) for access in found]
        if len(found) == 1 and found[0].first == 0 and found[0].after == len(line):
            return self._plain(text, found[0], sources[0])
        return self._computed(text, line, found, sources)

    def _plain(self, text: str, access: Access, source: _Source | None) -> Expression:
        if source is None:
            return _NOTHING
        rest = access.steps[source.used :]
        return ValuePath(text=text, root=source.reference, steps=rest) if rest else source.reference

    def _computed(
        self, text: str, line: Sequence[Token], found: Sequence[Access], sources: Sequence[_Source | None]
    ) -> Expression:
        try:
            program = cel.compile(text)
        except ValueError as error:
            self._syntax(text, str(error))
            return _NOTHING
        known = [source for source in sources if source is not None]
        if len(known) < len(found):
            return _NOTHING
        bound = bound_names(line, MACROS)
        self._unknown(text, program, bound)
        uses = _uses(known)
        places = {use.place: position for position, use in enumerate(uses)}
        reads = {
            access.first: places.get(source.place, places.get(source.place[:1], 0))
            for access, source in zip(found, known, strict=True)
        }
        return Cel(
            text=text,
            program=program,
            uses=uses,
            shape=shape_of(line, reads, found, bound),
            nodes=NO_NODES.union(*(source.reference.nodes for source in known)),
        )

    def _syntax(self, text: str, error: str) -> None:
        shown = short(text)
        match = _SYNTAX_ERROR.search(error)
        if match is None:
            self.faults.add(self.path, f"{shown!r} is not a CEL expression", CEL_EXAMPLE)
            return
        problem = match[3].partition(" expecting {")[0].strip().replace("'<EOF>'", "the end")
        problem = problem.replace("mismatched input", "unexpected")
        problem = problem.replace("token recognition error at:", "unexpected text")
        place = f"column {match[2]}" if match[1] == "1" else f"line {match[1]}, column {match[2]}"
        words = {token.text for token in tokens(text)}
        hint = "write &&, || and ! for and, or and not" if words & {"and", "or", "not"} else CEL_EXAMPLE
        self.faults.add(self.path, f"{shown!r} is not a CEL expression: {short(problem, 120)} at {place} of it", hint)

    def _unknown(self, text: str, program: cel.Program, bound: set[str]) -> None:
        references = program.references()
        for name in references["variables"]:
            if name not in ROOTS and name not in bound:
                self.faults.add(self.path, f"{short(name)!r} in {short(text)!r} is not known", self._meant(name))
        for name in references["functions"]:
            if name.isidentifier() and not name.startswith("_") and name not in FUNCTIONS:
                other = (
                    f"use {_OTHER_WORDS[name]}"
                    if name in _OTHER_WORDS
                    else f"CEL here has {', '.join(sorted(FUNCTIONS | MACROS))}"
                )
                hint = other if name in _OTHER_WORDS else meant(name, [*FUNCTIONS, *MACROS], other)
                self.faults.add(self.path, f"there is no function {short(name)!r} in CEL", hint)
        for name in sorted(bound & ROOTS):
            self.faults.add(self.path, f"{name!r} cannot be the variable of a loop", "choose another name, such as x")

    def _meant(self, name: str) -> str:
        if name in self.names.nodes:
            return f"did you mean {spelled_root(self.names.root, name)}.output?"
        if name in self.names.inputs:
            return f"did you mean {spelled_root('inputs', name)}?"
        if name in {"True", "False", "None"}:
            return f"did you mean {'null' if name == 'None' else name.lower()}?"
        known = ", ".join(self.names.roots).replace(self.names.root, f"{self.names.root}.<name>.output")
        return meant(name, sorted(self.names.roots), f"an expression reads {known}")

    def _source(self, text: str, access: Access) -> _Source | None:
        """What an access reads; None, and a fault, if there is no such thing."""
        match access.root:
            case "inputs":
                return self._input(access)
            case self.names.root:
                return self._node(text, access)
            case "nodes" | "jobs":
                hint = f"write {self.names.root}.<name>.output"
                self.faults.add(self.path, f"there is no {access.root!r} here", hint)
                return None
            case "execution":
                return self._execution(access)
            case _:
                return self._per_item(access)

    def _per_item(self, access: Access) -> _Source | None:
        if self.names.item and access.root in self.names.roots:
            name = access.steps[0] if access.root == "matrix" and access.steps else ""
            if isinstance(name, str) and name and name not in self.names.varied:
                known = f"the names are {', '.join(self.names.varied)}"
                what = f"there is no {short(name)!r} in the matrix"
                self.faults.add(self.path, what, meant(name, self.names.varied, short(known, 200)))
                return None
            getter = _index if access.root == "index" else _item
            return _Source(place=(access.root,), reference=Reference(text=access.root, getter=getter))
        hint = "only `with` and `process` of a node that has `map` are evaluated for each item"
        if self.names.root == "jobs":
            hint = "only `env` of a job that has `matrix` is evaluated for each combination, as matrix.<name>"
        self.faults.add(self.path, f"there is no {access.root!r} here", hint)
        return None

    def _input(self, access: Access) -> _Source | None:
        if not access.steps or not isinstance(name := access.steps[0], str):
            return _Source(place=("inputs",), reference=Reference(text="inputs", getter=_inputs))
        if name not in self.names.inputs:
            known = (
                f"the inputs are {', '.join(self.names.inputs)}" if self.names.inputs else "declare it under `inputs`"
            )
            self.faults.add(
                self.path, f"there is no input {short(name)!r}", meant(name, self.names.inputs, short(known, 200))
            )
            return None
        reference = Reference(text=spelled_root("inputs", name), getter=methodcaller("input", name))
        return _Source(place=("inputs", name), reference=reference, used=1)

    def _node(self, text: str, access: Access) -> _Source | None:
        root, noun = self.names.root, self.names.noun
        steps = access.steps
        if not steps or not isinstance(name := steps[0], str):
            what = f"`{root}` in {short(text)!r} needs a constant name"
            self.faults.add(self.path, what, f"write {root}.<name>.output")
            return None
        if name == self.names.own:
            self.faults.add(self.path, f"{noun} {name!r} refers to itself", f"refer to a {noun} that runs before it")
            return None
        index = self.names.nodes.get(name)
        if index is None:
            self.faults.add(self.path, f"there is no {noun} {short(name)!r}", self._meant_node(name))
            return None
        place = spelled_root(root, name)
        if steps[1:2] == ("state",):
            getter = methodcaller("state_of", index)
            reference = Reference(text=f"{place}.state", getter=getter, nodes=frozenset({index}))
            return _Source(place=(root, name, "state"), reference=reference, used=2)
        if steps[1:2] != ("output",):
            dashed = self._dashed(name) if len(steps) == 1 else ""
            hint = f"write {place}.output" + (f"; {dashed}" if dashed else "")
            self.faults.add(self.path, f"{place} must be followed by .output", hint)
            return None
        getter, nodes = methodcaller("output", index), frozenset({index})
        reference = Reference(text=f"{place}.output", getter=getter, nodes=nodes, output_of=index)
        return _Source(place=(root, name, "output"), reference=reference, used=2)

    def _meant_node(self, name: str) -> str:
        return self._dashed(name) or meant(name, self.names.nodes, f"name a {self.names.noun} of this document")

    def _dashed(self, name: str) -> str:
        """The hint for `nodes.a-b`, which CEL takes for a subtraction."""
        dashed = next((each for each in self.names.nodes if each.startswith(f"{name}-")), None)
        return f'a name with a dash is written {self.names.root}["{dashed}"].output' if dashed else ""

    def _execution(self, access: Access) -> _Source | None:
        if not access.steps:
            return _Source(place=("execution",), reference=Reference(text="execution", getter=_execution))
        name = access.steps[0]
        if name not in EXECUTION_FACTS:
            known = f"it has {', '.join(EXECUTION_FACTS)}"
            self.faults.add(
                self.path, f"execution has no {short(str(name))!r}", meant(str(name), EXECUTION_FACTS, known)
            )
            return None
        reference = Reference(text=f"execution.{name}", getter=_fact(str(name)))
        return _Source(place=("execution", str(name)), reference=reference, used=1)


def with_state_words(text: str) -> str:
    """An expression that reads states, with the other words for success (SUCCESS, Completed) as what a state says."""
    words = ((token, token.text[1:-1].upper()) for token in tokens(text) if token.kind == "string")
    for token in reversed([token for token, word in words if word in _SUCCESS]):
        text = f'{text[: token.start]}"COMPLETED"{text[token.end :]}'
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where an access gets its value: `used` of its steps are the reference's own."""

    place: tuple[str, ...]
    reference: Reference
    used: int = 0


def spelled_root(root: str, name: str) -> str:
    """`nodes.a`, or `nodes["a-b"]` for a name that CEL would take for a subtraction."""
    return f"{root}.{name}" if name.isidentifier() else f'{root}["{name}"]'


def _uses(sources: Sequence[_Source]) -> tuple[Use, ...]:
    """Each value once; the whole object instead of parts of it where both are read."""
    whole = {source.place for source in sources if len(source.place) == 1}
    kept = {
        source.place: source.reference for source in sources if source.place in whole or source.place[:1] not in whole
    }
    return tuple(Use(place=place, source=reference) for place, reference in kept.items())


def _index(scope: Scope) -> Value:
    return b"%d" % scope.index()


def _execution(scope: Scope) -> Value:
    return json_text.encode(dict(scope.execution()))


def _fact(name: str) -> Getter:
    return lambda scope: json_text.encode(scope.execution()[name])


_item: Final[Getter] = methodcaller("item")
_inputs: Final[Getter] = methodcaller("inputs")
