"""A suite inside of this process, on virtual time: what a test has in hand.

Owns runs, stubs and the clock as a test sees them. Must not know how the suite works, nor anything of pytest.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, ParamSpec, TypeVar, overload

from nodeflow_sdk.authoring.hints import to_json_value
from nodeflow_sdk.authoring.node import Node
from nodeflow_sdk.authoring.options import Duration, seconds_of
from nodeflow_sdk.authoring.process import Process
from nodeflow_sdk.client import Client
from nodeflow_sdk.loaded import Document
from nodeflow_sdk.running.handles import Execution
from nodeflow_sdk.running.home import redirected
from nodeflow_sdk.running.runs import Runs
from nodeflow_sdk.running.told import TOLD, shortened
from nodeflow_sdk.workflow import Workflow
from nodeflow_testing.python_calls import Stub
from nodeflow_testing.stepped_suite import SteppedSuite
from nodeflow_testing.virtual_loop import OutOfTime
from nodeflow_testing.virtual_suite import SCHEDULER, address_of

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_NOTHING: Final = object()


class Stubbed:
    """A stub that was set: `calls` has the arguments of each call, retries included, in order."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []


class InProcess:
    """Runs workflows in this process. Time stands still between calls, and what waits inside of one takes none.

    Nodes are called as they are, so breakpoints, monkeypatch and coverage work. Everything else is the real suite: one
    worker with 8 slots, retries, timeouts, conditions, events, logs. Runs that the code under test starts by itself
    (`word_count.run(…)`) come here too.
    """

    def __init__(self, suite: SteppedSuite) -> None:
        self._suite = suite

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning of the test."""
        return self._suite.now_s

    @overload
    def run(self, workflow: Workflow[..., R], /, *args: Any, **inputs: Any) -> R: ...

    @overload
    def run(self, workflow: Document, /, **inputs: Any) -> dict[str, Any]: ...

    def run(self, workflow: Workflow[..., Any] | Document, /, *args: Any, **inputs: Any) -> Any:
        """Run a workflow to its end; returns its result, raises NodeFailed as `workflow.run` does."""
        return workflow.run(*args, **inputs)

    @overload
    def start(self, workflow: Workflow[..., R], /, *args: Any, **inputs: Any) -> Execution[R]: ...

    @overload
    def start(self, workflow: Document, /, **inputs: Any) -> Execution[dict[str, Any]]: ...

    def start(self, workflow: Workflow[..., Any] | Document, /, *args: Any, **inputs: Any) -> Execution[Any]:
        """Start a workflow; it goes on while anything is asked of it, or in `sleep`."""
        return workflow.start(*args, **inputs)

    def sleep(self, duration: Duration) -> None:
        """Let virtual time pass: `sleep("90m")`, or a number of seconds."""
        self._suite.call(asyncio.sleep(seconds_of("sleep", duration)))

    def stub(
        self,
        target: Node[..., Any] | Process | str,
        *,
        returns: object = _NOTHING,
        raises: BaseException | type[BaseException] | None = None,
        calls: Callable[..., object] | None = None,
        takes: Duration = 0,
    ) -> Stubbed:
        """Replace a node, a process, or the node of that name, by a value, an exception, or a function.

        `calls` gets the node's arguments by name (a process: `command`, `env`, `stdin`); each try is a call of its own,
        so `calls=Mock(side_effect=[ConnectionError(), 3])` fails once. `takes` is how long a try takes.
        """
        given = [each for each in (returns is not _NOTHING, raises is not None, calls is not None) if each]
        if len(given) != 1:
            raise TypeError("stub() takes one of returns=…, raises=… and calls=…")
        if raises is not None:
            calls = _raiser(raises)
        stubbed = Stubbed()
        function = _noting(stubbed, calls if calls is not None else lambda **_: returns)
        stub_s = seconds_of("takes", takes)
        if isinstance(target, Node):
            self._suite.stubs.functions[target.address] = Stub(function=target.replaced_by(function), takes_s=stub_s)
        else:
            name = target.title if isinstance(target, Process) else target
            self._suite.stubs.nodes[name] = Stub(function=_plain(function), takes_s=stub_s)
        return stubbed

    def crash(self, process: str) -> None:
        """Kill a process of the suite in the middle of what it does, and start it again.

        `state-manager`, `worker-manager`, `scheduler` or `worker-1`. Nothing is lost; what a worker did is done again.
        """
        self._suite.call(self._crashed(process))

    async def _crashed(self, process: str) -> None:
        suite = await self._suite.suite()
        if process not in suite.names:
            raise ValueError(f"there is no process {process!r}; there are {', '.join(suite.names)}")
        await suite.kill(process)
        await suite.restart(process)
        await suite.ready(process)


class _Home:
    """Conversations with the suite of a test, on its loop."""

    def __init__(self, suite: SteppedSuite, horizon: Duration) -> None:
        self._suite = suite
        self._horizon = horizon
        self._client: Client | None = None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        __tracebackhide__ = True  # pytest shows the test's own line
        try:
            return self._suite.call(work)
        except TOLD as error:
            raise shortened(error) from error.__cause__
        except OutOfTime:
            raise TimeoutError(
                f"it has not ended after {self._horizon} of virtual time; bound nodes by `timeout`, or ask for "
                "`nodeflow.start(…).result(timeout=…)`, in seconds"
            ) from None

    async def acall(self, work: Coroutine[Any, Any, T]) -> T:
        # The test's own loop waits meanwhile: it cannot know of virtual time.
        return self.call(work)

    async def client(self, address: str | None) -> Client:
        if address is not None:
            raise ValueError(f"suite={address!r} is a suite of its own; in a test with `nodeflow`, runs stay in it")
        if self._client is None:
            channel = (await self._suite.suite()).network.connect(address_of(SCHEDULER))
            # The same ids in every run of a test, and with them the same jitter.
            numbers = count(1)
            self._client = Client(channel, draw_request_id=lambda: f"run-{next(numbers)}")
        return self._client

    async def worker_manager(self, _address: str | None, _named: str | None) -> None:
        """There is none to connect to: functions are called here."""


@contextmanager
def in_process(*, horizon: Duration = "30d") -> Iterator[InProcess]:
    """Have every run of this process inside of it, while in the block.

    What has not ended after so much virtual time raises TimeoutError; 30 days take about 20 real seconds.
    """
    suite = SteppedSuite(horizon_s=seconds_of("horizon", horizon))
    try:
        with redirected(Runs(_Home(suite, horizon))):
            yield InProcess(suite)
    finally:
        suite.close()


def _raiser(error: BaseException | type[BaseException]) -> Callable[..., object]:
    def call(**_: object) -> object:
        raise error

    return call


def _noting(stubbed: Stubbed, function: Callable[..., object]) -> Callable[..., object]:
    """Return a function that notes its calls first."""
    if inspect.iscoroutinefunction(function):

        async def coroutine(**arguments: object) -> object:
            stubbed.calls.append(arguments)
            return await function(**arguments)

        return coroutine

    def call(**arguments: object) -> object:
        stubbed.calls.append(arguments)
        return function(**arguments)

    return call


def _plain(function: Callable[..., object]) -> Callable[..., object]:
    """Return a function that gives the JSON form of its result."""
    if inspect.iscoroutinefunction(function):
        return function

    def call(**arguments: object) -> object:
        return to_json_value(function(**arguments))

    return call
