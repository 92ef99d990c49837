"""The two consoles: stdout for data, stderr for progress.

Owns widths and colours. Must not know what is printed.
"""

import sys

from rich.console import Console
from rich.text import Text

# A table that goes into a file or a pipe is never cut.
_UNBOUNDED = 10_000


def out() -> Console:
    """Return the console for data. rich heeds NO_COLOR, and colours nothing that is not a terminal."""
    width = None if sys.stdout.isatty() else _UNBOUNDED
    return Console(file=sys.stdout, width=width, highlight=False)


def err() -> Console:
    """Return the console for progress and errors."""
    width = None if sys.stderr.isatty() else _UNBOUNDED
    return Console(file=sys.stderr, width=width, highlight=False)


def say(text: str | Text) -> None:
    """Print a line of progress."""
    err().print(text if isinstance(text, Text) else Text(text), soft_wrap=True)


def write(text: str) -> None:
    """Print data as it is."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
