"""From lines of text to entries."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a log."""

    time: datetime
    level: str
    service: str
    message: str


def parse(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries of a log; raises ValueError that names the line which is none."""
    for number, line in enumerate(lines, start=1):
        parts = line.split(maxsplit=3)
        if not parts:
            continue
        try:
            time, level, service, message = parts
            yield Entry(datetime.fromisoformat(time), level, service, message.rstrip())
        except ValueError as error:
            raise ValueError(f"line {number} is no entry: {line.rstrip()!r}") from error
