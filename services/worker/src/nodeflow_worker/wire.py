"""Messages of the Connect stream ↔ the domain's terms.

Owns the mapping in both directions, and nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import Final, assert_never

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer as Repeated
from nodeflow.worker_manager.v1 import attempt_pb2
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as wm

from nodeflow_worker.domain.events import (
    Acknowledged,
    Assigned,
    BeatAnswered,
    CancelRequested,
    DrainRequested,
    HeldRequested,
    Welcomed,
)
from nodeflow_worker.domain.values import (
    JSON,
    Attempt,
    Limits,
    ProcessSpec,
    Reference,
    Stored,
    TaskSpec,
)
from nodeflow_worker.ports import Beat, Goodbye, Held, Hello, Incoming, Outgoing, Updates
from nodeflow_worker.wire_results import add_results

MAX_SPECS: Final = 4096


class WireReader:
    """Reads responses. Specs repeat from batch to batch, so they are read once each."""

    def __init__(self) -> None:
        self._specs: dict[bytes, TaskSpec] = {}

    def read(self, response: wm.ConnectResponse) -> Incoming | None:
        """Return what a response says; None if this version does not know it."""
        match response.WhichOneof("content"):
            case "assignments":
                return Assigned(attempts=self._attempts(response.assignments))
            case "acknowledgement":
                return Acknowledged(result_ids=response.acknowledgement.result_ids)
            case "heartbeat_reply":
                return BeatAnswered(beat=response.heartbeat_reply.beat)
            case "cancellation":
                return _cancellation(response.cancellation)
            case "report_held":
                return HeldRequested()
            case "drain":
                return DrainRequested()
            case "welcome":
                return Welcomed(
                    lease_timeout_s=response.welcome.lease_timeout.ToNanoseconds() / 1e9,
                    heartbeat_interval_s=response.welcome.heartbeat_interval.ToNanoseconds() / 1e9,
                )
            case None:
                return None
            case _:
                assert_never(response)

    def _attempts(self, batch: attempt_pb2.AssignmentBatch) -> list[Attempt]:
        specs = [self._spec(each) for each in batch.specs]
        # Positional, and one attribute of the message each: this line runs once per task.
        attempts = [
            Attempt(
                each.execution_id,
                each.task_number,
                each.attempt_number,
                each.shard,
                each.fencing_token,
                specs[each.spec],
                each.arguments,
                tuple([_reference(one) for one in each.references]) if each.references else (),
            )
            for each in batch.assignments
        ]
        if any(spec.process is not None for spec in specs):
            for attempt, message in zip(attempts, batch.assignments, strict=True):
                attempt.map_index = message.map_index if message.HasField("map_index") else None
        return attempts

    def _spec(self, message: attempt_pb2.TaskSpec) -> TaskSpec:
        key = message.SerializeToString()
        spec = self._specs.get(key)
        if spec is None:
            if len(self._specs) >= MAX_SPECS:
                self._specs.clear()
            spec = self._specs[key] = TaskSpec(
                tenant=message.tenant,
                workflow=message.workflow,
                node=message.node,
                function=message.function.function,
                directory=message.function.directory or message.process.directory,
                process=_process(message.process) if message.HasField("process") else None,
                timeout_s=(
                    message.attempt_timeout.ToNanoseconds() / 1e9 if message.HasField("attempt_timeout") else None
                ),
            )
        return spec


def _process(message: attempt_pb2.ProcessExecutor) -> ProcessSpec:
    limits = message.limits
    return ProcessSpec(
        script=message.script,
        artifacts=tuple(message.artifacts),
        filled=message.working_directory == attempt_pb2.WORKING_DIRECTORY_FILLED,
        limits=Limits(
            memory_bytes=limits.memory_bytes,
            cpu_time_s=limits.cpu_timeout.ToNanoseconds() / 1e9,
            open_files=limits.open_files,
            directory_bytes=limits.directory_bytes,
        ),
    )


def _reference(message: attempt_pb2.ArgumentReference) -> Reference:
    payload = message.payload
    return Reference(
        parameter=message.parameter,
        value=Stored(
            content_type=payload.content_type or JSON,
            data=payload.data,
            digest=payload.artifact.digest,
            size_bytes=payload.artifact.size_bytes,
        ),
    )


def _cancellation(message: wm.Cancellation) -> CancelRequested:
    return CancelRequested(
        keys=[(each.execution_id, each.task_number, each.attempt_number) for each in message.attempts],
        grace_s=message.grace_timeout.ToNanoseconds() / 1e9,
    )


class WireWriter:
    """Writes requests; who the worker is, is said in its hello."""

    def __init__(self, *, worker_id: str, labels: Mapping[str, str], version: str) -> None:
        self._worker_id = worker_id
        self._labels = dict(labels)
        self._version = version

    def write(self, message: Outgoing) -> wm.ConnectRequest:
        """Return a message as a request."""
        request = wm.ConnectRequest()
        match message:
            case Updates():
                updates = request.updates
                _add_keys(updates.started, message.started)
                add_results(updates.results, message.results)
                _add_keys(updates.refused, message.refused)
            case Beat():
                beat = request.heartbeat
                beat.beat, beat.draining = message.beat, message.draining
                beat.capacity.slots, beat.capacity.credits = message.slots, message.credits
            case Held():
                request.held.SetInParent()
                _add_keys(request.held.live, message.live)
                add_results(request.held.unacknowledged, message.unacknowledged)
            case Hello():
                self._hello(request.hello, message)
            case Goodbye():
                request.goodbye.SetInParent()
            case _:
                assert_never(message)
        return request

    def _hello(self, hello: wm.Hello, message: Hello) -> None:
        hello.worker_id = self._worker_id
        hello.session_id = message.session_id
        hello.replaced_session_ids.extend(message.replaced_session_ids)
        hello.capacity.slots, hello.capacity.credits = message.slots, message.credits
        hello.labels.update(self._labels)
        hello.version = self._version


def _add_keys(keys: Repeated[attempt_pb2.AttemptKey], attempts: Iterable[Attempt]) -> None:
    for each in attempts:
        keys.add(
            execution_id=each.execution_id,
            task_number=each.task_number,
            attempt_number=each.attempt_number,
            shard=each.shard,
            fencing_token=each.fencing_token,
        )
