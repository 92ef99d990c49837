"""Where the conversations of this process with suites happen: on the background loop, or wherever a test has them.

Owns that choice. Must not know what is said; loads no gRPC.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

if TYPE_CHECKING:
    from nodeflow_sdk.client import Client
    from nodeflow_sdk.running.runs import Runs

T = TypeVar("T")


class Home(Protocol):
    """A loop that runs coroutines for code that is not on it."""

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for it."""
        ...

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and await it on another loop."""
        ...

    async def client(self, address: str | None) -> Client:
        """Return a client of the suite at an address, or of the one that is meant without. On the loop only."""
        ...

    async def worker_manager(self, address: str | None, named: str | None, /) -> str | None:
        """Return where workers of that suite connect, `named` if given; None if it imports what this process does."""
        ...


_instead: list[Runs] = []


def current_runs() -> Runs:
    """Return what talks to suites; its module is loaded with the first run.

    Not at the top: every runner imports this package with the user's module, and neither should its start pay for gRPC,
    nor should user code find gRPC's threads around it.
    """
    return _instead[-1] if _instead else cast("Runs", import_module("nodeflow_sdk.running.runs").RUNS)


@contextmanager
def redirected(runs: Runs) -> Iterator[None]:
    """Have all runs of this process go elsewhere while inside."""
    _instead.append(runs)
    try:
        yield
    finally:
        _instead.remove(runs)
