"""What a suite tells while it lives.

Owns the interface only; the command line and tests implement it.
"""

from typing import Protocol

from nodeflow_sdk.suite.services import SuiteService


class SuiteObserver(Protocol):
    """Hears what happens in a suite; called in the loop, so it must be quick."""

    def on_line(self, service: SuiteService, line: str) -> None:
        """A service wrote a line to its log."""
        ...

    def on_restart(self, service: SuiteService, exit_code: int, pid: int) -> None:
        """A service had died and was started again; a negative exit code is the signal that ended it."""
        ...

    def on_silence(self, service: SuiteService, pid: int) -> None:
        """A service lives and answers nobody: it is killed, and started again."""
        ...

    def on_wait(self, reason: str) -> None:
        """The suite waits for something before it can start."""
        ...


class SilentObserver:
    """Hears and says nothing; the log files have the lines."""

    def on_line(self, service: SuiteService, line: str) -> None:
        """Ignore a line."""

    def on_restart(self, service: SuiteService, exit_code: int, pid: int) -> None:
        """Ignore a restart."""

    def on_silence(self, service: SuiteService, pid: int) -> None:
        """Ignore a silence."""

    def on_wait(self, reason: str) -> None:
        """Ignore a wait."""
