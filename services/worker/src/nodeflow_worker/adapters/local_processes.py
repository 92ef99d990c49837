"""Processes of attempts on this machine, through the launcher.

Owns their pipes, timers and directories while they run, and what is read from them when they end. All output passes
`_Process.on_output`. It tells what happened; the core decides what follows.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from nodeflow_shared.logs import get_log
from nodeflow_worker.adapters.launcher_link import LauncherLink, memory_file
from nodeflow_worker.adapters.leftovers import end_all_below, end_left
from nodeflow_worker.adapters.runner_output import now_ms, waiting_bytes
from nodeflow_worker.adapters.runner_process import clean_environment
from nodeflow_worker.adapters.work_directories import WorkDirectories, find_files, output_bytes, read_output
from nodeflow_worker.adapters.working_trees import NotFilled, WorkingTrees
from nodeflow_worker.domain import failures
from nodeflow_worker.domain import process_ends as ends
from nodeflow_worker.domain.events import ProcessEnded, ProcessEvent, ProcessIdentified, ProcessOverdue, ProcessRunning
from nodeflow_worker.domain.invocation import Invocation, NotInvocable, invocation_of
from nodeflow_worker.domain.lease import NEVER
from nodeflow_worker.domain.output import OutputBuffer, Stream
from nodeflow_worker.domain.values import Attempt, Ending, Failure, LeftFile, Outcome, ProcessIdentity, ProcessSpec

RUNNING_AFTER_S: Final = 0.005
"""Processes that run this long are told as running."""
IDENTIFIED_AFTER_S: Final = 0.25
"""Processes that run this long are identified, for those who may come after us; it would slow quick ones."""
READ_BYTES: Final = 1 << 16
HELD_AT_MOST: Final = 2
"""How many times over the buffer may be filled by what processes leave in their pipes: their ends do not wait."""
LARGE_OUTPUT_BYTES: Final = 256 * 1024
"""More than this is not read in between."""
FINAL_READS: Final = 64
"""How many pieces are read after the end: what a pipe can hold, and not what an escaped writer goes on to write."""

_log = get_log()


class LocalProcesses:
    """The port `Processes`. The launcher starts with the first process, or to guard runners."""

    def __init__(self, parent: Path, environment: Mapping[str, str], trees: WorkingTrees) -> None:
        self._trees = trees
        self._parent = parent
        self._environment = clean_environment(environment)
        self._outputs = OutputBuffer(limit_bytes=1 << 20, attempt_limit_bytes=1 << 20)
        self._tell: Callable[[ProcessEvent], None] = _ignore
        self._directories: WorkDirectories | None = None
        self._link: LauncherLink | None = None
        self._last_number = 0
        self._processes: dict[int, _Process] = {}
        self._numbers: dict[Attempt, int] = {}
        self._left: dict[Attempt, str] = {}
        self._filling: dict[Attempt, asyncio.Task[None]] = {}
        self._unwanted: set[Attempt] = set()
        self._looking: set[asyncio.Future[tuple[Outcome, list[LeftFile]]]] = set()
        self._runners: dict[int, int] = {}
        self._until = NEVER
        self._guarded = True

    def listen(self, tell: Callable[[ProcessEvent], None]) -> None:
        """Have all events told."""
        self._tell = tell

    def capture(self, outputs: OutputBuffer) -> None:
        """Have what processes write put into a buffer."""
        self._outputs = outputs

    def drain_output(self) -> bool:
        """Read what is in the pipes of all processes."""
        drained = [each.drain() for each in self._processes.values()]
        return all(drained)

    def start(self, attempt: Attempt) -> None:
        """Have the launcher start an attempt's process."""
        try:
            directories, link = self._ready()
        except OSError as error:
            self._fail_soon(attempt, ends.not_started("launcher", str(error), permanent=False))
            return
        try:
            root = directories.next()
        except OSError as error:
            self._fail_soon(attempt, ends.not_started("pipes", str(error), permanent=False))
            return
        if attempt.spec.process is None or not attempt.spec.process.filled:
            self._launch(attempt, root, directories, link)
            return
        name = f"worker.fill.{attempt.execution_id}.{attempt.task_number}"
        # Not of a group: whoever stops the attempt ends it, and `close` ends all.
        filling = asyncio.get_running_loop().create_task(self._trees.fill(attempt, root), name=name)
        self._filling[attempt] = filling
        filling.add_done_callback(partial(self._on_filled, attempt, root, directories))

    def _on_filled(
        self, attempt: Attempt, root: str, directories: WorkDirectories, filling: asyncio.Task[None]
    ) -> None:
        """Start what has its files now; tell if they cannot be had, or are not wanted any more."""
        del self._filling[attempt]
        unwanted = filling.cancelled() or attempt in self._unwanted
        self._unwanted.discard(attempt)
        error = None if filling.cancelled() else filling.exception()
        outcome: Outcome = Ending.STOPPED
        if error is None and not unwanted:
            try:
                link = self._ready()[1]  # anew: the launcher may have been lost meanwhile
            except OSError as fault:
                outcome = ends.not_started("launcher", str(fault), permanent=False)
            else:
                self._launch(attempt, root, directories, link)
                return
        directories.give_back(root)
        if isinstance(error, NotFilled):
            outcome = error.failure
        elif error is not None:
            outcome = failures.source_unusable(f"its arguments cannot be read: {error!r}")
        self._tell(ProcessEnded(attempt=attempt, outcome=outcome, spent_s=0.0))

    def _launch(self, attempt: Attempt, root: str, directories: WorkDirectories, link: LauncherLink) -> None:
        try:
            invocation = invocation_of(attempt, self._environment, root)
            process = _Process(attempt, invocation, root, self._tell, self._outputs)
        except NotInvocable as error:
            directories.give_back(root)
            self._fail_soon(attempt, error.failure)
            return
        except OSError as error:
            directories.give_back(root)
            self._fail_soon(attempt, ends.not_started("pipes", str(error), permanent=False))
            return
        self._last_number += 1
        self._processes[self._last_number] = process
        self._numbers[attempt] = self._last_number
        link.send(process.order(self._last_number), process.child_fds)
        process.later(IDENTIFIED_AFTER_S, link.send, {"do": "identify", "number": self._last_number})

    def stop(self, attempt: Attempt, grace_s: float) -> None:
        """Ask the process group, and kill it after the grace time."""
        self._stop_filling(attempt)
        process = self._process(attempt)
        if process is not None:
            process.stopped = True
            self._signal(attempt, signal.SIGTERM)
            process.later(grace_s, self.kill, attempt)

    def kill(self, attempt: Attempt) -> None:
        """Kill the process group."""
        self._stop_filling(attempt)
        process = self._process(attempt)
        if process is not None:
            process.stopped = True
            self._signal(attempt, signal.SIGKILL)

    def _stop_filling(self, attempt: Attempt) -> None:
        filling = self._filling.get(attempt)
        if filling is not None and not filling.cancel():
            self._unwanted.add(attempt)  # it has its files, and is about to be started

    def discard(self, attempt: Attempt) -> None:
        """Remove the directory that was kept for its files."""
        root = self._left.pop(attempt, None)
        if root is not None and self._directories is not None:
            self._directories.give_back(root)

    def guard(self, until: float) -> None:
        """Tell the launcher when everything has to be stopped; it is started again if it was lost meanwhile."""
        self._until = until
        if self._link is None and not self._runners:
            return  # there is nothing to guard
        try:
            self._ready()[1].send({"do": "until", "at": until})
        except OSError as error:
            if self._guarded:  # told once, tried at each heartbeat
                _log.warning("no_guard", error=str(error))
            self._guarded = False
        else:
            self._guarded = True

    def watch(self, pid: int, pid_fd: int | None) -> None:
        """Put a runner under the guard of the launcher, or take one from it that is gone."""
        if pid_fd is None:
            del self._runners[pid]
        else:
            self._runners[pid] = pid_fd
        if self._link is not None:
            self._link.send(*_watch_order(pid, pid_fd))

    async def end_left(self, noted: Sequence[ProcessIdentity]) -> None:
        """End all that runs on after a worker here was killed."""
        await asyncio.to_thread(end_left, self._parent, noted)

    async def close(self) -> None:
        """End everything, and remove every directory."""
        self._tell = _ignore
        filling = list(self._filling.values())
        for each in filling:
            each.cancel()
        await asyncio.gather(*filling, return_exceptions=True)
        for process in self._processes.values():
            process.close()
        self._processes.clear()
        if self._link is not None:
            await self._link.close()
        await asyncio.gather(*self._looking)
        if self._directories is not None:
            await self._directories.close()

    def _ready(self) -> tuple[WorkDirectories, LauncherLink]:
        if self._directories is None:
            self._directories = WorkDirectories(self._parent)
        if self._link is None:
            self._link = LauncherLink(self._directories.path, self._environment, self._on_message, self._on_lost)
            for pid, pid_fd in self._runners.items():
                self._link.send(*_watch_order(pid, pid_fd))
            if self._until != NEVER:
                self._link.send({"do": "until", "at": self._until})
        return self._directories, self._link

    def _process(self, attempt: Attempt) -> "_Process | None":
        return self._processes.get(self._numbers.get(attempt, 0))

    def _signal(self, attempt: Attempt, which: signal.Signals) -> None:
        if self._link is not None:
            self._link.send({"do": "signal", "number": self._numbers[attempt], "signal": int(which)})

    def _on_message(self, message: dict[str, Any]) -> None:  # Any: JSON
        process = self._processes.get(message["number"])
        if process is None:
            return
        if message["event"] == "runs":
            identity = ProcessIdentity(pid=message["pid"], start_ticks=message["start_ticks"])
            self._tell(ProcessIdentified(attempt=process.attempt, process=identity))
            return
        del self._processes[message["number"]]
        del self._numbers[process.attempt]
        process.close()
        if message["event"] == "failed":
            failure = ends.not_started(process.program, message["text"], permanent=message["permanent"])
            self._end(process, failure, [])
            return
        limit = ends.Limit(message["exceeded"]) if message["exceeded"] else None
        exit_ = ends.ProcessExit(code=message["code"], exceeded=limit, stderr=bytes(process.stderr))
        if not process.leaves_much:
            self._end(process, *process.result(exit_))
            return
        # In a thread: heartbeats do not wait until a large tree is gone through.
        looking = asyncio.get_running_loop().run_in_executor(None, process.result, exit_)
        self._looking.add(looking)
        looking.add_done_callback(partial(self._on_looked, process))

    def _on_looked(self, process: "_Process", looking: "asyncio.Future[tuple[Outcome, list[LeftFile]]]") -> None:
        self._looking.discard(looking)
        self._end(process, *looking.result())

    def _end(self, process: "_Process", outcome: Outcome, files: list[LeftFile]) -> None:
        attempt = process.attempt
        if files:
            self._left[attempt] = process.root
        elif self._directories is not None:
            self._directories.give_back(process.root)
        spent_s = process.ran_s
        self._tell(ProcessEnded(attempt=attempt, outcome=outcome, spent_s=spent_s, files=tuple(files)))

    def _on_lost(self) -> None:
        """The launcher is gone; what it watched is ended, for nobody watches it any more."""
        _log.warning("launcher_lost", processes=len(self._processes))
        self._link = None
        if self._directories is not None:
            end_all_below(self._directories.path)
        processes = list(self._processes.values())
        self._processes.clear()
        self._numbers.clear()
        for process in processes:
            process.close()
            self._end(process, ends.launcher_lost(), [])

    def _fail_soon(self, attempt: Attempt, failure: Failure) -> None:
        ended = ProcessEnded(attempt=attempt, outcome=failure, spent_s=0.0)
        asyncio.get_running_loop().call_soon(lambda: self._tell(ended))


