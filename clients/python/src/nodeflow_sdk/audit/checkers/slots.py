"""I6: no worker has more attempts at work than it has slots.

Owns the count of what is at work at a time. Must not know who hands out attempts.
"""

from collections import defaultdict
from typing import Final

from nodeflow_sdk.audit.checkers.findings import Checker, Findings
from nodeflow_sdk.audit.history import History, Span

_ENDLESS: Final = float("inf")


def _look(history: History, findings: Findings) -> None:
    slots = {each.worker: each.slots for each in history.slots}
    spans: defaultdict[str, list[Span]] = defaultdict(list)
    for span in history.spans:
        if span.worker in slots:
            spans[span.worker].append(span)
    for worker, own in spans.items():
        findings.judge("attempts at work", len(own))
        _look_at_worker(worker, slots[worker], own, findings)


def _look_at_worker(worker: str, slots: int, spans: list[Span], findings: Findings) -> None:
    """Say when there are too many for the first time; the moments after it are the same fault."""
    moments = [(float(span.begin_ms), 1) for span in spans]
    moments += [(_ENDLESS if span.end_ms is None else float(span.end_ms), -1) for span in spans]
    at_work = 0
    for moment, change in sorted(moments):  # At one moment ends come first: their slots are free.
        at_work += change
        if at_work > slots:
            findings.add(f"worker {worker}", f"{at_work} attempts are at work in {slots} slots at {moment:.0f} ms")
            return


SLOTS: Final = Checker(promise="I6", says="no worker has more at work than it has slots", look=_look)
