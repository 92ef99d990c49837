"""From a workflow function to its document: the function runs once with handles for its inputs.

Owns that run, the schemas of the inputs, and how a returned value becomes outputs and results become that value again.
Must not know how a document is submitted.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

from nodeflow_sdk.authoring.errors import Place, WiringError, place_of
from nodeflow_sdk.authoring.expressions import Written, is_whole_output
from nodeflow_sdk.authoring.graph import Call, Recording, recording
from nodeflow_sdk.authoring.handles import WorkflowInput
from nodeflow_sdk.authoring.hints import Hints, hints_of, needs_conversion, shown, to_hinted, to_json_value
from nodeflow_sdk.authoring.options import NAME, Duration, duration, summary_of
from nodeflow_sdk.authoring.origin import NotFindable, origin_of
from nodeflow_sdk.authoring.schemas import misfit, schema_of

RESULT: Final = "result"
"""The name of the output of a workflow that returns one value."""


class FailurePolicy(StrEnum):
    """What the failure of a node does to the rest of its execution."""

    CANCEL_DEPENDENTS = "cancel_dependents"
    FAIL_FAST = "fail_fast"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """How the value that a workflow returns travels."""

    document: dict[str, object]
    """By name, as the document has them."""
    whole: frozenset[str]
    """The names of those that are a node's output as it is, which may be an artifact."""
    alone: bool
    """Whether there is one value, named RESULT, rather than a value for each name."""
    hint: object = Any

    def value(self, outputs: Mapping[str, object]) -> object:
        """Return what the workflow returned, in the type that its hint asks for."""
        value = (outputs.get(RESULT) if self.document else None) if self.alone else dict(outputs)
        return to_hinted(value, self.hint, "the workflow's result") if needs_conversion(self.hint) else value


