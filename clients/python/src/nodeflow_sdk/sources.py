"""The source of a pipeline: a directory as a tar archive, the same bytes for the same files wherever they lie.

Owns which files belong to it and how they are packed. Must not know how archives are sent.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pathspec import GitIgnoreSpec

SOURCE_INPUT: Final = "source"
"""The input that says where the source of a pipeline is stored."""
LEFT_OUT: Final = frozenset({".git", ".nodeflow"})
"""Never packed, whatever .gitignore says: what is the version control's own, and a suite's data."""
_IGNORE_FILE: Final = ".gitignore"
_TIME_S: Final = 315_619_200
"""The time of every file, 1980-01-02: the first full day that a zip file, and so a wheel, can tell."""


class UnusableSource(Exception):
    """A source cannot be packed; the message names the file and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedSource:
    """An archive that is ready to be sent."""

    archive: Path
    file_count: int
    """Files in it; 0 for an archive that was one already."""


@contextmanager
def packed(path: Path) -> Iterator[PackedSource]:
    """Pack a directory, or take an archive as it is, until the context ends. Raises UnusableSource."""
    if path.is_file():
        if not tarfile.is_tarfile(path):
            raise UnusableSource(f"{path} is no tar archive; name a directory, or an archive that `tar` has made")
        yield PackedSource(archive=path, file_count=0)
        return
    if not path.is_dir():
        raise UnusableSource(f"{path} does not exist; `source.path` is looked for from the document's directory on")
    with TemporaryDirectory(prefix="nodeflow-source-") as directory:
        archive = Path(directory) / "source.tar"
        count = _pack(path, archive)
        if not count:
            raise UnusableSource(f"{path} has no files to pack; see its {_IGNORE_FILE}")
        yield PackedSource(archive=archive, file_count=count)


def files_of(root: Path) -> Iterator[Path]:
    """The files and symbolic links below a directory that no .gitignore leaves out, relative to it, in order."""
    yield from _below(root, Path(), ())


_Specs = tuple[tuple[Path, GitIgnoreSpec], ...]


def _below(root: Path, directory: Path, specs: _Specs) -> Iterator[Path]:
    ignore = root / directory / _IGNORE_FILE
    try:
        if ignore.is_file():
            lines = ignore.read_text(encoding="utf-8", errors="replace").splitlines()
            specs = (*specs, (directory, GitIgnoreSpec.from_lines(lines)))
        entries = sorted(os.scandir(root / directory), key=lambda entry: entry.name)
    except OSError as error:
        raise UnusableSource(f"{error.filename} cannot be read: {error.strerror}") from error
    for entry in entries:
        path = directory / entry.name
        is_directory = entry.is_dir(follow_symlinks=False)
        if entry.name in LEFT_OUT or _ignored(path, is_directory, specs):
            continue
        if is_directory:
            yield from _below(root, path, specs)
        elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
            yield path


def _ignored(path: Path, is_directory: bool, specs: _Specs) -> bool:
    """Whether the nearest .gitignore that says anything about a path leaves it out."""
    for directory, spec in reversed(specs):
        text = path.relative_to(directory).as_posix() + ("/" if is_directory else "")
        said = spec.check_file(text).include
        if said is not None:
            return said
    return False


def _pack(root: Path, archive: Path) -> int:
    """Write an archive without anything that differs from machine to machine: no owners, no times, two modes."""
    count = 0
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as file:
        for path in files_of(root):
            try:
                _add(file, root, path)
            except OSError as error:
                raise UnusableSource(f"{root / path} cannot be read: {error.strerror or error}") from error
            count += 1
    return count


def _add(file: tarfile.TarFile, root: Path, path: Path) -> None:
    entry = tarfile.TarInfo(path.as_posix())
    entry.mtime = _TIME_S
    found = (root / path).lstat()
    if stat.S_ISLNK(found.st_mode):
        entry.type = tarfile.SYMTYPE
        entry.linkname = os.readlink(root / path)  # noqa: PTH115  # as it is written
        end = Path(os.path.normpath(path.parent / entry.linkname))
        if end.is_absolute() or end.parts[:1] == ("..",):
            raise UnusableSource(f"{root / path} is a link out of the source; name it in a {_IGNORE_FILE}")
        file.addfile(entry)
        return
    with (root / path).open("rb") as content:
        size = os.fstat(content.fileno()).st_size
        entry.size = size
        entry.mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
        file.addfile(entry, content)
