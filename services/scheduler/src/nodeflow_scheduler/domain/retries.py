"""When a failed attempt is tried again.

Pure: the jitter is drawn from a hash of the attempt, so that a repeat gives the same time.
"""

from __future__ import annotations

from zlib import crc32

from nodeflow_scheduler.domain.failures import Failure
from nodeflow_scheduler.domain.workflow import RetryPolicy

LOST_ATTEMPTS_LIMIT = 20
"""After so many attempts that were lost with their workers a task fails: it may be what kills them."""


def retry_delay_ms(policy: RetryPolicy, failed_count: int, failure: Failure, attempt_key: str) -> int | None:
    """How long to wait after a failure, in ms, at least 1; None when there is no further try.

    `failed_count` counts the tries that failed, this one included; `attempt_key` names the attempt, and seeds its
    jitter.
    """
    if not failure.retryable or failed_count >= policy.attempts:
        return None
    backoff = policy.backoff
    # The exponent is bounded because a float overflows long before the longest wait matters.
    wait = min(backoff.initial_ms * backoff.factor ** min(failed_count - 1, 64), float(backoff.max_ms))
    spread = crc32(attempt_key.encode()) / 0xFFFFFFFF * 2 - 1
    return max(1, round(wait * (1 + backoff.jitter * spread)))
