"""What the driver needs from outside: runners, processes, artifacts, the worker-manager, sessions and their journal.

Owns the interfaces and the messages in the domain's terms. Must not know processes, gRPC or files.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from nodeflow_worker.domain.events import (
    Acknowledged,
    Assigned,
    BeatAnswered,
    CancelRequested,
    DrainRequested,
    HeldRequested,
    ProcessEvent,
    Recorded,
    RunnerEvent,
    Welcomed,
)
from nodeflow_worker.domain.output import Batch, OutputBuffer
from nodeflow_worker.domain.values import Attempt, Key, ProcessIdentity, Stored


class Runners(Protocol):
    """Runner processes, by number. Events are told later, from the loop: never from within a call.

    Each runner executes what it is fed in order; its tasks are numbered from 1.
    """

    def listen(self, tell: Callable[[RunnerEvent], None]) -> None:
        """Have all events told; called once, first."""
        ...

    def capture(self, outputs: OutputBuffer) -> None:
        """Have all that tasks write put into this buffer, and no pipe read on while it is full; called once, first."""
        ...

    def drain_output(self) -> bool:
        """Take in all that tasks have written by now; False if there is no room for all of it."""
        ...

    def spawn(self, runner: int, delay_s: float) -> None:
        """Start a runner after a delay; RunnerReady or RunnerDied follows."""
        ...

    def feed(self, runner: int, directory: str, attempts: Sequence[Attempt]) -> None:
        """Hand over tasks; the first directory holds for the runner's life. RunnerResults or RunnerDied follows."""
        ...

    def stop_task(self, runner: int, sequence: int, grace_s: float) -> None:
        """Stop a task: TaskSkipped if it had not begun; else a result or RunnerDied after the grace time at most."""
        ...

    def take_back(self, runner: int, sequences: Sequence[int]) -> None:
        """Do not begin tasks; TasksTakenBack tells of those that had not begun, and never will."""
        ...

    def retire(self, runner: int) -> None:
        """Let an idle runner exit; RunnerDied follows."""
        ...

    def kill(self, runner: int) -> None:
        """Kill a runner; RunnerDied follows."""
        ...

    async def close(self) -> None:
        """Kill all runners and wait until they are gone; nothing is told any more."""
        ...


class Processes(Protocol):
    """Processes of attempts. Events are told later, from the loop: never from within a call."""

    def listen(self, tell: Callable[[ProcessEvent], None]) -> None:
        """Have all events told; called once, first."""
        ...

    def capture(self, outputs: OutputBuffer) -> None:
        """Have what processes write put into this buffer, and no pipe read on while it is full; called once, first."""
        ...

    def drain_output(self) -> bool:
        """Take in all that processes have written by now; False if there is no room for all of it."""
        ...

    def start(self, attempt: Attempt) -> None:
        """Start an attempt's process; ProcessEnded follows."""
        ...

    def stop(self, attempt: Attempt, grace_s: float) -> None:
        """Ask a process and all that it started to stop; ProcessEnded follows after the grace time at most."""
        ...

    def kill(self, attempt: Attempt) -> None:
        """Kill a process and all that it started; ProcessEnded follows."""
        ...

    def discard(self, attempt: Attempt) -> None:
        """Remove the files that ProcessEnded told of."""
        ...

    def guard(self, until: float) -> None:
        """Have all that executes attempts killed at that time (monotonic seconds) by someone else, if we stand still.

        A later call moves the time.
        """
        ...

    async def end_left(self, noted: Sequence[ProcessIdentity]) -> None:
        """End all that runs on after a worker here was killed, and what was noted of it; return when it is gone."""
        ...

    async def close(self) -> None:
        """Kill all processes, and remove all their files; nothing is told any more."""
        ...


