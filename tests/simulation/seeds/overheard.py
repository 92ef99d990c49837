"""What workers are told: which of their results were acknowledged, overheard on their streams.

Owns which result a number stands for. Must not know what becomes of a result.
"""

from typing import Any, Final

from nodeflow.worker_manager.v1.attempt_pb2 import AttemptResult
from nodeflow.worker_manager.v1.worker_manager_service_pb2 import ConnectRequest, ConnectResponse
from tests.simulation.seeds.diary import Diary, now_ms

from nodeflow_sdk.audit.decoding import digest_of
from nodeflow_sdk.audit.history import ResultAcknowledgement

CONNECT: Final = "/nodeflow.worker_manager.v1.WorkerManagerService/Connect"


class Overheard:
    """For `LoopbackNetwork.overhear`."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary
        self._sessions: dict[str, str] = {}
        self._results: dict[tuple[str, int], AttemptResult] = {}

    def hear(self, source: str, method: str, message: Any) -> None:  # noqa: ANN401  # of every type
        """A message is sent or read by a caller."""
        if method == CONNECT:
            if isinstance(message, ConnectRequest):
                self._hear_worker(source, message)
            elif isinstance(message, ConnectResponse) and message.HasField("acknowledgement"):
                for result_id in message.acknowledgement.result_ids:
                    self._acknowledge(source, result_id)

    def _hear_worker(self, source: str, request: ConnectRequest) -> None:
        match request.WhichOneof("content"):
            case "hello":
                self._sessions[source] = request.hello.session_id
            case "held":
                self._keep(source, request.held.unacknowledged)
            case "updates":
                self._keep(source, request.updates.results)
            case _:
                pass

    def _keep(self, source: str, results: Any) -> None:  # noqa: ANN401  # a container of protobuf's own
        for result in results:
            self._results[self._sessions[source], result.result_id] = result

    def _acknowledge(self, source: str, result_id: int) -> None:
        result = self._results.get((self._sessions[source], result_id))
        if result is None:
            self._diary.complain(source, f"result {result_id} was acknowledged, and it never gave that number to any")
            return
        self._diary.results.append(
            ResultAcknowledgement(
                execution_id=result.execution_id,
                task=result.task_number,
                attempt=result.attempt_number,
                token=result.fencing_token,
                time_ms=now_ms(),
                worker=source.partition(":")[0],
                value=digest_of(result.output) if result.HasField("output") else "",
            )
        )
