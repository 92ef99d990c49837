"""A worker of another make asks what its tasks depend on, while schedulers, streams and leases come and go."""

import asyncio
from collections.abc import Awaitable

import grpc
import grpc.aio
import pytest
from nodeflow.common.v1 import dependency_pb2, lifecycle_pb2
from nodeflow.worker_manager.v1 import attempt_pb2
from tests.simulation.scenarios import simulate
from tests.support.asking_worker import DEPENDENCIES, FAN_IN, SESSION, Asker, key_of, shown
from tests.support.virtual_client import VirtualClient

from nodeflow_shared.errors import IllegalState, InvalidInput, NodeflowError, Unavailable
from nodeflow_testing.virtual_suite import VirtualSuite, address_of

OTHER_SESSION = SESSION.replace("1", "2")


def channel_to(suite: VirtualSuite) -> grpc.aio.Channel:
    return suite.network.connect(address_of("worker-manager"), source="asker")


async def begin(suite: VirtualSuite, client: VirtualClient) -> tuple[Asker, asyncio.Task[None], attempt_pb2.Assignment]:
    asker = Asker(channel_to(suite))
    serving = asyncio.create_task(asker.run(), name="asker")
    await client.submit(FAN_IN)
    return asker, serving, await asker.last()


async def end(asker: Asker, serving: asyncio.Task[None], client: VirtualClient, last: attempt_pb2.Assignment) -> None:
    asker.complete(last)
    await client.finished(last.execution_id)
    asker.leave()
    await serving


def test_a_worker_is_told_what_its_task_depends_on_page_by_page_and_so_is_a_person() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        asker, serving, last = await begin(suite, client)
        found: list[dependency_pb2.TaskDependency] = []
        token = ""
        while True:
            page = await asker.ask(key_of(last), page_size=2, page_token=token)
            found += page.dependencies
            token = page.next_page_token
            if not token:
                break
        assert shown(found) == DEPENDENCIES
        assert [each.state for each in found] == [lifecycle_pb2.TASK_STATE_COMPLETED] * 5
        assert found == await client.dependencies(last.execution_id, last.task_number)
        await end(asker, serving, client, last)

    simulate({}, scenario, workers=0)


def test_a_worker_is_told_about_what_it_holds_and_nothing_else() -> None:
    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        asker, serving, last = await begin(suite, client)
        not_held = [
            key_of(last, attempt_number=2),
            key_of(last, attempt_number=0),
            key_of(last, fencing_token=last.fencing_token + 1),
            key_of(last, task_number=0),
            key_of(last, task_number=99),
            key_of(last, execution_id="00000000-0000-7000-8000-000000000000"),
        ]
        for key in not_held:
            await refused(asker.ask(key), IllegalState, "ATTEMPT_NOT_HELD")
        await refused(asker.ask(key_of(last), session_id=OTHER_SESSION), IllegalState, "SESSION_ENDED")
        other = Asker(channel_to(suite), session_id=OTHER_SESSION)
        serving_other = asyncio.create_task(other.run(), name="other")
        await other.welcomed.wait()
        await refused(other.ask(key_of(last)), IllegalState, "ATTEMPT_NOT_HELD")
        other.leave()
        await serving_other
        await refused(asker.ask(key_of(last), page_size=-1), InvalidInput, "INVALID_INPUT")
        await refused(asker.ask(key_of(last), page_token="?"), InvalidInput, "INVALID_INPUT")
        await refused(asker.ask(key_of(last, shard=1 << 20)), Unavailable, "NO_OWNER")
        await end(asker, serving, client, last)

    simulate({}, scenario, workers=0)


async def refused(asking: Awaitable[object], kind: type[NodeflowError], reason: str) -> None:
    with pytest.raises(kind) as refusal:
        await asking
    assert refusal.value.reason == reason


@pytest.mark.parametrize("victim", ["scheduler", "worker-manager", "state-manager"])
def test_an_outage_is_told_and_the_next_question_is_answered(victim: str) -> None:
    """Without the state-manager the answer still comes, for what it tells of is committed."""

    async def scenario(suite: VirtualSuite, client: VirtualClient) -> None:
        asker, serving, last = await begin(suite, client)
        await suite.kill(victim)
        if victim == "state-manager":
            assert shown((await asker.ask(key_of(last))).dependencies) == DEPENDENCIES
        else:
            with pytest.raises(Unavailable):
                await asker.ask(key_of(last))
        await suite.restart(victim)
        await suite.ready(victim)
        if victim == "worker-manager":  # the asker does not connect again, and so it is no session any more
            serving.cancel()
            return
        assert shown((await asker.insist(key_of(last))).dependencies) == DEPENDENCIES
        await end(asker, serving, client, last)

    simulate({}, scenario, workers=0)
