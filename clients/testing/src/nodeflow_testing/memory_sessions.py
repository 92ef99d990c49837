"""Session ids in memory: the worker's port `Sessions` for tests. Owns predictable ids; knows no files."""

from collections.abc import Sequence


class MemorySessions:
    """Draws `<prefix>-1`, `<prefix>-2`, …, in the form of UUIDs; `predecessors` are the sessions of dead processes."""

    def __init__(self, number: int = 1, predecessors: Sequence[str] = ()) -> None:
        self._number = number
        self._drawn = 0
        self._current = ""
        self._dead = list(predecessors)
        self.ended: list[str] = []

    def begin(self) -> str:
        if self._current:
            self._dead.append(self._current)
        self._drawn += 1
        self._current = f"00000000-0000-4000-{self._number:04x}-{self._drawn:012x}"
        return self._current

    def dead(self) -> Sequence[str]:
        return list(self._dead)

    def forget(self, session_ids: Sequence[str]) -> None:
        self._dead = [each for each in self._dead if each not in session_ids]

    def end(self) -> None:
        self.ended.append(self._current)

    def close(self) -> None:
        self._current = ""

    def left_behind(self) -> list[str]:
        """The sessions that a successor finds dead when this process is gone."""
        current = [self._current] if self._current and self._current not in self.ended else []
        return [*self._dead, *current]
