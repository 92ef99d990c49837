"""What the hints of a function say: names, types, and which values need more than JSON.

Owns the reading of signatures, and the conversion of JSON to hinted types and back. Must not know nodes.
"""

import collections.abc
import enum
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import wraps
from typing import Any, Final
from uuid import UUID

import msgspec

_JSON_TYPES: Final = (int, float, str, bool, type(None), list, dict, object, Any)
_CARRIED: Final = (datetime, date, time, timedelta, Decimal, UUID, set, frozenset, tuple)
_LISTS: Final = frozenset({list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection})
_OBJECTS: Final = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})
# What the runner sends as it is.
_BYTES: Final = (bytes, bytearray, memoryview)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """The signature of a function, with hints that were strings resolved where that was possible."""

    signature: inspect.Signature
    parameters: Mapping[str, object]
    """By parameter; Any where nothing is known."""
    result: object


def hints_of(function: Callable[..., object]) -> Hints:
    """Return the hints of a function; raises ValueError for what has no signature."""
    signature = inspect.signature(function)
    resolved = _resolved(function)
    return Hints(
        signature=signature,
        parameters={name: resolved.get(name, Any) for name in signature.parameters},
        result=resolved.get("return", Any),
    )


def shown(hint: object) -> str:
    """Return a hint as its author would write it."""
    return inspect.formatannotation(hint).replace("typing.", "").replace("collections.abc.", "")


def needs_conversion(hint: object) -> bool:
    """Whether a value of this type is more than its JSON form: a dataclass, an enum, a tuple, a date."""
    if any(hint is each for each in _JSON_TYPES):
        return False
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return False
    if origin in (tuple, set, frozenset):
        return True
    if origin is typing.Annotated or origin in (typing.Union, types.UnionType) or origin in _LISTS | _OBJECTS:
        return any(needs_conversion(argument) for argument in typing.get_args(hint))
    if not isinstance(hint, type):
        return False
    if typing.is_typeddict(hint):
        return any(needs_conversion(each) for each in _resolved(hint).values())
    return is_dataclass(hint) or issubclass(hint, (enum.Enum, msgspec.Struct, *_CARRIED))


def to_hinted(value: object, hint: object, what: str) -> object:
    """Return a JSON value as the hinted type; raises ValueError that names what does not fit."""
    try:
        return msgspec.convert(value, hint, dec_hook=_as_is)
    except msgspec.ValidationError as error:
        raise ValueError(f"{what}: {error}") from None


def to_json_value(value: object) -> object:
    """Return the JSON form of a value: dataclasses as objects, enums as their values; bytes stay as they are."""
    return msgspec.to_builtins(value, builtin_types=_BYTES, str_keys=True)


def as_called_by_workers(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return the function with hinted types made of JSON arguments, and JSON of its result, where hints ask for it."""
    try:
        hints = hints_of(function)
    except ValueError:
        return function
    converted = {key: hint for key, hint in hints.parameters.items() if needs_conversion(hint)}
    if not converted and not needs_conversion(hints.result):
        return function

    def converted_arguments(arguments: dict[str, object]) -> dict[str, object]:
        for key, hint in converted.items():
            if key in arguments:
                arguments[key] = to_hinted(arguments[key], hint, f"{name}: argument {key}")
        return arguments

    if inspect.iscoroutinefunction(function):
        return _wrapped_coroutine(function, converted_arguments)

    @wraps(function)
    def call(**arguments: object) -> object:
        return to_json_value(function(**converted_arguments(arguments)))

    return call


def in_place_of(function: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
    """Return another function under the name, the signature and the hints of a function."""
    if inspect.iscoroutinefunction(other):

        @wraps(function)
        async def coroutine(**arguments: object) -> object:
            return await other(**arguments)

        return coroutine

    @wraps(function)
    def call(**arguments: object) -> object:
        return other(**arguments)

    return call


def _wrapped_coroutine(
    function: Callable[..., Awaitable[object]], converted: Callable[[dict[str, object]], dict[str, object]]
) -> Callable[..., Awaitable[object]]:
    @wraps(function)
    async def call(**arguments: object) -> object:
        return to_json_value(await function(**converted(arguments)))

    return call


def _resolved(owner: Any) -> dict[str, Any]:  # noqa: ANN401  # a function or a class: whatever has annotations
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except Exception:  # noqa: BLE001  # a hint is any expression: what cannot be resolved is not known
        return _resolved_one_by_one(owner)


def _resolved_one_by_one(owner: Any) -> dict[str, Any]:  # noqa: ANN401
    found: dict[str, Any] = {}
    for name, annotation in inspect.get_annotations(owner).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found |= typing.get_type_hints(alone, getattr(owner, "__globals__", None), include_extras=True)
        except Exception:  # noqa: BLE001, S112  # as above
            continue
    return found


def _as_is(_kind: type, value: object) -> object:
    """Leave a value for which no conversion is known as it came."""
    return value
