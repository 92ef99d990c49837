"""Sums."""

import unittest

from plainlog import parse, summary


class SummaryTest(unittest.TestCase):
    """What a log comes to."""

    def test_levels_are_counted_and_the_worst_error_is_named(self) -> None:
        """The most frequent one."""
        lines = ["2026-03-01T10:00:00 ERROR a x", "2026-03-01T10:00:01 INFO a y", "2026-03-01T10:00:02 ERROR a x"]
        self.assertEqual(summary(parse(lines)), {"levels": {"ERROR": 2, "INFO": 1}, "worst": "a: x"})

    def test_nothing_comes_to_nothing(self) -> None:
        """No errors, no worst one."""
        self.assertEqual(summary([]), {"levels": {}, "worst": None})