class Definition:
    """A workflow as its function defines it; raises WiringError for what cannot run."""

    def __init__(
        self,
        function: Callable[..., object],
        *,
        name: str,
        timeout: Duration | None,
        on_failure: str | None,
        reserved: frozenset[str],
    ) -> None:
        self.function = function
        self.place = place_of(function)
        self.name = name or getattr(function, "__name__", "")
        if not NAME.fullmatch(self.name):
            raise WiringError(self.place, f"{self.name!r} cannot name a workflow", 'name it: @workflow(name="…")')
        self._head = self._checked_head(timeout, on_failure)
        self._hints = self._checked_hints(reserved)
        with recording(self.name, self.place) as graph:
            returned = function(**self._handles(graph))
        self._graph = graph
        if inspect.iscoroutine(returned):
            returned.close()
            raise WiringError(self.place, f"workflow {self.name} is async", "write it with def: it only wires nodes")
        if not graph.calls:
            raise WiringError(self.place, f"workflow {self.name} calls no node", "call functions that have @node")
        self.outputs = self._outputs_of(graph, returned)

    def document(self) -> dict[str, object]:
        """Return the workflow as a document of the usual format."""
        nodes = {call.name: _node_fields(call) for call in self._graph.calls.values()}
        inputs = {name: self._input_schema(parameter) for name, parameter in self._parameters.items()}
        document: dict[str, object] = {
            "apiVersion": "nodeflow/v1",
            "kind": "Workflow",
            "name": self.name,
            **summary_of(self.function),
            **self._head,
        }
        if inputs:
            document["inputs"] = inputs
        document["nodes"] = nodes
        if self.outputs.document:
            document["outputs"] = self.outputs.document
        return document

    def source(self) -> bytes:
        """Return the document as JSON."""
        return json.dumps(self.document(), ensure_ascii=False, indent=2).encode()

    def directory(self) -> Path:
        """Return where workers import the functions from; raises WiringError if they cannot."""
        try:
            return origin_of(self.function).directory
        except NotFindable as error:
            raise WiringError(self.place, f"workflow {self.name} cannot run: {error}") from None

    def place_in(self, path: str) -> Place:
        """Return the line of the user's code that a path of the document comes from: `nodes.count.when`."""
        head, _, rest = path.partition(".")
        name = rest.partition(".")[0]
        call = self._graph.calls.get(name) if head == "nodes" else None
        return call.place if call is not None else self.place

    def inputs(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Return the inputs of a run as JSON values; raises TypeError as a call of the function would."""
        try:
            bound = self._hints.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.name}{self._hints.signature}: {error}") from None
        return {name: self._input(name, value) for name, value in bound.items()}

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return self._hints.signature.parameters

    def _input(self, name: str, value: object) -> object:
        hint = self._hints.parameters[name]
        what = f"input {name} of {self.name}"
        try:
            plain = to_json_value(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"{what} has no JSON form: {error}") from None
        if schema_of(hint):
            try:
                to_hinted(plain, hint, what)
            except ValueError as error:
                raise TypeError(f"{error}; it must be {shown(hint)}") from None
        return plain

    def _handles(self, graph: Recording) -> dict[str, WorkflowInput]:
        return {
            name: WorkflowInput(
                graph,
                f"inputs.{name}",
                f"input {name}",
                schema_of(hint),
                "" if hint is Any else shown(hint),
            )
            for name, hint in self._hints.parameters.items()
        }

    def _checked_head(self, timeout: Duration | None, on_failure: str | None) -> dict[str, object]:
        head: dict[str, object] = {}
        try:
            if timeout is not None:
                head["timeout"] = duration("timeout", timeout)
        except ValueError as error:
            raise WiringError(self.place, f"@workflow({error})") from None
        if on_failure is not None:
            if on_failure not in list(FailurePolicy):
                known = ", ".join(f'"{each}"' for each in FailurePolicy)
                raise WiringError(self.place, f"@workflow(on_failure={on_failure!r}) is not known", f"write {known}")
            head["on_failure"] = str(on_failure)
        return head

    def _checked_hints(self, reserved: frozenset[str]) -> Hints:
        hints = hints_of(self.function)
        for name, parameter in hints.signature.parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                problem = f"parameter {parameter} of workflow {self.name} is no single named input"
                raise WiringError(self.place, problem, "make it an ordinary parameter")
            if name in reserved:
                problem = f"input {name} of workflow {self.name} would hide an option of run()"
                raise WiringError(self.place, problem, "give it another name")
            if not NAME.fullmatch(name):
                raise WiringError(self.place, f"{name!r} cannot name an input", "use ASCII letters, at most 63")
        return hints

    def _input_schema(self, parameter: inspect.Parameter) -> dict[str, object]:
        hint = self._hints.parameters[parameter.name]
        schema = dict(schema_of(hint))
        if parameter.default is parameter.empty:
            return schema
        return {**schema, "default": self._input(parameter.name, parameter.default)}

    def _outputs_of(self, graph: Recording, returned: object) -> Outputs:
        hint = self._hints.result
        self._check_result(returned, hint)
        if isinstance(returned, dict) and returned and all(_names_output(each) for each in returned):
            values, alone = cast("dict[str, object]", returned), False
        else:
            values, alone = ({} if returned is None else {RESULT: returned}), True
        written = Written(graph)
        what = f"the result of workflow {self.name}"
        try:
            document = {name: written.value(value, what) for name, value in values.items()}
        except WiringError as error:
            raise WiringError(self.place, error.problem, error.remedy) from None
        whole = frozenset(name for name, value in values.items() if is_whole_output(value))
        return Outputs(document=document, whole=whole, alone=alone, hint=hint)

    def _check_result(self, returned: object, hint: object) -> None:
        schema = getattr(returned, "_schema", None) if is_whole_output(returned) else None
        if schema is not None and misfit(schema, schema_of(hint)):
            problem = f"workflow {self.name} returns {returned!r}, and its hint says {shown(hint)}"
            raise WiringError(self.place, problem)


def _names_output(key: object) -> bool:
    return isinstance(key, str) and NAME.fullmatch(key) is not None


def _node_fields(call: Call) -> dict[str, object]:
    over = {"map": call.map} if call.map is not None else {}
    needs = {"needs": call.needs} if call.needs else {}
    return {**over, **call.fields, **needs}
