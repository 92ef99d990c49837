"""How a node runs: retries, time, condition. Owns the checks of what is given, and its form in a document."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

Duration = str | int | float | timedelta
"""`"30s"`, `"1m30s"`, `"500ms"`, a number of seconds, or a timedelta."""

_DURATION: Final = re.compile(
    r"(?=.)(\d+(\.\d+)?d)?(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s)?(\d+(\.\d+)?ms)?", re.ASCII
)
MAX_RETRIES: Final = 999
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The wait before a retry: `initial * factor ** retries`, at most `max`, give or take `jitter` (0 to 1) of it."""

    initial: Duration = "1s"
    factor: float = 2.0
    max: Duration | None = None
    """60 s, or `initial` if that is longer."""
    jitter: float = 0.2

    def document(self) -> dict[str, object]:
        """Return its form in a document; raises ValueError."""
        if not 1 <= self.factor <= 1_000:
            raise ValueError(f"factor={self.factor!r} must be between 1 and 1000")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter={self.jitter!r} must be between 0 and 1")
        longest = {} if self.max is None else {"max": duration("max", self.max)}
        return {
            "initial": duration("initial", self.initial),
            "factor": self.factor,
            **longest,
            "jitter": self.jitter,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What `@node(…)` takes."""

    name: str = ""
    retries: int = 0
    """Tries after the first."""
    backoff: Backoff | None = None
    timeout: Duration | None = None
    """Of one try."""
    when: str | bool | None = None
    """A condition in CEL over `inputs` and `nodes`."""

    def document(self) -> dict[str, object]:
        """Return the fields of a node in a document; raises ValueError for a value that cannot be meant."""
        if self.name and not NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r} should be letters, digits, _ or -, at most 63, a letter or _ first")
        if self.retries not in range(MAX_RETRIES + 1):
            raise ValueError(f"retries={self.retries!r} must be a whole number from 0 to {MAX_RETRIES}")
        fields: dict[str, object] = {}
        if self.when is not None:
            fields["when"] = self.when
        if self.backoff is not None:
            fields["retry"] = {"attempts": self.retries + 1, "backoff": self.backoff.document()}
        elif self.retries:
            fields["retry"] = {"attempts": self.retries + 1}
        if self.timeout is not None:
            fields["timeout"] = duration("timeout", self.timeout)
        return fields


def duration(name: str, value: Duration) -> str:
    """Return a duration as documents write it; raises ValueError."""
    if isinstance(value, str):
        if not _DURATION.fullmatch(value):
            raise ValueError(f'{name}={value!r} is no duration; write it like "30s", "1m30s", "500ms" or "2h"')
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise ValueError(f'{name}={value!r} is no duration; write "30s", or a number of seconds')  # noqa: TRY004
    milliseconds = round((value.total_seconds() if isinstance(value, timedelta) else value) * 1_000)
    if milliseconds <= 0:
        raise ValueError(f"{name}={value!r} must be longer than nothing")
    return f"{milliseconds // 1_000}s" if milliseconds % 1_000 == 0 else f"{milliseconds}ms"


def seconds_of(name: str, value: Duration) -> float:
    """Return a duration in seconds; raises ValueError."""
    if not isinstance(value, str):
        return value.total_seconds() if isinstance(value, timedelta) else float(value)
    found = _DURATION.fullmatch(value)
    if found is None:
        raise ValueError(f'{name}={value!r} is no duration; write it like "30s", "1m30s", "500ms" or "2h"')
    parts = zip(found.groups()[::2], (86_400, 3_600, 60, 1, 0.001), strict=True)
    return sum(float(part.rstrip("dhms")) * factor for part, factor in parts if part)


def summary_of(function: object) -> Mapping[str, str]:
    """Return the first line of a docstring as the description of what it describes."""
    text = (getattr(function, "__doc__", None) or "").strip().partition("\n")[0]
    return {"description": text} if text else {}