def _watch_order(pid: int, pid_fd: int | None) -> tuple[dict[str, object], list[int]]:
    """The message that puts a runner under guard, or takes it from there, and the fd that goes with it."""
    if pid_fd is None:
        return {"do": "unwatch", "pid": pid}, []
    return {"do": "watch", "pid": pid}, [os.dup(pid_fd)]


class _Process:
    """One process, from the order to start it until it and its group are gone."""

    def __init__(
        self,
        attempt: Attempt,
        invocation: Invocation,
        root: str,
        tell: Callable[[ProcessEvent], None],
        outputs: OutputBuffer,
    ) -> None:
        self.attempt = attempt
        self.root = root
        self.program = invocation.argv[0]
        self.stopped = False
        self.stderr = bytearray()
        self._invocation = invocation
        self._outputs = outputs
        self._output = outputs.open(attempt)
        self._paused = False
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._pipes: dict[int, int] = {}
        self.child_fds = self._open()
        self._watched: set[int] = set()
        self._tell = tell
        self._timers = [self._loop.call_later(RUNNING_AFTER_S, self._run_on)]
        if attempt.spec.timeout_s is not None:
            self.later(attempt.spec.timeout_s, tell, ProcessOverdue(attempt=attempt))

    def _open(self) -> list[int]:
        """The files that the process gets as its stdin, stdout and stderr."""
        given = self._invocation.stdin
        opened = [memory_file(given) if given else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)]
        try:
            for stream in (1, 2):
                read_fd, write_fd = os.pipe()
                opened.append(write_fd)
                os.set_blocking(read_fd, False)
                self._pipes[read_fd] = stream
        except OSError:
            for fd in (*opened, *self._pipes):
                os.close(fd)
            raise
        return opened

    @property
    def _spec(self) -> ProcessSpec:
        assert self.attempt.spec.process is not None
        return self.attempt.spec.process

    @property
    def ran_s(self) -> float:
        """How long it has been here."""
        return self._loop.time() - self._began

    def order(self, number: int) -> dict[str, object]:
        """The message that has it started."""
        limits = self._spec.limits
        return {
            "do": "start",
            "number": number,
            "root": self.root,
            "argv": self._invocation.argv,
            "environment": dict(self._invocation.environment),
            "directory": self.attempt.spec.directory,
            "limits": {
                "memory_bytes": limits.memory_bytes,
                "cpu_time_s": limits.cpu_time_s,
                "open_files": limits.open_files,
                "directory_bytes": limits.directory_bytes,
            },
        }

    def later(self, delay_s: float, call: Callable[..., None], *arguments: object) -> None:
        """Call something then, unless the process has ended."""
        self._timers.append(self._loop.call_later(delay_s, call, *arguments))

    def _run_on(self) -> None:
        """Tell that it runs, and read what it writes from now on. What is quickly done is read once, at its end."""
        if not self._paused:
            self._watch()
        self._tell(ProcessRunning(attempt=self.attempt))

    def _watch(self) -> None:
        for fd in self._pipes:
            self._watched.add(fd)
            self._loop.add_reader(fd, self._on_readable, fd)

    def _unwatch(self, fd: int) -> None:
        if fd in self._watched:
            self._watched.discard(fd)
            self._loop.remove_reader(fd)

    def drain(self) -> bool:
        """Read what the pipes hold now; False if there is no room for it."""
        for fd in self._pipes:
            if waiting_bytes(fd):
                self._on_readable(fd)
        return not self._paused

    def _on_readable(self, fd: int) -> None:
        """Read a piece if there is room; otherwise the process waits until there is."""
        if not self._output.full:
            self._read(fd)
        elif not self._paused:
            self._paused = True
            for each in self._pipes:
                self._unwatch(each)
            self._outputs.when_room(self._resume)

    def _resume(self) -> None:
        self._paused = False
        if not self._closed:
            self._watch()

    def _read(self, fd: int) -> bool:
        """Read a piece; False if there is none."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._unwatch(fd)
            return False
        self.on_output(self._pipes[fd], data)
        return True

    def on_output(self, stream: int, data: bytes) -> None:
        """Take what the process wrote: every byte of its output passes here, as it comes."""
        if stream == 2:
            self.stderr += data
            del self.stderr[: -ends.STDERR_KEPT_BYTES]
        self._output.write(Stream(stream), data, now_ms())

    def close(self) -> None:
        """Read what it still had written, room or not, and let go of its pipes and timers."""
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        lost = self._outputs.held >= HELD_AT_MOST * self._outputs.limit_bytes and any(map(waiting_bytes, self._pipes))
        for fd in self._pipes:
            for _ in range(0 if lost else FINAL_READS):
                if not self._read(fd):
                    break
            self._unwatch(fd)
            os.close(fd)
        if lost:
            self._output.notice("the end of it is not kept: too much waits to be delivered", now_ms())
        self._output.end(now_ms())

    @property
    def leaves_much(self) -> bool:
        """Whether `result` may take long."""
        return bool(self._spec.artifacts) or output_bytes(self.root) > LARGE_OUTPUT_BYTES

    def result(self, end: ends.ProcessExit) -> tuple[Outcome, list[LeftFile]]:
        """What its end means, and the files that it leaves."""
        try:
            return self._found(end)
        except Exception as error:  # noqa: BLE001  # whatever it has made of its directory, the attempt has to end
            return ends.not_readable(str(error)), []

    def _found(self, end: ends.ProcessExit) -> tuple[Outcome, list[LeftFile]]:
        if self.stopped and end.exceeded is None:
            return Ending.STOPPED, []
        failure = ends.failure_of(end, self._spec)
        if failure is not None:
            return failure, []
        written = read_output(self.root)
        output = ends.output_too_large(written) if isinstance(written, int) else ends.read_output(written)
        if isinstance(output, Failure) or not self._spec.artifacts:
            return output, []
        files, unmatched = find_files(self.root, self._spec.artifacts)
        if unmatched:
            return ends.artifacts_missing(unmatched), []
        if len(files) > ends.MAX_ARTIFACTS:
            return ends.too_many_artifacts(), []
        return output, files


def _ignore(_event: ProcessEvent) -> None:
    """Before anyone listens, and after the end."""
