"""Runners as real processes.

Owns how they are started, fed, watched and killed. It tells what happened; the core decides what follows.

They are started with `subprocess.Popen` and watched through a pidfd, not by the loop's own subprocess support: uvloop's
forks, and runs Python in the fork, beside gRPC's threads; CPython's Popen uses vfork and exec, and nothing in between.
"""

import asyncio
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Final

import msgspec

from nodeflow_shared.logs import get_log
from nodeflow_worker.adapters.runner_output import RunnerOutput
from nodeflow_worker.adapters.runner_words import exit_in_words, extras_of, outcome_of
from nodeflow_worker.domain.events import (
    RunnerDied,
    RunnerEvent,
    RunnerReady,
    RunnerResults,
    TaskOverdue,
    TaskRunning,
    TaskSkipped,
    TasksTakenBack,
)
from nodeflow_worker.domain.output import OutputBuffer
from nodeflow_worker.domain.values import Attempt
from nodeflow_worker.runner import frames

RUNNING_AFTER_S: Final = 0.002
"""Tasks that run this long are told as running; most never are."""
RETIRE_GRACE_S: Final = 1.0
REAP_INTERVAL_S: Final = 0.01
READ_BYTES: Final = 1 << 20
KEPT_VARIABLES: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TZ",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
)
"""What a runner gets of the agent's environment; nothing of the engine's, and no credentials."""

Watch = Callable[[int, int | None], None]
"""Is told a runner's process id with its pidfd when it begins, and with None when it is gone."""

_log = get_log()
_decode = msgspec.msgpack.Decoder(frames.Results).decode


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what user code may see of an environment."""
    return {name: environment[name] for name in KEPT_VARIABLES if name in environment}


class RunnerProcesses:
    """The port `Runners` with real processes. `paths` come on the import path behind a workflow's own directory."""

    def __init__(self, paths: Sequence[str], environment: Mapping[str, str], watch: Watch | None = None) -> None:
        self._watch = watch
        self._paths = list(paths)
        self._environment = clean_environment(environment)
        self._tell: Callable[[RunnerEvent], None] = _ignore
        self._outputs = OutputBuffer(limit_bytes=1 << 20, attempt_limit_bytes=1 << 20)
        self._pipes: set[RunnerOutput] = set()
        self._processes: dict[int, _Process] = {}
        self._delayed: dict[int, asyncio.TimerHandle] = {}

    def listen(self, tell: Callable[[RunnerEvent], None]) -> None:
        """Have all events told."""
        self._tell = tell

    def capture(self, outputs: OutputBuffer) -> None:
        """Have what tasks write put into a buffer."""
        self._outputs = outputs

    def drain_output(self) -> bool:
        """Read what is in all pipes, also in those of processes that are gone."""
        self._pipes = {each for each in self._pipes if not each.closed}
        drained = [each.drain() for each in self._pipes]
        return all(drained)

    def spawn(self, runner: int, delay_s: float) -> None:
        """Start a process, now or later."""
        loop = asyncio.get_running_loop()
        self._delayed[runner] = loop.call_later(delay_s, self._spawn, runner)

    def feed(self, runner: int, directory: str, attempts: Sequence[Attempt]) -> None:
        """Write a batch to the process's pipe."""
        process = self._processes.get(runner)
        if process is not None:
            process.feed([directory, *self._paths], attempts)

    def stop_task(self, runner: int, sequence: int, grace_s: float) -> None:
        """Have a task skipped, or its process interrupted and, after the grace time, killed."""
        process = self._processes.get(runner)
        if process is not None:
            process.stop_task(sequence, grace_s)

    def take_back(self, runner: int, sequences: Sequence[int]) -> None:
        """Have tasks that were not begun never begin."""
        process = self._processes.get(runner)
        if process is not None:
            process.take_back(sequences)

    def retire(self, runner: int) -> None:
        """Close the process's pipe; it exits, or is killed."""
        process = self._processes.get(runner)
        if process is not None:
            process.retire()

    def kill(self, runner: int) -> None:
        """Kill the process and its group."""
        process = self._processes.get(runner)
        if process is not None:
            process.kill()

    async def close(self) -> None:
        """Kill all processes and wait for their ends."""
        for timer in self._delayed.values():
            timer.cancel()
        self._tell = _ignore
        processes = list(self._processes.values())
        for process in processes:
            process.kill()
        for process in processes:
            await process.gone.wait()
        for pipes in self._pipes:
            pipes.close()

    def _spawn(self, runner: int) -> None:
        del self._delayed[runner]
        try:
            process = self._processes[runner] = _Process(runner, self._environment, self._outputs, self._on_event)
        except OSError as error:
            _log.warning("runner_not_started", runner=runner, error=str(error))
            self._tell(RunnerDied(runner=runner, last_started=0, cause=str(error)))
        else:
            self._pipes = {each for each in self._pipes if not each.closed} | {process.output}
            if self._watch is not None and process.pid_fd >= 0:
                self._watch(process.pid, process.pid_fd)

    def _on_event(self, event: RunnerEvent) -> None:
        if isinstance(event, RunnerDied):
            process = self._processes.pop(event.runner)
            if self._watch is not None and process.pid_fd >= 0:
                self._watch(process.pid, None)
        self._tell(event)


