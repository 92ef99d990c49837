"""Messages ↔ values of the core.

Owns every translation of the worker-manager's own messages. Must not decide anything.

Reports and assignments pass through whole: a wrapper answers the core's few questions, and messages are taken apart
only if more than one scheduler is concerned.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar, assert_never

from google.protobuf.duration_pb2 import Duration
from nodeflow.worker_manager.v1 import attempt_pb2 as attempts
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as pb

from nodeflow_shared.errors import FieldViolation, InvalidInput
from nodeflow_shared.status import from_status
from nodeflow_worker_manager.domain import events as ev
from nodeflow_worker_manager.domain import instructions as do
from nodeflow_worker_manager.domain import reports
from nodeflow_worker_manager.domain.sessions import Capacity
from nodeflow_worker_manager.domain.workers import Worker, WorkerState

# What one message of a worker may take, and what is put into one response to a scheduler beside a frame that is larger:
# together with what surrounds them, and with a turn of the scheduler, they stay below the message limit (64 MiB).
MAX_REQUEST_BYTES: Final = 24 << 20
MAX_RESPONSE_BYTES: Final = 8 << 20

K = TypeVar("K", attempts.AttemptKey, attempts.AttemptResult)


class HeldMessage:
    """All that a session holds, as the worker sent it."""

    __slots__ = ("message", "size_bytes")

    def __init__(self, message: pb.HeldAttempts, size_bytes: int | None = None) -> None:
        self.message = message
        self.size_bytes = message.ByteSize() if size_bytes is None else size_bytes

    @property
    def live_count(self) -> int:
        """How many attempts wait or run."""
        return len(self.message.live)

    def only(self, shards: Container[int]) -> "HeldMessage":
        """Return the part that is about these shards; it may be empty."""
        live = _of(self.message.live, shards)
        return HeldMessage(pb.HeldAttempts(live=live, unacknowledged=_of(self.message.unacknowledged, shards)))

    def plus(self, batches: Sequence[reports.Assignments]) -> "HeldMessage":
        """Return it with the attempts of these batches, each once."""
        merged = pb.HeldAttempts()
        merged.CopyFrom(self.message)
        known = {_identity(each) for each in merged.live} | {_identity(each) for each in merged.unacknowledged}
        for batch in batches:
            assert isinstance(batch, AssignmentsMessage)
            merged.live.extend(_key(each) for each in batch.message.assignments if _identity(each) not in known)
        return HeldMessage(merged)


class UpdatesMessage:
    """What became of attempts, as the worker sent it."""

    __slots__ = ("message", "size_bytes")

    def __init__(self, message: attempts.AttemptUpdates, size_bytes: int | None = None) -> None:
        self.message = message
        self.size_bytes = message.ByteSize() if size_bytes is None else size_bytes

    @property
    def ended_count(self) -> int:
        """How many attempts it says are over."""
        return len(self.message.results) + len(self.message.refused)

    def only(self, shards: Container[int]) -> "UpdatesMessage | None":
        """Return the part that is about these shards, or None if nothing is."""
        message = self.message
        started, results, refused = (
            _of(message.started, shards),
            _of(message.results, shards),
            _of(message.refused, shards),
        )
        if not (started or results or refused):
            return None
        return UpdatesMessage(attempts.AttemptUpdates(started=started, results=results, refused=refused))


class AssignmentsMessage:
    """Attempts for a session, as the scheduler sent them."""

    __slots__ = ("message", "size_bytes")

    def __init__(self, message: attempts.AssignmentBatch) -> None:
        self.message = message
        self.size_bytes = message.ByteSize()

    @property
    def count(self) -> int:
        """How many attempts there are."""
        return len(self.message.assignments)

    def without(self, updates: reports.Updates) -> "AssignmentsMessage":
        """Return what is left when those that these updates say are over are taken out; it may be empty."""
        assert isinstance(updates, UpdatesMessage)
        message = updates.message
        ended = {_identity(each) for each in message.results} | {_identity(each) for each in message.refused}
        left = [each for each in self.message.assignments if _identity(each) not in ended]
        return AssignmentsMessage(attempts.AssignmentBatch(specs=self.message.specs, assignments=left))

    def fence(self, tokens: Mapping[int, int]) -> reports.Fenced:
        """Part it by the highest token seen of each shard."""
        stale = [each for each in self.message.assignments if each.fencing_token < tokens.get(each.shard, 0)]
        if not stale:
            return reports.Fenced(self, None)
        refused = UpdatesMessage(attempts.AttemptUpdates(refused=map(_key, stale)))
        if len(stale) == len(self.message.assignments):
            return reports.Fenced(None, refused)
        current = [each for each in self.message.assignments if each.fencing_token >= tokens.get(each.shard, 0)]
        rest = attempts.AssignmentBatch(specs=self.message.specs, assignments=current)
        return reports.Fenced(AssignmentsMessage(rest), refused)


def _of(items: Sequence[K], shards: Container[int]) -> list[K]:
    return [each for each in items if each.shard in shards]


def _identity(item: attempts.AttemptKey | attempts.AttemptResult | attempts.Assignment) -> tuple[str, int, int]:
    return item.execution_id, item.task_number, item.attempt_number


def _key(assignment: attempts.Assignment) -> attempts.AttemptKey:
    return attempts.AttemptKey(
        execution_id=assignment.execution_id,
        task_number=assignment.task_number,
        attempt_number=assignment.attempt_number,
        shard=assignment.shard,
        fencing_token=assignment.fencing_token,
    )


def read_hello(message: pb.Hello) -> ev.Hello:
    """Return a hello as a value, unchecked."""
    return ev.Hello(
        worker_id=message.worker_id,
        session_id=message.session_id,
        capacity=read_capacity(message.capacity),
        replaced_session_ids=tuple(message.replaced_session_ids),
        labels=dict(message.labels),
        version=message.version,
    )


def read_capacity(message: pb.Capacity) -> Capacity:
    """Return a standing bid as a value."""
    return Capacity(slots=message.slots, credits=message.credits)


def read_worker_request(connection: int, request: pb.ConnectRequest) -> ev.Event | None:
    """Return what a worker's message means after its hello, or None if it is none that may come then.

    Raises InvalidInput for one that is too large to be passed on.
    """
    size = request.ByteSize()  # Once, and for what it holds as well: it costs as much as writing the message.
    if size > MAX_REQUEST_BYTES:
        raise InvalidInput(
            f"a message of a worker has {size:,} bytes, and {MAX_REQUEST_BYTES:,} at most can be passed on; "
            "report results in several messages, and large ones as artifacts",
            reason="MESSAGE_TOO_LARGE",
        )
    match request.WhichOneof("content"):
        case "updates":
            return ev.UpdatesReceived(connection=connection, updates=UpdatesMessage(request.updates, size))
        case "heartbeat":
            beat = request.heartbeat
            capacity = read_capacity(beat.capacity)
            return ev.HeartbeatReceived(
                connection=connection, beat=beat.beat, capacity=capacity, draining=beat.draining
            )
        case "held":
            return ev.HeldReceived(connection=connection, held=HeldMessage(request.held, size))
        case "goodbye":
            return ev.GoodbyeReceived(connection=connection)
        case _:
            return None


def read_scheduler_request(stream: int, request: pb.CoordinateRequest) -> Iterator[ev.Event]:
    """Yield what a scheduler's message means, in the order of its fields; `attach` apart."""
    if request.claims:
        tokens = {each.shard: each.fencing_token for each in request.claims}
        yield ev.ShardsClaimed(stream=stream, tokens=tokens)
    if request.released_shards:
        yield ev.ShardsReleased(stream=stream, shards=tuple(request.released_shards))
    for ack in request.acknowledgements:
        yield ev.AcknowledgementReceived(session_id=ack.session_id, acknowledgement=ack.acknowledgement)
    for stop in request.cancellations:
        yield ev.CancellationReceived(session_id=stop.session_id, cancellation=stop.cancellation)
    for given in request.assignments:
        batch = AssignmentsMessage(given.batch)
        yield ev.AssignmentsReceived(
            stream=stream, session_id=given.session_id, generation=given.generation, batch=batch
        )
    for answer in request.answers:
        yield ev.QuestionAnswered(stream=stream, question=answer.question_id, answer=answer)


