"""Artifacts that decisions wait for: bytes to fetch, and bytes to keep before a reference to them is handed out.

It holds bytes only while they are few; everything here can be had again from the artifact store or computed again from
the log.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict

from nodeflow_scheduler.domain.messages import Fetch, Keep, Turn
from nodeflow_scheduler.domain.placement import Grant, Key
from nodeflow_scheduler.domain.progress import NotAtHand, NotStored
from nodeflow_scheduler.domain.scopes import scope_of
from nodeflow_scheduler.domain.values import Stored
from nodeflow_shared.errors import NotFound, Unavailable

FETCHED_LIMIT_BYTES = 64 * 1024 * 1024
FETCHED_LIMIT = 1_000
KEPT_LIMIT = 10_000


class ArtifactShelf:
    """Who waits for which artifact, and what is at hand."""

    def __init__(self) -> None:
        self._fetched: OrderedDict[str, bytes | str] = OrderedDict()
        self._fetched_bytes = 0
        self._kept: OrderedDict[str, str] = OrderedDict()
        self._awaiting_bytes: dict[str, set[str]] = defaultdict(set)
        self._awaiting_kept: dict[str, set[str]] = defaultdict(set)
        self._parked: dict[str, list[Grant]] = defaultdict(list)

    # -------------------------------------------------------------------- read

    def bytes_of(self, tenant: str, value: Stored) -> bytes:
        """The bytes of a tenant's value. Raises NotAtHand, or NodeflowError when they cannot be had."""
        if value.data or not value.digest:
            return value.data
        found = self._fetched.get(key_of(tenant, value.digest))
        if found is None:
            raise NotAtHand(value)
        if isinstance(found, str):
            raise NotFound(found)
        return found

    def require(self, tenant: str, value: Stored) -> None:
        """Raises NotStored unless the store has the bytes of a value, or NodeflowError if it cannot have them."""
        problem = self._kept.get(key_of(tenant, value.digest))
        if problem is None:
            raise NotStored(value)
        if problem:
            raise Unavailable(problem)

    def missing_arguments(self, grant: Grant) -> Stored | None:
        """What must be stored before an attempt is handed out."""
        execution = grant.execution
        arguments = execution.workflow.nodes[execution.node_of(grant.task)].arguments
        for value in arguments.stored(scope_of(execution, grant.task)):
            if value.data and value.digest and self._kept.get(key_of(execution.tenant, value.digest)) != "":
                return value
        return None

    def is_parked(self, key: Key) -> bool:
        """Whether an attempt waits until its arguments are stored."""
        return any(grant.key == key for grants in self._parked.values() for grant in grants)

    # -------------------------------------------------------------------- wait

    def await_bytes(self, turn: Turn, tenant: str, value: Stored, execution_id: str) -> None:
        """An execution waits for bytes."""
        key = key_of(tenant, value.digest)
        if key not in self._awaiting_bytes:
            turn.fetches.append(Fetch(tenant=tenant, value=value))
        self._awaiting_bytes[key].add(execution_id)

    def await_kept(self, turn: Turn, tenant: str, value: Stored, execution_id: str) -> None:
        """An execution waits until bytes are stored."""
        self._ask_to_keep(turn, tenant, value)
        self._awaiting_kept[key_of(tenant, value.digest)].add(execution_id)

    def park_grant(self, turn: Turn, tenant: str, value: Stored, grant: Grant) -> None:
        """An attempt waits until its arguments are stored."""
        self._ask_to_keep(turn, tenant, value)
        self._parked[key_of(tenant, value.digest)].append(grant)

    def _ask_to_keep(self, turn: Turn, tenant: str, value: Stored) -> None:
        key = key_of(tenant, value.digest)
        if key not in self._awaiting_kept and key not in self._parked:
            turn.keeps.append(Keep(tenant=tenant, value=value))

    # ------------------------------------------------------------------ arrive

    def on_fetched(self, tenant: str, digest: str, data: bytes | None, problem: str) -> list[str]:
        """Bytes have come, or cannot be had; returns the executions that wait for them."""
        key = key_of(tenant, digest)
        self._drop(self._fetched.pop(key, b""))
        self._fetched[key] = problem if data is None else data
        self._fetched_bytes += len(data or b"")
        while len(self._fetched) > 1 and (
            self._fetched_bytes > FETCHED_LIMIT_BYTES or len(self._fetched) > FETCHED_LIMIT
        ):
            self._drop(self._fetched.popitem(last=False)[1])
        return sorted(self._awaiting_bytes.pop(key, ()))

    def _drop(self, found: bytes | str) -> None:
        self._fetched_bytes -= len(found) if isinstance(found, bytes) else 0

    def on_kept(self, tenant: str, digest: str, problem: str) -> tuple[list[str], list[Grant]]:
        """Bytes are stored, or cannot be; returns the executions and the attempts that wait for that."""
        key = key_of(tenant, digest)
        self._kept[key] = problem
        if len(self._kept) > KEPT_LIMIT:
            self._kept.popitem(last=False)
        return sorted(self._awaiting_kept.pop(key, ())), self._parked.pop(key, [])


def key_of(tenant: str, digest: str) -> str:
    """The address of an artifact: the bytes of one tenant are never another's (promise I10)."""
    return f"{tenant}/{digest}"
