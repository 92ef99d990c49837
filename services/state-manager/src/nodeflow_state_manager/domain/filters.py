"""The filter of execution lists: `state = "RUNNING" AND labels.team = "a"`.

Owns its grammar and its meaning. Must not know how a store searches: an adapter turns terms into its own query.
Grammar: terms joined by AND; a term is FIELD OPERATOR "VALUE", with FIELD one of state, workflow, labels.KEY,
create_time, finish_time. `!=` is true where there is no such label; times compare only where there is one.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from operator import eq, ge, gt, le, lt, ne
from typing import Final, assert_never

from nodeflow_state_manager.domain.names import invalid
from nodeflow_state_manager.domain.values import ExecutionRecord, ExecutionState

EXAMPLE: Final = 'state = "RUNNING" AND labels.team = "a" AND create_time >= "2026-01-31T00:00:00Z"'


class Operator(StrEnum):
    """How a term compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    LESS_OR_EQUAL = "<="
    GREATER = ">"
    GREATER_OR_EQUAL = ">="


class TimeField(StrEnum):
    """Instants of an execution."""

    CREATE_TIME = "create_time"
    FINISH_TIME = "finish_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTerm:
    """The state is one, or is not."""

    state: ExecutionState
    equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTerm:
    """The workflow's name is one, or is not."""

    workflow: str
    equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTerm:
    """A label has a value, or does not (or is not there)."""

    key: str
    value: str
    equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeTerm:
    """An instant compares with another."""

    field: TimeField
    operator: Operator
    time_ms: int


Term = StateTerm | WorkflowTerm | LabelTerm | TimeTerm

_STATES: Final[Mapping[str, ExecutionState]] = {
    **{state.name: state for state in ExecutionState},
    "SUCCESS": ExecutionState.COMPLETED,
    "CANCELED": ExecutionState.CANCELLED,
}
_COMPARE: Final[Mapping[Operator, Callable[[int, int], bool]]] = {
    Operator.EQUAL: eq,
    Operator.NOT_EQUAL: ne,
    Operator.LESS: lt,
    Operator.LESS_OR_EQUAL: le,
    Operator.GREATER: gt,
    Operator.GREATER_OR_EQUAL: ge,
}
_SPACE: Final = re.compile(r"\s*")
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_OPERATOR: Final = re.compile(r"!=|<=|>=|=|<|>")
_VALUE: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_AND: Final = re.compile(r"AND\b")
_ESCAPED: Final = re.compile(r"\\(.)")


def parse_filter(text: str) -> tuple[Term, ...]:
    """Return the filter's terms, none for an empty one; raises InvalidInput that says what is wrong at which column."""
    return _Parser(text).terms()


def matches(record: ExecutionRecord, terms: Sequence[Term]) -> bool:
    """Whether an execution satisfies every term."""
    return all(_satisfies(record, term) for term in terms)


def _satisfies(record: ExecutionRecord, term: Term) -> bool:
    match term:
        case StateTerm():
            return (record.state == term.state) is term.equal
        case WorkflowTerm():
            return (record.workflow == term.workflow) is term.equal
        case LabelTerm():
            return (record.labels.get(term.key) == term.value) is term.equal
        case TimeTerm():
            created = term.field is TimeField.CREATE_TIME
            time_ms = record.create_time_ms if created else record.finish_time_ms
            return time_ms is not None and _COMPARE[term.operator](time_ms, term.time_ms)
        case _:
            assert_never(term)


class _Parser:
    """Reads one filter from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def terms(self) -> tuple[Term, ...]:
        self._skip_space()
        terms: list[Term] = []
        while self._at < len(self._text):
            if terms:
                self._take(_AND, "AND between two terms")
            terms.append(self._term())
            self._skip_space()
        return tuple(terms)

    def _term(self) -> Term:
        start, field = self._take(_FIELD, "a field: state, workflow, labels.KEY, create_time or finish_time")
        operator_at, symbol = self._take(_OPERATOR, "an operator: =, !=, <, <=, > or >=")
        value_at, quoted = self._take(_VALUE, 'a value in double quotes, like "RUNNING"')
        operator = Operator(symbol)
        value = _ESCAPED.sub(r"\1", quoted[1:-1])
        if field in tuple(TimeField):
            return TimeTerm(field=TimeField(field), operator=operator, time_ms=self._time(value, value_at))
        if field not in ("state", "workflow") and not field.startswith("labels."):
            raise self._fault(start, f"there is no field {field!r}")
        if operator not in (Operator.EQUAL, Operator.NOT_EQUAL):
            raise self._fault(operator_at, f"{field} is compared with = or !=, not {symbol}")
        equal = operator is Operator.EQUAL
        if field == "state":
            return StateTerm(state=self._state(value, value_at), equal=equal)
        if field == "workflow":
            return WorkflowTerm(workflow=value, equal=equal)
        key = field.removeprefix("labels.")
        if not key:
            raise self._fault(start, "labels. needs the label's key after the dot")
        return LabelTerm(key=key, value=value, equal=equal)

    def _take(self, pattern: re.Pattern[str], expected: str) -> tuple[int, str]:
        self._skip_space()
        found = pattern.match(self._text, self._at)
        if found is None:
            got = self._text[self._at : self._at + 20]
            raise self._fault(self._at, f"expected {expected}, found {got!r}" if got else f"expected {expected}")
        self._at = found.end()
        return found.start(), found.group()

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _state(self, value: str, at: int) -> ExecutionState:
        state = _STATES.get(value.upper())
        if state is None:
            raise self._fault(at, f"{value!r} is no state; there are {', '.join(each.name for each in ExecutionState)}")
        return state

    def _time(self, value: str, at: int) -> int:
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            raise self._fault(at, f"{value!r} is no RFC 3339 time") from None
        if time.tzinfo is None:
            raise self._fault(at, f"{value!r} has no time zone; end it with Z or an offset")
        since = time - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000

    def _fault(self, at: int, what: str) -> Exception:
        return invalid("filter", f"column {at + 1}: {what}", EXAMPLE)
