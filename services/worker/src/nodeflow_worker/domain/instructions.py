"""All that the core can ask of the world around it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nodeflow_worker.domain.values import Attempt, LeftFile, ProcessIdentity, Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """Start a runner process, after a delay if earlier ones would not start."""

    runner: int
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Hand tasks to a runner. Its first feed binds it to the directory that its functions come from."""

    runner: int
    directory: str
    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTask:
    """Stop a task of a runner: never start it if it has not, else ask it, and kill the runner after the grace time."""

    runner: int
    sequence: int
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeBack:
    """Have a runner not begin tasks that wait behind a long one; TasksTakenBack tells which it had not."""

    runner: int
    sequences: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartProcess:
    """Start the process of an attempt."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class StopProcess:
    """Ask a process and all that it started to stop, and kill them after the grace time."""

    attempt: Attempt
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KillProcess:
    """Kill a process and all that it started now."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """Store the files that an attempt leaves, and its result if it is large."""

    attempt: Attempt
    value: bytes | Stored
    files: Sequence[LeftFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard:
    """Remove the files that an attempt left."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Retire:
    """Let an idle runner exit."""

    runner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Kill a runner now."""

    runner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Fetch the arguments that an attempt has by reference."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Store a large result as an artifact."""

    attempt: Attempt
    value: Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteProcess:
    """Write down which process an attempt has, for those who come after this one."""

    attempt: Attempt
    process: ProcessIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Keep the result of a process where it outlives this one; Recorded follows."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Nothing needs to be kept of these attempts any more."""

    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Tell what became of attempts."""

    started: Sequence[Attempt] = field(default=())
    results: Sequence[Attempt] = field(default=())
    refused: Sequence[Attempt] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportHeld:
    """Tell all that is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TellBid:
    """Send a heartbeat soon: the bid, or whether the worker drains, has changed much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Say goodbye: drained, and nothing is held."""


Instruction = (
    Spawn
    | Feed
    | StopTask
    | TakeBack
    | Retire
    | Kill
    | StartProcess
    | StopProcess
    | KillProcess
    | Publish
    | Discard
    | Fetch
    | Save
    | NoteProcess
    | Record
    | Forget
    | Report
    | ReportHeld
    | TellBid
    | Leave
)
