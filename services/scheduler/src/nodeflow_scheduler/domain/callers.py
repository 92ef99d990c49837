"""What people and programs ask for: submissions and cancellations. Each is answered once the answer is committed."""

from __future__ import annotations

from nodeflow_scheduler.domain.events import ExecutionStarted
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.ledger import Ledger, not_ours
from nodeflow_scheduler.domain.lifecycle import ExecutionState
from nodeflow_scheduler.domain.messages import Cancel, Reply, Submit, Turn
from nodeflow_scheduler.domain.timers import DEADLINE
from nodeflow_scheduler.domain.workflow import source_digest
from nodeflow_shared.errors import AlreadyExists, IllegalState, NodeflowError, NotFound, Unavailable


class Callers:
    """Decides about what callers ask for."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def on_submit(self, turn: Turn, submit: Submit) -> None:
        """Starts an execution, or finds the one that the same request started before."""
        self._ledger.admission.decided(submit.admitted)
        turn.replies.append(Reply(submit.shard, submit.handle, self._submitted(turn, submit)))

    def on_cancel(self, turn: Turn, cancel: Cancel) -> None:
        """Cancels an execution; one that is cancelled already is answered as it is."""
        turn.replies.append(Reply(cancel.shard, cancel.handle, self._cancelled(turn, cancel)))

    def _submitted(self, turn: Turn, submit: Submit) -> Execution | NodeflowError:
        ledger = self._ledger
        if submit.shard not in ledger.leases:
            return not_ours(submit.shard)
        known = ledger.executions.get(submit.execution_id)
        if known is not None:
            return repeated(known, submit)
        execution = Execution(submit.execution_id, submit.shard, submit.workflow)
        draft = ledger.draft_of(turn, execution)
        assert draft is not None, "the shard is ours, as just seen"
        ledger.executions[submit.execution_id] = execution
        ledger.admission.count(submit.execution_id, len(execution.states))
        timeout_ms = submit.workflow.timeout_ms
        deadline_ms = draft.now_ms + timeout_ms if timeout_ms else 0
        draft.add(
            ExecutionStarted(
                submit.tenant,
                submit.workflow.name,
                submit.workflow.revision,
                submit.inputs,
                submit.request_id,
                submit.request_digest,
                dict(submit.labels),
                deadline_ms,
            )
        )
        source = source_digest(submit.workflow, submit.inputs)
        if source:
            draft.artifacts.append(source)
        if deadline_ms:
            ledger.timers.set(deadline_ms, submit.execution_id, DEADLINE, 0)
        return execution

    def _cancelled(self, turn: Turn, cancel: Cancel) -> Execution | NodeflowError:
        execution = self._ledger.executions.get(cancel.execution_id)
        if cancel.shard not in self._ledger.leases:
            return not_ours(cancel.shard)
        if execution is None:  # It was there when this was asked for: it has ended since, and left memory.
            return Unavailable(f"execution {cancel.execution_id} has ended meanwhile; try again", retry_after_s=0.1)
        if execution.tenant != cancel.tenant:
            return NotFound(f"there is no execution {cancel.execution_id!r}")
        if execution.finished:
            return cancelled_already(execution)
        draft = self._ledger.draft_of(turn, execution)
        assert draft is not None, "the shard is ours, as just seen"
        draft.cancel(cancel.reason)
        return execution


def cancelled_already(execution: Execution) -> Execution | NodeflowError:
    """The answer to a cancellation of an execution that is over."""
    if execution.state is ExecutionState.CANCELLED:
        return execution
    return IllegalState(
        f"execution {execution.execution_id} is {execution.state.name} already, and cannot be cancelled"
    )


def repeated(known: Execution, submit: Submit) -> Execution | NodeflowError:
    """The answer to a submission whose id is known: the same execution, if it asks for the same."""
    if known.origin.request_digest == submit.request_digest:
        return known
    return request_id_reused(submit.request_id, known.execution_id)


def request_id_reused(request_id: str, execution_id: str) -> NodeflowError:
    """The same key, and another body."""
    return AlreadyExists(
        f"request_id {request_id!r} was used for another submission, which is execution {execution_id}",
        reason="REQUEST_ID_REUSED",
        metadata={"execution_id": execution_id},
    )
