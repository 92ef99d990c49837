"""I10: no tenant sees or touches what is another's.

Owns whose an execution is. Must not know how callers prove who they are.
"""

from typing import Final

from nodeflow_sdk.audit.checkers.findings import Checker, Findings
from nodeflow_sdk.audit.history import Acknowledgement, History, Told, Watched


def _look(history: History, findings: Findings) -> None:
    for execution in history.executions:
        findings.judge("executions")
        for fact in execution.facts:
            if fact.submission is not None and fact.submission.tenant != execution.tenant:
                what = f"tenant {fact.submission.tenant} submitted it, and the index gives it to {execution.tenant}"
                findings.add_fact(execution, fact, what)
    owner = {each.execution_id: each.tenant for each in history.executions}
    answers: list[Acknowledgement | Watched | Told] = [*history.acknowledgements, *history.watched, *history.told]
    for told in answers:
        findings.judge("answers")
        owned_by = owner.get(told.execution_id, told.tenant)
        if told.tenant != owned_by:
            findings.add(told.execution_id, f"tenant {told.tenant} was answered about what is {owned_by}'s")


TENANTS: Final = Checker(promise="I10", says="no tenant sees or touches what is another's", look=_look)
