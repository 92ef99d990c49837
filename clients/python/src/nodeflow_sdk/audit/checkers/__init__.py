"""The promises of the engine, each judged by a pure function over a history.

Owns the list of them all.
"""

from typing import Final

from nodeflow_sdk.audit.checkers.acknowledged import ACKNOWLEDGED
from nodeflow_sdk.audit.checkers.bounds import BOUNDS
from nodeflow_sdk.audit.checkers.dependencies import DEPENDENCIES
from nodeflow_sdk.audit.checkers.ending import ENDING
from nodeflow_sdk.audit.checkers.findings import Checker, Violation
from nodeflow_sdk.audit.checkers.leases import LEASES
from nodeflow_sdk.audit.checkers.progress import PROGRESS
from nodeflow_sdk.audit.checkers.replay import REPLAY
from nodeflow_sdk.audit.checkers.results import RESULTS
from nodeflow_sdk.audit.checkers.sequences import SEQUENCES
from nodeflow_sdk.audit.checkers.slots import SLOTS
from nodeflow_sdk.audit.checkers.tenants import TENANTS
from nodeflow_sdk.audit.history import History

CHECKERS: Final[tuple[Checker, ...]] = (
    ACKNOWLEDGED,
    RESULTS,
    DEPENDENCIES,
    PROGRESS,
    ENDING,
    SLOTS,
    REPLAY,
    SEQUENCES,
    LEASES,
    TENANTS,
    BOUNDS,
)


def check(history: History) -> list[Violation]:
    """Return every violation of every promise that a history can show."""
    return [violation for checker in CHECKERS for violation in checker.check(history)]
