"""suite.json: where a running suite can be reached, for others on this machine.

Owns the file's form and how it is found. Must not know whether the suite still lives.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

DATA_DIR_NAME: Final = ".nodeflow"
_FILE_NAME: Final = "suite.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRecord:
    """What a suite writes once all its services are healthy, and after each restart."""

    pid: int
    """The supervisor's."""
    start_time: str
    """ISO 8601, UTC."""
    lasting: bool
    """Whether it is there for others until it is stopped; otherwise it ends with the run that it serves."""
    addresses: dict[str, str]
    """host:port by service."""
    pids: dict[str, int]
    """Process ids by service."""


def write_record(data_dir: Path, record: SuiteRecord) -> None:
    """Write the record so that readers see all of it or none. Raises OSError."""
    partial = data_dir / f".{_FILE_NAME}.{os.getpid()}"
    try:
        partial.write_text(json.dumps(asdict(record), indent=2) + "\n")
        partial.replace(data_dir / _FILE_NAME)
    finally:
        partial.unlink(missing_ok=True)


def remove_record(data_dir: Path) -> None:
    """Remove the record, if there is one."""
    (data_dir / _FILE_NAME).unlink(missing_ok=True)


def read_record(data_dir: Path) -> SuiteRecord | None:
    """Return the record in a data directory, or None if there is none that makes sense."""
    try:
        return SuiteRecord(**json.loads((data_dir / _FILE_NAME).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def find_record(start: Path) -> tuple[Path, SuiteRecord] | None:
    """Return the nearest data directory with a record, in `start` or above it, and the record."""
    for directory in (start, *start.parents):
        record = read_record(directory / DATA_DIR_NAME)
        if record is not None:
            return directory / DATA_DIR_NAME, record
    return None
