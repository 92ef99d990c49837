"""`nodeflow init`: a project to begin with, which runs as it is.

Owns the command. Must not know what the files say: `starter` has them.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Final

import typer

from nodeflow_sdk.cli import starter
from nodeflow_sdk.cli.errors import usage_error
from nodeflow_sdk.cli.terminal import say, write

_FILES: Final = {
    "workflow.yaml": "workflow.yaml",
    "functions.py": "functions.py",
    "test_workflow.py": "test_workflow.py",
    "README.md": "README.md",
    "data/a.txt": "data/a.txt",
    "data/b.txt": "data/b.txt",
    # Under its own name, git and build tools would heed it here.
    "gitignore": ".gitignore",
}


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("init", epilog="Example: nodeflow init my-flows")(init)


def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where; made if it is not there.")] = Path(),
) -> None:
    """Make a project that runs: a workflow, its functions, a test, data, a README, a .gitignore. Overwrites nothing."""
    taken = [name for name in _FILES.values() if (directory / name).exists()]
    if taken:
        raise usage_error(f"{directory} has {', '.join(taken)} already", "another directory: nodeflow init my-flows")
    source = files(starter)
    try:
        for name, target in _FILES.items():
            _copy(source.joinpath(name), directory / target)
    except OSError as error:
        raise usage_error(f"{directory} cannot be written: {error.strerror or error}", "another directory") from None
    for target in _FILES.values():
        write(str(directory / target))
    go = "" if directory == Path() else f"cd {directory} && "
    say(f"try: {go}nodeflow run workflow.yaml --watch")


def _copy(source: Traversable, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
