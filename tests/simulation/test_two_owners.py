"""A scheduler that has lost its shards to another one and cannot hear of it: what it tells its readers is true."""

import asyncio
from typing import Any, Final

import grpc.aio
from nodeflow.common.v1 import lifecycle_pb2
from nodeflow.scheduler.v1 import event_pb2, log_line_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb
from tests.support.virtual_client import VirtualClient

from nodeflow_shared.retry import as_lost_connection
from nodeflow_testing.virtual_loop import run
from nodeflow_testing.virtual_runners import Scripted, Value
from nodeflow_testing.virtual_suite import SCHEDULER, STATE_MANAGER, VirtualSuite, address_of

OTHER: Final = f"{SCHEDULER}-2"
CUT_S: Final = 0.2
FIRST_S: Final = 0.4
"""`first` and `second` end after the old owner was cut off, and before the next one has taken over."""
SECOND_S: Final = 0.6
SEIZED_S: Final = 0.8
LEASES_S: Final = 15.0
"""By then the leases of the old owner are over, by its own clock too."""
HEALED_S: Final = 6.0
"""Later: the items of the next owner have ended."""
FIRST_ITEMS: Final = ["f0", "f1", "f2"]
SECOND_ITEMS: Final = ["s0", "s1", "s2"]
NODES: Final = {
    "of_second": {"function": "f:say", "map": "${nodes.second.output}", "with": {"what": "${item}"}},
    "of_first": {"function": "f:say", "map": "${nodes.first.output}", "with": {"what": "${item}"}},
    "first": {"function": "f:first"},
    "second": {"function": "f:second"},
}


def first(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
    return FIRST_S, Value(FIRST_ITEMS)


def second(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
    return SECOND_S, Value(SECOND_ITEMS)


def say(arguments: dict[str, Any], _: int) -> tuple[float, Scripted]:
    return 3.0, Value(None, prints=[arguments["what"]])


def two_owners() -> VirtualSuite:
    return VirtualSuite({"f:first": first, "f:second": second, "f:say": say}, schedulers=2)


async def fall_out(suite: VirtualSuite) -> None:
    """Cut the owner off, and give its shards to the other one.

    The old one has heard of `first` and of `second`. The worker of `first` dies then: the next one hears of `second`
    alone, and of `first` when it was executed again.
    """
    await asyncio.sleep(CUT_S)
    suite.network.half_open(address_of(SCHEDULER), address_of(STATE_MANAGER))
    await asyncio.sleep(SEIZED_S - CUT_S)
    task = list(NODES).index("first")
    (worker,) = [name for name, spans in suite.spans_by_worker.items() if any(s.task_number == task for s in spans)]
    await suite.kill(worker)
    await suite.seize(SCHEDULER)


async def lines_of(suite: VirtualSuite, name: str, execution_id: str) -> list[log_line_pb2.LogLine]:
    """What a tail at one scheduler tells until it ends, or fails."""
    lines: list[log_line_pb2.LogLine] = []
    try:
        request = pb.TailLogsRequest(execution_id=execution_id, follow=True)
        async for response in suite.client(name).TailLogs(request, timeout=60):
            lines += response.lines
    except grpc.aio.AioRpcError:
        pass
    return lines


def check_numbers_differ(events: list[event_pb2.Event]) -> None:
    """The next owner has expanded in another order, or nothing is tested."""
    expanded = [event.expansion for event in events if event.HasField("expansion")]
    assert [(each.node, each.first_item) for each in expanded] == [("of_second", 4), ("of_first", 7)]


def test_a_tail_names_the_nodes_of_the_log_whatever_its_scheduler_has_decided() -> None:
    async def scenario() -> None:
        async with two_owners() as suite:
            client = VirtualClient(suite)
            execution_id = await client.submit(NODES)
            async with asyncio.TaskGroup() as group:
                tail = group.create_task(lines_of(suite, SCHEDULER, execution_id))
                await fall_out(suite)
                await asyncio.sleep(HEALED_S)
                suite.network.heal(address_of(SCHEDULER), address_of(STATE_MANAGER))
                events = [event for each in await client.events(execution_id) for event in each.events]
            check_numbers_differ(events)
            wrong = {(line.node, line.text) for line in tail.result() if line.node != f"of_{whose(line.text)}"}
            assert wrong == set()

    run(scenario)


def whose(text: str) -> str:
    return "first" if text in FIRST_ITEMS else "second"


def test_a_watch_names_the_nodes_of_the_log_whatever_its_scheduler_has_decided() -> None:
    async def watch(suite: VirtualSuite, execution_id: str) -> list[event_pb2.Event]:
        events: list[event_pb2.Event] = []
        try:
            request = pb.WatchExecutionRequest(execution_id=execution_id)
            async for response in suite.client(SCHEDULER).WatchExecution(request, timeout=60):
                events += response.events
        except grpc.aio.AioRpcError:
            pass
        return events

    async def scenario() -> None:
        async with two_owners() as suite:
            client = VirtualClient(suite)
            execution_id = await client.submit(NODES)
            await fall_out(suite)
            await asyncio.sleep(HEALED_S)
            suite.network.heal(address_of(SCHEDULER), address_of(STATE_MANAGER))
            told = await watch(suite, execution_id)
            events = [event for each in await client.events(execution_id) for event in each.events]
            check_numbers_differ(events)
            assert told == events[: len(told)]

    run(scenario)


def test_readers_are_sent_elsewhere_when_the_leases_end_although_the_log_does_not_answer() -> None:
    async def scenario() -> None:
        async with two_owners() as suite:
            client = VirtualClient(suite)
            execution_id = await client.submit(NODES)
            stub = suite.client(SCHEDULER)
            streams = [
                stub.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id)),
                stub.TailLogs(pb.TailLogsRequest(execution_id=execution_id, follow=True)),
            ]
            async with asyncio.TaskGroup() as group:
                reading = [group.create_task(code_of(stream)) for stream in streams]
                await fall_out(suite)
                reading.append(
                    group.create_task(code_of(stub.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id))))
                )
                async with asyncio.timeout(LEASES_S):
                    codes = await asyncio.gather(*reading)
            assert codes == [grpc.StatusCode.UNAVAILABLE] * 3
            suite.network.heal(address_of(SCHEDULER), address_of(STATE_MANAGER))
            await client.finished(execution_id)

    run(scenario)


