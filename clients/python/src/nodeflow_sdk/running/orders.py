"""What a workflow asks to be run: itself as a suite takes it, and one execution of it.

Owns these values only; loads no gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nodeflow_shared.errors import FieldViolation


class _EveryName:
    """Holds every name: of a document that was not read here, each output may be an artifact."""

    def __contains__(self, _name: object) -> bool:
        return True


EVERY_NAME: Final[Container[str]] = _EveryName()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submittable:
    """A workflow as a suite takes it, and what its definition must do for a run."""

    source: bytes
    """The document."""
    directory: str
    """Where workers import its functions from."""
    whole: Container[str]
    """The names of outputs that may be artifacts."""
    value: Callable[[Mapping[str, object]], object]
    """Makes the result of the outputs."""
    at_fault: Callable[[FieldViolation], Exception]
    """The error to raise for a fault of the document."""
    content_type: str = "application/json"
    has_source: bool = False
    """Whether it may be a pipeline with a `source`, to be packed with each run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One execution to start."""

    inputs: Mapping[str, object]
    suite: str | None
    request_id: str
    labels: Mapping[str, str]
