"""`serve` and `serving`: this process's functions for runs that others start, or this process itself, on a suite.

Owns these two. Must not know how a worker is started.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nodeflow_sdk.running.home import current_runs
from nodeflow_sdk.workflow import Workflow, refuse_import_in_runner


@contextmanager
def serving(
    *workflows: Workflow[..., Any],
    suite: str | None = None,
    worker_manager: str | None = None,
    slots: int | None = None,
) -> Iterator[str]:
    """Register workflows on a suite and serve their functions inside the block; gives the worker's id.

    A worker beside this process imports what this process does, from the same directories; it runs up to `slots` tasks
    at once (one for each CPU if not said), and finishes what it has when the block ends. `suite` is as for `run`,
    `worker_manager` where workers connect: else NODEFLOW_WORKER_MANAGER, else the one of the suite of this directory.
    A suite that is started for this process serves it without that; the id is empty then. Raises SuiteError.
    """
    if not workflows:
        raise TypeError("serving() needs workflows to serve: serving(word_count)")
    refuse_import_in_runner(workflows[0].name)
    with current_runs().serving([each.submittable() for each in workflows], suite, worker_manager, slots) as worker_id:
        yield worker_id


def serve(
    *workflows: Workflow[..., Any],
    suite: str | None = None,
    worker_manager: str | None = None,
    slots: int | None = None,
) -> None:
    """Serve the functions of workflows until Ctrl-C; see `serving`."""
    with serving(*workflows, suite=suite, worker_manager=worker_manager, slots=slots) as worker_id:
        names = ", ".join(each.name for each in workflows)
        whose = f"worker {worker_id}" if worker_id else "a suite of this process"
        sys.stderr.write(f"serving {names} as {whose}; Ctrl-C stops\n")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.stderr.write("stopping: what runs is finished first\n")
