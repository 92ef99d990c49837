"""Lines and entries."""

import unittest

from plainlog import parse


class ParsingTest(unittest.TestCase):
    """From lines to entries."""

    def test_a_line_is_an_entry(self) -> None:
        """Its parts, without the end of the line."""
        [entry] = parse(["2026-03-01T10:00:04 ERROR api card declined\n", "\n"])
        self.assertEqual((entry.level, entry.service, entry.message), ("ERROR", "api", "card declined"))
        self.assertEqual(entry.time.minute, 0)

    def test_what_is_none_is_named(self) -> None:
        """With its number."""
        with self.assertRaisesRegex(ValueError, "line 2 is no entry"):
            list(parse(["2026-03-01T10:00:04 INFO api started", "what is this line"]))
