"""A disk of a few megabytes, which a test fills and frees: a tmpfs in a mount namespace of its own.

Owns the mount and the filler. Must not know what is stored. Needs no rights where the kernel allows user namespaces;
nothing stays behind: the disk is gone with the process that holds it and those that were started on it.
"""

import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_PIECE_BYTES = 1 << 20
_NAMESPACES = ("--user", "--mount")


class SmallDisk:
    """A directory that is a small disk, for the processes that are started on it."""

    def __init__(self, directory: Path, holder: int) -> None:
        self._holder = holder
        self.directory = Path(f"/proc/{holder}/root{directory}")
        """The way to what is on it, from outside."""

    def command(self, working_directory: Path, *command: str) -> Sequence[str]:
        """Return what starts a command that sees the disk."""
        enter = ("nsenter", *_NAMESPACES, "--preserve-credentials", f"--target={self._holder}")
        # Entering leads to the root directory.
        return (*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(working_directory), *command)

    def fill(self) -> None:
        """Take all the room there is."""
        file = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            size = _PIECE_BYTES
            while size:
                try:
                    os.write(file, bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2
        finally:
            os.close(file)

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.directory / "filler"


@contextmanager
def small_disk(directory: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Have a directory be a disk of that size; skips the test where the kernel allows no user namespaces."""
    directory.mkdir(parents=True, exist_ok=True)
    script = f'mount -t tmpfs -o size={size_bytes} none "$0" && echo mounted && exec cat'
    command = ["unshare", "--map-root-user", *_NAMESPACES, "sh", "-c", script, str(directory.resolve())]
    # It reads a pipe that nobody writes to, so it ends with this process, however that ends.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        if holder.stdout.readline() != b"mounted\n":
            pytest.skip("this kernel allows no mounts in user namespaces, so there is no small disk")
        yield SmallDisk(directory.resolve(), holder.pid)
        holder.stdin.close()
