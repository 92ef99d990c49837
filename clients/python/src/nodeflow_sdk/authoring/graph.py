"""What a workflow function records while it is defined: calls of nodes, in order, and what each needs.

Owns the recording. Must not know signatures, nor what a document looks like.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from nodeflow_sdk.authoring.errors import Place, WiringError


@dataclass(slots=True, kw_only=True)
class Call:
    """A node of the workflow: one call in its function."""

    name: str
    place: Place
    fields: dict[str, object]
    """What the node says in a document, but for the edges that follow."""
    map: str | list[object] | None = None
    data_from: set[str] = field(default_factory=set)
    """The nodes whose outputs it reads."""
    needs: list[str] = field(default_factory=list)
    """The nodes that it comes after besides."""


class Recording:
    """The graph of one workflow, while its function runs and after."""

    def __init__(self, workflow: str, place: Place) -> None:
        self.workflow = workflow
        self.place = place
        self.calls: dict[str, Call] = {}

    def __str__(self) -> str:
        return f"workflow {self.workflow} ({self.place})"

    def free_name(self, wanted: str) -> str:
        """Return a name for a node: `count`, then `count_2`, and so on."""
        if wanted not in self.calls:
            return wanted
        number = 2
        while f"{wanted}_{number}" in self.calls:
            number += 1
        return f"{wanted}_{number}"

    def add(self, call: Call) -> None:
        """Record a call."""
        self.calls[call.name] = call

    def order(self, later: str, earlier: str, place: Place) -> None:
        """Let a node wait for another without its data; raises WiringError if that one waits for it already."""
        if later == earlier or later in self._ancestors(earlier):
            raise WiringError(place, f"{later} cannot come after {earlier}, which comes after {later} already")
        if earlier not in self.calls[later].needs:
            self.calls[later].needs.append(earlier)

    def _ancestors(self, name: str) -> set[str]:
        found: set[str] = set()
        waiting = [name]
        while waiting:
            call = self.calls[waiting.pop()]
            fresh = (call.data_from | set(call.needs)) - found
            found |= fresh
            waiting.extend(fresh)
        return found


_CURRENT: ContextVar[Recording | None] = ContextVar("nodeflow_recording", default=None)


def current_recording() -> Recording | None:
    """Return the recording under way, if a workflow is being defined now."""
    return _CURRENT.get()


@contextmanager
def recording(workflow: str, place: Place) -> Iterator[Recording]:
    """Record the calls of nodes inside the block."""
    found = Recording(workflow, place)
    token = _CURRENT.set(found)
    try:
        yield found
    finally:
        _CURRENT.reset(token)
