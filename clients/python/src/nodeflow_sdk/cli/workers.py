"""`nodeflow workers` and `nodeflow worker`: who works here, and one more.

Owns the commands. Must not know how a worker works.
"""

import os
import re
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer
from nodeflow.worker_manager.v1.worker_manager_service_pb2 import Worker

from nodeflow_sdk.cli.errors import CliError, ExitCode, from_api, usage_error
from nodeflow_sdk.cli.output import Output, emit, list_document
from nodeflow_sdk.cli.session import (
    AddressOption,
    ContextOption,
    OutputOption,
    WorkerManagerOption,
    execute,
    session,
    worker_manager_of,
)
from nodeflow_sdk.cli.tables import workers_table
from nodeflow_sdk.cli.terminal import say
from nodeflow_sdk.cli.up import DataDirOption, PathOption, SlotsOption
from nodeflow_sdk.client import open_workers_client
from nodeflow_sdk.suite.services import HOST, SuiteService, worker_settings
from nodeflow_shared.errors import NodeflowError

_WORKER_ID: Final = re.compile(r"[a-zA-Z0-9._-]{1,128}")


def add_commands(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: nodeflow workers -o json")(workers)
    app.command(epilog="Example: nodeflow worker --id gpu-1 --slots 2 --path .")(worker)


def workers(
    ctx: typer.Context,
    address: AddressOption = None,
    context: ContextOption = None,
    worker_manager: WorkerManagerOption = None,
    output: OutputOption = None,
) -> None:
    """List workers, connected and known."""
    current = session(ctx, address, output, context)
    found = execute(_workers(worker_manager_of(current, worker_manager)))
    emit(
        current.output or Output.TABLE,
        document=lambda: list_document("workers", found),
        names=[each.worker_id for each in found],
        table=lambda: workers_table(found, time.time()),
    )


def worker(
    ctx: typer.Context,
    *,
    worker_id: Annotated[
        str | None, typer.Option("--id", help="The worker's lasting name. Default: the first free worker-N.")
    ] = None,
    slots: SlotsOption = None,
    path: PathOption = None,
    data_dir: DataDirOption = Path(".nodeflow"),
    address: AddressOption = None,
    context: ContextOption = None,
    worker_manager: WorkerManagerOption = None,
) -> None:
    """Start one worker and attach it to a running suite; Ctrl-C lets it finish what it has and leave."""
    if worker_id is not None and not _WORKER_ID.fullmatch(worker_id):
        raise usage_error(f"--id {worker_id!r} is no worker's id", "1 to 128 of a-z A-Z 0-9 . _ -, like build-host-3")
    target = worker_manager_of(session(ctx, address, context=context), worker_manager)
    known = execute(_workers(target))
    name = worker_id or _free_name(known)
    service = SuiteService.WORKER
    if find_spec(service.module) is None:
        raise CliError("the worker is not installed here", ExitCode.UNREACHABLE, hint="pip install nodeflow-worker")
    own = worker_settings(
        worker_manager=target,
        worker_id=name,
        state_dir=data_dir.resolve() / "workers" / name,
        slots=slots,
        path=tuple(path) if path else (Path.cwd(),),
    )
    say(f"worker {name} for the worker-manager at {target}")
    # Beside other workers of this machine: the default port may be theirs.
    environment = {f"{service.env_prefix}BIND": f"{HOST}:0", **os.environ}
    environment |= {f"{service.env_prefix}{key}": value for key, value in own.items()}
    # The worker takes this process's place: signals and its exit code are its own.
    os.execve(sys.executable, [sys.executable, "-m", service.module], environment)  # noqa: S606


async def _workers(address: str) -> list[Worker]:
    async with open_workers_client(address) as client:
        try:
            return await client.workers()
        except NodeflowError as error:
            told = from_api(error, address)
            told.message = told.message.replace("scheduler answers", "worker-manager answers")
            told.hint = told.hint.replace(
                "--address or NODEFLOW_ADDRESS", "--worker-manager or NODEFLOW_WORKER_MANAGER"
            )
            raise told from error


def _free_name(known: list[Worker]) -> str:
    taken = {each.worker_id for each in known}
    number = 1
    while f"worker-{number}" in taken:
        number += 1
    return f"worker-{number}"
