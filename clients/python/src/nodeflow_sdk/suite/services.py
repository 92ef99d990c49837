"""The services of a suite: their modules, ports, environments, and the order in which they stop.

Owns what a child process is told. Must not know how processes are watched.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from nodeflow_sdk.suite.health import Patience

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 7420


class SuiteService(StrEnum):
    """A process of the suite, by the name that people see."""

    SCHEDULER = "scheduler"
    STATE_MANAGER = "state-manager"
    WORKER_MANAGER = "worker-manager"
    WORKER = "worker"

    @property
    def module(self) -> str:
        """What `python -m` starts."""
        return f"nodeflow_{self.value.replace('-', '_')}"

    @property
    def env_prefix(self) -> str:
        """What the names of its settings begin with."""
        return f"{self.module.upper()}_"


# A fixed suite has its ports in this order, from the base port on.
PORT_ORDER: Final = tuple(SuiteService)
# Who produces stops before who takes: results still reach the log while the workers drain.
STOP_ORDER: Final = (
    SuiteService.WORKER,
    SuiteService.SCHEDULER,
    SuiteService.WORKER_MANAGER,
    SuiteService.STATE_MANAGER,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOptions:
    """What a suite can be told."""

    data_dir: Path = Path(".nodeflow")
    port: int = DEFAULT_PORT
    """Of the scheduler; the others follow. 0: free ports, chosen once."""
    slots: int | None = None
    """Attempts that the worker runs at once; None: one for each CPU; 0: no worker here, others connect."""
    path: tuple[Path, ...] = field(default_factory=lambda: (Path.cwd(),))
    """Where the worker imports functions from, after a document's own directory."""
    log_level: str = "INFO"
    drain_timeout_s: float = 5.0
    """What each service gets to finish at a stop."""
    patience: Patience = field(default_factory=Patience)
    """When a service that hangs is killed and started again."""
    lasting: bool = True
    """Whether it lives until it is stopped, and so is there for others; not so for the suite of one run."""

    @property
    def services(self) -> tuple[SuiteService, ...]:
        """The processes of the suite, in the order of their ports."""
        return tuple(each for each in SuiteService if each is not SuiteService.WORKER or self.slots != 0)


def environment(service: SuiteService, options: SuiteOptions, addresses: Mapping[SuiteService, str]) -> dict[str, str]:
    """Return the settings of a service as environment variables."""
    settings = {
        "BIND": addresses[service],
        "LOG_LEVEL": options.log_level,
        "DRAIN_TIMEOUT_S": str(options.drain_timeout_s),
        "EXIT_WITH_PARENT": "true",
        **_own_settings(service, options, addresses),
    }
    return {f"{service.env_prefix}{name}": value for name, value in settings.items()}


def _own_settings(
    service: SuiteService, options: SuiteOptions, addresses: Mapping[SuiteService, str]
) -> dict[str, str]:
    match service:
        case SuiteService.STATE_MANAGER:
            return {"DATA_DIR": str(options.data_dir.resolve())}
        case SuiteService.WORKER_MANAGER:
            return {"STATE_MANAGER": addresses[SuiteService.STATE_MANAGER]}
        case SuiteService.SCHEDULER:
            return {
                "STATE_MANAGER": addresses[SuiteService.STATE_MANAGER],
                "WORKER_MANAGERS": addresses[SuiteService.WORKER_MANAGER],
            }
        case SuiteService.WORKER:
            return worker_settings(
                worker_manager=addresses[SuiteService.WORKER_MANAGER],
                worker_id="worker-0",
                state_dir=options.data_dir.resolve() / "workers" / "worker-0",
                slots=options.slots,
                path=options.path,
            )


def worker_settings(
    *, worker_manager: str, worker_id: str, state_dir: Path, slots: int | None, path: tuple[Path, ...]
) -> dict[str, str]:
    """Return a worker's own settings, without prefix."""
    settings = {
        "WORKER_MANAGER": worker_manager,
        "WORKER_ID": worker_id,
        "STATE_DIR": str(state_dir),
        "PATH": import_path(path),
    }
    return settings if slots is None else {**settings, "SLOTS": str(slots)}


def import_path(path: tuple[Path, ...]) -> str:
    """Return directories as one value, as PYTHONPATH has them."""
    return os.pathsep.join(str(each.resolve()) for each in path)
