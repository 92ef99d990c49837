"""Messages of the API as what Python users see: events as updates, a failed execution as an exception with its story.

Owns that translation and the wording. Must not know how messages are had.
"""

from collections.abc import Sequence
from datetime import UTC

from nodeflow.common.v1.failure_pb2 import Failure
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.common.v1.log_chunk_pb2 import LogStream
from nodeflow.scheduler.v1 import log_line_pb2
from nodeflow.scheduler.v1.event_pb2 import Event
from nodeflow.scheduler.v1.execution_pb2 import Execution, Task

from nodeflow_sdk.progress.symbols import execution_state, failure_line, task_state
from nodeflow_sdk.running.failures import ExecutionCancelled, ExecutionFailed, FailedTask, NodeFailed
from nodeflow_sdk.running.updates import LogLine, State, Update


def update_of(event: Event) -> Update | None:
    """Return an event as an update; None for one that is no change of state."""
    time = event.event_time.ToDatetime(UTC)
    match event.WhichOneof("detail"):
        case "execution":
            change = event.execution
            message = failure_line(change.failure) if change.HasField("failure") else change.reason
            state = State(execution_state(change.state))
            return Update(sequence=event.sequence, time=time, state=state, message=message)
        case "task":
            task = event.task
            return Update(
                sequence=event.sequence,
                time=time,
                state=State(task_state(task.state)),
                node=task.node,
                item=task.map_index if task.HasField("map_index") else None,
                attempt=task.attempt_number,
                message=failure_line(task.failure) if task.HasField("failure") else task.reason,
            )
        case _:
            return None


def line_of(line: log_line_pb2.LogLine) -> LogLine:
    """Return a line of a log."""
    return LogLine(
        time=line.read_time.ToDatetime(UTC),
        node=line.node,
        item=line.map_index if line.HasField("map_index") else None,
        attempt=line.attempt_number,
        stream=LogStream.Name(line.stream).removeprefix("LOG_STREAM_").lower(),
        text=line.text,
    )


def failure_of(execution: Execution, failed: Sequence[Task]) -> ExecutionFailed:
    """Return the exception for an execution that is over, with its failed tasks."""
    name = f"{execution.workflow} ({execution.execution_id})"
    if execution.state == ExecutionState.EXECUTION_STATE_CANCELLED:
        why = execution.cancel_reason
        text = f"{name} was cancelled{f': {why}' if why else ''}"
        return ExecutionCancelled(text, execution_id=execution.execution_id, reason=why)
    # A mapped node as a whole fails without an attempt of its own, because of its items.
    own = [task for task in failed if not task.item_count] or list(failed)
    if not own:
        text = f"{name} failed: {failure_line(execution.failure)}"
        return ExecutionFailed(text, execution_id=execution.execution_id, reason=execution.failure.reason)
    return NodeFailed(_told(name, own), execution_id=execution.execution_id, task=_failed_task(own[0]))


def _failed_task(task: Task) -> FailedTask:
    return FailedTask(
        node=task.node,
        item=task.map_index if task.HasField("map_index") else None,
        attempts=task.attempt_number,
        reason=task.failure.reason,
        error_type=task.failure.error_type,
        error_message=task.failure.message,
        remote_traceback=task.failure.traceback,
    )


def _told(name: str, failed: Sequence[Task]) -> str:
    task = failed[0]
    label = f"{task.node}[{task.map_index}]" if task.HasField("map_index") else task.node
    tries = f" after {task.attempt_number} attempts" if task.attempt_number > 1 else ""
    lines = [f"{label} of {name} failed{tries}: {failure_line(task.failure)}", *_traceback(task.failure)]
    if len(failed) > 1:
        lines.append(f"(and {len(failed) - 1} more failed)")
    return "\n".join(lines)


def _traceback(failure: Failure) -> list[str]:
    lines = []
    if failure.traceback:
        lines = ["Remote traceback:", failure.traceback.rstrip(), failure_line(failure)]
    if failure.HasField("cause"):
        lines += [f"Caused by: {failure_line(failure.cause)}", *_traceback(failure.cause)]
    return lines