class Artifacts(Protocol):
    """Large values. All raise NodeflowError."""

    async def download(self, tenant: str, digest: str) -> bytes:
        """Return the bytes of an artifact."""
        ...

    async def download_file(self, tenant: str, digest: str, path: str) -> None:
        """Write the bytes of an artifact to a file. Raises OSError when it cannot be written."""
        ...

    async def upload(self, tenant: str, value: Stored) -> Stored:
        """Store the bytes of a value and return the value as a reference."""
        ...

    async def upload_file(self, tenant: str, path: str, content_type: str) -> Stored:
        """Store the bytes of a file and return a reference to them. Raises OSError when it cannot be read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first message of a connection."""

    session_id: str
    replaced_session_ids: Sequence[str]
    slots: int
    credits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """All that the session holds."""

    live: Sequence[Attempt]
    unacknowledged: Sequence[Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A heartbeat."""

    beat: int
    slots: int
    credits: int
    draining: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Updates:
    """What became of attempts."""

    started: Sequence[Attempt]
    results: Sequence[Attempt]
    refused: Sequence[Attempt]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodbye:
    """The last message of a session."""


Outgoing = Hello | Held | Beat | Updates | Goodbye
Incoming = Welcomed | BeatAnswered | Assigned | Acknowledged | CancelRequested | HeldRequested | DrainRequested


class Manager(Protocol):
    """The worker-manager."""

    def connect(self, outgoing: AsyncIterator[Outgoing]) -> AsyncGenerator[Incoming]:
        """Open the stream; raises NodeflowError: Unavailable when it breaks, IllegalState when the session is over."""
        ...


class Sessions(Protocol):
    """Session ids, each locked for as long as this process lives, so that a successor knows which ones are dead."""

    def begin(self) -> str:
        """Draw and lock the id of a new session; the one before it counts as dead from then on."""
        ...

    def dead(self) -> Sequence[str]:
        """Return the ids of sessions of this worker that are certainly dead."""
        ...

    def forget(self, session_ids: Sequence[str]) -> None:
        """Forget dead sessions that the worker-manager was told of."""
        ...

    def end(self) -> None:
        """The session was ended in order: nobody needs to hear of it."""
        ...

    def close(self) -> None:
        """Release the locks."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What dead sessions left: results that nobody acknowledged, and attempts whose processes had not ended."""

    results: tuple[Attempt, ...] = ()
    """Earlier attempts of a task come before later ones."""
    unfinished: tuple[Key, ...] = ()
    processes: tuple[ProcessIdentity, ...] = ()
    """Those of the unfinished that may still run."""


class Journal(Protocol):
    """What outlives this process of attempts that processes execute, by session. Calls take effect in their order."""

    def listen(self, tell: Callable[[Recorded], None]) -> None:
        """Have Recorded told, from the loop; called once, first."""
        ...

    def begin(self, session_id: str) -> None:
        """Keep for this session from now on. What was kept for the one before it in this process is dropped."""
        ...

    def note(self, attempt: Attempt, process: ProcessIdentity) -> None:
        """Keep that the attempt's process runs."""
        ...

    def record(self, attempt: Attempt) -> None:
        """Keep the attempt's result; Recorded follows once it is durable, or certainly cannot be made so."""
        ...

    def forget(self, attempts: Sequence[Attempt]) -> None:
        """Drop attempts, soon."""
        ...

    async def take_over(self, session_ids: Sequence[str]) -> Left:
        """Return what dead sessions left, once their results are kept for the present session as well."""
        ...

    def drop(self, session_ids: Sequence[str], then: Callable[[], None]) -> None:
        """Drop all that is kept for sessions that are over; `then` is called once it is gone, or never if it stays."""
        ...

    async def close(self) -> None:
        """Finish what was asked for. What is kept stays for a successor."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Flushed:
    """All that attempts had written at a request to flush was sent before."""

    flush_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsStored:
    """A batch of output is stored."""

    batch_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushRequested:
    """All that attempts have written by now is to be sent."""

    flush_id: int


LogOutgoing = Batch | Flushed
LogIncoming = LogsStored | FlushRequested


class LogSink(Protocol):
    """Where output goes."""

    def write_logs(self, session_id: str, outgoing: AsyncIterator[LogOutgoing]) -> AsyncGenerator[LogIncoming]:
        """Open the stream; raises NodeflowError, Unavailable when it breaks."""
        ...
