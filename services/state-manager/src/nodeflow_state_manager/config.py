"""What the state-manager can be told, by NODEFLOW_STATE_MANAGER_… variables."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from nodeflow_shared.settings import ServiceSettings


class StateManagerSettings(ServiceSettings):
    """Settings beyond those of every service."""

    model_config = SettingsConfigDict(env_prefix="NODEFLOW_STATE_MANAGER_", extra="ignore", frozen=True)

    bind: str = Field("127.0.0.1:7421", description="address to listen on, host:port; port 0 takes a free one")
    data_dir: Path = Field(Path(".nodeflow"), description="directory of the database and the artifacts")
    shard_count: int = Field(64, ge=1, le=4_096, description="shards of a new database; fixed once it exists")
    max_lease_timeout_s: float = Field(60.0, gt=0, description="longest lease on a shard, in seconds")
    max_artifact_bytes: int = Field(5 << 30, ge=1, description="largest artifact, in bytes")
    waiting_limit_bytes: int = Field(
        128 << 20, ge=1, description="bytes of batches that wait for a commit, before streams are read on"
    )
    log_waiting_limit_bytes: int = Field(
        32 << 20, ge=1, description="bytes of attempts' output that wait for a commit, before streams are read on"
    )
