"""A workflow, compiled: the immutable arrays that all executions of a revision share.

`document.py` builds these from what a person wrote. A node's index is its task number in every execution.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nodeflow_scheduler.domain.expressions import Arguments, Expression
from nodeflow_scheduler.domain.inputs import InputsChecker
from nodeflow_shared.errors import NotFound

SOURCE_INPUT: Final = "source"


class FailurePolicy(StrEnum):
    """What the failure of a node does to the rest of its execution."""

    CANCEL_DEPENDENTS = "cancel_dependents"
    """What depends on it is cancelled; other branches go on; the execution fails in the end."""
    FAIL_FAST = "fail_fast"
    """Everything that waits or runs is cancelled, and the execution fails at once."""
    CONTINUE = "continue"
    """What depends on it is skipped; all that can still run, runs; the execution completes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The wait before a retry: `initial_ms * factor**retries`, at most `max_ms`, give or take `jitter` of it."""

    initial_ms: int = 1_000
    factor: float = 2.0
    max_ms: int = 60_000
    jitter: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a task is tried at most, the first time included, and how long to wait in between."""

    attempts: int = 1
    backoff: Backoff = Backoff()


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpec:
    """A Python function."""

    function: str
    """`module:callable`, pinned to the bytes of its file if `@sha256:…` follows."""

    @property
    def name(self) -> str:
        """It, for people."""
        return self.function.partition("@")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What a process and all that it starts may use; 0 for no limit."""

    memory_bytes: int = 0
    cpu_time_ms: int = 0
    open_files: int = 0
    directory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A command or a script. What differs from task to task is in the node's arguments."""

    script: str
    """Text for /bin/sh; empty for a command."""
    command: str
    """What it runs, for people."""
    artifacts: tuple[str, ...] = ()
    limits: ProcessLimits = ProcessLimits()
    filled: bool = False
    """Its arguments have a `source` or `files`, which are put into its working directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One vertex."""

    name: str
    executor: FunctionSpec | ProcessSpec
    dependencies: tuple[int, ...]
    """Indices of the nodes it waits for, ascending, each once: from `needs` and from every expression."""
    arguments: Arguments
    map: Expression | None = None
    """Gives the list of a mapped node."""
    when: Expression | None = None
    """The condition; must give a bool."""
    retry: RetryPolicy = RetryPolicy()
    timeout_ms: int | None = None
    allow_failure: bool = False
    """Its failure neither fails the execution nor keeps what depends on it from running."""
    stage: str = ""
    """Of a pipeline's job: its stage, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """One revision, ready to be executed."""

    name: str
    revision: str
    directory: str
    nodes: tuple[NodeSpec, ...]
    successors: tuple[tuple[int, ...], ...]
    """For each node the nodes that depend on it.

    Tuples of tuples, not flat CSR arrays: in CPython a slice of an array costs more.
    """
    dependency_counts: tuple[int, ...]
    roots: tuple[int, ...]
    outputs: tuple[tuple[str, Expression], ...]
    inputs: InputsChecker
    on_failure: FailurePolicy = FailurePolicy.CANCEL_DEPENDENTS
    timeout_ms: int | None = None
    """How long an execution may take from its start."""
    source_path: str = ""
    """Of a pipeline with a source: what submitters pack. The input SOURCE_INPUT says where it is stored."""

    def number_of(self, name: str) -> int:
        """The number of a node. Raises NotFound."""
        names = [node.name for node in self.nodes]
        if name not in names:
            message = f"workflow {self.name} has no node {name!r}; it has {', '.join(names[:20])}"
            raise NotFound(message, reason="NODE_NOT_FOUND")
        return names.index(name)


def source_digest(workflow: Workflow, inputs: bytes) -> str:
    """The digest of the packed source that checked inputs name; empty for a workflow without one."""
    if not workflow.source_path:
        return ""
    digest: str = json.loads(inputs)[SOURCE_INPUT]["digest"]
    return digest
