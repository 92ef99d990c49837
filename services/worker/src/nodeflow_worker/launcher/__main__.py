"""The launcher's entry: `python -I -S …/launcher/__main__.py SOCKET_FD DIRECTORY`.

Owns every process of an attempt: it starts each as the leader of a session of its own in a new directory, watches
limits, and when a leader ends, ends all that it has left. When the agent is gone (its end of the socket closes) it ends
everything, removes DIRECTORY, and exits. When the agent stands still, so that it neither stops its attempts nor has its
lease extended, it ends them at the lease's end in its place, those of runners too.

Messages are JSON, one per packet. From the agent: `start` (with the fds of stdin, stdout, stderr, and one of the whole
message if that is too large for a packet), `signal`, `watch` (a runner, with its pidfd), `unwatch`, and `until` (when
all attempts have to be stopped, in monotonic seconds). To the agent: `failed` (not started) and `ended`, and
`runs` (which process it is) in answer to `identify`.
"""

import array
import contextlib
import ctypes
import errno
import json
import math
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from types import FrameType
from typing import Any

POLL_S = 0.05
STRAYS_S = 0.02
"""How long after an end strays are looked for: once for all the ends of that time."""
SCAN_SHARE = 10
"""A look at a directory is not taken again before this many times as long as it took."""
PACKET_BYTES = 65_536
MARKS = ("NODEFLOW_WORK_DIR", "NODEFLOW_EXECUTION_ID", "NODEFLOW_TASK_NUMBER", "NODEFLOW_ATTEMPT_NUMBER")
"""By these an attempt's processes are known, wherever they went."""
CLEANUP_S = 5.0
NOT_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR)
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG = 1
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DEFAULTS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGINT)


class Job:
    """One process: the leader of its session, and its limits."""

    def __init__(self, number: int, root: str, limits: dict[str, Any], environment: dict[str, str]) -> None:
        self.number = number
        self.root = root
        self.memory_bytes = int(limits.get("memory_bytes", 0))
        self.cpu_time_s = float(limits.get("cpu_time_s", 0))
        self.directory_bytes = int(limits.get("directory_bytes", 0))
        self.marks = [f"{name}={environment[name]}\0".encode() for name in MARKS]
        self.exceeded = ""
        self.next_scan_at = 0.0

    @property
    def watched(self) -> bool:
        """Whether there is anything to look at while it runs."""
        return bool(self.memory_bytes or self.cpu_time_s or self.directory_bytes)