def read_answer(answer: pb.DependencyAnswer) -> pb.GetTaskDependenciesResponse:
    """Return what a scheduler tells a worker; raises what it refuses with."""
    if answer.WhichOneof("answer") == "refusal":
        raise from_status(answer.refusal)
    return answer.dependencies


def write_capacity(capacity: Capacity) -> pb.Capacity:
    """Return a standing bid as a message."""
    return pb.Capacity(slots=capacity.slots, credits=capacity.credits)


class WorkerWriter:
    """Writes what is sent to workers."""

    def __init__(self, *, lease_timeout_s: float, heartbeat_interval_s: float) -> None:
        self._lease_timeout = _duration(lease_timeout_s)
        self._heartbeat_interval = _duration(heartbeat_interval_s)

    def write(self, frame: do.ToWorker) -> pb.ConnectResponse:
        """Return the message of a frame."""
        match frame:
            case do.Assign(batch=AssignmentsMessage(message=batch)):
                response = pb.ConnectResponse()
                response.assignments.CopyFrom(batch)  # A constructor takes more than twice as long to copy it.
                return response
            case do.Acknowledge(acknowledgement=pb.ResultAcknowledgement() as acknowledgement):
                return pb.ConnectResponse(acknowledgement=acknowledgement)
            case do.ReplyToHeartbeat():
                return pb.ConnectResponse(heartbeat_reply=pb.HeartbeatReply(beat=frame.beat))
            case do.Cancel(cancellation=attempts_to_stop) if isinstance(attempts_to_stop, pb.Cancellation):
                return pb.ConnectResponse(cancellation=attempts_to_stop)
            case do.ReportHeld():
                return pb.ConnectResponse(report_held=pb.ReportHeld())
            case do.Drain():
                return pb.ConnectResponse(drain=pb.Drain())
            case do.Welcome():
                return pb.ConnectResponse(welcome=self._welcome(frame))
            case _:
                raise TypeError(f"no message for {frame!r}")

    def _welcome(self, frame: do.Welcome) -> pb.Welcome:
        return pb.Welcome(
            lease_timeout=self._lease_timeout,
            heartbeat_interval=self._heartbeat_interval,
            newly_registered=frame.newly_registered,
        )


