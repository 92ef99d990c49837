"""I11: no queue has ever held more than its limit.

Owns the comparison. Must not know which queues there are.
"""

from typing import Final

from nodeflow_sdk.audit.checkers.findings import Checker, Findings
from nodeflow_sdk.audit.history import History


def _look(history: History, findings: Findings) -> None:
    for level in history.queues:
        findings.judge("queues")
        if level.highest > level.limit:
            findings.add(f"queue {level.queue}", f"it held {level.highest}, and its limit is {level.limit}")


BOUNDS: Final = Checker(promise="I11", says="no queue holds more than its limit", look=_look)
