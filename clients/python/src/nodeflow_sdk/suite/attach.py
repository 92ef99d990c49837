"""A suite to work with: the one that runs, or one for as long as it is needed.

Owns that decision. Must not know what is done with the suite.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nodeflow_sdk.suite.errors import SuiteError
from nodeflow_sdk.suite.health import is_healthy
from nodeflow_sdk.suite.observer import SuiteObserver
from nodeflow_sdk.suite.record import find_record
from nodeflow_sdk.suite.services import DEFAULT_PORT, HOST, PORT_ORDER, SuiteOptions, SuiteService
from nodeflow_sdk.suite.supervisor import running_suite

_PROBE_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """Where a suite is reached, and whether it ends with us."""

    scheduler: str
    worker_manager: str | None
    embedded: bool
    data_dir: Path | None = None


def default_attachment(start: Path) -> Attachment:
    """Return what suite.json in `start` or above says, or the default ports; whether anyone is there was not asked."""
    found = find_record(start)
    if found is not None:
        data_dir, record = found
        addresses = record.addresses
        return Attachment(
            scheduler=addresses[SuiteService.SCHEDULER],
            worker_manager=addresses.get(SuiteService.WORKER_MANAGER),
            embedded=False,
            data_dir=data_dir,
        )
    ports = {service: DEFAULT_PORT + offset for offset, service in enumerate(PORT_ORDER)}
    return Attachment(
        scheduler=f"{HOST}:{ports[SuiteService.SCHEDULER]}",
        worker_manager=f"{HOST}:{ports[SuiteService.WORKER_MANAGER]}",
        embedded=False,
    )


async def find_running(start: Path) -> Attachment | None:
    """Return the suite that runs in `start` or above, or at the default ports; None if there is none."""
    attachment = default_attachment(start)
    return attachment if await is_healthy(attachment.scheduler, _PROBE_TIMEOUT_S) else None


@asynccontextmanager
async def attached(options: SuiteOptions, observer: SuiteObserver | None = None) -> AsyncIterator[Attachment]:
    """Give the suite that runs here, or run one on free ports inside the block.

    Raises SuiteError, also when the one that runs here serves another run and would end with it.
    """
    found = find_record(Path.cwd())
    running = await find_running(Path.cwd())
    if running is not None and (found is None or found[1].lasting):
        yield running
        return
    if running is not None and found is not None and options.data_dir.resolve() == found[0].resolve():
        raise SuiteError(
            f"the suite in {found[0]} belongs to another run (process {found[1].pid}) and ends with it; wait for it, "
            "give this one another --data-dir, or start a suite for both with `nodeflow up` first"
        )
    async with running_suite(replace(options, port=0, lasting=False), observer) as suite:
        yield Attachment(
            scheduler=suite.scheduler,
            worker_manager=suite.addresses[SuiteService.WORKER_MANAGER],
            embedded=True,
            data_dir=suite.data_dir,
        )
