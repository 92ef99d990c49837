"""Little room: some lives are lived with limits so low that every queue, page, cache and message is full all the time.

Owns which lives these are, and how little there is of what. Must not know what happens at a limit: services, their
users and the promises stay what they are.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from random import Random
from types import ModuleType
from typing import Final
from unittest.mock import patch

import nodeflow_scheduler.adapters.artifacts
import nodeflow_scheduler.adapters.workers
import nodeflow_scheduler.bootstrap
import nodeflow_scheduler.domain.artifacts
import nodeflow_scheduler.domain.core
import nodeflow_scheduler.domain.placement
import nodeflow_scheduler.domain.progress
import nodeflow_scheduler.driver
import nodeflow_scheduler.handouts
import nodeflow_scheduler.library
import nodeflow_scheduler.publishing
import nodeflow_scheduler.reading
import nodeflow_scheduler.tailing
import nodeflow_scheduler.wire.readers
import nodeflow_scheduler.wire.store
import nodeflow_state_manager.domain.append
import nodeflow_state_manager.domain.paging
import nodeflow_state_manager.driver
import nodeflow_worker.domain.unacknowledged
import nodeflow_worker.outbound
import nodeflow_worker_manager.driver
import nodeflow_worker_manager.log_relay
import nodeflow_worker_manager.wire
from nodeflow_scheduler.domain.admission import Limits
from nodeflow_testing.virtual_suite import STATE_MANAGER, WORKER

CONSTANTS: Final[Mapping[ModuleType, Mapping[str, int]]] = {
    nodeflow_scheduler.adapters.artifacts: {"LOOK_UP_LIMIT": 1},
    nodeflow_scheduler.adapters.workers: {"PARTS_LIMIT": 1, "MESSAGE_BYTES": 300},
    nodeflow_scheduler.bootstrap: {"INBOX_LIMIT": 2},
    nodeflow_scheduler.domain.artifacts: {"FETCHED_LIMIT": 1, "KEPT_LIMIT": 1},
    nodeflow_scheduler.domain.core: {"LOSSES_LIMIT": 1},
    nodeflow_scheduler.domain.placement: {"LIGHT_BYTES": 10, "LOAD_BYTES": 1_000},
    nodeflow_scheduler.domain.progress: {"EXPANSION_BYTES": 50},
    nodeflow_scheduler.driver: {"PENDING_TURNS": 1, "TURN_BYTES": 600, "TRANSFERS_AT_ONCE": 1},
    nodeflow_scheduler.handouts: {"FEW": 1, "LIGHT_BYTES": 10, "TURN_BYTES": 300},
    nodeflow_scheduler.library: {"CACHED_WORKFLOWS": 1},
    nodeflow_scheduler.publishing: {"RECENT_CHUNKS": 1, "RECENT_EXECUTIONS": 1, "SUBSCRIPTION_LIMIT": 1},
    nodeflow_scheduler.reading: {"CACHED_EXECUTIONS": 1},
    nodeflow_scheduler.tailing: {"GROUPS_AHEAD": 1, "LINES_PER_RESPONSE": 1},
    nodeflow_scheduler.wire.readers: {"GROUP_BYTES": 64},
    nodeflow_scheduler.wire.store: {"REQUEST_BYTES": 400, "SNAPSHOT_BYTES": 4_000},
    nodeflow_state_manager.domain.append: {"MAX_HEADS": 2},
    nodeflow_state_manager.domain.paging: {"MAX_PAGE_SIZE": 2, "PAGE_BYTES": 600},
    nodeflow_state_manager.driver: {"STREAM_LIMIT": 1},
    nodeflow_worker.domain.unacknowledged: {"MAX_RESULTS": 3},
    nodeflow_worker.outbound: {"MAX_UPDATE_BYTES": 100, "MAX_HELD_BYTES": 300},
    nodeflow_worker_manager.driver: {
        "QUESTIONS": 1,
        "SCHEDULER_FRAMES": 32,
        "UNPACED_MESSAGES": 2,
    },
    nodeflow_worker_manager.log_relay: {"ANSWERS": 1},
    nodeflow_worker_manager.wire: {"MAX_RESPONSE_BYTES": 300},
}
"""All are looked up when they are needed.

Limits at which a peer counts as one that does not read are wide, or are not among them: what is sent in one go must
stay below, or it is sent in vain for ever.
"""

LIMITS: Final = Limits(
    open_executions=3,
    open_tasks=100,
    waiting_submissions=1,
    waiting_bytes=1_000,
    finished_executions=1,
    finished_tasks=40,
    snapshot_every=20,
)
SETTINGS: Final[Mapping[str, Mapping[str, object]]] = {
    STATE_MANAGER: {"waiting_limit_bytes": 1_000, "log_waiting_limit_bytes": 300},
    WORKER: {"max_credits": 1},
}


def is_hard(seed: int) -> bool:
    """Whether a life has little room, and schedulers that fall out: every fourth, none of which has a story yet."""
    return seed % 8 < 2


@contextmanager
def narrowed(seed: int) -> Iterator[Mapping[str, Mapping[str, object]]]:
    """Take room away from a narrow life, here and there; gives the settings that its services get beside the usual."""
    if not is_hard(seed):
        yield {}
        return

    def is_drawn(name: str) -> bool:
        return Random(f"room {seed} {name}").random() < 0.5

    limits = Limits(**{name: getattr(LIMITS, name) for name in LIMITS.__slots__ if is_drawn(name)})
    with ExitStack() as stack:
        for module, constants in CONSTANTS.items():
            for name, value in constants.items():
                if is_drawn(f"{module.__name__}.{name}"):
                    stack.enter_context(patch.object(module, name, value))
        stack.enter_context(patch.object(nodeflow_scheduler.bootstrap, "limits_of", lambda _: limits))
        yield {name: settings for name, settings in SETTINGS.items() if is_drawn(name)}
