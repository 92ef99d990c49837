"""All that can happen to the agent. Batches where there are many."""

from collections.abc import Sequence
from dataclasses import dataclass

from nodeflow_worker.domain.values import Attempt, Extra, Failure, Key, LeftFile, Outcome, ProcessIdentity, Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The process has started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcomed:
    """The worker-manager has registered the session."""

    lease_timeout_s: float
    heartbeat_interval_s: float
    hello_sent_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatSent:
    """A heartbeat with the present bid leaves."""

    beat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatAnswered:
    """A heartbeat was answered."""

    beat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Assigned:
    """New attempts came, in the order in which they became ready."""

    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """Results are committed and may be forgotten."""

    result_ids: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """Attempts are to be stopped."""

    keys: Sequence[Key]
    grace_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRequested:
    """All that is held is to be reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequested:
    """The worker is to finish what it holds and leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEnding:
    """The lease is about to end: nothing may run on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionBegun:
    """A new session replaces one whose lease has ended: nothing of the old one counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftBehind:
    """Results that earlier processes of this worker had recorded and nobody acknowledged; they are recorded anew."""

    results: Sequence[Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Results of processes are in the journal."""

    attempts: Sequence[Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The arguments that an attempt has by reference are here."""

    attempt: Attempt
    extras: tuple[Extra, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A large result is stored as an artifact, and so are the files that were left beside it."""

    attempt: Attempt
    value: bytes | Stored
    artifacts: tuple[tuple[str, Stored], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferFailed:
    """Arguments could not be fetched, or a result could not be stored."""

    attempt: Attempt
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerReady:
    """A runner process waits for its first tasks."""

    runner: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerResults:
    """A runner has ended its next tasks, in the order in which they were fed.

    `spent` says how long tasks took: (function, how many calls of it, seconds). It is not in step with the outcomes.
    """

    runner: int
    outcomes: Sequence[Outcome]
    spent: Sequence[tuple[str, int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRunning:
    """A runner is busy with a task for some milliseconds. Its tasks are counted from 1, in the order of feeding."""

    runner: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOverdue:
    """A task has run longer than its attempt may."""

    runner: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSkipped:
    """A task that was to be stopped had not begun, and never will."""

    runner: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TasksTakenBack:
    """Tasks that were to be taken back had not begun, and this runner never will begin them."""

    runner: int
    sequences: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerDied:
    """A runner process is gone; all results that it still sent were told before.

    `last_started` is the last task that it began; `cause` says how it ended; `killed` whether by the agent.
    """

    runner: int
    last_started: int
    cause: str
    killed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRunning:
    """A process has run for some milliseconds."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentified:
    """A process has run for so long that it is worth knowing which one it is."""

    attempt: Attempt
    process: ProcessIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessOverdue:
    """A process has run longer than its attempt may."""

    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnded:
    """A process and all that it started are gone.

    `Ending.STOPPED` if it had been asked to stop; `files`, with a value only, are there until they are discarded.
    """

    attempt: Attempt
    outcome: Outcome
    spent_s: float
    files: tuple[LeftFile, ...] = ()


Event = (
    Started
    | Welcomed
    | BeatSent
    | BeatAnswered
    | Assigned
    | Acknowledged
    | CancelRequested
    | HeldRequested
    | DrainRequested
    | LeaseEnding
    | SessionBegun
    | LeftBehind
    | Recorded
    | Prepared
    | Saved
    | TransferFailed
    | RunnerReady
    | RunnerResults
    | TaskRunning
    | TaskOverdue
    | TaskSkipped
    | TasksTakenBack
    | RunnerDied
    | ProcessRunning
    | ProcessIdentified
    | ProcessOverdue
    | ProcessEnded
)
ProcessEvent = ProcessRunning | ProcessIdentified | ProcessOverdue | ProcessEnded
RunnerEvent = RunnerReady | RunnerResults | TaskRunning | TaskOverdue | TaskSkipped | TasksTakenBack | RunnerDied
