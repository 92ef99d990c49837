"""Hunts one bug: plants it in a copy of the sources, and lets seeds and tests look for it.

Owns the copies and the verdicts. Must not know which bugs there are. The work tree is never touched.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.planted import Bug

REPOSITORY: Final = Path(__file__).parents[2]
COPIED: Final = ("protos", "gen", "shared", "services", "clients", "examples", "docs", "tests", "pyproject.toml")
SOURCES: Final = ("gen", "shared/src", "services/*/src", "clients/*/src")
LIMIT_S: Final = 600.0
"""After this a search counts as a catch: a bug that hangs the suite is seen by everyone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catch:
    """What caught a bug, and after how long."""

    by: str
    seconds: float


class Copy:
    """The sources, with or without a bug. A context: the copy is deleted at its end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        for name in COPIED:
            source = REPOSITORY / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "node_modules", ".*")
                shutil.copytree(source, directory / name, ignore=ignored)
            else:
                shutil.copy(source, directory / name)

    def plant(self, bug: Bug) -> None:
        """Change the one place. Raises LookupError if it is not there exactly once."""
        path = self._directory / bug.path
        text = path.read_text()
        if text.count(bug.right) != 1:
            raise LookupError(f"{bug.path} has {text.count(bug.right)} places like the one of {bug.name!r}: plant anew")
        path.write_text(text.replace(bug.right, bug.wrong))

    def seeds(self, count: int) -> Catch | None:
        """Simulate seeds until one fails."""
        output, seconds, code = self._run("-m", "tests.simulation.seeds", "--seeds", str(count), "--jobs", "1")
        if not code:
            return None
        found = re.search(r"FROM=(\d+)", output)
        return Catch(by=f"seed {found[1]}" if found else _last_line(output), seconds=seconds)

    def tests(self, *paths: str) -> Catch | None:
        """Run tests until one fails."""
        output, seconds, code = self._run("-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *paths)
        if not code:
            return None
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
        return Catch(by=found[1] if found else _last_line(output), seconds=seconds)

    def _run(self, *arguments: str) -> tuple[str, float, int]:
        sources = [str(path) for pattern in SOURCES for path in sorted(self._directory.glob(pattern))]
        began = time.monotonic()
        try:
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=self._directory,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sources), "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it hung for {LIMIT_S:.0f} s", LIMIT_S, 1
        return done.stdout, time.monotonic() - began, done.returncode


def _last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1][:100] if lines else "an exit without a word"
