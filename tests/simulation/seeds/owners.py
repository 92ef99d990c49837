"""Shards that two schedulers own at once, each in good faith: counted, so that it is known to have happened.

Owns the look at who believes what. Must not change it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Final
from unittest.mock import patch

from nodeflow_scheduler.bootstrap import SchedulerService
from nodeflow_scheduler.ownership import Ownership
from nodeflow_scheduler.ports import Granted
from nodeflow_testing.virtual_suite import VirtualSuite

TWO_OWNERS: Final = "two_owners"


@contextmanager
def two_owners_counted(suite: VirtualSuite) -> Iterator[None]:
    """Count each time that a scheduler is granted shards which another one, that runs, takes for its own."""
    take = Ownership._take

    @wraps(take)
    def counted(ownership: Ownership, granted: Granted, asked_at: float) -> None:
        take(ownership, granted, asked_at)
        shards = {lease.shard for lease in granted.leases}
        if any(other is not ownership and not shards.isdisjoint(other._held) for other in _owners(suite)):
            suite.faults[TWO_OWNERS] += 1

    with patch.object(Ownership, "_take", counted):
        yield


def _owners(suite: VirtualSuite) -> Iterator[Ownership]:
    for name in suite.schedulers:
        service = suite._processes[name]._service if suite.running(name) else None
        if isinstance(service, SchedulerService):
            yield service._ownership
