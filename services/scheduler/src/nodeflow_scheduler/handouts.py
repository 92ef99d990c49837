"""Hands out what waits to workers with room: so much at a time that nothing else waits for long.

Owns the amount, and what becomes of attempts whose arguments give no value. Must not know who gets what, nor how it is
sent.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from nodeflow_scheduler.domain.expressions import Rendered
from nodeflow_scheduler.domain.failures import Failure, expression_failed
from nodeflow_scheduler.domain.messages import ArgumentsFailed, Input, Tick
from nodeflow_scheduler.domain.placement import LIGHT_BYTES, Grant, Placement, Session
from nodeflow_scheduler.domain.scopes import scope_of
from nodeflow_scheduler.ports import Prepared, Workers
from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import NodeflowError
from nodeflow_shared.streams import Inbox

TURN_BYTES = 8 * 1024 * 1024
"""What arguments may take that are handed out in one go; the last may go beyond it."""
TURN_S = 0.05
"""How long it may take to compute them."""
LOOK_EVERY = 8
"""After so many of them that is looked at: most cost less than a look at the clock."""
FEW = 64
"""So many attempts at least are looked at after a go that was cut short, and never more than twice as many as then."""


class Handouts:
    """Gives attempts to sessions."""

    def __init__(self, placement: Placement, workers: Workers, inbox: Inbox[Input], clock: Clock) -> None:
        self._placement = placement
        self._workers = workers
        self._inbox = inbox
        self._clock = clock
        self._room_bytes = 0
        self._until = 0.0
        self._most = sys.maxsize
        self._again: asyncio.Handle | None = None

    def hand_out(self) -> None:
        """Gives what waits to workers with room: free slots first, then credits.

        If that is much, the rest follows after a turn of everybody else.
        """
        if not self._placement.waiting:
            return
        self._room_bytes = TURN_BYTES
        self._until = self._clock.monotonic() + TURN_S
        prepared: dict[str, list[Prepared]] = {}
        given, is_cut = self._prepare_all(prepared, by_slots=True)
        if not is_cut:
            more, is_cut = self._prepare_all(prepared, by_slots=False)
            given += more
        for session_id, attempts in prepared.items():
            session = self._placement.sessions[session_id]
            self._workers.assign(session.manager, session_id, session.generation, attempts)
        self._most = max(FEW, 2 * given) if is_cut else sys.maxsize
        if is_cut and self._again is None:
            self._again = asyncio.get_running_loop().call_soon(self._go_on)

    def _prepare_all(self, prepared: dict[str, list[Prepared]], *, by_slots: bool) -> tuple[int, bool]:
        """Adds what free slots, or credits, are given, by session; returns how much, and whether it was cut short."""
        placement = self._placement
        assigned = placement.assign(by_slots=by_slots, most=self._most)
        count, left = 0, list[Grant]()
        for session_id, grants in assigned.items():
            session = placement.sessions[session_id]
            ready, tried = self._prepare(session, grants)
            if ready:
                prepared.setdefault(session_id, []).extend(ready)
            count += tried
            if tried < len(grants):
                placement.take_back(session, grants[tried:])
                left += grants[tried:]
        if left:
            placement.put_back(left)
        return count, bool(left) or count >= self._most

    def _go_on(self) -> None:
        self._again = None
        self._inbox.push(Tick())

    def _prepare(self, session: Session, grants: Sequence[Grant]) -> tuple[list[Prepared], int]:
        """Computes arguments until there are too many; also returns how many attempts that was."""
        prepared: list[Prepared] = []
        now, until, room_bytes = self._clock.monotonic, self._until, self._room_bytes
        tried, full = 0, False
        for grant in grants:
            if full or room_bytes <= 0 or (not tried % LOOK_EVERY and now() >= until):
                break
            tried += 1
            execution, task, _ = grant
            expanded = bool(execution.expansions)
            scope = scope_of(execution, task) if expanded else execution
            node = execution.workflow.nodes[execution.node_of(task) if expanded else task]
            try:
                rendered = node.arguments.render(scope)
            except NodeflowError as error:
                self._refuse(session, grant, expression_failed(f"with of node {node.name!r}", error))
                continue
            prepared.append((grant, rendered))
            arguments, references = rendered
            size = len(arguments) if not references else size_of(rendered)
            room_bytes -= size
            if size > LIGHT_BYTES:
                session.load(grant.key, size)
                full = not session.takes
        self._room_bytes = room_bytes
        return prepared, tried

    def _refuse(self, session: Session, grant: Grant, failure: Failure) -> None:
        session.live.discard(grant.key)
        execution, task, attempt = grant
        self._inbox.push(
            ArgumentsFailed(execution_id=execution.execution_id, task=task, attempt=attempt, failure=failure)
        )


def size_of(rendered: Rendered) -> int:
    """What arguments take on their way, in bytes."""
    inline = sum([len(value.data) for _, value in rendered.references if not value.digest])
    return len(rendered.arguments) + inline
