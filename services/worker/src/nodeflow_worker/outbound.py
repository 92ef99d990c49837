"""The worker's side of the Connect stream: one writer, which takes all that waits when it has its turn.

Owns the order of messages: hello, then (once welcome) held, then the rest. Must not know gRPC.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Self

from nodeflow_worker.domain.values import Attempt
from nodeflow_worker.ports import Beat, Goodbye, Held, Hello, Outgoing, Updates

MAX_UPDATE_BYTES: Final = 4 * 1024 * 1024
"""About how many bytes of results one message carries."""
MAX_HELD_BYTES: Final = 16 * 1024 * 1024
"""And how many the report of all that is held."""
KEY_BYTES: Final = 64
"""About what names an attempt."""


class Waiting:
    """What there is to be told. Bounded by what the core holds: an attempt is in each list at most once."""

    def __init__(self, make_held: Callable[[], Held], make_beat: Callable[[], Beat]) -> None:
        self._make_held = make_held
        self._make_beat = make_beat
        self._started: list[Attempt] = []
        self._results: deque[Attempt] = deque()
        self._refused: list[Attempt] = []
        self.held = False
        self.beat = False
        self.goodbye = False

    def add(self, started: Sequence[Attempt], results: Sequence[Attempt], refused: Sequence[Attempt]) -> None:
        """Have updates told."""
        self._started += started
        self._results += results
        self._refused += refused

    def clear_updates(self) -> None:
        """Forget updates: a new stream begins, and its `held` says it all. Whether we leave is said anew after it."""
        self._started, self._refused = [], []
        self._results.clear()
        self.goodbye = False

    def next(self) -> Outgoing | None:
        """Take the next message, or None if there is nothing to say."""
        if self.beat:  # First: of a busy worker there is always something else.
            self.beat = False
            return self._make_beat()
        if self._started or self._results or self._refused:
            return self._take_updates()
        if self.held:
            self.held = False
            return self._take_held()
        return Goodbye() if self.goodbye else None

    def _take_held(self) -> Held:
        """What is held, in one message of bounded size.

        Of results that do not fit only the attempts are named, as live, which to others they are until they are told:
        the updates that follow do that.
        """
        held = self._make_held()
        size = 0
        for place, attempt in enumerate(held.unacknowledged):
            size += KEY_BYTES + attempt.result_bytes
            if size > MAX_HELD_BYTES:
                told, rest = held.unacknowledged[:place], held.unacknowledged[place:]
                self._results.extend(rest)
                return Held(live=[*held.live, *rest], unacknowledged=told)
        return held

    def _take_updates(self) -> Updates:
        started, self._started = self._started, []
        refused, self._refused = self._refused, []
        results: list[Attempt] = []
        size = 0
        while self._results and size < MAX_UPDATE_BYTES:
            attempt = self._results.popleft()
            results.append(attempt)
            size += KEY_BYTES + attempt.result_bytes
        return Updates(started=started, results=results, refused=refused)


class Outbound:
    """The requests of one stream, as the iterator that the stream's call reads."""

    def __init__(self, hello: Hello, waiting: Waiting) -> None:
        self._hello: Hello | None = hello
        self._waiting = waiting
        self._welcome = False
        self._wake: asyncio.Future[None] | None = None
        self._closed = False
        self.ended = False
        """Whether the goodbye went out."""

    def open(self) -> None:
        """Everything may follow the hello: the welcome came."""
        self._welcome = True
        self.wake()

    def close(self) -> None:
        """Say no more: the call is over. gRPC leaves the task that reads a call's requests to itself then."""
        self._closed = True
        self.wake()

    def wake(self) -> None:
        """Have the writer look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outgoing:
        if self._hello is not None:
            hello, self._hello = self._hello, None
            return hello
        while not (self.ended or self._closed):
            message = self._waiting.next() if self._welcome else None
            if message is not None:
                self.ended = isinstance(message, Goodbye)
                return message
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        raise StopAsyncIteration
