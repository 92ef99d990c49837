"""Directories that processes run in: one for each attempt, all below one that is this worker's alone.

Owns their making and removal, which of them are a dead worker's, and what is found in them: the output file, the
declared artifacts.
"""

import asyncio
import contextlib
import errno
import fcntl
import mimetypes
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from nodeflow_worker.domain.invocation import OUTPUT_FILE, WORK_DIRECTORY
from nodeflow_worker.domain.process_ends import MAX_ARTIFACTS, MAX_OUTPUT_BYTES
from nodeflow_worker.domain.values import OCTETS, LeftFile

EMPTY_KEPT: Final = 64

_PREFIX: Final = "processes-"
_WORK_MODE: Final = 0o700


class WorkDirectories:
    """The directory `<parent>/processes-…`, locked until this object is closed, and those of attempts in it."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        # Locked before it has its name: under it, no other worker can take it for a dead one's.
        partial = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=parent.resolve()))
        self._lock = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = partial.rename(partial.with_name(partial.name.removeprefix(".")))
        self._last = 0
        self._empty: list[str] = []
        self._removals: set[asyncio.Future[None]] = set()

    def next(self) -> str:
        """The path of a new attempt's directory, with an empty working directory in it."""
        if self._empty:
            return self._empty.pop()
        self._last += 1
        root = f"{self.path}/{self._last}"
        os.mkdir(root, 0o700)  # noqa: PTH102  # as quick as can be
        os.mkdir(f"{root}/{WORK_DIRECTORY}", _WORK_MODE)  # noqa: PTH102
        return root

    def give_back(self, root: str) -> None:
        """Take an attempt's directory: an untouched one is kept for another attempt, any other one is removed.

        To make and to remove a directory can wait for the file system's journal, and so for everybody else's writes.
        """
        if not root:  # not even the directory could be made
            return
        if len(self._empty) < EMPTY_KEPT and _untouched(root):
            self._empty.append(root)
            return
        removal = asyncio.get_running_loop().run_in_executor(None, remove_all, root)
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def close(self) -> None:
        """Remove all that is left, and unlock."""
        await asyncio.gather(*self._removals)
        await asyncio.to_thread(remove_all, str(self.path))
        os.close(self._lock)


def _untouched(root: str) -> bool:
    work = f"{root}/{WORK_DIRECTORY}"
    try:
        modes = [stat.S_IMODE(os.stat(each).st_mode) for each in (root, work)]  # noqa: PTH116
        return modes == [0o700, _WORK_MODE] and os.listdir(root) == [WORK_DIRECTORY] and not os.listdir(work)  # noqa: PTH208
    except OSError:
        return False


def read_output(root: str) -> bytes | int:
    """What a process wrote to its output file, or its size if that is too much; nothing if there is none.

    Raises OSError if it made a directory of it.
    """
    if os.path.isdir(f"{root}/{OUTPUT_FILE}"):  # noqa: PTH112
        raise IsADirectoryError(errno.EISDIR, "what NODEFLOW_OUTPUT names is a directory, and should be a file")
    try:
        fd = os.open(f"{root}/{OUTPUT_FILE}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    with open(fd, "rb") as file:  # noqa: PTH123  # by its fd
        size = os.fstat(fd).st_size
        return size if size > MAX_OUTPUT_BYTES else file.read(MAX_OUTPUT_BYTES)


def output_bytes(root: str) -> int:
    """How large the output file of a process is; 0 if there is none."""
    try:
        return os.lstat(f"{root}/{OUTPUT_FILE}").st_size
    except OSError:
        return 0


def find_files(root: str, patterns: Sequence[str]) -> tuple[list[LeftFile], list[str]]:
    """The files that globs name, each once, with those below directories that they name; and globs without any.

    Links to directories are not followed below a `**`: they may lead in circles. Ends once there are too many.
    """
    work = os.path.realpath(f"{root}/{WORK_DIRECTORY}")
    files: dict[str, LeftFile] = {}
    unmatched: list[str] = []
    for pattern in patterns:
        name = ""
        for name in _names(work, pattern):
            content_type = mimetypes.guess_type(name)[0] or OCTETS
            shown = name.encode("utf-8", "backslashreplace").decode()  # Names need not be text.
            files[name] = LeftFile(name=shown, path=f"{work}/{name}", content_type=content_type)
            if len(files) > MAX_ARTIFACTS:
                break
        if not name:
            unmatched.append(pattern)
    return [files[name] for name in sorted(files)], unmatched


def _names(work: str, pattern: str) -> Iterator[str]:
    """The files that match, or are below what matches; nothing that leads out of the working directory."""
    # Within a name `**` means no more than `*`, which `Path.glob` would refuse to guess.
    steps = [step if step == "**" else re.sub(r"\*+", "*", step) for step in PurePosixPath(pattern).parts]
    for match in Path(work).glob("/".join(steps)) if steps else [Path(work)]:
        for each in match.rglob("*") if match.is_dir() and not match.is_symlink() else [match]:
            if each.is_file() and os.path.realpath(each).startswith(work + os.sep):
                yield os.path.normpath(each.relative_to(work))


def left_behind(parent: Path) -> Iterator[Path]:
    """Yield the directories of workers that are dead, each locked meanwhile."""
    for directory in parent.resolve().glob(f"{_PREFIX}*"):
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield directory
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def remove_all(path: str) -> None:
    """Remove a directory and all below it, as far as that is possible."""
    for folder, _, _ in os.walk(path):
        if not os.access(folder, os.W_OK | os.X_OK):  # the process may have taken rights away from itself
            with contextlib.suppress(OSError):
                Path(folder).chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)
