"""Artifacts that decisions wait for: bytes to be fetched, and bytes to be kept before a reference to them is handed out.

It holds bytes only while they are few; everything here can be had again from the artifact store or computed again from the log.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict

from nodeflow_scheduler.domain.messages import Fetch, Keep, Turn
from nodeflow_scheduler.domain.placement import Grant
from nodeflow_scheduler.domain.progress import NotAtHand, NotStored
from nodeflow_scheduler.domain.values import Stored
from nodeflow_shared.errors import NodeflowError, NotFound

FETCHED_LIMIT_BYTES = 64 * 1024 * 1024
KEPT_LIMIT = 10_000


class ArtifactShelf:
    """Who waits for which artifact, and what is at hand."""

    def __init__(self) -> None:
        self._fetched: OrderedDict[str, bytes | str] = OrderedDict()
        self._fetched_bytes = 0
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._awaiting_bytes: dict[str, list[str]] = defaultdict(list)
        self._awaiting_kept: dict[str, list[str]] = defaultdict(list)
        self._parked: dict[str, list[Grant]] = defaultdict(list)

    # -------------------------------------------------------------------- read

    def bytes_of(self, value: Stored) -> bytes:
        """The bytes of a value. Raises NotAtHand, or NodeflowError when they cannot be had."""
        if value.data or not value.digest:
            return value.data
        found = self._fetched.get(value.digest)
        if found is None:
            raise NotAtHand(value)
        if isinstance(found, str):
            raise NotFound(found)
        return found

    def require(self, tenant: str, value: Stored) -> None:
        """Raises NotStored unless the store has the bytes of a value."""
        if f"{tenant}/{value.digest}" not in self._kept:
            raise NotStored(value)

    def missing_arguments(self, grant: Grant) -> Stored | None:
        """What must be stored before an attempt is handed out."""
        execution = grant.execution
        node = execution.workflow.nodes[execution.node_of(grant.task)]
        try:
            rendered = node.arguments.render(execution.scope_of(grant.task))
        except NodeflowError:
            return None  # Told when it is handed out, in one place with all such faults.
        for _, value in rendered.references:
            if value.data and value.digest and f"{execution.tenant}/{value.digest}" not in self._kept:
                return value
        return None

    # -------------------------------------------------------------------- wait

    def await_bytes(self, turn: Turn, tenant: str, value: Stored, execution_id: str) -> None:
        """An execution waits for bytes."""
        if value.digest not in self._awaiting_bytes:
            turn.fetches.append(Fetch(tenant=tenant, value=value))
        self._awaiting_bytes[value.digest].append(execution_id)

    def await_kept(self, turn: Turn, tenant: str, value: Stored, execution_id: str) -> None:
        """An execution waits until bytes are stored."""
        self._ask_to_keep(turn, tenant, value)
        self._awaiting_kept[f"{tenant}/{value.digest}"].append(execution_id)

    def park_grant(self, turn: Turn, tenant: str, value: Stored, grant: Grant) -> None:
        """An attempt waits until its arguments are stored."""
        self._ask_to_keep(turn, tenant, value)
        self._parked[f"{tenant}/{value.digest}"].append(grant)

    def _ask_to_keep(self, turn: Turn, tenant: str, value: Stored) -> None:
        key = f"{tenant}/{value.digest}"
        if key not in self._awaiting_kept and key not in self._parked:
            turn.keeps.append(Keep(tenant=tenant, value=value))

    # ------------------------------------------------------------------ arrive

    def on_fetched(self, digest: str, data: bytes | None, problem: str) -> list[str]:
        """Bytes have come, or cannot be had; returns the executions that wait for them."""
        self._fetched[digest] = problem if data is None else data
        self._fetched_bytes += len(data or b"")
        while self._fetched_bytes > FETCHED_LIMIT_BYTES and len(self._fetched) > 1:
            _, dropped = self._fetched.popitem(last=False)
            self._fetched_bytes -= len(dropped) if isinstance(dropped, bytes) else 0
        return self._awaiting_bytes.pop(digest, [])

    def on_kept(self, key: str) -> tuple[list[str], list[Grant]]:
        """Bytes are stored (`key` is tenant and digest); returns the executions and the attempts that wait for that."""
        self._kept[key] = None
        if len(self._kept) > KEPT_LIMIT:
            self._kept.popitem(last=False)
        return self._awaiting_kept.pop(key, []), self._parked.pop(key, [])
