"""Settings errors name the variable, what is wrong and what would be right."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from nodeflow_shared.settings import ServiceSettings, SettingsError, load, variable_name


class ThingSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="NODEFLOW_THING_")

    peer: str = Field(description="address of the peer")
    slots: int = Field(4, ge=1, description="things at a time")
    name: str = Field(default_factory=str, pattern="^[a-z]*$", description="what it is called")
    token: SecretStr | None = Field(None, min_length=8, description="what it shows to its peer")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("NODEFLOW_THING_PEER", "127.0.0.1:1")
    return monkeypatch


def test_variables_are_read_under_the_prefix(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NODEFLOW_THING_BIND", "[::1]:7420")
    environment.setenv("NODEFLOW_THING_LOG_LEVEL", "debug")
    environment.setenv("NODEFLOW_THING_ANNOUNCE_FILE", "/run/thing")
    settings = load(ThingSettings)
    assert (settings.bind, settings.log_level, settings.slots) == ("[::1]:7420", "DEBUG", 4)
    assert settings.announce_file == Path("/run/thing")
    assert variable_name(ThingSettings, "drain_timeout_s") == "NODEFLOW_THING_DRAIN_TIMEOUT_S"


def test_all_faults_are_told_at_once_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODEFLOW_THING_SLOTS", "many")
    monkeypatch.setenv("NODEFLOW_THING_LOG_FORMAT", "xml")
    with pytest.raises(SettingsError) as caught:
        load(ThingSettings)
    message = str(caught.value)
    assert "\n" not in message
    assert "NODEFLOW_THING_PEER is not set (address of the peer)" in message
    assert "NODEFLOW_THING_SLOTS is 'many' but should be a valid integer" in message
    assert "for example NODEFLOW_THING_SLOTS=4" in message
    assert "NODEFLOW_THING_LOG_FORMAT is 'xml' but should be 'console' or 'json'" in message


@pytest.mark.parametrize("bind", ["7420", ":7420", "localhost", "::1:7420", "localhost:http", "localhost:70000"])
def test_a_malformed_bind_is_refused(environment: pytest.MonkeyPatch, bind: str) -> None:
    environment.setenv("NODEFLOW_THING_BIND", bind)
    with pytest.raises(SettingsError, match=f"NODEFLOW_THING_BIND is '{bind}' but should .*127.0.0.1:0"):
        load(ThingSettings)


def test_a_secret_is_never_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NODEFLOW_THING_TOKEN", "hunter2")
    with pytest.raises(SettingsError, match="NODEFLOW_THING_TOKEN is") as caught:
        load(ThingSettings)
    assert "hunter2" not in str(caught.value)


def test_a_default_that_is_drawn_is_no_example(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NODEFLOW_THING_NAME", "A B")
    with pytest.raises(SettingsError, match="NODEFLOW_THING_NAME is 'A B' but") as caught:
        load(ThingSettings)
    assert str(caught.value).endswith("(what it is called)")
