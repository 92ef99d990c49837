"""What a log comes to."""

from collections import Counter
from collections.abc import Iterable

from plainlog.parsing import Entry


def summary(entries: Iterable[Entry]) -> dict[str, object]:
    """How many entries of each level there are, and which error is the most frequent."""
    entries = list(entries)
    errors = Counter(f"{entry.service}: {entry.message}" for entry in entries if entry.level == "ERROR")
    return {
        "levels": dict(sorted(Counter(entry.level for entry in entries).items())),
        "worst": errors.most_common(1)[0][0] if errors else None,
    }
