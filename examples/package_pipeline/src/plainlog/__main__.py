"""`python -m plainlog FILE`: prints the summary of a log as JSON."""

import json
import sys
from pathlib import Path

from plainlog import parse, summary


def main() -> None:
    """Print it."""
    if len(sys.argv) != 2:
        sys.exit("usage: plainlog FILE")
    with Path(sys.argv[1]).open(encoding="utf-8") as lines:
        print(json.dumps(summary(parse(lines))))


if __name__ == "__main__":
    main()