class _Process:
    """One process: its pipes, its page, and the timers of what it executes."""

    def __init__(
        self,
        number: int,
        environment: Mapping[str, str],
        outputs: OutputBuffer,
        tell: Callable[[RunnerEvent], None],
    ) -> None:
        self._number = number
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._functions: dict[str, int] = {}
        self._names: list[str] = []
        self._fed = 0
        self.done = 0
        self._attempts: deque[Attempt] = deque()  # the tasks from `done + 1` on
        self._last: Attempt | None = None  # the task `done`
        self._skips: set[int] = set()
        self._told_running = 0
        self._told_overdue = 0
        self._check: asyncio.TimerHandle | None = None
        self._check_at = 0.0
        self._grace: asyncio.TimerHandle | None = None
        self._unwritten = bytearray()
        self._reader = frames.FrameReader()
        self._ready = False
        self._killed = False
        self._broken = ""
        self._at_end = False
        self.gone = asyncio.Event()
        # The two know each other, until this one is over: the garbage collector comes by so seldom that descriptors, of
        # which the page has one, would run out before.
        self.output = RunnerOutput(outputs, self)
        self._start(environment)

    @property
    def begun(self) -> int:
        """The task that was begun last."""
        return self._page.begun()[0]

    def attempt(self, number: int) -> Attempt | None:
        """Return a task that has not ended, or the one that ended last."""
        if number == self.done:
            return self._last
        place = number - self.done - 1
        return self._attempts[place] if 0 <= place < len(self._attempts) else None

    def _start(self, environment: Mapping[str, str]) -> None:
        self._tasks_fd = self._results_fd = -1
        passed: list[int] = []
        out, err, *unread = self.output.child_fds
        try:
            child_tasks, self._tasks_fd = os.pipe()
            passed.append(child_tasks)
            self._results_fd, child_results = os.pipe()
            passed.append(child_results)
            page_fd = _shared_page()
            passed.append(page_fd)
            self._page = frames.Page(memoryview(mmap.mmap(page_fd, frames.Page.SIZE)))
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "nodeflow_worker.runner", *map(str, (*passed, *unread, os.getpid()))],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                pass_fds=(*passed, *unread),
                start_new_session=True,
            )
            self.pid, self.pid_fd = self._popen.pid, self._open_pid()
        except OSError:
            for fd in (self._tasks_fd, self._results_fd):
                if fd >= 0:
                    os.close(fd)
            self.output.abandon()
            del self.output
            raise
        finally:
            for fd in passed:
                os.close(fd)
        os.set_blocking(self._tasks_fd, False)
        os.set_blocking(self._results_fd, False)
        self._loop.add_reader(self._results_fd, self._read)
        self.output.start()
        if self.pid_fd >= 0:
            self._loop.add_reader(self.pid_fd, self._reap)

    def _open_pid(self) -> int:
        """What tells the process's end, -1 if there is no such thing; without it nobody would see to the process."""
        if sys.platform != "linux":
            return -1
        try:
            return os.pidfd_open(self._popen.pid)
        except OSError:
            self._popen.kill()
            self._popen.wait()
            raise

    # Feeding.

    def feed(self, paths: list[str], attempts: Sequence[Attempt]) -> None:
        functions, new = self._functions, []
        tasks: list[frames.Task] = []
        timed = False
        for attempt in attempts:
            spec = attempt.spec
            index = functions.get(spec.function)
            if index is None:
                index = functions[spec.function] = len(functions)
                new.append(spec.function)
            tasks.append(
                frames.Task(index, attempt.arguments, extras_of(attempt))
                if attempt.extras
                else frames.Task(index, attempt.arguments)
            )
            self._attempts.append(attempt)
            timed = timed or spec.timeout_s is not None
        self._names += new
        first = self._fed == 0
        self._fed += len(tasks)
        self._write(frames.encode(frames.Batch(paths if first else [], new, tasks)))
        self._check_in(RUNNING_AFTER_S)

    def _write(self, data: bytearray) -> None:
        if self._unwritten:
            self._unwritten += data
            return
        self._unwritten = data
        self._write_more()

    def _write_more(self) -> None:
        if self._tasks_fd < 0:
            return
        try:
            written = os.write(self._tasks_fd, self._unwritten)
        except BlockingIOError:
            written = 0
        except BrokenPipeError:  # it is dying; its end will be told
            self._unwritten.clear()
            self._loop.remove_writer(self._tasks_fd)
            return
        del self._unwritten[:written]
        if self._unwritten:
            self._loop.add_writer(self._tasks_fd, self._write_more)
        else:
            self._loop.remove_writer(self._tasks_fd)

    # Results.

    def _read(self) -> None:
        """Read what is there, at most READ_BYTES: other runners and the heartbeat have their turn in between."""
        if not self._read_once() and self._at_end:
            self._loop.remove_reader(self._results_fd)
            self._reap()

    def _read_once(self) -> bool:
        """Read and tell; False if there was nothing, or there will be nothing any more."""
        try:
            data = os.read(self._results_fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._at_end = True
            return False
        try:
            for frame in self._reader.feed(data):
                self._take(_decode(frame))
        except (ValueError, msgspec.DecodeError) as error:
            self._broken = f"it wrote what the agent cannot read to the agent's pipe ({error})"
            self._at_end = True
            return False
        return True

    def _take(self, message: frames.Results) -> None:
        count = len(message.results)
        if count == 0:
            if not self._ready:
                self._ready = True
                self._tell(RunnerReady(runner=self._number))
            return
        if message.first != self.done + 1 or count > len(self._attempts):
            raise ValueError("results of tasks that it was not given, or had ended")
        for _ in range(count):
            self._last = self._attempts.popleft()
        self.done += count
        for number in [each for each in self._skips if each <= self.done]:
            self._skips.discard(number)
            self._page.unskip(number)
        outcomes = [each if type(each) is bytes else outcome_of(each) for each in message.results]
        spent = [
            (self._names[function], calls, seconds)
            for function, calls, seconds in message.spent
            if 0 <= function < len(self._names) and calls > 0 and seconds >= 0
        ]
        if self.output.unended:
            self.output.drain()
        if self._attempts:  # Whoever looked last looked at one that has ended.
            self._check_in(RUNNING_AFTER_S)
        self._tell(RunnerResults(runner=self._number, outcomes=outcomes, spent=spent))

    # What runs for long.

    def _check_in(self, delay_s: float) -> None:
        due = monotonic() + delay_s
        if self._check is not None:
            if self._check_at <= due:
                return
            self._check.cancel()
        self._check_at = due
        self._check = self._loop.call_later(delay_s, self._look)

    def _look(self) -> None:
        """See what it executes, tell if that has run for some time or too long, look again when that may change."""
        self._check = None
        if self.done == self._fed:
            return
        number, began_at = self._page.begun()
        if number <= self.done or number > self._fed:  # it starts, or is about to tell
            self._check_in(RUNNING_AFTER_S)
            return
        ran_s = max(monotonic() - began_at, 0.0)
        timeout_s = self._attempts[number - self.done - 1].spec.timeout_s
        if ran_s < RUNNING_AFTER_S:
            self._check_in(RUNNING_AFTER_S - ran_s)
            return
        if number > self._told_running:
            self._told_running = number
            self._tell(TaskRunning(runner=self._number, sequence=number))
        if timeout_s is not None and number > self._told_overdue:
            if ran_s >= timeout_s:
                self._told_overdue = number
                self._tell(TaskOverdue(runner=self._number, sequence=number))
            else:
                self._check_in(timeout_s - ran_s)

    # Ends.

    def stop_task(self, number: int, grace_s: float) -> None:
        if number <= self.done:
            return
        self._skip(number)
        if self._page.begun()[0] < number:
            self._loop.call_soon(self._told_skipped, number, grace_s)
        else:
            self._interrupt(number, grace_s)

    def take_back(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if number > self.done:
                self._skip(number)
        self._loop.call_soon(self._told_taken_back, numbers)

    def _skip(self, number: int) -> None:
        """Have a task not begun. The runner marks what it begins before it looks at this mark: one sees the other.

        Whether it has begun is read in a later turn of the loop, when the mark has certainly reached the runner's side.
        """
        self._page.skip(number)
        self._skips.add(number)

    def _told_skipped(self, number: int, grace_s: float) -> None:
        if self.gone.is_set() or number <= self.done:
            return
        if self._page.begun()[0] < number:
            self._tell(TaskSkipped(runner=self._number, sequence=number))
        else:
            self._interrupt(number, grace_s)

    def _told_taken_back(self, numbers: Sequence[int]) -> None:
        if self.gone.is_set():
            return
        begun = max(self._page.begun()[0], self.done)
        unbegun = [each for each in numbers if each > begun]
        if unbegun:
            self._tell(TasksTakenBack(runner=self._number, sequences=unbegun))

    def _interrupt(self, number: int, grace_s: float) -> None:
        if self._page.begun()[0] != number:
            return
        self._page.set_stop(number)
        self._signal(signal.SIGTERM)
        if self._grace is not None:
            self._grace.cancel()
        self._grace = self._loop.call_later(grace_s, self._kill_if_still, number)

    def _kill_if_still(self, number: int) -> None:
        if self.done < number and self._page.begun()[0] == number:
            self.kill()

    def retire(self) -> None:
        self._close_tasks()
        self._grace = self._loop.call_later(RETIRE_GRACE_S, self.kill)

    def kill(self) -> None:
        self._killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.returncode is None:
            try:
                os.killpg(self._popen.pid, number)  # it leads its own session, and with it what user code started
            except (ProcessLookupError, PermissionError):
                self._popen.send_signal(number)

    def _reap(self) -> None:
        """Tell its end once the process is gone and its last results are read."""
        if self.gone.is_set():
            return
        # What user code started and left goes too; the group's number is not reused while the process is not reaped.
        self._signal(signal.SIGKILL)
        if self._popen.poll() is None:
            self._loop.call_later(REAP_INTERVAL_S, self._reap)
            return
        while not self._at_end and self._read_once():
            pass
        last_started = min(self._page.begun()[0], self._fed)
        self.output.finish()
        self._close()
        cause = self._broken or exit_in_words(self._popen.returncode)
        self._tell(RunnerDied(runner=self._number, last_started=last_started, cause=cause, killed=self._killed))

    def _close_tasks(self) -> None:
        if self._tasks_fd >= 0:
            self._loop.remove_writer(self._tasks_fd)
            os.close(self._tasks_fd)
            self._tasks_fd = -1

    def _close(self) -> None:
        for timer in (self._check, self._grace):
            if timer is not None:
                timer.cancel()
        self._loop.remove_reader(self._results_fd)
        os.close(self._results_fd)
        self._close_tasks()
        if self.pid_fd >= 0:
            self._loop.remove_reader(self.pid_fd)
            os.close(self.pid_fd)
        del self.output
        self.gone.set()


def _ignore(_event: RunnerEvent) -> None:
    """Before anyone listens, and after the end."""


def _shared_page() -> int:
    if sys.platform == "linux":
        fd = os.memfd_create("nodeflow-runner")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, frames.Page.SIZE)
    return fd
