"""Settings of the scheduler, from `NODEFLOW_SCHEDULER_…`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from nodeflow_shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """What a scheduler can be told."""

    model_config = SettingsConfigDict(env_prefix="NODEFLOW_SCHEDULER_", extra="ignore", frozen=True)

    bind: str = Field("127.0.0.1:7420", description="address to listen on, host:port; port 0 takes a free one")
    instance: str = Field(
        "scheduler-0",
        min_length=1,
        description="lasting name of this replica; a restart under the same name takes over at once",
    )
    state_manager: str = Field("127.0.0.1:7421", description="address of the state-manager, host:port")
    worker_managers: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1:7422",), min_length=1, description="addresses of the worker-managers, separated by commas"
    )
    lease_timeout_s: float = Field(
        10.0, ge=0.5, le=300, description="seconds that a lease on shards lasts unless renewed"
    )
    max_open_executions: int = Field(200_000, ge=1, description="executions that may be open at once")
    max_open_tasks: int = Field(
        4_000_000, ge=1, description="tasks that open executions may have at once, before more are taken on"
    )
    max_waiting_submissions: int = Field(
        20_000, ge=1, description="submissions that may wait to be stored, before more are refused"
    )

    @field_validator("worker_managers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
