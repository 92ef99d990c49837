"""From a pipeline document to a workflow: a job is a node that runs a process, a stage is a barrier.

Owns what spans fields, jobs and stages: who waits for whom, who gets whose files, the matrix. All that can be wrong is
found here, all at once. There is no other engine: what comes out is a workflow like any other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import methodcaller
from typing import Final

from nodeflow_scheduler.domain import json_text
from nodeflow_scheduler.domain.document_faults import FaultList, Path, meant, short
from nodeflow_scheduler.domain.document_graph import graph_of
from nodeflow_scheduler.domain.document_model import API_VERSION, ProcessModel
from nodeflow_scheduler.domain.document_parts import digest_of, refuse_cycles, retry_policy, schemas_of, section
from nodeflow_scheduler.domain.document_process import MATRIX_PREFIX, check_environment, compile_process
from nodeflow_scheduler.domain.document_shape import fitted
from nodeflow_scheduler.domain.expressions import NO_NODES, Arguments, Constant, Expression, Reference
from nodeflow_scheduler.domain.inputs import InputsChecker, Schema
from nodeflow_scheduler.domain.job_files import FilesOf
from nodeflow_scheduler.domain.json_text import JsonValue, kind
from nodeflow_scheduler.domain.pipeline_model import (
    COMBINATIONS_LIMIT,
    JOBS_LIMIT,
    PIPELINE,
    STAGES_LIMIT,
    JobModel,
    PipelineHeadModel,
    StageHeadModel,
)
from nodeflow_scheduler.domain.templates import Names, compile_condition, compile_value
from nodeflow_scheduler.domain.workflow import SOURCE_INPUT, NodeSpec, ProcessSpec, Workflow

_SECTIONS: Final = ("inputs", "stages", "outputs")
_HEAD_STAND_IN: Final[Mapping[str, JsonValue]] = {"apiVersion": API_VERSION, "kind": PIPELINE, "name": "unknown"}
_STAGES_HINT: Final = "such as stages: [{name: test, jobs: [{name: unit, run: pytest -q}]}]"
_SOURCE_SCHEMA: Final[Schema] = {
    "type": "object",
    "description": "The packed source: the address of a tar archive that is stored as an artifact.",
    "properties": {
        "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
        "size_bytes": {"type": "integer", "minimum": 0},
    },
    "required": ["digest"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A job, and where it stands."""

    model: JobModel
    place: Path
    index: int
    stage: int

    @property
    def name(self) -> str:
        return self.model.name


@dataclass(slots=True, kw_only=True)
class _Stages:
    """The jobs of a document, fitted to their models; what does not fit is noted and stood in for."""

    faults: FaultList
    names: list[str] = field(default_factory=list)
    jobs: list[_Job] = field(default_factory=list)

    def read(self, raw: JsonValue) -> None:
        if not isinstance(raw, list) or not raw:
            what = "there are no stages" if raw is None or raw == [] else f"must be a list, not {kind(raw)}"
            self.faults.add(("stages",), what, _STAGES_HINT)
            return
        if len(raw) > STAGES_LIMIT:
            self.faults.add(("stages",), f"there are {len(raw):,} stages; at most {STAGES_LIMIT} are allowed")
        for position, stage in enumerate(raw[:STAGES_LIMIT]):
            self._read_stage(stage, ("stages", position))

    def _read_stage(self, raw: JsonValue, place: Path) -> None:
        head = {key: value for key, value in raw.items() if key != "jobs"} if isinstance(raw, dict) else raw
        model = fitted(StageHeadModel, head, place, self.faults, stand_in={"name": "unknown"}, also=["jobs"])
        if model.name in self.names and isinstance(raw, dict) and "name" in raw:
            self.faults.add((*place, "name"), f"there is a stage {model.name!r} already", "give it another name")
        self.names.append(model.name)
        if not isinstance(raw, dict):
            return
        jobs = raw.get("jobs")
        if not isinstance(jobs, list) or not jobs:
            what = "there are no jobs" if jobs is None or jobs == [] else f"must be a list, not {kind(jobs)}"
            self.faults.add((*place, "jobs"), what, "such as jobs: [{name: unit, run: pytest -q}]")
            return
        for position, job in enumerate(jobs):
            self._read_job(job, (*place, "jobs", position))

    def _read_job(self, raw: JsonValue, place: Path) -> None:
        if len(self.jobs) == JOBS_LIMIT:
            what = f"there are more than {JOBS_LIMIT:,} jobs"
            self.faults.add(("stages",), what, "use `matrix` for many jobs of one kind")
            self.faults.raise_if_any()
        model = fitted(JobModel, raw, place, self.faults, stand_in={"name": "unknown", "run": ":"})
        if isinstance(raw, dict) and any(each.name == model.name for each in self.jobs) and "name" in raw:
            hint = "give it another name: jobs of all stages are named together"
            self.faults.add((*place, "name"), f"there is a job {model.name!r} already", hint)
        self.jobs.append(_Job(model=model, place=place, index=len(self.jobs), stage=len(self.names) - 1))