class Launcher:
    """All processes by the pid of their leader."""

    def __init__(self, agent: socket.socket) -> None:
        self._agent = agent
        agent.set_inheritable(False)  # an attempt's process that had it could speak for us, and hide our end
        self._jobs: dict[int, Job] = {}
        self._pids: dict[int, int] = {}
        self._runners: dict[int, int] = {}
        """The pidfds of runners, by pid."""
        self._until = math.inf
        self._untold: deque[bytes] = deque()
        """Messages that the agent has no room for, at most about one for each job that it has asked for."""
        self._libc = ctypes.CDLL(None)
        self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._strays_at = math.inf
        self._children_file = f"/proc/self/task/{os.getpid()}/children"

    def run(self) -> None:
        """Serve until the agent is gone."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _noted)
        poll = select.poll()
        poll.register(self._agent, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        while True:
            watched = any(job.watched for job in self._jobs.values())
            poll.modify(self._agent, select.POLLIN | (select.POLLOUT if self._untold else 0))
            ready = poll.poll(self._patience_ms(watched))
            if any(fd == wake_read for fd, _ in ready):
                os.read(wake_read, 65_536)
                self._reap()
            self._send_untold()
            said = [event for fd, event in ready if fd != wake_read and event != select.POLLOUT]
            # What a dead agent had still asked for is not begun: its successor may run it already.
            if any(event & select.POLLHUP or not self._receive() for event in said):
                break
            if watched:
                self._look()
            # Not while anything waits to be heard: if we stood still, the lease may have been extended meanwhile.
            if not said and time.monotonic() >= self._until:
                self._until = math.inf
                self._stop_all()
            if time.monotonic() >= self._strays_at:
                self._strays_at = math.inf
                self._end_strays()
        self._end_all()

    def _patience_ms(self, watched: bool) -> float | None:
        if self._strays_at < math.inf:
            return STRAYS_S * 1000
        patience_s = min(POLL_S if watched else math.inf, max(self._until - time.monotonic(), 0.0))
        return math.ceil(patience_s * 1000) if patience_s < math.inf else None

    # What the agent asks for.

    def _receive(self) -> bool:
        fds = array.array("i")
        try:
            data, ancillary, _, _ = self._agent.recvmsg(
                PACKET_BYTES, socket.CMSG_SPACE(8 * fds.itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return False
        if not data:
            return False
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        try:
            if len(fds) > 3:
                data = os.pread(fds[3], os.fstat(fds[3]).st_size, 0)
            message = json.loads(data)
            self._obey(message, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _obey(self, message: dict[str, Any], fds: Sequence[int]) -> None:  # Any: JSON
        match message["do"]:
            case "start":
                self._start(message, list(fds[:3]))
            case "identify":
                self._identify(message["number"])
            case "signal":
                self._signal(message["number"], message["signal"])
            case "until":
                self._until = message["at"]
            case "watch":
                self._runners[message["pid"]] = os.dup(fds[0])
            case "unwatch":
                os.close(self._runners.pop(message["pid"]))
            case unknown:
                raise ValueError(unknown)

    def _start(self, message: dict[str, Any], fds: list[int]) -> None:  # Any: JSON
        number, root, limits = message["number"], message["root"], message["limits"]
        try:
            os.chdir(message["environment"]["NODEFLOW_WORK_DIR"])
            pid = self._spawn(message, limits, fds)
        except (OSError, ValueError) as error:
            code = error.errno if isinstance(error, OSError) else errno.EINVAL
            text = os.strerror(code) if code else str(error)
            self._tell({"event": "failed", "number": number, "text": text, "permanent": code in NOT_PROGRAM})
            return
        finally:
            os.chdir("/")
        self._jobs[pid] = Job(number, root, limits, message["environment"])
        self._pids[number] = pid

    def _spawn(self, message: dict[str, Any], limits: dict[str, Any], fds: list[int]) -> int:
        argv, environment = message["argv"], message["environment"]
        program = _program(argv[0], environment, message["directory"])
        if limits.get("open_files"):
            return self._fork(program, argv, environment, int(limits["open_files"]), fds)
        # Not `fork`: posix_spawn does not copy this process first, and takes half the time.
        return os.posix_spawn(
            program,
            argv,
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds)],
            setsid=True,
            setsigdef=_DEFAULTS,
        )

    def _fork(self, program: str, argv: list[str], environment: dict[str, str], files: int, fds: list[int]) -> int:
        """Start with a limit that must hold from the first instruction on."""
        problem_read, problem_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                for number in _DEFAULTS:
                    signal.signal(number, signal.SIG_DFL)
                for target, fd in enumerate(fds):
                    os.dup2(fd, target)
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
                os.execve(program, argv, environment)  # noqa: S606  # that is what a command is
            except OSError as error:
                os.write(problem_write, str(error.errno or errno.EINVAL).encode())
            finally:
                os._exit(127)
        os.close(problem_write)
        problem = os.read(problem_read, 16)
        os.close(problem_read)
        if problem:
            os.waitpid(pid, 0)
            raise OSError(int(problem), os.strerror(int(problem)))
        return pid

    def _identify(self, number: int) -> None:
        """Tell which process it is, if it has not ended. (It is not reaped before its end is told.)"""
        pid = self._pids.get(number)
        if pid is not None:
            start_ticks = int(_stat(pid)[19])
            self._tell({"event": "runs", "number": number, "pid": pid, "start_ticks": start_ticks})

    def _signal(self, number: int, which: int) -> None:
        pid = self._pids.get(number)
        if pid is not None:
            _kill_group(pid, which)

    # What happens.

    def _reap(self) -> None:
        """Tell of leaders that ended, once all of their group was killed; and end what escaped its group."""
        strays = False
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                break
            pid = found.si_pid
            if pid in self._jobs:
                # Before it is reaped: until then the group's number cannot be another's.
                _kill_group(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            strays = True
            if pid in self._jobs:
                self._ended(pid, status, usage)
        if strays:
            self._strays_at = min(self._strays_at, time.monotonic() + STRAYS_S)

    def _ended(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        job = self._jobs.pop(pid)
        del self._pids[job.number]
        if not job.exceeded:
            own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # a new process inherits this peak
            peak = usage.ru_maxrss * 1024 if usage.ru_maxrss > own else 0
            job.exceeded = _exceeded(job, peak, usage.ru_utime + usage.ru_stime)
        if not job.exceeded and job.directory_bytes and _directory_bytes(job.root) > job.directory_bytes:
            job.exceeded = "directory"
        code = os.waitstatus_to_exitcode(status)
        self._tell({"event": "ended", "number": job.number, "code": code, "exceeded": job.exceeded})

    def _end_strays(self) -> None:
        """Kill what was adopted from attempts that are over: it had left their groups."""
        for pid in self._children():
            if pid not in self._jobs and _session(pid) not in self._jobs and not self._is_of_live(pid):
                _kill(pid)

    def _children(self) -> list[int]:
        try:
            with open(self._children_file) as file:  # noqa: PTH123  # pathlib would slow the start
                return [int(each) for each in file.read().split()]
        except OSError:
            return []

    def _is_of_live(self, pid: int) -> bool:
        """Whether a process that left its session says that it belongs to an attempt that runs."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
                told = file.read()
        except OSError:
            return False
        return any(all(mark in told for mark in job.marks) for job in self._jobs.values())

    # Limits.

    def _look(self) -> None:
        now = time.monotonic()
        used = _usage_by_session() if any(job.memory_bytes or job.cpu_time_s for job in self._jobs.values()) else {}
        for pid, job in self._jobs.items():
            if job.exceeded:
                continue
            memory, cpu_s = used.get(pid, (0, 0.0))
            job.exceeded = _exceeded(job, memory, cpu_s)
            if not job.exceeded and job.directory_bytes and now >= job.next_scan_at:
                if _directory_bytes(job.root) > job.directory_bytes:
                    job.exceeded = "directory"
                job.next_scan_at = now + SCAN_SHARE * (time.monotonic() - now)
            if job.exceeded:
                _kill_group(pid, signal.SIGKILL)

    def _tell(self, message: dict[str, Any]) -> None:
        self._untold.append(json.dumps(message).encode())
        self._send_untold()

    def _send_untold(self) -> None:
        """Send what the agent has room for. One that stands still must not have us wait: we act in its place."""
        while self._untold:
            try:
                self._agent.send(self._untold[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionError:  # it is gone, which the loop is about to see
                self._untold.clear()
                return
            self._untold.popleft()

    # The end.

    def _stop_all(self) -> None:
        """Kill all that executes attempts: the agent should have, and stands still."""
        for pid in self._jobs:
            _kill_group(pid, signal.SIGKILL)
        for pid, pidfd in self._runners.items():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                # It was there, and the agent cannot reap it meanwhile: the group's number is still its own.
                _kill_group(pid, signal.SIGKILL)

    def _end_all(self) -> None:
        """End everything, and remove what it leaves."""
        for pid in self._jobs:
            _kill_group(pid, signal.SIGKILL)
        self._jobs.clear()
        gives_up_at = time.monotonic() + CLEANUP_S
        while time.monotonic() < gives_up_at:
            for pid in self._children():
                _kill(pid)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                break
        shutil.rmtree(sys.argv[2], ignore_errors=True)


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The wakeup fd has it."""


def _program(name: str, environment: dict[str, str], directory: str) -> str:
    """The file to execute. A relative path means one in the working directory, or else beside the document."""
    if "/" in name:
        beside = os.path.join(directory, name) if directory else name  # noqa: PTH118
        return name if os.access(name, os.X_OK) or not os.access(beside, os.F_OK) else beside
    for folder in os.get_exec_path(environment):
        path = os.path.join(folder, name)  # noqa: PTH118
        if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112
            return path
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _exceeded(job: Job, memory_bytes: int, cpu_s: float) -> str:
    if memory_bytes > (job.memory_bytes or math.inf):
        return "memory"
    return "cpu_time" if cpu_s > (job.cpu_time_s or math.inf) else ""


def _usage_by_session() -> dict[int, tuple[int, float]]:
    """Resident bytes and processor seconds of all processes of each session, those that were waited for included."""
    used: dict[int, tuple[int, float]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit():
            continue
        fields = _stat(int(name))
        if fields:
            memory, cpu_s = used.get(int(fields[3]), (0, 0.0))
            ticks = sum(map(int, fields[11:15]))
            used[int(fields[3])] = (memory + int(fields[21]) * _PAGE, cpu_s + ticks / _TICKS)
    return used


def _session(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[3]) if fields else 0


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third (the state) on; the second may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _directory_bytes(root: str) -> int:
    """What the files below a directory take on disk."""
    total = 0
    pending = [root]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue  # it went away while we looked
    return total


def _kill_group(pid: int, which: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, which)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    Launcher(socket.socket(fileno=int(sys.argv[1]))).run()
