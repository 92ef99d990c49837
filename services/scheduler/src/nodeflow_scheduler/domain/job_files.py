"""The files that a job finds in its working directory: the artifacts of other jobs at the paths where they were left.

Owns which of two files of one path counts. Must not know how files travel.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodeflow_scheduler.domain import json_text
from nodeflow_scheduler.domain.expressions import ExpressionError, Scope
from nodeflow_scheduler.domain.values import Stored, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesOf:
    """The files of some nodes, as an expression: an object from path to `{"digest": …, "size_bytes": …}`.

    A later stage's file stands for an earlier one's of the same path. Two different files of one stage at one path are
    an error, for none of them is the right one.
    """

    stages: tuple[tuple[int, ...], ...]
    """Nodes, by stage in their order."""
    nodes: frozenset[int]
    text: str = "artifacts"

    def evaluate(self, scope: Scope) -> Value:
        """The object; raises ExpressionError."""
        files: dict[str, Stored] = {}
        for stage in self.stages:
            files.update(self._of_stage(stage, scope))
        described = {path: {"digest": file.digest, "size_bytes": file.size_bytes} for path, file in files.items()}
        return json_text.encode(described)

    def _of_stage(self, stage: tuple[int, ...], scope: Scope) -> dict[str, Stored]:
        files: dict[str, Stored] = {}
        for artifacts in (each for node in stage for each in scope.files_of(node)):
            for path, file in artifacts.items():
                if files.setdefault(path, file).digest != file.digest:
                    problem = f"two tasks of one stage left different files at {path!r}"
                    raise ExpressionError(self.text, f"{problem}: give them other names, or name one job in `uses`")
        return files