# Any: of whatever call.
async def code_of(stream: Any, told: list[event_pb2.Event] | None = None) -> grpc.StatusCode | None:  # noqa: ANN401
    """With what a stream ends, if that is an error. `told` gets the events of a watch."""
    try:
        async for response in stream:
            if told is not None:
                told += response.events
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


def test_what_is_not_known_here_may_be_elsewhere() -> None:
    """The old owner has expanded maps in its own order: what it does not find is not what there is not."""

    async def scenario() -> None:
        async with two_owners() as suite:
            client = VirtualClient(suite)
            execution_id = await client.submit(NODES)
            await fall_out(suite)
            stub = suite.client(SCHEDULER)
            calls: list[Any] = [
                stub.GetTask(pb.GetTaskRequest(execution_id=execution_id, task_number=99), timeout=60),
                stub.GetTaskDependencies(
                    pb.GetTaskDependenciesRequest(execution_id=execution_id, task_number=99), timeout=60
                ),
                stub.ExplainTask(
                    pb.ExplainTaskRequest(execution_id=execution_id, node="of_first", map_index=99), timeout=60
                ),
                anext(aiter(stub.TailLogs(pb.TailLogsRequest(execution_id=execution_id, task_number=99), timeout=60))),
            ]
            told = await asyncio.gather(*calls, return_exceptions=True)
            codes = [each.code() for each in told if isinstance(each, grpc.aio.AioRpcError)]
            assert codes == [grpc.StatusCode.UNAVAILABLE] * 4
            suite.network.heal(address_of(SCHEDULER), address_of(STATE_MANAGER))
            await client.finished(execution_id)

    run(scenario)


def test_a_cursor_of_the_next_owner_is_a_cursor_for_the_old_one_too() -> None:
    """The old owner hears of its loss with its next renewal only; what it has in memory is behind the cursor."""

    def soon(_: dict[str, Any], __: int) -> tuple[float, Scripted]:
        return 1.0, Value(None)  # When the other one has taken over, and before the old one renews its leases.

    async def scenario() -> None:
        async with VirtualSuite({"f:soon": soon, "f:say": say}, schedulers=2) as suite:
            client = VirtualClient(suite)
            late = {"function": "f:say", "needs": ["soon"], "with": {"what": "x"}}
            execution_id = await client.submit({"soon": {"function": "f:soon"}, "late": late})
            await asyncio.sleep(CUT_S)
            await suite.seize(SCHEDULER)
            cursor, sequence = await cursor_after(suite.client(OTHER), execution_id, "soon")
            request = pb.WatchExecutionRequest(execution_id=execution_id, cursor=cursor)
            told: list[event_pb2.Event] = []
            code = await code_of(suite.client(SCHEDULER).WatchExecution(request, timeout=60), told)
            events = [event for each in await client.events(execution_id) for event in each.events]
            assert code is grpc.StatusCode.UNAVAILABLE
            assert told == events[sequence : sequence + len(told)]

    run(scenario)


# Any: stubs have no type of their own.
async def cursor_after(stub: Any, execution_id: str, node: str) -> tuple[str, int]:  # noqa: ANN401
    """The cursor, and the last sequence, with which a scheduler tells that a node is over; it may not own it yet."""
    while True:
        try:
            async for response in stub.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id), timeout=60):
                for event in response.events:
                    if event.task.node == node and event.task.state == lifecycle_pb2.TASK_STATE_COMPLETED:
                        return response.cursor, response.events[-1].sequence
        except grpc.aio.AioRpcError as error:
            if as_lost_connection(error) is None:
                raise
            await asyncio.sleep(0.01)
