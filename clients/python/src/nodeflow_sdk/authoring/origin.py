"""Where workers find a function: its module, its name there, and the directory that the module is imported from.

Owns the naming of functions, those of a script included. Must not know how workers import.
"""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path


class NotFindable(Exception):
    """Workers could not import a function; the message says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A function's address."""

    module: str
    name: str
    """Its qualified name in the module."""
    directory: Path
    """What must be on the import path."""
    digest: str = ""
    """Of the script that this process runs: `sha256:…`; empty for what was imported as a module."""

    def __str__(self) -> str:
        pin = f"@{self.digest}" if self.digest else ""
        return f"{self.module}:{self.name}{pin}"


def origin_of(function: Callable[..., object]) -> Origin:
    """Return where workers find a function; raises NotFindable."""
    name = getattr(function, "__qualname__", "")
    if "<lambda>" in name or not name:
        raise NotFindable("it has no name that workers could import it by; write it with def, in a module")
    if "<locals>" in name:
        raise NotFindable(
            f"{name.replace('.<locals>', '')} is defined inside a function, where workers cannot import it; "
            "define it at the top level of its module"
        )
    module = getattr(function, "__module__", "") or ""
    is_script = module == "__main__"
    if is_script:
        module = _module_of_script()
        file = getattr(sys.modules["__main__"], "__file__", None)
    else:
        file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        raise NotFindable(f"its module {module!r} has no file that workers could import; put it into a .py file")
    path = Path(file).resolve()
    digest = _digest_of(path) if is_script else ""
    return Origin(module=module, name=name, directory=_directory(path, module), digest=digest)


@cache
def _digest_of(script: Path) -> str:
    """Return the digest of a script as it was when this was asked first: while it defined its nodes."""
    with script.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def _module_of_script() -> str:
    """Return the name under which others import the script that this process runs."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if file is None:
        raise NotFindable("it was typed into an interpreter, where workers cannot find it; put it into a .py file")
    stem = Path(file).stem
    if stem == "__main__":
        raise NotFindable("it is in a __main__.py that was started as a directory; start its package with python -m")
    if not stem.isidentifier():
        raise NotFindable(
            f"workers import a script by its name, and {Path(file).name} cannot be imported; "
            f"rename it, to {_as_identifier(stem)}.py for one"
        )
    return stem


def _as_identifier(stem: str) -> str:
    name = "".join(each if each.isalnum() else "_" for each in stem)
    return name if name.isidentifier() else f"_{name}"


def _directory(file: Path, module: str) -> Path:
    path = file.parent if file.name == "__init__.py" else file
    return path.parents[min(module.count("."), len(path.parents) - 1)]
