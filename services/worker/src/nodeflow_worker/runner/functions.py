"""Finding functions, and noticing when their files change.

Owns the import path of the runner. A function that could not be found is looked for again each time.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from nodeflow_worker.runner import describe
from nodeflow_worker.runner.frames import Failed

CHECK_INTERVAL_S: Final = 0.3


class Functions:
    """The functions of one runner, found once each."""

    def __init__(self) -> None:
        self._directory = ""
        self._paths: tuple[str, ...] = ()
        self._files: dict[str, tuple[int, int]] = {}
        self._digests: dict[str, str] = {}
        self._modules_seen = 0

    def bind(self, paths: list[str]) -> None:
        """Put directories in front of the import path; the first is that of the workflow, or empty."""
        self._directory = paths[0]
        own = [each for each in paths if each]
        sys.path[:0] = own
        self._paths = tuple(os.path.join(os.path.realpath(each), "") for each in own)  # noqa: PTH118
        importlib.invalidate_caches()

    def find(self, address: str) -> Callable[..., Any] | Failed:
        """Import `module:callable`, or `module:callable@digest` from a file of that digest. Faults are told as such."""
        name, _, digest = address.partition("@")
        if digest:
            differs = self._differs(name, digest)
            if differs is not None:
                return differs
        return self._imported(name)

    def _differs(self, name: str, digest: str) -> Failed | None:
        """Compare the bytes of a module's file before anything of it is executed."""
        module = name.partition(":")[0]
        importlib.invalidate_caches()
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):  # a package above it is not there, or has no path
            spec = None
        file = spec.origin if spec is not None else None
        if file is None or not os.path.isfile(file):  # noqa: PTH113  # pathlib would slow every start
            return describe.code_differs(name, digest, f"there is no module {module!r} here")
        found = self._digests.get(file) or digest_of(file)
        if found == digest:
            # What changes later is not what is imported now; it is noticed as stale.
            self._digests[file] = digest
            return None
        return describe.code_differs(name, digest, f"{file} has {describe.shortened(found)} here")

    def _imported(self, name: str) -> Callable[..., Any] | Failed:
        module_name, colon, attributes = name.partition(":")
        if not colon or not module_name or not attributes or module_name.startswith("."):
            return describe.not_found(f"{name!r} names no function; it should be module:callable")
        importlib.invalidate_caches()
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
                return describe.missing_module(name, error.name, self._directory)
            return describe.not_found(f"{name}: importing {module_name!r} failed: {error}", error)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  # a module's body is user code
            return describe.not_found(f"{name}: importing {module_name!r} failed: {describe.in_words(error)}", error)
        found: Any = module
        for attribute in attributes.split("."):
            owner = found
            found = getattr(owner, attribute, None)
            if found is None:
                return describe.missing_attribute(name, module, attribute, owner)
        # What a decorator of an SDK put in its place may name what a worker should call instead.
        found = getattr(found, "__nodeflow_function__", found)
        if not callable(found):
            return describe.not_found(f"{name} is of type {type(found).__name__}, which cannot be called")
        self.note_files()
        function: Callable[..., Any] = found
        return function

    def note_files(self) -> None:
        """Remember how the files of newly imported modules look now."""
        if not self._paths or len(sys.modules) == self._modules_seen:
            return
        self._modules_seen = len(sys.modules)
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file not in self._files:
                real = os.path.realpath(file)
                if real.startswith(self._paths) and "site-packages" not in real:
                    self._files[file] = _stamp(file)

    def stale(self) -> bool:
        """Whether a file of an imported module has changed since."""
        self.note_files()
        return any(_stamp(file) != stamp for file, stamp in self._files.items())


def digest_of(file: str) -> str:
    """Return what names the bytes of a file: `sha256:…`."""
    with open(file, "rb") as content:  # noqa: PTH123  # as above
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def _stamp(file: str) -> tuple[int, int]:
    try:
        stat = os.stat(file)  # noqa: PTH116  # called for every file several times a second
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)
