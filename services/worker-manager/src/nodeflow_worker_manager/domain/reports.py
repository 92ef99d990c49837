"""What passes through the core unread: held attempts, updates, assignments, and the few questions it asks of them.

Owns the protocols only. Must not know the messages behind them: the core works per batch, and has one looked into only
when more than one scheduler could be meant.
"""

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple, Protocol


class Updates(Protocol):
    """Reports of one session, of any shards."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        ...

    @property
    def ended_count(self) -> int:
        """How many attempts it says are over: results and refusals."""
        ...

    def only(self, shards: Container[int]) -> "Updates | None":
        """Return the part that is about these shards, or None if nothing is."""
        ...


class Assignments(Protocol):
    """Attempts for one session."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        ...

    @property
    def count(self) -> int:
        """How many attempts there are."""
        ...

    def without(self, updates: Updates) -> "Assignments":
        """Return what is left when those that these updates say are over are taken out; it may be empty."""
        ...

    def fence(self, tokens: Mapping[int, int]) -> "Fenced":
        """Part it by the highest token seen of each shard: a lower one is stale."""
        ...


class Held(Protocol):
    """All that a session holds."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        ...

    @property
    def live_count(self) -> int:
        """How many attempts wait or run."""
        ...

    def only(self, shards: Container[int]) -> "Held":
        """Return the part that is about these shards; it may be empty."""
        ...

    def plus(self, batches: Sequence[Assignments]) -> "Held":
        """Return it with attempts that were handed over after the worker was asked, each once."""
        ...


class Fenced(NamedTuple):
    """A batch of assignments, parted: `stale` names what was refused, as updates for the scheduler that sent it."""

    current: Assignments | None
    stale: Updates | None
