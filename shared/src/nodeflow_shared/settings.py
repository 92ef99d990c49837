"""Typed settings from environment variables, validated before anything starts.

Owns the settings that every service has, and the wording of what is wrong with one. Must not know any service's own.
"""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from nodeflow_shared.address import parse_address
from nodeflow_shared.errors import StartupError

S = TypeVar("S", bound="BaseSettings")

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class SettingsError(StartupError):
    """Environment variables are missing or wrong; the message names each, what is wrong and what would be right."""


class ServiceSettings(BaseSettings):
    """What every service can be told; a subclass sets its `env_prefix` (NODEFLOW_<NAME>_) in `model_config`."""

    model_config = SettingsConfigDict(env_prefix="NODEFLOW_", extra="ignore", frozen=True)

    bind: str = Field("127.0.0.1:0", description="address to listen on, host:port; port 0 takes a free one")
    insecure: bool = Field(False, description="allow a bind that other machines can reach, without TLS")
    log_level: LogLevel = Field("INFO", description="least severe level that is logged")
    log_format: Literal["console", "json"] = Field("console", description="form of a log line")
    drain_timeout_s: float = Field(5.0, ge=0, description="seconds that work in progress gets to finish at a stop")
    max_calls: int = Field(10_000, ge=1, description="calls that are served at once, open streams included")
    reader_timeout_s: float = Field(
        120.0, gt=0, description="seconds that the reader of a stream may take for one message"
    )
    announce_file: Path | None = Field(None, description="file that gets the real address once the service is ready")
    exit_with_parent: bool = Field(False, description="drain and exit when the parent process has died")
    use_uvloop: bool = Field(True, description="run on uvloop if it is installed")

    @field_validator("bind")
    @classmethod
    def _check_bind(cls, bind: str) -> str:
        parse_address(bind)
        return bind

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, level: object) -> object:
        return level.upper() if isinstance(level, str) else level


def load(cls: type[S]) -> S:
    """Read the settings from the environment; raises SettingsError with one line for all faults."""
    try:
        return cls()
    except ValidationError as error:
        faults = [_explain(cls, each) for each in error.errors(include_url=False)]
        raise SettingsError("; ".join(faults)) from None


def variable_name(cls: type[BaseSettings], field: str) -> str:
    """Return the environment variable that sets a field."""
    return f"{cls.model_config.get('env_prefix', '')}{field}".upper()


def _explain(cls: type[BaseSettings], fault: ErrorDetails) -> str:
    # A path longer than one leads into a nested value; the variable is that of the field.
    field = str(fault["loc"][0]) if fault["loc"] else ""
    info = cls.model_fields.get(field)
    name = variable_name(cls, field) if info else cls.__name__
    if fault["type"] == "missing":
        problem = "is not set"
    else:
        message = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        problem = f"is {_shown(cls, field, fault['input'])} but {message}"
    wanted = f" ({info.description})" if info and info.description else ""
    return f"{name} {problem}{wanted}{_example(name, info)}"


def _example(name: str, info: FieldInfo | None) -> str:
    if info is None or info.is_required() or info.default is None or info.default_factory is not None:
        return ""
    return f", for example {name}={info.default}"


def _shown(cls: type[BaseSettings], field: str, value: object) -> str:
    info = cls.model_fields.get(field)
    secret = info is not None and "Secret" in str(info.annotation)
    return "(hidden)" if secret else repr(value)
