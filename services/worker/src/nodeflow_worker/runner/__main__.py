"""The entry of a runner process: `python -m nodeflow_worker.runner FD… AGENT_PID`.

The descriptors are those of tasks, results, the page, and the other ends of its standard output and error.

Owns what must be true before any user code runs: this process dies with its agent, and passes its pipes to nobody.
"""

import ctypes
import mmap
import os
import signal
import sys
from functools import partial
from typing import Final

from nodeflow_worker.runner.executor import Executor
from nodeflow_worker.runner.frames import Page, Results, encode
from nodeflow_worker.runner.streams import Streams

_PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Prepare the process, say that it is ready, and execute until the agent closes the pipe."""
    tasks_fd, results_fd, page_fd, out_fd, err_fd, agent = (int(each) for each in sys.argv[1:7])
    _die_with(agent)
    for fd in (tasks_fd, results_fd, page_fd, out_fd, err_fd):
        os.set_inheritable(fd, False)
    # A forked child of user code that kept the pipe open would hide this process's end from the agent.
    os.register_at_fork(after_in_child=partial(_close, tasks_fd, results_fd))
    page = Page(memoryview(mmap.mmap(page_fd, Page.SIZE)))
    os.close(page_fd)
    sys.argv[:] = [""]
    # Nothing that was edited may be hidden by bytecode of the same second, and the user's directories stay clean.
    sys.dont_write_bytecode = True
    streams = Streams((out_fd, err_fd))
    os.write(results_fd, encode(Results(1, [], [])))
    return Executor(tasks_fd, results_fd, page, streams).run()


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


def _die_with(agent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != agent:  # it died before this took effect
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
