"""From a workflow document to a workflow: everything that can be wrong with it is found here, all at once.

Owns what spans fields and nodes: references, dependencies, cycles, the revision. `yaml_source` reads the text,
`document_model` knows the fields, `templates` the expressions, `inputs` the schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from nodeflow_scheduler.domain import yaml_source
from nodeflow_scheduler.domain.document_faults import FaultList, Path, meant, short
from nodeflow_scheduler.domain.document_graph import graph_of
from nodeflow_scheduler.domain.document_model import (
    API_VERSION,
    KIND,
    NODES_LIMIT,
    HeaderModel,
    NodeModel,
)
from nodeflow_scheduler.domain.document_parts import digest_of, refuse_cycles, retry_policy, schemas_of, section
from nodeflow_scheduler.domain.document_process import compile_process
from nodeflow_scheduler.domain.document_shape import fitted
from nodeflow_scheduler.domain.expressions import Arguments, Constant, Expression, Interpolation
from nodeflow_scheduler.domain.inputs import InputsChecker
from nodeflow_scheduler.domain.json_text import JsonValue, kind
from nodeflow_scheduler.domain.pipeline import PipelineCompiler
from nodeflow_scheduler.domain.pipeline_model import PIPELINE
from nodeflow_scheduler.domain.templates import Names, compile_condition, compile_value
from nodeflow_scheduler.domain.workflow import (
    FunctionSpec,
    NodeSpec,
    ProcessSpec,
    Workflow,
)

_SECTIONS: Final = ("inputs", "nodes", "outputs")
_HEADER_STAND_IN: Final[Mapping[str, JsonValue]] = {"apiVersion": API_VERSION, "kind": KIND, "name": "unknown"}


def compile_document(source: bytes, content_type: str, directory: str) -> Workflow:
    """The workflow that a document describes; raises DocumentFaults with all that is wrong with it.

    `content_type` is that of YAML or JSON, or empty for either; functions are imported from `directory`.
    """
    read = yaml_source.read(source, content_type)
    if not isinstance(read.value, dict):
        hint = "start with: apiVersion: nodeflow/v1"
        read.faults.add((), f"a workflow document must be a mapping, not {kind(read.value)}", hint)
        raise read.faults.error()
    said = read.value.get("kind")
    if said == PIPELINE or ("stages" in read.value and said != KIND):
        return PipelineCompiler(document=read.value, directory=directory, faults=read.faults).compiled()
    return _Compiler(document=read.value, directory=directory, faults=read.faults).compiled()


@dataclass(slots=True, kw_only=True)
class _Compiler:
    """Compiles one document. Parts that are wrong are noted and stood in for, so that the rest is judged too."""

    document: dict[str, JsonValue]
    directory: str
    faults: FaultList
    inputs: dict[str, JsonValue] = field(default_factory=dict)
    outputs: dict[str, JsonValue] = field(default_factory=dict)
    nodes: dict[str, JsonValue] = field(default_factory=dict)
    indices: dict[str, int] = field(default_factory=dict)
    models: dict[str, NodeModel] = field(default_factory=dict)

    def compiled(self) -> Workflow:
        head = {key: value for key, value in self.document.items() if key not in _SECTIONS}
        header = fitted(HeaderModel, head, (), self.faults, stand_in=_HEADER_STAND_IN, also=_SECTIONS)
        self.inputs, self.nodes, self.outputs = (section(self.document, name, self.faults) for name in _SECTIONS)
        self._bound_nodes()
        self.indices = {name: index for index, name in enumerate(self.nodes)}
        schemas = schemas_of(self.inputs, self.faults)
        specs = [self._node(name, raw) for name, raw in self.nodes.items()]
        outputs = tuple((name, self._output(name, value)) for name, value in self.outputs.items())
        graph = graph_of([frozenset(spec.dependencies) for spec in specs])
        refuse_cycles(specs, self.faults, lambda node: ("nodes", specs[node].name))
        self.faults.raise_if_any()
        return Workflow(
            name=header.name,
            revision=self._revision(header),
            directory=self.directory,
            nodes=tuple(specs),
            successors=graph.successors,
            dependency_counts=tuple(map(len, graph.dependencies)),
            roots=graph.roots,
            outputs=outputs,
            inputs=InputsChecker(schemas),
            on_failure=header.on_failure,
            timeout_ms=header.timeout,
        )

    def _bound_nodes(self) -> None:
        if not self.nodes and isinstance(self.document.get("nodes", {}), dict):
            where: Path = ("nodes",)
            self.faults.add(where, "there are no nodes", "add one, such as: count: {function: my_module:count}")
        if len(self.nodes) > NODES_LIMIT:
            count = f"there are {len(self.nodes):,} nodes; at most {NODES_LIMIT:,} are allowed"
            self.faults.add(("nodes",), count, "use `map` for many tasks of one kind")
            self.faults.raise_if_any()

    def _node(self, name: str, raw: JsonValue) -> NodeSpec:
        place: Path = ("nodes", name)
        model = self.models[name] = fitted(NodeModel, raw, place, self.faults, stand_in={})
        plain = Names(inputs=tuple(self.inputs), nodes=self.indices, own=name)
        mapped = "map" in model.model_fields_set
        per_item = Names(inputs=plain.inputs, nodes=self.indices, own=name, item=mapped)
        self._check_executor(raw, model, place)
        executor, arguments = self._executor(model, per_item, place)
        items = self._map(model.map, plain, (*place, "map")) if mapped else None
        when = None
        if "when" in model.model_fields_set:
            when = compile_condition(model.when, plain, self.faults, (*place, "when"))
        read = [each.nodes for each in (arguments, items, when) if each is not None]
        return NodeSpec(
            name=name,
            executor=executor,
            dependencies=tuple(sorted(self._needed(name, model).union(*read))),
            arguments=arguments,
            map=items,
            when=when,
            retry=retry_policy(model.retry),
            timeout_ms=model.timeout,
        )

    def _check_executor(self, raw: JsonValue, model: NodeModel, place: Path) -> None:
        if not isinstance(raw, dict):
            return
        function, process = raw.get("function"), raw.get("process")
        if function is not None and process is not None:
            self.faults.add((*place, "process"), "stands beside `function`", "a node runs one of them: take one out")
        elif function is None and process is None:
            hint = 'such as function: my_module:my_function, or process: {command: ["sort", "-u", "${inputs.path}"]}'
            self.faults.add((*place, "function"), "is missing, and there is no `process`", hint)
        elif process is not None and model.arguments:
            hint = "write ${…} in its `command`, `env` or `stdin`"
            self.faults.add((*place, "with"), "gives arguments to a function, and this node runs a process", hint)

    def _executor(self, model: NodeModel, names: Names, place: Path) -> tuple[FunctionSpec | ProcessSpec, Arguments]:
        if model.process is not None:
            return compile_process(model.process, names, self.faults, (*place, "process"))
        arguments = {
            parameter: compile_value(value, names, self.faults, (*place, "with", parameter))
            for parameter, value in self._parameters(model, place).items()
        }
        return FunctionSpec(function=model.function or ""), Arguments(arguments)

    def _parameters(self, model: NodeModel, place: Path) -> Mapping[str, JsonValue]:
        for parameter in model.arguments:
            if not parameter.isidentifier():
                what = f"{short(parameter)!r} cannot be the name of a parameter"
                self.faults.add((*place, "with", parameter), what, "use the names of the function's own parameters")
        return model.arguments

    def _map(self, value: JsonValue, names: Names, place: Path) -> Expression:
        expression = compile_value(value, names, self.faults, place)
        is_text = isinstance(value, str) and isinstance(expression, Constant | Interpolation)
        if not is_text and isinstance(value, str | list):
            return expression
        if not isinstance(value, str):
            self.faults.add(place, f"must be a list or an expression, not {kind(value)}", "such as ${inputs.paths}")
        elif "${" not in value:
            self.faults.add(place, "must be a list or an expression, not text", f"did you mean ${{{short(value)}}}?")
        elif isinstance(expression, Interpolation):
            self.faults.add(place, "must be one expression, not text around ${…}", "such as ${inputs.paths}")
        return expression

    def _needed(self, name: str, model: NodeModel) -> frozenset[int]:
        needed = set()
        for position, other in enumerate(model.needs):
            place: Path = ("nodes", name, "needs", position)
            if other == name:
                self.faults.add(place, f"node {name!r} needs itself", "take it out")
            elif other not in self.indices:
                hint = meant(other, self.indices, "name a node of this document")
                self.faults.add(place, f"there is no node {short(other)!r}", hint)
            else:
                needed.add(self.indices[other])
        return frozenset(needed)

    def _output(self, name: str, value: JsonValue) -> Expression:
        names = Names(inputs=tuple(self.inputs), nodes=self.indices)
        return compile_value(value, names, self.faults, ("outputs", name))

    def _revision(self, header: HeaderModel) -> str:
        """The digest of what the document means: the order of nodes counts, that of keys and all layout do not."""
        nodes = [[name, self._meaning(self.models[name])] for name in self.nodes]
        meaning = {
            **header.model_dump(mode="json"),
            "inputs": self.inputs,
            "nodes": nodes,
            "outputs": self.outputs,
            "directory": self.directory,
        }
        return digest_of(meaning)

    def _meaning(self, model: NodeModel) -> dict[str, object]:
        meaning = {**model.model_dump(mode="json"), "needs": sorted(set(model.needs))}
        del meaning["process" if model.process is None else "function"]
        return meaning
