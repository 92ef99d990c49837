"""Writes constraints.txt: resolves all distributions and the development tools in an empty environment, pins what came.

Owns that file only. It names versions and never where they came from: pip's own configuration says that.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HEADER = """\
# Exact versions of everything the project installs, at run time and for development.
# The lower bounds are in each pyproject.toml; `make constraints` writes this file from a clean resolve of them.
"""


def resolve(distributions: list[str]) -> list[str]:
    """Installs everything into a temporary environment; returns what is not ours as sorted `name==version` lines."""
    with tempfile.TemporaryDirectory() as directory:
        venv.create(directory, with_pip=True)
        pip = [f"{directory}/bin/python", "-m", "pip", "--disable-pip-version-check"]
        local = [f"./{path}" for path in distributions]
        # hatchling and editables build the editable installs, which happen without build isolation.
        tools = ["hatchling", "editables", "-r", "requirements-dev.txt"]
        subprocess.run([*pip, "install", "--quiet", *tools, *local], cwd=REPOSITORY, check=True)
        frozen = subprocess.run([*pip, "freeze", "--all"], check=True, capture_output=True, text=True).stdout
    ours = ("nodeflow-", "pip==")
    return sorted((line for line in frozen.splitlines() if not line.startswith(ours)), key=str.lower)


def main() -> int:
    """Resolves the distributions named on the command line, and replaces constraints.txt."""
    lines = resolve(sys.argv[1:])
    (REPOSITORY / "constraints.txt").write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
