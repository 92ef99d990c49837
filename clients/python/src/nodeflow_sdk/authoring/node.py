"""`@node`: a function that is a vertex when a workflow is defined, and stays a function everywhere else.

Owns the checks of a call against the function's signature and hints. Must not know documents.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cached_property, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from nodeflow_sdk.authoring.errors import Place, WiringError, calling_place, place_of
from nodeflow_sdk.authoring.expressions import Written, has_handles
from nodeflow_sdk.authoring.graph import Call, Recording, current_recording
from nodeflow_sdk.authoring.handles import Handle, NodeOutput, foreign, node_behind
from nodeflow_sdk.authoring.hints import Hints, as_called_by_workers, hints_of, shown, to_hinted, to_json_value
from nodeflow_sdk.authoring.options import NAME, Backoff, Duration, NodeOptions, summary_of
from nodeflow_sdk.authoring.origin import NotFindable, Origin, origin_of
from nodeflow_sdk.authoring.schemas import item_of, list_of, misfit, schema_of, types_of

P = ParamSpec("P")
R = TypeVar("R")

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Node(Generic[P, R]):
    """A function as a node. Its types are the function's own, so that a workflow reads and checks as plain Python."""

    def __init__(self, function: Callable[P, R], options: NodeOptions, after: tuple[NodeOutput, ...] = ()) -> None:
        self._function = function
        self._options = options
        self._after = after
        self._place = place_of(function)
        try:
            self._fields = options.document()
        except ValueError as error:
            raise WiringError(self._place, f"@node({error})") from None
        update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<node {self._title}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Record a call in a workflow that is being defined; call the function anywhere else."""
        recording = current_recording()
        if recording is None:
            self._refuse_handles(args, kwargs)
            return self._function(*args, **kwargs)
        return cast(R, self._recorded(recording, calling_place(), args, kwargs, mapped=False))

    def map(self, items: Iterable[Any], **kwargs: Any) -> list[R]:  # checked against the hints instead
        """Run once for each item: it is the first argument that is not among `kwargs`, which each run gets as they are.

        In a workflow the items are a list, an input or the output of another node; the result is the list of all
        results, in order. Anywhere else the function is called for each item.
        """
        recording = current_recording()
        if recording is not None:
            return cast("list[R]", self._recorded(recording, calling_place(), (items,), kwargs, mapped=True))
        self._refuse_handles((items,), kwargs)
        call = cast(Callable[..., R], self._function)
        return [call(**{self._item_parameter(calling_place(), kwargs): item, **kwargs}) for item in items]

    def after(self, *others: object) -> Node[P, R]:
        """Return this node such that its next call waits for others to complete, without taking their data."""
        recording = current_recording()
        if recording is not None:
            for other in others:
                node_behind(other, recording, "after")
        outputs = tuple(each for each in others if isinstance(each, NodeOutput))
        return Node(self._function, self._options, (*self._after, *outputs))

    @property
    def __nodeflow_function__(self) -> Callable[..., Any]:
        """What workers call: the function, with hinted types made of JSON where the hints ask for it."""
        return as_called_by_workers(self._function, self._title)

    @property
    def _title(self) -> str:
        return self._options.name or getattr(self._function, "__name__", "node")

    @cached_property
    def _hints(self) -> Hints:
        try:
            hints = hints_of(self._function)
        except ValueError as error:
            raise WiringError(self._place, f"{self._title}: {error}") from None
        for parameter in hints.signature.parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                problem = f"parameter {parameter} of node {self._title} can only be given by position"
                raise WiringError(self._place, problem, "workers pass arguments by name; make it an ordinary parameter")
        return hints

    @cached_property
    def _origin(self) -> Origin:
        try:
            return origin_of(self._function)
        except NotFindable as error:
            raise WiringError(self._place, f"node {self._title} cannot run on a worker: {error}") from None

    def _recorded(
        self, recording: Recording, place: Place, args: tuple[Any, ...], kwargs: dict[str, Any], *, mapped: bool
    ) -> NodeOutput:
        function = str(self._origin)
        if not NAME.fullmatch(self._title):
            raise WiringError(place, f"{self._title!r} cannot be the name of a node", 'name it: @node(name="…")')
        written = Written(recording)
        items: Any = None
        if mapped:
            [items], parameter = args, self._item_parameter(place, kwargs)
            self._check_items(place, items, parameter)
            given = self._bound(place, (), {**kwargs, parameter: None})
            arguments = {
                name: "${item}" if name == parameter else self._argument(place, name, value, written)
                for name, value in given.items()
            }
        else:
            arguments = {
                name: self._argument(place, name, value, written)
                for name, value in self._bound(place, args, kwargs).items()
            }
        name = recording.free_name(self._title)
        call = Call(
            name=name,
            place=place,
            fields={"function": function, **self._fields, **summary_of(self._function)},
            arguments=arguments,
            map=cast("str | list[object]", written.value(items, "the list to map over")) if mapped else None,
            data_from=written.nodes,
        )
        recording.add(call)
        return self._output(recording, name, mapped=mapped).after(*self._after)

    def _output(self, recording: Recording, name: str, *, mapped: bool) -> NodeOutput:
        hint = shown(self._hints.result) if self._hints.result is not Any else ""
        schema = schema_of(self._hints.result)
        if not mapped:
            return NodeOutput(recording, name, f"the output of {name}", schema, hint)
        return NodeOutput(
            recording, name, f"the outputs of {name}", list_of(schema), f"list[{hint}]" if hint else "list"
        )

    def _bound(self, place: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by parameter; raises WiringError if they do not fit the signature."""
        signature = self._hints.signature
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise WiringError(place, f"{self._title}{signature}: {error}") from None
        named: dict[str, Any] = {}
        for name, value in bound.items():
            if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                named |= value
            else:
                named[name] = value
        return named

    def _item_parameter(self, place: Place, kwargs: dict[str, Any]) -> str:
        for name, parameter in self._hints.signature.parameters.items():
            if parameter.kind in _BY_NAME and name not in kwargs:
                return name
        raise WiringError(place, f"{self._title}{self._hints.signature} has no parameter left for the item")

    def _argument(self, place: Place, name: str, value: object, written: Written) -> object:
        what = f"argument {name} of {self._title}"
        hint = self._hints.parameters.get(name, Any)
        if isinstance(value, Handle):
            if misfit(value._schema, schema_of(hint)):  # noqa: SLF001  # a handle has no public name that is not a field
                raise WiringError(place, f"{what} must be {shown(hint)}, and {value!r} cannot be that")
        elif not has_handles(value) and hint is not Any:
            self._check_constant(place, what, value, hint)
        return written.value(value, what)

    def _check_constant(self, place: Place, what: str, value: object, hint: object) -> None:
        if not schema_of(hint):
            return
        try:
            to_hinted(to_json_value(value), hint, what)
        except ValueError as error:
            raise WiringError(place, f"{error}", f"it must be {shown(hint)}") from None
        except (TypeError, RecursionError):
            # It has no JSON form: that is told where it is written.
            return

    def _check_items(self, place: Place, items: object, parameter: str) -> None:
        what = f"{self._title}.map() takes a list"
        remedy = f"call {self._title}(…) for a single value, or map over what gives a list"
        hint = self._hints.parameters.get(parameter, Any)
        if isinstance(items, Handle):
            if "array" not in types_of(items._schema):  # noqa: SLF001  # as above
                raise WiringError(place, f"{what}, and {items!r} is none", remedy)
            if misfit(item_of(items._schema), schema_of(hint)):  # noqa: SLF001
                problem = f"each item goes to argument {parameter} of {self._title}, which must be {shown(hint)}"
                raise WiringError(place, f"{problem}; the items of {items!r} cannot be that")
        elif not isinstance(items, list | tuple):
            raise WiringError(place, f"{what}, not {type(items).__name__}", remedy)
        elif hint is not Any:
            for number, item in enumerate(items):
                if not has_handles(item):
                    self._check_constant(place, f"item {number}, argument {parameter} of {self._title}", item, hint)

    def _refuse_handles(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Handle):
                raise foreign(value, None)


@overload
def node(function: Callable[P, R], /) -> Node[P, R]: ...


@overload
def node(
    *,
    name: str = "",
    retries: int = 0,
    backoff: Backoff | None = None,
    timeout: Duration | None = None,
    when: str | bool | None = None,
) -> Callable[[Callable[P, R]], Node[P, R]]: ...


def node(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str = "",
    retries: int = 0,
    backoff: Backoff | None = None,
    timeout: Duration | None = None,
    when: str | bool | None = None,
) -> Node[P, R] | Callable[[Callable[P, R]], Node[P, R]]:
    """Make a node of a function, plain or async: `@node`, or `@node(retries=3, timeout="30s")`.

    `retries` counts the tries after the first, with `backoff` between them; `timeout` bounds one try; `when` is a
    condition in CEL over `inputs` and `nodes`, such as `size(inputs.paths) > 0`: the node is skipped when it is false.
    Raises WiringError.
    """
    options = NodeOptions(name=name, retries=retries, backoff=backoff, timeout=timeout, when=when)
    if function is not None:
        return Node(function, options)
    return lambda decorated: Node(decorated, options)
