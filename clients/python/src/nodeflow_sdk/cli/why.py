"""`nodeflow why`: what a task waits for, or how it ended.

Owns the command. Must not know why anything waits: the service says it.
"""

import time
from typing import Annotated, Final

import typer
from nodeflow.common.v1.lifecycle_pb2 import TaskState
from nodeflow.scheduler.v1.execution_pb2 import Execution
from nodeflow.scheduler.v1.explanation_pb2 import TaskExplanation, TaskReason
from rich.console import Group
from rich.text import Text

from nodeflow_sdk.cli.executions import tell_outcome
from nodeflow_sdk.cli.explanations import explanation_lines, reason_word
from nodeflow_sdk.cli.output import Output, emit, list_document
from nodeflow_sdk.cli.session import AddressOption, ContextOption, OutputOption, Session, client_of, execute, session
from nodeflow_sdk.cli.task_names import TaskName, task_name
from nodeflow_sdk.cli.terminal import say
from nodeflow_sdk.client import Client
from nodeflow_sdk.progress.symbols import FINAL_EXECUTION_STATES

TASKS_SHOWN: Final = 20
_WAITS_FOR_NODES: Final = (TaskReason.TASK_REASON_DEPENDENCIES, TaskReason.TASK_REASON_ITEMS)
_OPEN: Final = (TaskState.TASK_STATE_RUNNING, TaskState.TASK_STATE_QUEUED, TaskState.TASK_STATE_PENDING)
_ENDINGS: Final = (TaskState.TASK_STATE_FAILED, TaskState.TASK_STATE_CANCELLED, TaskState.TASK_STATE_SKIPPED)


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why", epilog="Example: nodeflow why @latest/total")(why)


def why(
    ctx: typer.Context,
    task: Annotated[
        str, typer.Argument(metavar="ID/NODE[INDEX]", help="A task; an ID alone stands for all that it waits for.")
    ],
    address: AddressOption = None,
    context: ContextOption = None,
    output: OutputOption = None,
) -> None:
    """Tell why a task is where it is: what it waits for and until when, or how it ended."""
    execute(_why(session(ctx, address, output, context), task_name(task)))


async def _why(current: Session, name: TaskName) -> None:
    async with client_of(current.attachment()) as client:
        if name.node:
            told = [await name.explained(client)]
        else:
            execution = await client.get(name.execution_id)
            told = await _telling(client, execution)
            if execution.state in FINAL_EXECUTION_STATES:
                await tell_outcome(client, execution)
    if told or current.output not in (None, Output.TABLE):
        emit(
            current.output or Output.TABLE,
            document=lambda: list_document("explanations", told),
            names=[reason_word(each) for each in told],
            table=lambda: Group(*_lines(told)),
        )


async def _telling(client: Client, execution: Execution) -> list[TaskExplanation]:
    """Return what an execution waits for, or why tasks of it have no result; what waits for other nodes comes last."""
    execution_id = execution.execution_id
    over = execution.state in FINAL_EXECUTION_STATES
    numbers: list[int] = []
    for state in _ENDINGS if over else _OPEN:
        numbers += [task.task_number async for task in client.tasks(execution_id, state=state)]
    if len(numbers) > TASKS_SHOWN:
        say(f"{TASKS_SHOWN} of {len(numbers)} tasks; nodeflow why ID/NODE tells of any of them")
    if not numbers and not over:
        numbers = [0]  # All tasks are over, and each knows what their execution waits for.
    told = [await client.explain(execution_id, number) for number in numbers[:TASKS_SHOWN]]
    return sorted(told, key=lambda each: each.reason in _WAITS_FOR_NODES)


def _lines(told: list[TaskExplanation]) -> list[Text]:
    now_s = time.time()
    return [line for each in told for line in explanation_lines(each, now_s)]
