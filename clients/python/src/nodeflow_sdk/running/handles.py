"""Handles of executions: the same for code that waits and for code that awaits.

Owns the two faces. Must not know what they ask.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from nodeflow_sdk.running.updates import Attempt, LogLine, State, Update

if TYPE_CHECKING:
    from nodeflow_sdk.running.home import Home
    from nodeflow_sdk.running.remote import Remote

R = TypeVar("R")


class Execution(Generic[R]):
    """An execution that was started. It goes on whether or not anybody waits for it."""

    def __init__(self, home: Home, remote: Remote) -> None:
        self._home = home
        self._remote = remote

    def __repr__(self) -> str:
        return f"<execution {self.id}>"

    @property
    def id(self) -> str:
        """The execution's id, which every `nodeflow` command takes."""
        return self._remote.execution_id

    def state(self) -> State:
        """Return where it is now."""
        return self._home.call(self._remote.state())

    def watch(self) -> Iterator[Update]:
        """Yield every change of state, from the first to the last, as they happen."""
        updates = self._remote.updates()
        try:
            while (update := self._home.call(anext(updates, None))) is not None:
                yield update
        finally:
            self._home.call(updates.aclose())

    def logs(self, node: str = "", *, follow: bool = True) -> Iterator[LogLine]:
        """Yield the lines that tasks wrote, of one node or of all, as they come, to the end; or what is there now."""
        lines = self._remote.lines(node, follow=follow)
        try:
            while (line := self._home.call(anext(lines, None))) is not None:
                yield line
        finally:
            self._home.call(lines.aclose())

    def attempts(self, node: str = "") -> list[Attempt]:
        """Return the tries of one node's tasks, or of all, in the order in which they began."""
        return self._home.call(self._remote.attempts(node))

    def duration(self) -> timedelta:
        """Return the time from its start to its end, or to the last that is known of it."""
        return self._home.call(self._remote.duration())

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result; raises NodeFailed, ExecutionFailed, or TimeoutError after `timeout` seconds."""
        return cast(R, self._home.call(self._remote.result(timeout)))

    def cancel(self, reason: str = "") -> State:
        """Cancel it; returns its state once that is durable. Running nodes are told to stop."""
        return self._home.call(self._remote.cancel(reason))


class AsyncExecution(Generic[R]):
    """An execution that was started, for code on an event loop of its own."""

    def __init__(self, home: Home, remote: Remote) -> None:
        self._home = home
        self._remote = remote

    def __repr__(self) -> str:
        return f"<execution {self.id}>"

    @property
    def id(self) -> str:
        """The execution's id, which every `nodeflow` command takes."""
        return self._remote.execution_id

    async def state(self) -> State:
        """Return where it is now."""
        return await self._home.acall(self._remote.state())

    async def watch(self) -> AsyncIterator[Update]:
        """Yield every change of state, from the first to the last, as they happen."""
        updates = self._remote.updates()
        try:
            while (update := await self._home.acall(anext(updates, None))) is not None:
                yield update
        finally:
            await self._home.acall(updates.aclose())

    async def logs(self, node: str = "", *, follow: bool = True) -> AsyncIterator[LogLine]:
        """Yield the lines that tasks wrote, of one node or of all, as they come, to the end; or what is there now."""
        lines = self._remote.lines(node, follow=follow)
        try:
            while (line := await self._home.acall(anext(lines, None))) is not None:
                yield line
        finally:
            await self._home.acall(lines.aclose())

    async def attempts(self, node: str = "") -> list[Attempt]:
        """Return the tries of one node's tasks, or of all, in the order in which they began."""
        return await self._home.acall(self._remote.attempts(node))

    async def duration(self) -> timedelta:
        """Return the time from its start to its end, or to the last that is known of it."""
        return await self._home.acall(self._remote.duration())

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109  # the same signature as its twin's
        """Wait for the result; raises NodeFailed, ExecutionFailed, or TimeoutError after `timeout` seconds."""
        return cast(R, await self._home.acall(self._remote.result(timeout)))

    async def cancel(self, reason: str = "") -> State:
        """Cancel it; returns its state once that is durable. Running nodes are told to stop."""
        return await self._home.acall(self._remote.cancel(reason))
