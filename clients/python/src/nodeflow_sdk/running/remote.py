"""An execution on a suite, as coroutines of the background loop.

Owns the conversation about one execution. Must not know which thread asks.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Container, Mapping
from contextlib import aclosing
from datetime import timedelta

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.scheduler.v1.execution_pb2 import Execution
from nodeflow.scheduler.v1.scheduler_service_pb2 import TailLogsRequest

from nodeflow_sdk.client import Client
from nodeflow_sdk.progress.symbols import FINAL_EXECUTION_STATES, execution_state
from nodeflow_sdk.running.results import read_outputs
from nodeflow_sdk.running.updates import Attempt, LogLine, State, Update, attempts_of
from nodeflow_sdk.running.wire import failure_of, line_of, update_of


class Remote:
    """One execution. `whole` names the outputs that may be artifacts, `value` makes the result of the outputs."""

    def __init__(
        self,
        client: Client,
        execution_id: str,
        *,
        whole: Container[str] = (),
        value: Callable[[Mapping[str, object]], object] = dict,
    ) -> None:
        self.client = client
        self.execution_id = execution_id
        self._whole = whole
        self._value = value

    async def state(self) -> State:
        """Return where the execution is."""
        return State(execution_state((await self.client.get(self.execution_id)).state))

    async def updates(self) -> AsyncGenerator[Update, None]:
        """Yield every change of state from the first, to the execution's end."""
        async with aclosing(self.client.watch(self.execution_id)) as responses:
            async for response in responses:
                for event in response.events:
                    update = update_of(event)
                    if update is not None:
                        yield update

    async def attempts(self, node: str) -> list[Attempt]:
        """Return the tries of one node's tasks, or of all, as far as they are known now; raises NotFound."""
        if node:
            async with aclosing(self.client.tasks(self.execution_id, node=node)) as tasks:
                await anext(tasks, None)  # whether there is such a node
        return [each for each in attempts_of(await self._updates_so_far()) if node in ("", each.node)]

    async def duration(self) -> timedelta:
        """Return the time from the first event to the last."""
        updates = await self._updates_so_far()
        return updates[-1].time - updates[0].time if updates else timedelta()

    async def lines(self, node: str, *, follow: bool) -> AsyncGenerator[LogLine, None]:
        """Yield what tasks wrote, of one node or of all; `follow` goes on to the execution's end."""
        request = TailLogsRequest(execution_id=self.execution_id, node=node, follow=follow)
        async with aclosing(self.client.logs(request)) as responses:
            async for response in responses:
                for line in response.lines:
                    yield line_of(line)

    async def result(self, timeout_s: float | None = None) -> object:
        """Wait for the end; returns the result, raises ExecutionFailed, or TimeoutError while it still runs."""
        try:
            async with asyncio.timeout(timeout_s):
                execution = await self._finished()
        except TimeoutError:
            raise TimeoutError(f"{self.execution_id} still runs after {timeout_s} s; it goes on") from None
        if execution.state != ExecutionState.EXECUTION_STATE_COMPLETED:
            tasks = self.client.tasks(self.execution_id, state=TaskState.TASK_STATE_FAILED)
            raise failure_of(execution, [task async for task in tasks])
        return self._value(await read_outputs(self.client, execution.outputs, self._whole))

    async def _updates_so_far(self) -> list[Update]:
        """Return the changes of state up to now: a watch gives them without waiting."""
        last = (await self.client.get(self.execution_id)).last_sequence
        found: list[Update] = []
        async with aclosing(self.client.watch(self.execution_id)) as responses:
            async for response in responses:
                found += [update for event in response.events if (update := update_of(event)) is not None]
                if response.events and response.events[-1].sequence >= last:
                    break
        return found

    async def cancel(self, reason: str) -> State:
        """Ask for a cancellation; returns the state once that is durable."""
        return State(execution_state((await self.client.cancel(self.execution_id, reason)).state))

    async def _finished(self) -> Execution:
        async with aclosing(self.client.watch(self.execution_id)) as responses:
            async for _ in responses:
                pass
        execution = await self.client.get(self.execution_id)
        assert execution.state in FINAL_EXECUTION_STATES, "a watch ends with its execution"
        return execution
