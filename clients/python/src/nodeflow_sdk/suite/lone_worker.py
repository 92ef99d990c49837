"""A worker of this process for a suite that runs elsewhere: started, connected, and stopped in order.

Owns that worker's life. Must not know why it is wanted.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from nodeflow.worker_manager.v1.worker_manager_service_pb2 import WorkerState

from nodeflow_sdk.client import WorkersClient, open_workers_client
from nodeflow_sdk.side_tasks import unwrapped
from nodeflow_sdk.suite.child import Child
from nodeflow_sdk.suite.errors import SuiteError
from nodeflow_sdk.suite.health import Patience, wait_until_healthy
from nodeflow_sdk.suite.log_files import LogFile
from nodeflow_sdk.suite.observer import SilentObserver
from nodeflow_sdk.suite.ports import choose_addresses
from nodeflow_sdk.suite.services import SuiteService, worker_settings

CONNECT_TIMEOUT_S: Final = 30.0
DRAIN_TIMEOUT_S: Final = 30.0
STOP_GRACE_S: Final = 3.0


@asynccontextmanager
async def lone_worker(worker_manager: str, *, path: tuple[Path, ...], slots: int | None) -> AsyncIterator[str]:
    """Run a worker that imports from `path` inside the block, restarted if it dies; gives its id once it is connected.

    It ends with this process, however that ends. Raises SuiteError, and NodeflowError if nobody answers.
    """
    if find_spec(SuiteService.WORKER.module) is None:
        raise SuiteError("the worker is not installed here; install it with `pip install nodeflow-worker`")
    async with open_workers_client(worker_manager) as client:
        worker_id = _free_id(await _online(client))
        with TemporaryDirectory(prefix="nodeflow-worker-") as directory, _log_in(Path(directory)) as log, unwrapped():
            address = choose_addresses(0)[SuiteService.WORKER]
            child = _child(address, worker_manager, worker_id, Path(directory), log, path=path, slots=slots)
            async with asyncio.TaskGroup() as outputs:
                with unwrapped():
                    async with asyncio.TaskGroup() as lives:
                        lives.create_task(child.supervise(outputs), name="lone worker")
                        try:
                            await _connected(address, worker_id)
                            child.steady = True
                            yield worker_id
                        finally:
                            await child.stop(DRAIN_TIMEOUT_S + STOP_GRACE_S)


def _log_in(directory: Path) -> closing[LogFile]:
    return closing(LogFile(directory, SuiteService.WORKER))


def _child(
    address: str,
    worker_manager: str,
    worker_id: str,
    directory: Path,
    log: LogFile,
    *,
    path: tuple[Path, ...],
    slots: int | None,
) -> Child:
    service = SuiteService.WORKER
    own = worker_settings(
        worker_manager=worker_manager, worker_id=worker_id, state_dir=directory, slots=slots, path=path
    )
    settings = {
        **own,
        "BIND": address,
        "DRAIN_TIMEOUT_S": str(DRAIN_TIMEOUT_S),
        "EXIT_WITH_PARENT": "true",
    }
    return Child(
        service,
        address=address,
        patience=Patience(),
        environment={f"{service.env_prefix}{name}": value for name, value in settings.items()},
        log=log,
        observer=SilentObserver(),
        lock=None,
        on_life=lambda: None,
    )


async def _online(client: WorkersClient) -> set[str]:
    return {each.worker_id for each in await client.workers() if each.state != WorkerState.WORKER_STATE_OFFLINE}


async def _connected(address: str, worker_id: str) -> None:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await wait_until_healthy(address)
    except TimeoutError:
        raise SuiteError(f"worker {worker_id} has not connected within {CONNECT_TIMEOUT_S:.0f} s") from None


def _free_id(taken: set[str]) -> str:
    """Return a lasting name: the same one the next time, so that the list of workers does not grow with each start."""
    host = re.sub(r"[^a-zA-Z0-9._-]", "-", socket.gethostname())[:100] or "host"
    number = 1
    while f"{host}-serve-{number}" in taken:
        number += 1
    return f"{host}-serve-{number}"
