"""How much room a disk has.

Owns the question and what its answer means to a store. Must not know what is to be written.
"""

import shutil
from pathlib import Path

from nodeflow_state_manager.ports import StoreFull

RETRY_AFTER_S = 1.0


def check_room(directory: Path, wanted_bytes: int) -> None:
    """Raise StoreFull unless the disk of a directory has so many bytes free."""
    if not wanted_bytes:
        return
    free = shutil.disk_usage(directory).free
    if free < wanted_bytes:
        raise StoreFull(
            f"the disk of {directory} has {free:,} bytes free, and {wanted_bytes:,} are needed to go on",
            retry_after_s=RETRY_AFTER_S,
        )
