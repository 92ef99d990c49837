"""Settings: what is missing or cannot work is said before anything starts."""

import pytest

from nodeflow_shared.settings import SettingsError, load
from nodeflow_worker_manager.config import Settings

PREFIX = "NODEFLOW_WORKER_MANAGER_"


def test_defaults_need_only_the_state_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}STATE_MANAGER", "dns:///state-manager:7421")
    settings = load(Settings)
    assert (settings.state_manager, settings.lease_timeout_s, settings.heartbeat_interval_s) == (
        "dns:///state-manager:7421",
        10.0,
        2.0,
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"STATE_MANAGER": "nonsense"}, "STATE_MANAGER is 'nonsense' but should be host:port"),
        ({"STATE_MANAGER": "h:1", "HEARTBEAT_INTERVAL_S": "6"}, "INTERVAL_S is '6' but should be at most half"),
        ({"STATE_MANAGER": "h:1", "LEASE_TIMEOUT_S": "0"}, "LEASE_TIMEOUT_S is '0' but should be greater than 0"),
    ],
)
def test_faults_are_named(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str) -> None:
    monkeypatch.delenv(f"{PREFIX}STATE_MANAGER", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError, match=message):
        load(Settings)
