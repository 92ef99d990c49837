"""What was seen of a seed's life from outside, with virtual times: for checkers, for people, and to compare runs.

Owns the order of notes. Must not know what makes any of them right.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from nodeflow.scheduler.v1.execution_pb2 import Execution
from nodeflow.scheduler.v1.log_line_pb2 import LogLine
from nodeflow.scheduler.v1.scheduler_service_pb2 import WatchExecutionResponse

from nodeflow_sdk.audit.decoding import digest_of, execution_state
from nodeflow_sdk.audit.history import Acknowledgement, Call, Explained, ResultAcknowledgement, Told
from nodeflow_shared.clock import LoopClock
from nodeflow_testing.machine_clock import EPOCH_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that happened."""

    time_s: float
    who: str
    what: str
    execution_id: str = ""


@dataclass(slots=True, kw_only=True)
class Watching:
    """What one watcher was told of an execution."""

    who: str
    execution_id: str
    responses: list[WatchExecutionResponse] = field(default_factory=list)
    ended: bool = False
    """Whether the stream came to its end, as a finished execution's does."""


@dataclass(slots=True, kw_only=True)
class Tailing:
    """What one tail gave of an execution."""

    who: str
    execution_id: str
    lines: list[LogLine] = field(default_factory=list)
    ended: bool = False


@dataclass(slots=True)
class Diary:
    """Everything that was seen."""

    notes: list[Note] = field(default_factory=list)
    wrongs: list[Note] = field(default_factory=list)
    """What users complain about."""
    acknowledgements: list[Acknowledgement] = field(default_factory=list)
    results: list[ResultAcknowledgement] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    explained: list[Explained] = field(default_factory=list)
    watched: list[Watching] = field(default_factory=list)
    tailed: list[Tailing] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    """Faults by kind."""
    effects: Counter[str] = field(default_factory=Counter)
    """What they did, as the suite counts it."""
    troubles: list[tuple[float, float]] = field(default_factory=list)
    """From when to when something was wrong."""

    def note(self, who: str, what: str, execution_id: str = "") -> None:
        """Write down what somebody does."""
        self.notes.append(self._now(who, what, execution_id))

    def complain(self, who: str, what: str, execution_id: str = "") -> None:
        """Write down that somebody was told something wrong."""
        self.wrongs.append(self._now(who, what, execution_id))

    def acknowledge(self, call: Call, execution_id: str, request_id: str = "", body: str = "") -> None:
        """Write down that a client was told that something is done."""
        self.acknowledgements.append(
            Acknowledgement(execution_id=execution_id, call=call, time_ms=now_ms(), request_id=request_id, body=body)
        )

    def tell(self, execution: Execution) -> None:
        """Write down what a client was told of an execution."""
        self.told.append(
            Told(
                execution_id=execution.execution_id,
                sequence=execution.last_sequence,
                state=execution_state(execution.state),
                value=digest_of(execution.outputs),
            )
        )

    def _now(self, who: str, what: str, execution_id: str) -> Note:
        return Note(time_s=asyncio.get_running_loop().time(), who=who, what=what, execution_id=execution_id)


def now_ms() -> int:
    """Return the time of who looks on from outside."""
    return LoopClock(EPOCH_MS).now_ms()
