"""The form of a history: what the log holds of executions, and what was seen from outside while it came about.

Owns the values that checkers judge. Must not know where they come from, nor what makes a history right: nothing here is
put in order, left out or corrected. All that was seen from outside is optional: a checker judges what is there.

Times are milliseconds since 1970. Facts come many at a time, which is why they are msgspec structs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from msgspec import Struct

NO_TASK: Final = -1
DEFAULT_TENANT: Final = "default"


class State(StrEnum):
    """Where a task or an execution is in its lifecycle."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    PAUSED = "PAUSED"


OVER: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.SKIPPED})
"""States that nothing leaves."""


class Kind(StrEnum):
    """What a fact says: the name of the record in `nodeflow.scheduler.v1.LogRecord`."""

    EXECUTION_STARTED = "execution_started"
    TASKS_QUEUED = "tasks_queued"
    TASKS_STARTED = "tasks_started"
    TASKS_COMPLETED = "tasks_completed"
    TASK_FAILED = "task_failed"
    ATTEMPTS_LOST = "attempts_lost"
    TASKS_SKIPPED = "tasks_skipped"
    TASKS_CANCELLED = "tasks_cancelled"
    NODE_EXPANDED = "node_expanded"
    CANCEL_REQUESTED = "cancel_requested"
    EXECUTION_FINISHED = "execution_finished"


