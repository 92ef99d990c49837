"""The text of a document: YAML 1.2 or JSON to plain JSON values, with the line of each place.

Owns everything about syntax: encodings, duplicate keys, aliases, merge keys, tags, bounds on size, depth and growth.
Knows nothing of what the document means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from nodeflow_scheduler.domain.document_faults import DocumentFaults, Fault, FaultList, Path, short, spelled
from nodeflow_scheduler.domain.json_text import JsonValue

SOURCE_LIMIT_BYTES: Final = 1024 * 1024
DEPTH_LIMIT: Final = 64
REPEATS_LIMIT: Final = 100_000
"""Values that stand in a document only because an alias repeats them."""

JSON_TYPES: Final = frozenset({"application/json", "text/json"})
YAML_TYPES: Final = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", ""})

_TAG: Final = "tag:yaml.org,2002:"
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,4000}")
_BASED: Final = re.compile(r"0x[0-9a-fA-F]{1,4000}|0o[0-7]{1,4000}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(slots=True, kw_only=True)
class Source:
    """A document's values, and where they stand."""

    value: JsonValue
    faults: FaultList
    """What is wrong already; it knows the lines of the document."""


def read(source: bytes, content_type: str) -> Source:
    """The values of a document; raises DocumentFaults when its text cannot be read at all."""
    essence = content_type.partition(";")[0].strip().lower()
    if essence not in JSON_TYPES | YAML_TYPES:
        known = "application/yaml or application/json"
        raise _unreadable(f"documents of type {short(content_type)!r} are not known", f"send {known}")
    if len(source) > SOURCE_LIMIT_BYTES:
        size = f"{len(source):,} bytes; at most {SOURCE_LIMIT_BYTES:,} are allowed"
        raise _unreadable(f"the document has {size}", "move large constants into inputs or files")
    text = _decoded(source)
    if essence in JSON_TYPES or text.lstrip()[:1] == "{":
        try:
            return _read_json(text)
        except _NotPlainJson as error:
            if essence in JSON_TYPES and error.fault is not None:
                raise DocumentFaults([error.fault]) from None
    return _read_yaml(text)


def _read_json(text: str) -> Source:
    """JSON, ten times faster than as YAML; its lines are looked for only when there is a fault to place."""

    try:
        value: JsonValue = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        # Escapes can smuggle in halves of surrogate pairs, which no text in UTF-8 may hold.
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        place = f"at line {error.lineno}, column {error.colno}"
        fault = Fault(path="", description=f"the document is not JSON: {error.msg} {place}", line=error.lineno)
        raise _NotPlainJson(fault) from None
    except (ValueError, RecursionError):
        raise _NotPlainJson(None) from None
    if _depth_exceeds(value, DEPTH_LIMIT):
        raise _too_deep(None)
    return Source(value=value, faults=FaultList(line_of=_LinesOfJson(text=text).line_of))


@dataclass(slots=True, kw_only=True)
class _LinesOfJson:
    """The lines of a JSON document, found by reading it again as the YAML that it also is."""

    text: str
    lines: dict[Path, int] | None = None

    def line_of(self, path: Path) -> int | None:
        if self.lines is None:
            try:
                self.lines = _Builder().build(_composed(self.text)).lines
            except DocumentFaults:
                self.lines = {}
        return _nearest(self.lines, path)


class _NotPlainJson(Exception):
    """The text is not JSON (`fault`), or it is doubtful in a way that the YAML reader describes better (None)."""

    def __init__(self, fault: Fault | None) -> None:
        super().__init__()
        self.fault = fault


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError
    return fields


def _refuse(_: str) -> NoReturn:
    raise ValueError


def _depth_exceeds(value: JsonValue, limit: int) -> bool:
    level: list[JsonValue] = [value]
    for _ in range(limit):
        level = [child for each in level if isinstance(each, dict | list) for child in _children(each)]
        if not level:
            return False
    return True


def _children(value: dict[str, JsonValue] | list[JsonValue]) -> Iterable[JsonValue]:
    return value.values() if isinstance(value, dict) else value


def _read_yaml(text: str) -> Source:
    builder = _Builder().build(_composed(text))
    return Source(value=builder.value, faults=builder.faults)


def _decoded(source: bytes) -> str:
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise _unreadable(f"the document is not UTF-8 text: byte {error.start} is wrong", line=line) from None
    if not text.strip():
        raise _unreadable("the document is empty", "start with: apiVersion: nodeflow/v1")
    return text


def _composed(text: str) -> Node:
    yaml = YAML(typ="safe", pure=True)
    # The builder reports all duplicates, each with its path; the library stops at the first.
    yaml.allow_duplicate_keys = True
    # An anchor may be defined anew in YAML 1.2.
    yaml.composer.warn_double_anchors = False
    try:
        node = yaml.compose(text)
    except MarkedYAMLError as error:
        problem = " ".join(part for part in (error.context, error.problem) if part)
        # Where something was opened that is never closed is the place to look at; the problem is found far behind it.
        opened = error.context_mark if "expected ',' or" in problem or "scanning a quoted" in problem else None
        found = error.problem_mark or error.context_mark
        place = f" at line {found.line + 1}, column {found.column + 1}" if found is not None else ""
        if opened is not None:
            place += f"; it begins at line {opened.line + 1}, column {opened.column + 1}"
        mark = opened or found
        line = mark.line + 1 if mark is not None else None
        raise _unreadable(f"the document is not YAML: {problem}{place}", _yaml_hint(problem), line) from None
    except YAMLError as error:
        raise _unreadable(f"the document is not YAML: {short(str(error).splitlines()[0], 200)}") from None
    except RecursionError:
        raise _too_deep(None) from None
    except (ValueError, AssertionError, AttributeError, LookupError, TypeError) as error:
        # Broken directives and escapes end in such errors of the library's own.
        raise _unreadable(f"the document is not YAML: {short(str(error), 200)}") from None
    if not isinstance(node, Node):
        raise _unreadable("the document is empty", "start with: apiVersion: nodeflow/v1")
    return node


