"""What workers ask, and which scheduler stream owes the answer.

Owns the questions that wait. Must not know what they are about.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Questions:
    """Questions by number. Each is answered or refused once, or dropped by whoever asked."""

    _streams: dict[int, int] = field(default_factory=dict)

    def ask(self, question: int, stream: int) -> None:
        """Note that a stream owes an answer."""
        self._streams[question] = stream

    def take(self, question: int, stream: int) -> bool:
        """Note an answer; say whether it is awaited, from this stream."""
        if self._streams.get(question) != stream:
            return False
        del self._streams[question]
        return True

    def drop(self, question: int) -> None:
        """Forget a question."""
        self._streams.pop(question, None)

    def take_all(self, stream: int) -> list[int]:
        """Forget what a stream owes, and return it in the order of asking."""
        owed = [question for question, owing in self._streams.items() if owing == stream]
        for question in owed:
            del self._streams[question]
        return owed
