"""All checkers over many histories, one after another, and what they found in sum.

Owns what must be remembered from one execution to the next: whose request ids were seen. Memory is a key for each
execution, however large they are.
"""

from typing import Final

from nodeflow_sdk.audit.checkers import CHECKERS
from nodeflow_sdk.audit.checkers.findings import Findings
from nodeflow_sdk.audit.history import History

VIOLATIONS_LIMIT: Final = 1_000
"""How many violations are kept in words; all are counted."""


class Audit:
    """What the checkers have found so far."""

    def __init__(self) -> None:
        self.findings: dict[str, Findings] = {checker.promise: Findings(checker.promise) for checker in CHECKERS}
        self.violation_counts = dict.fromkeys(self.findings, 0)
        self.execution_count = 0
        self._request_ids: dict[tuple[str, str], str] = {}

    @property
    def violation_count(self) -> int:
        """How many violations there are."""
        return sum(self.violation_counts.values())

    def add(self, history: History) -> None:
        """Judge the histories of executions that were not judged yet."""
        self.execution_count += len(history.executions)
        for checker in CHECKERS:
            self._take(checker.judge(history))
        self._take(self._judge_request_ids(history))

    def _take(self, found: Findings) -> None:
        total = self.findings[found.promise]
        total.judged.update(found.judged)
        self.violation_counts[found.promise] += len(found.violations)
        total.violations += found.violations[: VIOLATIONS_LIMIT - len(total.violations)]

    def _judge_request_ids(self, history: History) -> Findings:
        """A request_id starts one execution: which the checker of I1 sees only among those of one history."""
        found = Findings("I1")
        for execution in history.executions:
            if not execution.request_id:
                continue
            key = (execution.tenant, execution.request_id)
            first = self._request_ids.setdefault(key, execution.execution_id)
            if first != execution.execution_id:
                what = f"request_id {execution.request_id!r} has started {first} too"
                found.add(execution.execution_id, what)
        return found
