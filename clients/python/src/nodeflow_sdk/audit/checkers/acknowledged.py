"""I1: what was acknowledged is in the log.

Owns what each kind of acknowledgement must have left behind. Must not know who was told.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from nodeflow_sdk.audit.attempts import attempts_of
from nodeflow_sdk.audit.checkers.findings import Checker, Findings
from nodeflow_sdk.audit.history import Acknowledgement, Attempt, Call, ExecutionHistory, History, Kind

Attempts = Mapping[tuple[str, int, int], Attempt]


def _look(history: History, findings: Findings) -> None:
    executions = {each.execution_id: each for each in history.executions}
    _look_at_request_ids(history, findings)
    for told in history.acknowledgements:
        findings.judge("answers to clients")
        _look_at_answer(told, executions.get(told.execution_id), findings)
    if history.results or history.attempts:
        attempts = {
            (each.execution_id, each.task, each.attempt): each
            for execution in history.executions
            for each in attempts_of(execution)
        }
        _look_at_results(history, attempts, findings)
        _look_at_attempts(history, attempts, findings)


def _look_at_request_ids(history: History, findings: Findings) -> None:
    """A caller's key has started one execution, however often it was sent, and stands for one body."""
    used = Counter((each.tenant, each.request_id) for each in history.executions if each.request_id)
    findings.judge("request ids", len(used))
    for (tenant, key), count in used.items():
        if count > 1:
            findings.add(f"tenant {tenant}", f"request_id {key!r} has {count} executions")
    first: dict[tuple[str, str], Acknowledgement] = {}
    for told in history.acknowledgements:
        if told.call is not Call.SUBMIT or not told.request_id:
            continue
        before = first.setdefault((told.tenant, told.request_id), told)
        if before.body != told.body:
            findings.add(told.execution_id, f"request_id {told.request_id!r} was accepted with two bodies")
        elif before.execution_id != told.execution_id:
            other = before.execution_id
            findings.add(told.execution_id, f"request_id {told.request_id!r} was answered with {other} before")


def _look_at_answer(told: Acknowledgement, execution: ExecutionHistory | None, findings: Findings) -> None:
    if execution is None:
        findings.add(told.execution_id, f"its {told.call} was acknowledged, and there is no such execution")
        return
    kinds = {fact.kind for fact in execution.facts}
    match told.call:
        case Call.SUBMIT:
            if Kind.EXECUTION_STARTED not in kinds:
                findings.add(told.execution_id, "its submission was acknowledged, and the log has no start of it")
            elif told.request_id != execution.request_id:
                what = f"it was acknowledged for request_id {told.request_id!r}, and is of {execution.request_id!r}"
                findings.add(told.execution_id, what)
        case Call.CANCEL:
            if Kind.CANCEL_REQUESTED not in kinds:
                findings.add(told.execution_id, "its cancellation was acknowledged, and the log has none")


def _look_at_results(history: History, attempts: Attempts, findings: Findings) -> None:
    """A result that a worker need not keep was taken, or came too late to count: its attempt has ended either way."""
    for told in history.results:
        findings.judge("answers to workers")
        attempt = attempts.get((told.execution_id, told.task, told.attempt))
        if attempt is None or attempt.token != told.token:
            continue  # A report on what was never granted changes nothing, and nobody need keep it.
        what = f"the result of attempt {told.attempt} was acknowledged to {told.worker or 'its worker'}"
        if attempt.end is None:
            findings.add(told.execution_id, f"{what}, and the attempt goes on in the log", task=told.task)
        elif attempt.end is Kind.ATTEMPTS_LOST and attempt.ended_ms > told.time_ms + history.clock_error_ms:
            findings.add(told.execution_id, f"{what}, and the attempt was lost later", task=told.task)
        elif attempt.end is Kind.TASKS_COMPLETED and told.value and told.value != attempt.value:
            findings.add(told.execution_id, f"{what}, and the log has another result", task=told.task)


def _look_at_attempts(history: History, attempts: Attempts, findings: Findings) -> None:
    """What was written down of attempts is what the log gives; all of them, if it was done for an execution."""
    named = {(noted.execution_id, noted.task, noted.attempt) for noted in history.attempts}
    executions = {noted.execution_id for noted in history.attempts}
    for key, found in attempts.items():
        if found.execution_id in executions and key not in named:
            findings.add(
                found.execution_id, f"attempt {found.attempt} is in the log, and was not noted", task=found.task
            )
    for noted in history.attempts:
        findings.judge("attempts")
        logged = attempts.get((noted.execution_id, noted.task, noted.attempt))
        if logged != noted:
            what = f"attempt {noted.attempt} was noted as {_words(noted)}; the log says {_words(logged)}"
            findings.add(noted.execution_id, f"{what}{_other_fields(noted, logged)}", task=noted.task)


def _words(attempt: Attempt | None) -> str:
    return f"{attempt.end or 'still lasting'} under token {attempt.token}" if attempt else "nothing of it"


def _other_fields(noted: Attempt, found: Attempt | None) -> str:
    """Name what else differs."""
    if found is None:
        return ""
    names = [
        name
        for name in ("queued_ms", "started_ms", "worker", "ended_ms", "value")
        if getattr(noted, name) != getattr(found, name)
    ]
    return f"; they differ in {', '.join(names)}" if names else ""


ACKNOWLEDGED: Final = Checker(
    promise="I1", says="what was acknowledged is in the log, and a request_id starts one execution", look=_look
)
