"""The links to worker-managers: when they attach."""

from __future__ import annotations

import asyncio

from nodeflow_scheduler.adapters.workers import GrpcWorkers
from nodeflow_scheduler.domain.messages import Input, Lease, Tick
from nodeflow_shared.streams import Inbox
from nodeflow_testing.loopback import LoopbackNetwork
from nodeflow_testing.virtual_loop import run


def test_a_link_does_not_attach_while_there_is_no_room() -> None:
    """Nothing is decided while the log is out of reach; a worker-manager that is away too must not fill the inbox."""

    async def main() -> None:
        inbox: Inbox[Input] = Inbox(2)
        inbox.push(Tick())
        channel = LoopbackNetwork().connect("nobody:1", source="scheduler:1")
        workers = GrpcWorkers({"wm": channel}, "scheduler", inbox, Inbox())
        running = asyncio.create_task(workers.run())
        workers.claim([Lease(1, 1, 0, 0)])
        await asyncio.sleep(600)
        assert len(inbox) == inbox.limit
        inbox.take()
        await asyncio.sleep(600)
        assert len(inbox) == inbox.limit, "it goes on when there is room"
        running.cancel()

    run(main)