def _yaml_hint(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "put text that holds ': ' in quotes, and check the indentation"
    if "'\\t'" in problem:
        return "indent with spaces, not tabs"
    if "found character" in problem or "block mapping" in problem:
        return "check the indentation, and put text that begins with a special character in quotes"
    if "quoted scalar" in problem:
        return "close the quote"
    if "flow sequence" in problem or "flow mapping" in problem:
        return "close each [ and { that is opened, and put text that holds one in quotes"
    return ""


def _unreadable(description: str, hint: str = "", line: int | None = None) -> DocumentFaults:
    return DocumentFaults([Fault(path="", description=description, hint=hint, line=line)])


def _too_deep(line: int | None) -> DocumentFaults:
    return _unreadable(f"the document is nested more than {DEPTH_LIMIT} levels deep", "flatten it", line)


def _nearest(lines: dict[Path, int], path: Path) -> int | None:
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


@dataclass(slots=True, kw_only=True)
class _Builder:
    """Makes plain values of YAML nodes, following aliases."""

    value: JsonValue = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: FaultList = field(default_factory=FaultList)
    seen: set[int] = field(default_factory=set)
    repeats: int = 0

    def build(self, root: Node) -> _Builder:
        self.faults.line_of = lambda path: _nearest(self.lines, path)
        self.lines[()] = root.start_mark.line + 1
        self.value = self._value(root, ())
        return self

    def _value(self, node: Node, path: Path) -> JsonValue:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self.repeats += id(node) in self.seen
        self.seen.add(id(node))
        if self.repeats > REPEATS_LIMIT:
            grown = f"aliases repeat more than {REPEATS_LIMIT:,} values"
            raise _unreadable(grown, "write fewer aliases of aliases", line)
        if len(path) > DEPTH_LIMIT:
            raise _too_deep(line)
        match node:
            case MappingNode():
                return self._mapping(node, path)
            case SequenceNode():
                return [self._value(child, (*path, position)) for position, child in enumerate(node.value)]
            case ScalarNode():
                return self._scalar(node, path)
            case _:
                raise _unreadable(f"{spelled(path)} is of an unknown kind", line=line)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, JsonValue]:
        fields: dict[str, JsonValue] = {}
        merged: dict[str, JsonValue] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key_node.tag == f"{_TAG}merge":
                merged = {**self._merged(value_node, path), **merged}
                continue
            place = (*path, key)
            line = key_node.start_mark.line + 1
            if key in fields:
                first = self.lines.get(place)
                stands = f"{short(key)!r} stands twice, in lines {first} and {line}"
                self.faults.add(place, stands, "keep one of the two", line)
                continue
            self.lines[place] = line
            fields[key] = self._value(value_node, place)
        return {**merged, **fields} if merged else fields

    def _merged(self, node: Node, path: Path) -> dict[str, JsonValue]:
        value = self._value(node, (*path, "<<"))
        merged: dict[str, JsonValue] = {}
        for each in reversed(value) if isinstance(value, list) else [value]:
            if not isinstance(each, dict):
                self.faults.add((*path, "<<"), "must name a mapping to be merged, or a list of them")
                break
            merged.update(each)
        return merged

    def _key(self, node: Node, path: Path) -> str | None:
        if isinstance(node, ScalarNode) and node.tag in {f"{_TAG}str", f"{_TAG}merge", f"{_TAG}timestamp"}:
            return self._text(node, path)
        shown = short(str(node.value)) if isinstance(node, ScalarNode) else "a list or a mapping"
        hint = "put it in quotes" if isinstance(node, ScalarNode) else "use text as the key"
        line = node.start_mark.line + 1
        self.faults.add(path, f"a key must be text, which {shown} is not", hint, line)
        return None

    def _scalar(self, node: ScalarNode, path: Path) -> JsonValue:
        text = self._text(node, path)
        kind = str(node.tag or "").removeprefix(_TAG)
        match kind:
            case "null" | "bool" | "int" | "float":
                return self._plain(text, path)
            case "str" | "timestamp" | "merge" | "value":
                return text
            case _:
                shown = short(kind if kind.startswith("!") else f"!!{kind}")
                self.faults.add(path, f"the tag {shown} is not known here", "leave it out, or write text in quotes")
                return text

    def _text(self, node: ScalarNode, path: Path) -> str:
        """The text of a node; JSON writes some characters as two escapes, which YAML does not put together."""
        text = str(node.value)
        try:
            return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            half = "holds half of a surrogate pair, which is not a character"
            self.faults.add(path, half, "write the character itself", node.start_mark.line + 1)
            return text.encode("utf-8", "replace").decode()

    def _plain(self, text: str, path: Path) -> JsonValue:
        """YAML 1.2's core schema; what only looks like a number to other versions is text."""
        if text in _NULLS:
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _BASED.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text) and abs(number := float(text)) != float("inf"):
            return number
        if text.lstrip("+-").lower() in {".inf", ".nan"} or _FLOAT.fullmatch(text):
            self.faults.add(
                path, f"{short(text)} is a number that JSON does not have", "put it in quotes if it is text"
            )
        return text
