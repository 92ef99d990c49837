"""Settings of the worker-manager.

Owns their names, units and defaults. Must not know who uses them.
"""

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from nodeflow_shared.address import parse_address
from nodeflow_shared.settings import ServiceSettings


class Settings(ServiceSettings):
    """What a worker-manager can be told."""

    model_config = SettingsConfigDict(env_prefix="NODEFLOW_WORKER_MANAGER_", extra="ignore", frozen=True)

    bind: str = Field("127.0.0.1:7422", description="address to listen on, host:port; port 0 takes a free one")
    state_manager: str = Field("127.0.0.1:7421", description="address of the state-manager, host:port")
    lease_timeout_s: float = Field(
        10.0, gt=0, le=3600, description="seconds that a session lives after its last heartbeat"
    )
    heartbeat_interval_s: float = Field(2.0, gt=0, description="seconds between heartbeats, at most half of the lease")
    register_timeout_s: float = Field(
        8.0, gt=0, description="seconds that a worker's hello waits for the state-manager before it is turned away"
    )

    @field_validator("state_manager")
    @classmethod
    def _check_state_manager(cls, address: str) -> str:
        # A gRPC target with a scheme (dns:///name:port) is the channel's to understand.
        if "://" not in address and not address.startswith(("dns:", "unix:", "ipv4:", "ipv6:")):
            parse_address(address)
        return address

    @field_validator("heartbeat_interval_s")
    @classmethod
    def _check_interval(cls, interval: float, info: ValidationInfo) -> float:
        lease = info.data.get("lease_timeout_s")
        if lease is not None and interval * 2 > lease:
            raise ValueError(
                f"should be at most half of the lease of {lease} s, so that one lost heartbeat ends nothing"
            )
        return interval