class Submission(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How an execution was accepted."""

    tenant: str
    workflow: str = ""
    revision: str = ""
    request_id: str = ""
    request_digest: str = ""
    """Of what was submitted, hexadecimal."""
    deadline_ms: int = 0
    """When its time is up; 0 for never."""


class Items(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The items of a mapped node: tasks with numbers of their own."""

    first: int
    count: int

    @property
    def tasks(self) -> range:
        """Return their task numbers."""
        return range(self.first, self.first + self.count)


class Fact(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    gc=False,
    tag_field="line",
    tag="event",
):
    """One event of the log: what it says of one task, or of the execution as a whole."""

    sequence: int
    """Its place in the execution, from 1."""
    offset: int
    """Its place in the shard, from 0."""
    time_ms: int
    token: int
    """The fencing token of the lease under which it was decided."""
    kind: Kind
    task: int = NO_TASK
    attempt: int = 0
    """0 where it is about the task itself, not about an attempt."""
    worker: str = ""
    """Of tasks_started: where."""
    value: str = ""
    """Of tasks_completed and execution_finished: the digest of the result or the outputs, `sha256:…`."""
    reason: str = ""
    """Why, of what failed, was lost, cancelled or skipped."""
    retry_ms: int = 0
    """Of task_failed: when the next attempt is due; 0 when there is none."""
    state: State | None = None
    """Of execution_finished: the final state."""
    items: Items | None = None
    """Of node_expanded."""
    submission: Submission | None = None
    """Of execution_started."""

    @property
    def ends_task(self) -> bool:
        """Whether it ends its task: with a result, or without one and without another attempt."""
        if self.kind is Kind.TASK_FAILED:
            return not self.retry_ms
        return self.kind in _ENDS


_ENDS: Final = frozenset({Kind.TASKS_COMPLETED, Kind.TASKS_SKIPPED, Kind.TASKS_CANCELLED})
BEGINNINGS: Final = frozenset({Kind.TASKS_QUEUED, Kind.NODE_EXPANDED})
"""Facts that make a task ready."""


class Node(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node of a workflow. Its task has the node's place in the graph as its number."""

    name: str = ""
    parents: tuple[int, ...] = ()
    """The numbers of the nodes that it depends on."""
    allow_failure: bool = False
    """Whether what depends on it goes on when it has failed."""


Graph = Sequence[Node]


def graph_of_parents(parents: Sequence[Sequence[int]]) -> Graph:
    """Return the graph in which each node, by its number, depends on others."""
    return tuple(Node(parents=tuple(each)) for each in parents)


class Attempt(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    gc=False,
    tag_field="line",
    tag="attempt",
):
    """One try of a task, from its QUEUED event to its end."""

    execution_id: str
    task: int
    attempt: int
    token: int
    """The fencing token under which it was made ready, and is known to workers."""
    queued_ms: int
    started_ms: int = 0
    """0 when its start was not reported."""
    worker: str = ""
    ended_ms: int = 0
    """0 while it lasts."""
    end: Kind | None = None
    """tasks_completed, task_failed, attempts_lost or tasks_cancelled; nothing while it lasts."""
    value: str = ""
    """The digest of its result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionHistory:
    """An execution: its line in the index, and its facts in the order in which they were committed."""

    execution_id: str
    tenant: str = DEFAULT_TENANT
    shard: int = 0
    workflow: str = ""
    revision: str = ""
    request_id: str = ""
    state: State = State.RUNNING
    task_count: int = 0
    graph: Graph | None = None
    """Nothing when it is not known; then dependencies are not judged."""
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardHistory:
    """A shard of which the history has every execution: the last token that was granted, and the next offset."""

    shard: int
    fencing_token: int
    next_offset: int


class Call(StrEnum):
    """What a client may ask for that changes something."""

    SUBMIT = "submit"
    CANCEL = "cancel"


class Acknowledgement(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="line",
    tag="acknowledgement",
):
    """A client was told that what it asked for is done."""

    execution_id: str
    call: Call
    time_ms: int
    """When it was told."""
    tenant: str = DEFAULT_TENANT
    request_id: str = ""
    body: str = ""
    """Any digest of what was asked for: equal bodies have equal ones."""


class ResultAcknowledgement(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="line",
    tag="result_acknowledgement",
):
    """A worker was told that it need not keep the result of an attempt any longer."""

    execution_id: str
    task: int
    attempt: int
    token: int
    """The fencing token that the worker holds the attempt under."""
    time_ms: int
    """When it was told."""
    worker: str = ""
    value: str = ""
    """The digest of the result, if it was one."""


class WatchedBatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One response of a stream of events."""

    cursor: str
    """Where to go on after it."""
    sequences: tuple[int, ...]


class Watched(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="line", tag="watched"
):
    """What a watcher was told, over all its resumptions, in the order in which it came."""

    execution_id: str
    tenant: str = DEFAULT_TENANT
    watcher: str = "a watcher"
    after: int = 0
    """The sequence after which it began; 0 for the start."""
    batches: tuple[WatchedBatch, ...] = ()
    ended: bool = True
    """Whether the stream ended by itself, which it does after the last event of all."""


class ToldTask(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A task as a reader was told of it."""

    task: int
    state: State
    attempt: int = 0


class Told(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="line", tag="told"
):
    """An execution as a reader was told of it, at one moment."""

    execution_id: str
    tenant: str = DEFAULT_TENANT
    sequence: int
    """The last event that it includes."""
    state: State
    value: str = ""
    """The digest of its outputs, if it has any."""
    tasks: tuple[ToldTask, ...] | None = None
    """All tasks by number; nothing if they were not asked for."""


class Explained(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="line", tag="explained"
):
    """What an open task was said to wait for."""

    execution_id: str
    task: int
    reason: str
    """The name of a `nodeflow.scheduler.v1.TaskReason`; empty when none was given."""


class Span(
    Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, tag_field="line", tag="span"
):
    """An attempt at work on a worker, as seen there."""

    worker: str
    execution_id: str
    task: int
    attempt: int
    begin_ms: int
    end_ms: int | None = None
    """Nothing while it still is."""


class Slots(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="line", tag="slots"):
    """How many attempts a worker may have at work at once."""

    worker: str
    slots: int


class QueueLevel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="line", tag="queue"):
    """How full a queue of a service has ever been."""

    queue: str
    limit: int
    highest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the log holds, and what was seen from outside."""

    executions: tuple[ExecutionHistory, ...] = ()
    shards: tuple[ShardHistory, ...] = ()
    """Those of which every execution is there. Others have gaps where executions are missing."""
    attempts: tuple[Attempt, ...] = ()
    """As they were written down when the log was read; checkers derive them from the facts too."""
    acknowledgements: tuple[Acknowledgement, ...] = ()
    results: tuple[ResultAcknowledgement, ...] = ()
    watched: tuple[Watched, ...] = ()
    told: tuple[Told, ...] = ()
    explained: tuple[Explained, ...] = ()
    spans: tuple[Span, ...] = ()
    slots: tuple[Slots, ...] = ()
    queues: tuple[QueueLevel, ...] = ()
    stop_within_ms: int | None = None
    """How soon after the end of an execution its attempts must have stopped: the longest of grace times and leases.

    Nothing if that is not known; then it is not judged.
    """
    clock_error_ms: int = 0
    """By how much the clocks of the log and of whoever saw spans and acknowledgements may differ."""

    def execution(self, execution_id: str) -> ExecutionHistory:
        """Return one execution; there must be exactly one with this id."""
        [found] = [each for each in self.executions if each.execution_id == execution_id]
        return found
