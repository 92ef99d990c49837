"""`@workflow`: a function that wires nodes, with what can be done with it: run, start, register.

Owns the meeting of definition and execution. Must not know how either works inside.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, cast, overload

from nodeflow_sdk.authoring.definition import Definition
from nodeflow_sdk.authoring.errors import WiringError, calling_place
from nodeflow_sdk.authoring.options import Duration
from nodeflow_sdk.running.handles import AsyncExecution, Execution
from nodeflow_sdk.running.home import current_runs
from nodeflow_sdk.running.orders import Order, Submittable
from nodeflow_sdk.running.told import shortened

if TYPE_CHECKING:
    from nodeflow_shared.errors import FieldViolation

P = ParamSpec("P")
R = TypeVar("R")

_DOCUMENT_LINE: Final = re.compile(r" \(line \d+\)$")
_RUNNER: Final = "nodeflow_worker.runner"
OPTIONS: Final = frozenset({"suite", "request_id", "labels"})


class Workflow(Generic[P, R]):
    """A workflow. Calling it runs its function: in plain code with values, inside another workflow as a part of that.

    Everything that runs takes, besides the inputs: `suite` (the address of a scheduler; else NODEFLOW_ADDRESS, else
    the suite of this directory, else one that is started in `.nodeflow/` and stopped with this process), `request_id`
    (a repeat with it starts nothing new) and `labels`.
    """

    def __init__(self, definition: Definition, function: Callable[P, R]) -> None:
        self._definition = definition
        self._function = function
        update_wrapper(self, function)

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function: its nodes become part of a workflow that is being defined, or run here and now."""
        return self._function(*args, **kwargs)

    @property
    def name(self) -> str:
        """Its name on a suite."""
        return self._definition.name

    def document(self) -> dict[str, object]:
        """Return it as a workflow document, which can be written to a file and run by any client."""
        return self._definition.document()

    def run(
        self,
        *args: Any,
        suite: str | None = None,
        request_id: str = "",
        labels: Mapping[str, str] | None = None,
        **inputs: Any,
    ) -> R:
        """Run it to its end; returns the result, raises NodeFailed. Interrupted, it cancels the execution."""
        order = self._order(args, inputs, suite, request_id, labels)
        return cast(R, current_runs().run(self.submittable(), order))

    async def arun(
        self,
        *args: Any,
        suite: str | None = None,
        request_id: str = "",
        labels: Mapping[str, str] | None = None,
        **inputs: Any,
    ) -> R:
        """Run it to its end, on a running loop. Cancelled, it cancels the execution."""
        order = self._order(args, inputs, suite, request_id, labels)
        return cast(R, await current_runs().arun(self.submittable(), order))

    def start(
        self,
        *args: Any,
        suite: str | None = None,
        request_id: str = "",
        labels: Mapping[str, str] | None = None,
        **inputs: Any,
    ) -> Execution[R]:
        """Start it; returns a handle once the start is durable. Raises TypeError for inputs that do not fit."""
        order = self._order(args, inputs, suite, request_id, labels)
        return current_runs().start(self.submittable(), order)

    async def astart(
        self,
        *args: Any,
        suite: str | None = None,
        request_id: str = "",
        labels: Mapping[str, str] | None = None,
        **inputs: Any,
    ) -> AsyncExecution[R]:
        """Start it, on a running loop."""
        order = self._order(args, inputs, suite, request_id, labels)
        return await current_runs().astart(self.submittable(), order)

    def start_many(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        suite: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> list[Execution[R]]:
        """Start it once for each of up to 10,000 sets of inputs, in one call; returns handles in order."""
        given = [self._inputs((), each) for each in inputs]
        return current_runs().start_many(self.submittable(), given, suite, labels or {})

    def execution(self, execution_id: str, *, suite: str | None = None) -> Execution[R]:
        """Return a handle of an execution that was started before, here or elsewhere."""
        return current_runs().find(self.submittable(), execution_id, suite)

    def register(self, *, suite: str | None = None) -> str:
        """Register it on a suite, for others to start by name; returns the revision. Raises WiringError."""
        return current_runs().register(self.submittable(), suite)

    def _order(
        self,
        args: tuple[object, ...],
        inputs: Mapping[str, object],
        suite: str | None,
        request_id: str,
        labels: Mapping[str, str] | None,
    ) -> Order:
        return Order(inputs=self._inputs(args, inputs), suite=suite, request_id=request_id, labels=labels or {})

    def _inputs(self, args: tuple[object, ...], inputs: Mapping[str, object]) -> dict[str, object]:
        refuse_import_in_runner(self.name)
        return self._definition.inputs(args, inputs)

    def submittable(self) -> Submittable:
        """Return it as a suite takes it. Raises WiringError if workers could not import its functions."""
        definition = self._definition
        return Submittable(
            source=definition.source(),
            directory=str(definition.directory()),
            whole=definition.outputs.whole,
            value=definition.outputs.value,
            at_fault=self._wiring_error,
        )

    def _wiring_error(self, fault: FieldViolation) -> WiringError:
        # The line in the document means nothing to who has written Python.
        description = _DOCUMENT_LINE.sub("", fault.description)
        return WiringError(self._definition.place_in(fault.path), f"{fault.path}: {description}", fault.hint)


@overload
def workflow(function: Callable[P, R], /) -> Workflow[P, R]: ...


@overload
def workflow(
    *, name: str = "", timeout: Duration | None = None, on_failure: str | None = None
) -> Callable[[Callable[P, R]], Workflow[P, R]]: ...


def workflow(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str = "",
    timeout: Duration | None = None,
    on_failure: str | None = None,
) -> Workflow[P, R] | Callable[[Callable[P, R]], Workflow[P, R]]:
    """Make a workflow of a function that calls nodes: `@workflow`, or `@workflow(timeout="10m")`.

    The function runs once, here and now, to record its calls; its parameters are the inputs. `timeout` bounds an
    execution; `on_failure` is what the failure of a node does: "cancel_dependents" (the default), "fail_fast" or
    "continue". Raises WiringError, which names the line at fault.
    """

    def made(decorated: Callable[P, R]) -> Workflow[P, R]:
        try:
            definition = Definition(decorated, name=name, timeout=timeout, on_failure=on_failure, reserved=OPTIONS)
        except WiringError as error:
            raise shortened(error) from None
        return Workflow(definition, decorated)

    return made(function) if function is not None else made


def refuse_import_in_runner(name: str) -> None:
    """Raise WiringError if a worker is importing the module that runs a workflow: each run would start another."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or not spec.name.startswith(_RUNNER):
        return
    frame = sys._getframe(1)  # noqa: SLF001  # the documented way to the caller
    while frame.f_back is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") != "__main__":
            raise WiringError(
                calling_place(),
                f"{name} runs whenever its module is imported, and workers import it to find the nodes",
                'put it under `if __name__ == "__main__":`',
            )
        frame = frame.f_back
