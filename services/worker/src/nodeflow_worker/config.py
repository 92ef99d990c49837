"""The worker's settings, from NODEFLOW_WORKER_…."""

import os
import socket
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from nodeflow_shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """What a worker can be told."""

    model_config = SettingsConfigDict(env_prefix="NODEFLOW_WORKER_", extra="ignore", frozen=True)

    bind: str = Field("127.0.0.1:7423", description="address to listen on, host:port; port 0 takes a free one")
    worker_manager: str = Field("127.0.0.1:7422", description="address of the worker-manager, host:port")
    worker_id: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[a-zA-Z0-9._-]{1,128}$",
        description="lasting name of this worker: 1 to 128 of a-z A-Z 0-9 . _ -",
    )
    slots: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=1024,
        description="how many tasks run at once, each in a process of its own",
    )
    max_credits: int = Field(1024, ge=1, le=16_384, description="most tasks to hold ready beyond the slots")
    attempt_log_limit_bytes: int = Field(
        64 << 20,
        ge=1024,
        description="most bytes of output kept of one attempt; a notice says where it was cut",
    )
    log_buffer_bytes: int = Field(
        32 << 20,
        ge=1 << 20,
        description="bytes of output that wait for delivery, before those that write are slowed",
    )
    state_dir: Path = Field(
        Path(".nodeflow/worker"), description="directory for locks and journals of sessions, and for processes"
    )
    path: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description=f"directories to import functions from, separated by {os.pathsep!r}"
    )
    labels: dict[str, str] = Field({}, description="facts about this worker, as a JSON object of strings")

    @field_validator("path", mode="before")
    @classmethod
    def _split_path(cls, path: object) -> object:
        if not isinstance(path, str):
            return path
        return tuple(str(Path(each).absolute()) for each in path.split(os.pathsep) if each)
