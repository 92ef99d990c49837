"""What goes to workers and comes from them. On the hot path: one message for each task, and no more work than that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import assert_never

from nodeflow.worker_manager.v1 import attempt_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as manager_pb2

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.messages import AttemptRef, Held, Outcome, Produced, Report, Stopped, Updates
from nodeflow_scheduler.domain.workflow import FunctionSpec, ProcessSpec
from nodeflow_scheduler.ports import Prepared
from nodeflow_scheduler.wire.values import artifacts_of, failure_of, payload_of, value_of


def fill_batch(batch: attempt_pb2.AssignmentBatch, prepared: Sequence[Prepared]) -> None:
    """Attempts for one worker. Specs are said once for each node of a revision."""
    add = batch.assignments.add
    specs: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    known: dict[int, int] = {}
    last: Execution | None = None
    for (execution, task, attempt), (arguments, references) in prepared:
        if execution is not last:  # Those of one execution come together.
            last, known = execution, specs[execution.workflow.revision, execution.tenant]
        node = task if not execution.expansions else execution.node_of(task)
        spec = known.get(node)
        if spec is None:
            spec = known[node] = len(batch.specs)
            _fill_spec(batch.specs.add(), execution, node)
        assignment = add()  # Field by field: to set them by keywords takes a quarter longer.
        assignment.execution_id = execution.execution_id
        assignment.task_number = task
        assignment.attempt_number = attempt
        assignment.shard = execution.shard
        assignment.fencing_token = execution.tokens[task]
        assignment.spec = spec
        assignment.arguments = arguments
        if references:
            for parameter, value in references:
                assignment.references.add(parameter=parameter, payload=payload_of(value))
        if task != node:
            assignment.map_index = execution.map_index_of(task) or 0


def _fill_spec(spec: attempt_pb2.TaskSpec, execution: Execution, node: int) -> None:
    what = execution.workflow.nodes[node]
    spec.tenant = execution.tenant
    spec.workflow = execution.workflow.name
    spec.node = what.name
    match what.executor:
        case FunctionSpec():
            spec.function.function = what.executor.function
            spec.function.directory = execution.workflow.directory
        case ProcessSpec():
            _fill_process(spec.process, what.executor, execution.workflow.directory)
        case _:
            assert_never(what.executor)
    if what.timeout_ms is not None:
        spec.attempt_timeout.FromTimedelta(timedelta(milliseconds=what.timeout_ms))


def _fill_process(message: attempt_pb2.ProcessExecutor, process: ProcessSpec, directory: str) -> None:
    message.script = process.script
    message.directory = directory
    filled = process.filled
    message.working_directory = attempt_pb2.WORKING_DIRECTORY_FILLED if filled else attempt_pb2.WORKING_DIRECTORY_EMPTY
    message.artifacts.extend(process.artifacts)
    limits = process.limits
    message.limits.memory_bytes = limits.memory_bytes
    message.limits.open_files = limits.open_files
    message.limits.directory_bytes = limits.directory_bytes
    if limits.cpu_time_ms:
        message.limits.cpu_timeout.FromTimedelta(timedelta(milliseconds=limits.cpu_time_ms))


def updates_of(session_id: str, message: attempt_pb2.AttemptUpdates) -> Updates:
    """What a worker reports."""
    return Updates(
        session_id=session_id,
        started=refs_of(message.started),
        results=reports_of(message.results),
        refused=refs_of(message.refused),
    )


def held_of(message: manager_pb2.SessionHeld, *, first_generation: int = 0) -> Held:
    """What a worker holds. Its generation is counted from `first_generation`."""
    return Held(
        session_id=message.session_id,
        generation=first_generation + message.generation,
        live=refs_of(message.held.live),
        results=reports_of(message.held.unacknowledged),
    )


def refs_of(keys: Iterable[attempt_pb2.AttemptKey]) -> list[AttemptRef]:
    """Attempts that a worker names."""
    return [
        AttemptRef(key.execution_id, key.task_number, key.attempt_number, key.shard, key.fencing_token) for key in keys
    ]


def reports_of(results: Iterable[attempt_pb2.AttemptResult]) -> list[Report]:
    """Ends of attempts."""
    return [
        Report(
            result.execution_id,
            result.task_number,
            result.attempt_number,
            result.shard,
            result.fencing_token,
            result.result_id,
            _outcome_of(result),
        )
        for result in results
    ]


def _outcome_of(result: attempt_pb2.AttemptResult) -> Outcome:
    output = result.output
    # Nearly always an inline JSON value, and then this is the whole test.
    data = output.data
    if data and not output.content_type and not result.artifacts:
        return data
    match result.WhichOneof("outcome"):
        case "output":
            artifacts = artifacts_of(result.artifacts)
            return Produced(value_of(output), artifacts) if artifacts else value_of(output)
        case "failure":
            return failure_of(result.failure).shortened()
        case _:
            return Stopped()


def keys_of(refs: Iterable[AttemptRef]) -> list[attempt_pb2.AttemptKey]:
    """Attempts, as they travel."""
    return [
        attempt_pb2.AttemptKey(
            execution_id=ref.execution_id,
            task_number=ref.task,
            attempt_number=ref.attempt,
            shard=ref.shard,
            fencing_token=ref.token,
        )
        for ref in refs
    ]