@dataclass(kw_only=True)
class PipelineCompiler:
    """Compiles one document. Parts that are wrong are noted and stood in for, so that the rest is judged too."""

    document: dict[str, JsonValue]
    directory: str
    faults: FaultList

    def compiled(self) -> Workflow:
        """The workflow; raises DocumentFaults with all that is wrong."""
        head = self._head
        self._stages.read(self.document.get("stages"))
        self._check_shared()
        schemas = schemas_of(self._inputs, self.faults)
        if head.source is not None:
            if SOURCE_INPUT in self._inputs:
                hint = "rename the input, or leave `source` out"
                self.faults.add(("inputs", SOURCE_INPUT), "is what `source` becomes", hint)
            schemas[SOURCE_INPUT] = _SOURCE_SCHEMA
        specs = [self._node(job) for job in self._jobs]
        outputs = tuple((name, self._output(name, value)) for name, value in self._outputs.items())
        refuse_cycles(specs, self.faults, lambda node: self._jobs[node].place)
        self.faults.raise_if_any()
        graph = graph_of([frozenset(spec.dependencies) for spec in specs])
        return Workflow(
            name=head.name,
            revision=self._revision(),
            directory=self.directory,
            nodes=tuple(specs),
            successors=graph.successors,
            dependency_counts=tuple(map(len, graph.dependencies)),
            roots=graph.roots,
            outputs=outputs,
            inputs=InputsChecker(schemas),
            on_failure=head.on_failure,
            timeout_ms=head.timeout,
            source_path=head.source.path if head.source is not None else "",
        )

    # ------------------------------------------------------------------- parts

    @cached_property
    def _head(self) -> PipelineHeadModel:
        head = {key: value for key, value in self.document.items() if key not in _SECTIONS}
        return fitted(PipelineHeadModel, head, (), self.faults, stand_in=_HEAD_STAND_IN, also=_SECTIONS)

    @cached_property
    def _inputs(self) -> dict[str, JsonValue]:
        return section(self.document, "inputs", self.faults)

    @cached_property
    def _outputs(self) -> dict[str, JsonValue]:
        return section(self.document, "outputs", self.faults)

    @cached_property
    def _stages(self) -> _Stages:
        return _Stages(faults=self.faults)

    @property
    def _jobs(self) -> list[_Job]:
        return self._stages.jobs

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {job.name: job.index for job in reversed(self._jobs)}

    @cached_property
    def _members(self) -> list[list[int]]:
        """The jobs of each stage."""
        return [[job.index for job in self._jobs if job.stage == stage] for stage in range(len(self._stages.names))]

    @cached_property
    def _names(self) -> tuple[str, ...]:
        source = (SOURCE_INPUT,) if self._head.source is not None else ()
        return (*self._inputs, *source)

    def _check_shared(self) -> None:
        """What all jobs share is judged once, in its own place: it knows no job."""
        names = Names(inputs=self._names, nodes={}, root="jobs")
        check_environment(self._head.env, self.faults, ("env",))
        compile_value(dict(self._head.env), names, self.faults, ("env",))

    def _output(self, name: str, value: JsonValue) -> Expression:
        names = Names(inputs=self._names, nodes=self._indices, root="jobs")
        return compile_value(value, names, self.faults, ("outputs", name))

    # -------------------------------------------------------------------- jobs

    def _node(self, job: _Job) -> NodeSpec:
        model = job.model
        plain = Names(inputs=self._names, nodes=self._indices, own=job.name, root="jobs")
        items = self._matrix(job) if "matrix" in model.model_fields_set else None
        process, arguments = self._process(job, plain, per_item=items is not None)
        when = None
        if "when" in model.model_fields_set:
            when = compile_condition(model.when, plain, self.faults, (*job.place, "when"))
        files = self._files(job)
        if self._head.source is not None:
            source = Reference(text="source", getter=methodcaller("input", SOURCE_INPUT))
            arguments = Arguments({**arguments.expressions, "source": source})
        if files is not None:
            arguments = Arguments({**arguments.expressions, "files": files})
        read = arguments.nodes.union(when.nodes if when is not None else NO_NODES)
        return NodeSpec(
            name=job.name,
            executor=process,
            dependencies=tuple(sorted(self._needed(job, read))),
            arguments=arguments,
            map=items,
            when=when,
            retry=retry_policy(model.retry),
            timeout_ms=model.timeout,
            allow_failure=model.allow_failure,
            stage=self._stages.names[job.stage],
        )

    def _process(self, job: _Job, plain: Names, *, per_item: bool) -> tuple[ProcessSpec, Arguments]:
        model = job.model
        check_environment(model.env, self.faults, (*job.place, "env"))
        varied = [name for name in model.matrix if per_item and name.isidentifier()]
        matrix = {f"{MATRIX_PREFIX}{name.upper()}": f"${{matrix.{name}}}" for name in varied}
        names = replace(plain, item=per_item, varied=tuple(model.matrix))
        filled = self._head.source is not None or bool(self._used(job))
        whole = ProcessModel(
            script=model.run,
            env={**self._sound_env, **model.env, **matrix},
            artifacts=model.artifacts,
            limits=model.limits,
        )
        spec, arguments = compile_process(whole, names, self.faults, job.place, script="run")
        process = ProcessSpec(
            script=spec.script, command=spec.command, artifacts=spec.artifacts, limits=spec.limits, filled=filled
        )
        return process, arguments

    @cached_property
    def _sound_env(self) -> Mapping[str, JsonValue]:
        """What all jobs share, unless it is wrong, which is noted in its own place and not in each job's."""
        probe = FaultList()
        check_environment(self._head.env, probe, ("env",))
        compile_value(dict(self._head.env), Names(inputs=self._names, nodes={}, root="jobs"), probe, ("env",))
        return {} if probe.found else self._head.env

    def _matrix(self, job: _Job) -> Expression | None:
        """The combinations, as the constant list that the node is mapped over."""
        place: Path = (*job.place, "matrix")
        sound = [list(self._values(name, values, (*place, name))) for name, values in job.model.matrix.items()]
        if not sound:
            self.faults.add(place, "names no values", 'such as matrix: {python: ["3.11", "3.12"]}')
            return None
        count = math.prod(map(len, sound))
        if count > COMBINATIONS_LIMIT:
            what = f"gives {count:,} combinations; at most {COMBINATIONS_LIMIT} are allowed"
            self.faults.add(place, what, "split the job")
            return None
        combinations = [dict(zip(job.model.matrix, each, strict=True)) for each in itertools.product(*sound)]
        return Constant(json=json_text.encode(combinations), text="matrix")

    def _values(self, name: str, values: list[JsonValue], place: Path) -> Iterator[JsonValue]:
        if not name.isidentifier():
            self.faults.add(place, f"{short(name)!r} cannot be a name in a matrix", "use letters, digits and _")
        if not values:
            self.faults.add(place, "has no values", 'such as ["3.11", "3.12"]')
        for position, value in enumerate(values):
            if isinstance(value, float):
                what = f"{value} is a number, and its text may not be what was meant"
                self.faults.add((*place, position), what, f'put it in quotes: "{value}"')
            elif isinstance(value, list | dict) or value is None:
                self.faults.add((*place, position), f"must be text, a number or a boolean, not {kind(value)}")
            elif isinstance(value, str) and "${" in value:
                self.faults.add((*place, position), "a matrix holds no expressions", "write the value itself")
            else:
                yield value

    def _needed(self, job: _Job, read: frozenset[int]) -> frozenset[int]:
        """Whom a job waits for: the stage before its own, and whom it names."""
        barrier = self._members[job.stage - 1] if job.stage else []
        named = {*self._named(job, "needs", job.model.needs), *self._named(job, "uses", job.model.uses or [])}
        for index in sorted(read - named):
            other = self._jobs[index]
            if other.stage > job.stage:
                stage = self._stages.names[other.stage]
                what = f"reads job {other.name!r} of the later stage {stage!r}"
                self.faults.add(job.place, what, "refer to a job of this stage or of an earlier one")
        sound = {index for index in read if self._jobs[index].stage <= job.stage}
        return frozenset(barrier) | named | sound

    def _named(self, job: _Job, key: str, names: list[str]) -> set[int]:
        found = set()
        for position, name in enumerate(names):
            place: Path = (*job.place, key, position)
            index = self._indices.get(name)
            if name == job.name:
                self.faults.add(place, f"job {name!r} names itself", "take it out")
            elif index is None:
                hint = meant(name, self._indices, "name a job of this stage or of an earlier one")
                self.faults.add(place, f"there is no job {short(name)!r}", hint)
            elif self._jobs[index].stage > job.stage:
                stage = self._stages.names[self._jobs[index].stage]
                hint = "stages run in their order: move one of the two jobs"
                self.faults.add(place, f"job {name!r} is in the later stage {stage!r}", hint)
            else:
                found.add(index)
        return found

    def _used(self, job: _Job) -> list[int]:
        """The jobs whose files a job gets, of those that leave any."""
        if job.model.uses is not None:
            chosen = {self._indices[name] for name in job.model.uses if name in self._indices}
        else:
            needed = {self._indices[name] for name in job.model.needs if name in self._indices}
            chosen = needed.union(*self._members[: job.stage])
        return [
            index
            for index in sorted(chosen - {job.index})
            if self._jobs[index].model.artifacts and self._jobs[index].stage <= job.stage
        ]

    def _files(self, job: _Job) -> FilesOf | None:
        used = self._used(job)
        if not used:
            return None
        stages = itertools.groupby(used, key=lambda index: self._jobs[index].stage)
        return FilesOf(stages=tuple(tuple(indices) for _, indices in stages), nodes=frozenset(used))

    def _revision(self) -> str:
        """The digest of what the document means: the order of stages and jobs counts, that of keys does not."""
        meaning = {
            **self._head.model_dump(mode="json"),
            "inputs": self._inputs,
            "outputs": self._outputs,
            "directory": self.directory,
            "stages": [
                [name, [job.model.model_dump(mode="json") for job in self._jobs if job.stage == stage]]
                for stage, name in enumerate(self._stages.names)
            ],
        }
        return digest_of(meaning)
