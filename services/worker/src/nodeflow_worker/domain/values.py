"""What the core handles: tasks, attempts and their outcomes.

Owns the vocabulary only. Knows nothing of the wire, of runner processes or of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, StrEnum
from typing import Final

from nodeflow_worker.domain.pace import Pace

INLINE_LIMIT_BYTES: Final = 64 * 1024
"""Results up to this size travel inline; larger ones become artifacts."""

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
MANIFEST: Final = "application/vnd.nodeflow.manifest+json"


class FailureKind(IntEnum):
    """Whose fault a failure is; the numbers are those of the wire."""

    TRANSIENT = 1
    PERMANENT = 2
    SYSTEM = 3
    USER = 4


class Reason(StrEnum):
    """Every failure that the worker itself gives a name."""

    FUNCTION_RAISED = "FUNCTION_RAISED"
    FUNCTION_NOT_FOUND = "FUNCTION_NOT_FOUND"
    CODE_DIFFERS = "CODE_DIFFERS"
    ARGUMENTS_MISMATCH = "ARGUMENTS_MISMATCH"
    NOT_SERIALIZABLE = "NOT_SERIALIZABLE"
    RESULT_TOO_LARGE = "RESULT_TOO_LARGE"
    RESULT_LOST = "RESULT_LOST"
    RESULT_NOT_STORED = "RESULT_NOT_STORED"
    RUNNER_EXITED = "RUNNER_EXITED"
    RUNNER_LOST = "RUNNER_LOST"
    RUNNER_UNAVAILABLE = "RUNNER_UNAVAILABLE"
    ATTEMPT_TIMEOUT = "ATTEMPT_TIMEOUT"
    ARGUMENT_UNAVAILABLE = "ARGUMENT_UNAVAILABLE"
    PROCESS_EXITED = "PROCESS_EXITED"
    PROCESS_NOT_STARTED = "PROCESS_NOT_STARTED"
    COMMAND_NOT_FOUND = "COMMAND_NOT_FOUND"
    MEMORY_LIMIT = "MEMORY_LIMIT"
    CPU_TIME_LIMIT = "CPU_TIME_LIMIT"
    OPEN_FILES_LIMIT = "OPEN_FILES_LIMIT"
    DIRECTORY_LIMIT = "DIRECTORY_LIMIT"
    OUTPUT_INVALID = "OUTPUT_INVALID"
    ARTIFACTS_MISSING = "ARTIFACTS_MISSING"
    SOURCE_UNUSABLE = "SOURCE_UNUSABLE"
    TOO_MANY_ARTIFACTS = "TOO_MANY_ARTIFACTS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt failed, as it is told to people."""

    kind: FailureKind
    reason: str
    message: str
    retryable: bool
    error_type: str = ""
    traceback: str = ""
    cause: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A value that is not inline JSON: bytes of another type (`data`), or an artifact (`digest`, `size_bytes`)."""

    content_type: str = JSON
    data: bytes = b""
    digest: str = ""
    size_bytes: int = 0


class Ending(Enum):
    """Ends of a task without a value or a failure."""

    CANCELLED = "cancelled"
    """Reported: it was stopped on request."""
    SKIPPED = "skipped"
    """From a runner: it did not start the task, as it was told."""
    STOPPED = "stopped"
    """From a runner: it stopped the task, as it was told, and then exits."""


Outcome = bytes | Stored | Failure | Ending
"""How an attempt ended; plain bytes are inline JSON, which nearly all are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a process and all that it starts may use; 0 for no limit."""

    memory_bytes: int = 0
    cpu_time_s: float = 0.0
    open_files: int = 0
    directory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A process. An empty `script` means that the arguments have a command."""

    script: str = ""
    artifacts: tuple[str, ...] = ()
    limits: Limits = Limits()
    filled: bool = False
    """Its working directory gets the `source` and the `files` of the arguments first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """A process, and no later one that gets its number: `start_ticks` is when it began, counted from the boot."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """How tasks of one node are executed: by a process, if there is one, else by a function.

    `function` is `module:callable`, with `@sha256:…` behind it if it is pinned to the bytes of its file; an empty one
    is refused by the runner. `directory` is that of the document.
    """

    tenant: str
    workflow: str = ""
    node: str = ""
    function: str = ""
    directory: str = ""
    timeout_s: float | None = None
    process: ProcessSpec | None = None

    @property
    def title(self) -> str:
        """What runs, for people."""
        return self.function.partition("@")[0] if self.process is None else f"the process of node {self.node!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFile:
    """A file that a process leaves as an artifact: its name, and where it is until it is stored."""

    name: str
    path: str
    content_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An argument whose value is elsewhere (`value.digest`), or inline in another format than JSON."""

    parameter: str
    value: Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """An argument that came by reference, with its bytes. `parts` are the artifacts in a manifest, by digest."""

    parameter: str
    content_type: str
    data: bytes
    parts: tuple[tuple[str, bytes], ...] = ()


class State(IntEnum):
    """Where an attempt is. ENDED ones are forgotten: whatever still comes for them changes nothing."""

    PREPARING = 0
    WAITING = 1
    FED = 2
    STORING = 3
    RECORDING = 4
    """Finished, and not told before it is in the journal."""
    FINISHED = 5
    ENDED = 6


class Stop(IntEnum):
    """Why an attempt was told to stop."""

    NONE = 0
    CANCEL = 1
    TIMEOUT = 2


_UNMEASURED: Final = Pace()

Key = tuple[str, int, int]
"""execution_id, task_number, attempt_number."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt, from its assignment until its result is acknowledged. Mutable: it is the hot path's only object."""

    execution_id: str
    task_number: int
    attempt_number: int
    shard: int
    fencing_token: int
    spec: TaskSpec
    arguments: bytes
    references: tuple[Reference, ...] = ()
    extras: tuple[Extra, ...] = ()
    state: State = State.WAITING
    stop: Stop = Stop.NONE
    runner: int = 0
    outcome: Outcome | None = None
    result_id: int = 0
    result_bytes: int = 0
    """About what its result takes on the wire."""
    returns: int = 0
    """How often a runner died before it began this attempt."""
    map_index: int | None = None
    """For an item of a mapped node, its place; known for processes only, which are told."""
    artifacts: tuple[tuple[str, Stored], ...] = ()
    """The files that it leaves, by name; with a result only."""
    pace: Pace = _UNMEASURED
    """Of its function; set when the attempt is taken."""
    older: Attempt | None = None
    """An earlier attempt of the same task that is still held."""

    @property
    def key(self) -> Key:
        """What names the attempt."""
        return (self.execution_id, self.task_number, self.attempt_number)