class SchedulerWriter:
    """Collects frames to a scheduler into one response while reading its fields in order keeps the order of frames."""

    def __init__(self) -> None:
        self._response = pb.CoordinateResponse()
        self._rank = 0
        self._size = 0

    def add(self, frame: do.ToScheduler) -> bool:
        """Add a frame; False if it has to begin the next response."""
        rank, size = _RANKS[type(frame)], do.size_of(frame)
        if self._rank > rank or (self._size and self._size + size > MAX_RESPONSE_BYTES):
            return False
        self._rank = rank
        self._size += size
        self._write(frame)
        return True

    def take(self) -> pb.CoordinateResponse:
        """Return the response and begin the next."""
        response, self._response = self._response, pb.CoordinateResponse()
        self._rank = self._size = 0
        return response

    def _write(self, frame: do.ToScheduler) -> None:
        response = self._response
        match frame:
            case do.SendUpdates():
                assert isinstance(frame.updates, UpdatesMessage)
                # Filled in place: appending a message that holds the reports would copy them twice.
                reported = response.updates.add(session_id=frame.session_id)
                reported.updates.CopyFrom(frame.updates.message)
            case do.SendHeld():
                assert isinstance(frame.held, HeldMessage)
                response.held.append(
                    pb.SessionHeld(session_id=frame.session_id, held=frame.held.message, generation=frame.generation)
                )
            case do.SendOpened():
                response.opened.extend(map(_opened, frame.sessions))
            case do.SendCapacity():
                capacity = write_capacity(frame.capacity)
                response.capacities.append(pb.SessionCapacity(session_id=frame.session_id, capacity=capacity))
            case do.SendClosed():
                response.closed.append(pb.SessionClosed(session_id=frame.session_id, reason=frame.reason))
            case do.SendAttached():
                response.attached = True
            case do.SendQuestion():
                assert isinstance(frame.request, pb.GetTaskDependenciesRequest)
                response.questions.append(pb.DependencyQuestion(question_id=frame.question, request=frame.request))
            case _:
                assert_never(frame)


# The order in which a scheduler reads the fields of a response.
_RANKS: Final[Mapping[type[do.ToScheduler], int]] = {
    do.SendOpened: 1,
    do.SendHeld: 2,
    do.SendUpdates: 3,
    do.SendCapacity: 4,
    do.SendClosed: 5,
    do.SendAttached: 6,
    do.SendQuestion: 7,
}


def _opened(session: do.OpenedSession) -> pb.SessionOpened:
    return pb.SessionOpened(
        session_id=session.session_id,
        worker_id=session.worker_id,
        capacity=write_capacity(session.capacity),
        labels=session.labels,
        connected=session.connected,
    )


_STATES: Final[Mapping[int, WorkerState]] = MappingProxyType(
    {
        pb.WORKER_STATE_CONNECTED: WorkerState.CONNECTED,
        pb.WORKER_STATE_DISCONNECTED: WorkerState.DISCONNECTED,
        pb.WORKER_STATE_DRAINING: WorkerState.DRAINING,
        pb.WORKER_STATE_OFFLINE: WorkerState.OFFLINE,
    }
)


def read_worker_state(state: int) -> WorkerState:
    """Return a worker's state as a value; InvalidInput for a number that this version does not know."""
    known = _STATES.get(state)
    if known is None:
        raise InvalidInput(f"unknown worker state {state}", violations=[FieldViolation("state", f"is {state}")])
    return known


def write_worker(worker: Worker) -> pb.Worker:
    """Return a worker as a message."""
    known, session = worker.known, worker.session
    message = pb.Worker(
        worker_id=known.worker_id,
        state=pb.WorkerState.Value(f"WORKER_STATE_{worker.state}"),
        labels=known.labels,
        version=known.version,
    )
    message.register_time.FromMilliseconds(known.register_time_ms)
    message.last_seen_time.FromMilliseconds(worker.last_seen_time_ms)
    if session is not None:
        message.session_id = session.session_id
        message.capacity.CopyFrom(write_capacity(session.capacity))
        message.assigned_count = session.assigned_count
    return message


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1_000_000_000))
    return duration
