"""A simulated process that is killed: what its code still does while it ends reaches nobody."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import grpc.aio
import pytest
from tests.unit.support.test_loopback import SERVER, Servicer, Stub, serve

from nodeflow_shared.server import WHOLE, Service
from nodeflow_testing.loopback import LoopbackNetwork
from nodeflow_testing.simulated_disk import Disk, Journal
from nodeflow_testing.virtual_loop import VirtualLoop, run
from nodeflow_testing.virtual_processes import Process, address_of


class Talkative:
    """A service that says where it is in its life, to a server and to a disk, even when it is cancelled."""

    name = "talkative"
    service_names: Sequence[str] = ()
    parts_ready = WHOLE

    def __init__(self, stub: Stub, journal: Journal[str]) -> None:
        self.ready = asyncio.Event()
        self._stub = stub
        self._journal = journal

    def register(self, server: grpc.aio.Server) -> None:
        """It is a client."""

    async def run(self) -> None:
        await self._say("begun")
        self.ready.set()
        try:
            await asyncio.Event().wait()
        finally:
            # As code that is sloppy about cancellation does.
            await asyncio.gather(self._say("ended"), self._say("ended too"), return_exceptions=True)

    async def drain(self) -> None:
        """There is nothing to wait for."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def _say(self, word: str) -> None:
        await self._journal.commit(lambda: word, len)
        await self._stub.shout(word)


Scenario = Callable[[Process, Servicer, Disk], Coroutine[Any, Any, None]]


def on_process(scenario: Scenario) -> Callable[[], None]:
    def test() -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            network, disk = LoopbackNetwork(), Disk()
            servicer = serve(network)

            async def build() -> Service:
                return Talkative(Stub(network.connect(SERVER, source=address_of("talkative"))), disk.open("words"))

            process = Process("talkative", network, loop, build)
            async with asyncio.TaskGroup() as group:
                await process.start(group)
                await process.ready()
                await scenario(process, servicer, disk)

        run(main)

    return test


def words(disk: Disk) -> list[str]:
    journal: Journal[str] = disk.open("words")
    return journal.recover()


@on_process
async def test_a_killed_process_says_no_more(process: Process, servicer: Servicer, disk: Disk) -> None:
    process.kill()
    disk.crash()
    await process.gone()
    await asyncio.sleep(1)
    assert servicer.heard == words(disk) == ["begun"]


@on_process
async def test_a_process_that_stops_in_order_is_heard_to_its_end(
    process: Process, servicer: Servicer, disk: Disk
) -> None:
    await process.stop()
    assert servicer.heard == words(disk) == ["begun", "ended", "ended too"]


@on_process
async def test_a_process_that_is_killed_while_it_is_paused_says_no_more(
    process: Process, servicer: Servicer, disk: Disk
) -> None:
    process.pause()
    await asyncio.sleep(60)
    process.kill()
    disk.crash()
    await process.gone()
    assert not process.life.paused
    assert servicer.heard == words(disk) == ["begun"]


@on_process
async def test_a_process_lives_again_only_when_its_last_life_is_over(
    process: Process, servicer: Servicer, disk: Disk
) -> None:
    process.kill()
    disk.crash()
    async with asyncio.TaskGroup() as group:
        await process.start(group)  # which waits for that
        await process.ready()
        assert servicer.heard == ["begun", "begun"]
        with pytest.raises(AssertionError, match="runs already"):
            await process.start(group)
        process.kill()
