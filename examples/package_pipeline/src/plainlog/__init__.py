"""Reads plain log files and sums them up. Small, and real enough to be checked, tested and built."""

from plainlog.parsing import Entry, parse
from plainlog.summary import summary

__all__ = ["Entry", "parse", "summary"]
__version__ = "1.2.0"
