"""`@node`: a function that is a vertex when a workflow is defined, and stays a function everywhere else.

Owns what is particular to functions: their address, their hints, and that they stay callable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from nodeflow_sdk.authoring.errors import WiringError, calling_place, place_of
from nodeflow_sdk.authoring.graph import current_recording
from nodeflow_sdk.authoring.handles import NodeOutput, node_behind
from nodeflow_sdk.authoring.hints import Hints, as_called_by_workers, hints_of, in_place_of
from nodeflow_sdk.authoring.options import Backoff, Duration, NodeOptions, summary_of
from nodeflow_sdk.authoring.origin import NotFindable, origin_of
from nodeflow_sdk.authoring.vertex import Vertex, refuse_handles

P = ParamSpec("P")
R = TypeVar("R")


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
            refuse_handles((*args, *kwargs.values()))
            return self._function(*args, **kwargs)
        return cast(R, self._vertex.called(recording, calling_place(), args, kwargs))

    def map(self, items: Iterable[Any], **kwargs: Any) -> list[R]:  # checked against the hints instead
        """Run once for each item: it is the first argument that is not among `kwargs`, which each run gets as they are.

        In a workflow the items are a list, an input or the output of another node; the result is the list of all
        results, in order. Anywhere else the function is called for each item.
        """
        recording = current_recording()
        if recording is not None:
            return cast("list[R]", self._vertex.mapped(recording, calling_place(), items, kwargs))
        refuse_handles((items, *kwargs.values()))
        call, parameter = cast(Callable[..., R], self._function), self._vertex.item_parameter(calling_place(), kwargs)
        return [call(**{parameter: item, **kwargs}) for item in items]

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

    def replaced_by(self, other: Callable[..., object]) -> Callable[..., Any]:
        """Return what workers would call if this were the other function, with the signature and the hints of this."""
        return as_called_by_workers(in_place_of(self._function, other), self._title)

    @property
    def address(self) -> str:
        """Where workers find the function: `module:callable`. Raises WiringError if they cannot."""
        try:
            return str(origin_of(self._function))
        except NotFindable as error:
            raise WiringError(self._place, f"node {self._title} cannot run on a worker: {error}") from None

    @property
    def _title(self) -> str:
        return self._options.name or getattr(self._function, "__name__", "node")

    @cached_property
    def _vertex(self) -> Vertex:
        fields = {**self._fields, **summary_of(self._function)}
        return Vertex(
            title=self._title, hints=self._hints(), options=fields, executes=self._executes, after=self._after
        )

    def _executes(self, arguments: dict[str, object]) -> dict[str, object]:
        return {**({"with": arguments} if arguments else {}), "function": self.address}

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
