"""The history of one execution of a live suite: its log, and what readers are told of it beside.

Owns the order of the questions: an execution that goes on meanwhile must not look as if it was told of wrongly. Must
not judge.
"""

from contextlib import aclosing
from typing import Final

from nodeflow.common.v1.lifecycle_pb2 import TaskState
from nodeflow.scheduler.v1.execution_pb2 import Execution, Task
from nodeflow.scheduler.v1.explanation_pb2 import TaskReason

from nodeflow_sdk.audit.checkers.progress import is_under_way
from nodeflow_sdk.audit.decoding import digest_of, execution_of, execution_state, task_state
from nodeflow_sdk.audit.history import (
    OVER,
    ExecutionHistory,
    Explained,
    History,
    Told,
    ToldTask,
    Watched,
    WatchedBatch,
)
from nodeflow_sdk.client import Client

TRIES: Final = 3
"""How often an execution that goes on is asked anew what it waits for."""
EXPLAINED_TASKS: Final = 20
_OPEN: Final = (TaskState.TASK_STATE_PENDING, TaskState.TASK_STATE_QUEUED, TaskState.TASK_STATE_RUNNING)


async def collect(client: Client, execution_id: str) -> History:
    """Return the history of one execution. Raises NodeflowError."""
    told = await told_of(client, execution_id)
    # The log is read after the state, so that it has all that the state includes.
    execution = execution_of(await client.export(told.execution_id))
    explained: tuple[Explained, ...] = ()
    for _ in range(TRIES):
        if execution.state in OVER or is_under_way(execution):
            break
        explained = await _explained(client, execution)
        if explained:
            break
        execution = execution_of(await client.export(told.execution_id))
    watched = await _watched(client, execution)
    return History(executions=(execution,), told=(told,), watched=(watched,), explained=explained)


async def told_of(client: Client, execution_id: str) -> Told:
    """Return the state that readers are told, with the tasks if it was the same before and after they were listed.

    Raises NodeflowError.
    """
    before = await client.get(execution_id)
    tasks = [_told_task(task) async for task in client.tasks(before.execution_id)]
    after = before if execution_state(before.state) in OVER else await client.get(before.execution_id)
    return Told(
        execution_id=before.execution_id,
        tenant=before.tenant,
        sequence=after.last_sequence,
        state=execution_state(after.state),
        value=digest_of(after.outputs),
        tasks=tuple(tasks) if _same(before, after) else None,
    )


def _same(before: Execution, after: Execution) -> bool:
    return before.last_sequence == after.last_sequence


def _told_task(task: Task) -> ToldTask:
    return ToldTask(task=task.task_number, state=task_state(task.state), attempt=task.attempt_number)


async def _explained(client: Client, execution: ExecutionHistory) -> tuple[Explained, ...]:
    """Return what open tasks are said to wait for; nothing if the execution has gone on since its log was read."""
    name = execution.execution_id
    found: list[Explained] = []
    async for task in client.tasks(name):
        if task.state not in _OPEN:
            continue
        found.append(await _explained_task(client, name, task.task_number))
        if len(found) == EXPLAINED_TASKS:
            break
    now = await client.get(name)
    return tuple(found) if now.last_sequence == execution.facts[-1].sequence else ()


async def _explained_task(client: Client, execution_id: str, task: int) -> Explained:
    reason = (await client.explain(execution_id, task)).reason
    return Explained(execution_id=execution_id, task=task, reason=_reason_name(reason))


def _reason_name(reason: TaskReason.ValueType) -> str:
    """Return the name of a reason, or the number of one that a newer service has; empty for none."""
    if not reason:
        return ""
    return TaskReason.Name(reason) if reason in TaskReason.values() else str(reason)


async def _watched(client: Client, execution: ExecutionHistory) -> Watched:
    """Watch from the first event to the last that the log had; to the end, if it is over."""
    last = execution.facts[-1].sequence if execution.facts else 0
    over = execution.state in OVER
    batches: list[WatchedBatch] = []
    async with aclosing(client.watch(execution.execution_id)) as responses:
        async for response in responses:
            sequences = tuple(event.sequence for event in response.events)
            if not over:
                sequences = tuple(each for each in sequences if each <= last)
            batches.append(WatchedBatch(cursor=response.cursor if over else "", sequences=sequences))
            if not over and response.events[-1].sequence >= last:
                break
    return Watched(execution_id=execution.execution_id, tenant=execution.tenant, batches=tuple(batches), ended=over)
