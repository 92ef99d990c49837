"""The environment that make keeps: used as it is, or made anew when it cannot be used."""

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[3] / "Makefile"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make on PATH")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A directory with the Makefile and an environment; its pip is empty, which takes no time to install."""
    directory = tmp_path / "repository"
    directory.mkdir()
    shutil.copy(MAKEFILE, directory)
    venv.create(directory / ".venv", symlinks=True)
    [packages] = directory.glob(".venv/lib/python3*/site-packages")
    (packages / "pip").mkdir()
    (packages / "pip" / "__init__.py").touch()
    return directory


def is_kept(repository: Path) -> bool:
    command = ["make", "--question", f"PYTHON={sys.executable}", ".venv/pyvenv.cfg"]
    return subprocess.run(command, cwd=repository, check=False).returncode == 0


def test_an_environment_that_can_be_used_is_kept(repository: Path) -> None:
    assert is_kept(repository)


def test_a_copy_of_the_repository_does_not_read_packages_where_they_were(repository: Path) -> None:
    copy = repository / "copy" / "repository"
    shutil.copytree(repository, copy, symlinks=True)
    assert is_kept(repository)
    assert not is_kept(copy)


def without_python(environment: Path) -> None:
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to(environment / "python-that-was-removed")


def without_pip(environment: Path) -> None:
    [pip] = environment.glob("lib/python3*/site-packages/pip")
    shutil.rmtree(pip)


@pytest.mark.parametrize("damage", [without_python, without_pip])
def test_one_that_cannot_be_used_is_made_anew(repository: Path, damage: Callable[[Path], None]) -> None:
    damage(repository / ".venv")
    assert not is_kept(repository)
