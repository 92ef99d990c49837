"""Follows an execution to its end and shows it.

Owns the flow of events to a screen, and the notice that nobody works. Must not know what a screen looks like.
"""

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol, Self

from nodeflow.scheduler.v1.event_pb2 import Event
from nodeflow.worker_manager.v1.worker_manager_service_pb2 import WorkerState

from nodeflow_sdk.client import Client, open_workers_client
from nodeflow_sdk.progress.view import ExecutionView
from nodeflow_sdk.side_tasks import beside
from nodeflow_shared.errors import NodeflowError

NO_WORKER_NOTICE_S: Final = 2.0


class Screen(Protocol):
    """Where an execution is shown; entered while it is followed."""

    view: ExecutionView

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    async def refresh(self) -> None:
        """Run while the execution is followed; for screens that move by themselves."""
        ...

    def show(self, events: Iterable[Event]) -> None:
        """Take over events, and show them."""
        ...

    def notice(self, text: str) -> None:
        """Tell something that is not an event."""
        ...


class SilentScreen:
    """Shows nothing; keeps the view."""

    def __init__(self, view: ExecutionView) -> None:
        self.view = view

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    async def refresh(self) -> None:
        """Nothing moves."""

    def show(self, events: Iterable[Event]) -> None:
        """Take over events."""
        for event in events:
            self.view.apply(event)

    def notice(self, text: str) -> None:
        """Say nothing."""


async def follow(client: Client, screen: Screen, *, worker_manager: str | None = None, cursor: str = "") -> None:
    """Show an execution until it is over. Raises NodeflowError if its events cannot be had.

    With the worker-manager's address, a notice says when the execution waits because no worker is connected.
    """

    def tell(error: NodeflowError) -> None:
        screen.notice(f"the scheduler cannot be reached, waiting for it ({error.message})")

    side = [screen.refresh()]
    if worker_manager is not None:
        side.append(_notice_idleness(screen, worker_manager))
    with screen:
        async with beside(*side, name="follow"):
            async for response in client.watch(screen.view.execution_id, cursor, on_lost=tell):
                screen.show(response.events)


async def _notice_idleness(screen: Screen, worker_manager: str) -> None:
    """Look for a worker while nothing has started; say so once if there is none."""
    async with open_workers_client(worker_manager, patience_s=0) as client:
        await asyncio.sleep(NO_WORKER_NOTICE_S)
        while not screen.view.has_started and not screen.view.is_final:
            try:
                if not await client.workers(WorkerState.WORKER_STATE_CONNECTED):
                    screen.notice("waiting: no worker is connected; start one with `nodeflow worker`")
                    return
            except NodeflowError:
                # The worker-manager is away: that is its own trouble, and no reason to end the watch.
                pass
            await asyncio.sleep(NO_WORKER_NOTICE_S)
