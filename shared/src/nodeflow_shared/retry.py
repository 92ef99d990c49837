"""Long-lived connections that come back: delays between attempts, and a loop that keeps one alive.

Owns when to try again. Must not know what a connection carries.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from random import Random, uniform
from typing import Final, NoReturn

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from nodeflow_shared.errors import DeadlineExceeded, NodeflowError, Overloaded, Unavailable
from nodeflow_shared.logs import get_log
from nodeflow_shared.status import from_rpc_error

HEALTHY_AFTER_S: Final = 5.0
STARTING_S: Final = 5.0
"""How long a peer that was never reached may still be starting: until then its absence is no news."""

_log = get_log()


def reconnect_delays(
    initial_s: float = 0.05,
    max_s: float = 1.0,
    factor: float = 2,
    jitter: float = 0.2,
    random: Random | None = None,
) -> Iterator[float]:
    """Yield seconds to wait, without end: from `initial_s` by `factor` up to `max_s`, each ± `jitter` of itself.

    Without `random`, the jitter comes from the module's own generator, so that a run that seeds it repeats itself.
    """
    draw = uniform if random is None else random.uniform
    delay = initial_s
    while True:
        yield min(delay, max_s) * draw(1 - jitter, 1 + jitter)
        delay = min(delay * factor, max_s)


class Backoff:
    """The delays of one connection; an attempt calls `reset` when its connection stands (the peer has answered)."""

    def __init__(self, delays: Callable[[], Iterator[float]] = reconnect_delays) -> None:
        self._new_delays = delays
        self._delays = delays()
        self.on_reset: Callable[[], None] | None = None
        """Called at each reset; `keep_connected` sets it."""

    def reset(self) -> None:
        """Note that the connection stands: the next delay is the shortest again."""
        self._delays = self._new_delays()
        if self.on_reset is not None:
            self.on_reset()

    def next_delay(self) -> float:
        """Return the seconds to wait before the next attempt."""
        return next(self._delays)


async def keep_connected(
    name: str,
    attempt: Callable[[], Awaitable[None]],
    *,
    backoff: Backoff | None = None,
    on_lost: Callable[[NodeflowError], None] | None = None,
) -> NoReturn:
    """Run `attempt` again and again, each run being one life of a connection, until cancelled.

    A life that ends (it returns, or fails as `as_lost_connection` says) is followed by the next after a delay.
    Any other error is raised. Delays start anew after a life that called `backoff.reset()` or lasted HEALTHY_AFTER_S.
    An outage is logged once as `connection_lost` (and `on_lost` called once), its end as `connected`, both with `name`.
    A peer that was never reached is told of as `not_connected`, once STARTING_S have passed.
    """
    lives = _Lives(name, attempt, backoff or Backoff(), on_lost)
    retrying = AsyncRetrying(
        sleep=asyncio.sleep,
        retry=retry_if_exception(lambda error: isinstance(error, _LifeEnded)),
        wait=lives.delay,
    )
    await retrying(lives.live)
    raise AssertionError("a life ends with an exception")


def as_lost_connection(error: BaseException) -> Unavailable | None:
    """Return what tells that a connection was lost, or None if the error means anything else.

    Unavailable, DeadlineExceeded and Overloaded (a peer that is full now) count, raised by us or told by a call, and so
    does what a broken transport shows.
    A group of errors (of a TaskGroup that reads and writes) counts if every error in it does.
    """
    match error:
        case Unavailable():
            return error
        case BaseExceptionGroup():
            lost = [as_lost_connection(each) for each in error.exceptions]
            return lost[0] if all(lost) else None
        case Overloaded() if error.retry_after_s is None:
            pass  # the transport's, which has other limits of this code: no repeat would help
        case DeadlineExceeded() | Overloaded():
            return Unavailable(error.message, reason=error.reason, retry_after_s=error.retry_after_s)
        case grpc.RpcError():
            return as_lost_connection(from_rpc_error(error))
        case asyncio.CancelledError():
            # grpc.aio raises it at a call that we cancelled ourselves; if it is this task that is cancelled, it stands.
            if not _is_cancelled():
                return Unavailable("the call was cancelled", reason="CANCELLED")
        case _:
            pass
    return None


def _is_cancelled() -> bool:
    """Whether the present task was cancelled, and has not said that it goes on."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _LifeEnded(Exception):
    """One life is over; its cause is the lost connection."""

    def __init__(self, cause: Unavailable) -> None:
        super().__init__(cause.message)
        self.cause = cause


class _Lives:
    """Lives of one connection, and what was said of them."""

    def __init__(
        self,
        name: str,
        attempt: Callable[[], Awaitable[None]],
        backoff: Backoff,
        on_lost: Callable[[NodeflowError], None] | None,
    ) -> None:
        self._name = name
        self._attempt = attempt
        self._backoff = backoff
        self._on_lost = on_lost
        self._connected = False
        self._lost = False
        self._reached = False
        self._began_s = asyncio.get_running_loop().time()
        backoff.on_reset = self._note_connected

    async def live(self) -> NoReturn:
        """Run one attempt to its end; raises _LifeEnded if another is due."""
        healthy = asyncio.get_running_loop().call_later(HEALTHY_AFTER_S, self._backoff.reset)
        try:
            await self._attempt()
        except (Exception, asyncio.CancelledError) as error:
            lost = as_lost_connection(error)
            if lost is None:
                raise
            if _is_cancelled():
                # A group whose task failed while we were cancelled raises its errors, and the cancellation is lost.
                raise asyncio.CancelledError from error
            self._note_lost(lost)
            raise _LifeEnded(lost) from error
        finally:
            healthy.cancel()
        lost = Unavailable("the peer ended the connection", reason="ENDED")
        self._note_lost(lost)
        raise _LifeEnded(lost)

    def delay(self, state: RetryCallState) -> float:
        """Return the seconds until the next life: the backoff's, or what the peer asked for if that is longer."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.cause.retry_after_s if isinstance(error, _LifeEnded) else None
        return max(self._backoff.next_delay(), asked or 0.0)

    def _note_connected(self) -> None:
        if not self._connected:
            _log.info("connected", name=self._name)
        self._connected, self._lost, self._reached = True, False, True

    def _note_lost(self, error: Unavailable) -> None:
        self._connected = False
        if self._lost or self._may_be_starting():
            return
        self._lost = True
        event = "connection_lost" if self._reached else "not_connected"
        _log.warning(event, name=self._name, reason=error.reason, error=error.message)
        if self._on_lost is not None:
            self._on_lost(error)

    def _may_be_starting(self) -> bool:
        return not self._reached and asyncio.get_running_loop().time() - self._began_s < STARTING_S
