"""What all nodes have in common when they are called in a workflow: arguments are judged, an edge for each handle.

Owns the checks of a call against a signature and its hints. Must not know what a node executes.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from nodeflow_sdk.authoring.errors import Place, WiringError
from nodeflow_sdk.authoring.expressions import Written, has_handles
from nodeflow_sdk.authoring.graph import Call, Recording
from nodeflow_sdk.authoring.handles import Handle, NodeOutput, foreign
from nodeflow_sdk.authoring.hints import Hints, shown, to_hinted, to_json_value
from nodeflow_sdk.authoring.options import NAME
from nodeflow_sdk.authoring.schemas import item_of, list_of, misfit, schema_of, types_of

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
ITEM = "${item}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vertex:
    """A node before it is called."""

    title: str
    hints: Hints
    options: Mapping[str, object]
    """Fields of the document that are the same for every call: retries, time, condition."""
    executes: Callable[[dict[str, object]], dict[str, object]]
    """Makes the fields that say what runs, of the arguments as the document has them."""
    after: tuple[NodeOutput, ...] = ()

    def called(self, recording: Recording, place: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NodeOutput:
        """Record a call; raises WiringError."""
        written = Written(recording)
        arguments = {
            name: self._argument(place, name, value, written)
            for name, value in self._bound(place, args, kwargs).items()
        }
        return self._recorded(written, place, arguments)

    def mapped(self, recording: Recording, place: Place, items: object, kwargs: dict[str, Any]) -> NodeOutput:
        """Record a call for each item; raises WiringError."""
        written = Written(recording)
        parameter = self.item_parameter(place, kwargs)
        self._check_items(place, items, parameter)
        arguments = {
            name: ITEM if name == parameter else self._argument(place, name, value, written)
            for name, value in self._bound(place, (), {**kwargs, parameter: None}).items()
        }
        over = written.value(items, f"the list that {self.title} is mapped over")
        return self._recorded(written, place, arguments, cast("str | list[object]", over))

    def item_parameter(self, place: Place, kwargs: Mapping[str, object]) -> str:
        """Return the parameter that gets the items: the first that is not given by name."""
        for name, parameter in self.hints.signature.parameters.items():
            if parameter.kind in _BY_NAME and name not in kwargs:
                return name
        raise WiringError(place, f"{self.title}{self.hints.signature} has no parameter left for the item")

    def _recorded(
        self, written: Written, place: Place, arguments: dict[str, object], over: str | list[object] | None = None
    ) -> NodeOutput:
        fields = {**self.executes(arguments), **self.options}
        if not NAME.fullmatch(self.title):
            raise WiringError(place, f"{self.title!r} cannot be the name of a node", 'give it one: name="…"')
        recording = written.recording
        name = recording.free_name(self.title)
        recording.add(Call(name=name, place=place, fields=fields, map=over, data_from=written.nodes))
        return self._output(recording, name, mapped=over is not None).after(*self.after)

    def _output(self, recording: Recording, name: str, *, mapped: bool) -> NodeOutput:
        result = self.hints.result
        hint, schema = "" if result is Any else shown(result), schema_of(result)
        if not mapped:
            return NodeOutput(recording, name, f"the output of {name}", schema, hint)
        outputs = f"list[{hint}]" if hint else "list"
        return NodeOutput(recording, name, f"the outputs of {name}", list_of(schema), outputs)

    def _bound(self, place: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by parameter; raises WiringError if they do not fit the signature."""
        signature = self.hints.signature
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise WiringError(place, f"{self.title}{signature}: {error}") from None
        named: dict[str, Any] = {}
        for name, value in bound.items():
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                named |= value
            else:
                named[name] = value
        return named

    def _argument(self, place: Place, name: str, value: object, written: Written) -> object:
        what = f"argument {name} of {self.title}"
        hint = self.hints.parameters.get(name, Any)
        if isinstance(value, Handle):
            if misfit(value._schema, schema_of(hint)):  # noqa: SLF001  # a handle has no public name that is not a field
                problem = f"{what} must be {shown(hint)}, and {value!r} cannot be that"
                raise WiringError(place, problem, self._map_remedy(value, hint))
        elif not has_handles(value) and hint is not Any:
            _check_constant(place, what, value, hint)
        return written.value(value, what)

    def _map_remedy(self, value: Handle, hint: object) -> str:
        """Return what to write if a list was given where one of its items fits."""
        schema = value._schema  # noqa: SLF001  # as above
        fits = "array" in types_of(schema) and not misfit(item_of(schema), schema_of(hint))
        return f"{self.title}.map(…) makes one task of each item" if fits else ""

    def _check_items(self, place: Place, items: object, parameter: str) -> None:
        what = f"{self.title}.map() takes a list"
        remedy = f"call {self.title}(…) for a single value, or map over what gives a list"
        hint = self.hints.parameters.get(parameter, Any)
        if isinstance(items, Handle):
            if "array" not in types_of(items._schema):  # noqa: SLF001  # as above
                raise WiringError(place, f"{what}, and {items!r} is none", remedy)
            if misfit(item_of(items._schema), schema_of(hint)):  # noqa: SLF001
                problem = f"each item goes to argument {parameter} of {self.title}, which must be {shown(hint)}"
                raise WiringError(place, f"{problem}; the items of {items!r} cannot be that")
        elif not isinstance(items, list | tuple):
            raise WiringError(place, f"{what}, not {type(items).__name__}", remedy)
        elif hint is not Any:
            for number, item in enumerate(items):
                if not has_handles(item):
                    _check_constant(place, f"item {number}, argument {parameter} of {self.title}", item, hint)


def _check_constant(place: Place, what: str, value: object, hint: object) -> None:
    if not schema_of(hint):
        return
    try:
        to_hinted(to_json_value(value), hint, what)
    except ValueError as error:
        raise WiringError(place, f"{error}", f"it must be {shown(hint)}") from None
    except (TypeError, RecursionError):
        # It has no JSON form: that is told where it is written.
        return


def refuse_handles(values: Iterable[object]) -> None:
    """Raise WiringError for a handle among the arguments of a call outside of a workflow."""
    for value in values:
        if isinstance(value, Handle):
            raise foreign(value, None)
