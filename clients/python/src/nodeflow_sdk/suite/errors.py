"""What can go wrong with a suite, in words for a person."""


class SuiteError(Exception):
    """A suite cannot start, or cannot be had; the message says what is wrong and what would be right."""
