"""Sources of pipelines: which files belong to them, and that the same files are the same bytes."""

import os
import tarfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from nodeflow_sdk.sources import UnusableSource, files_of, packed


def made(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def listed(root: Path) -> list[str]:
    return [each.as_posix() for each in files_of(root)]


def digest_of(path: Path) -> str:
    with packed(path) as source:
        return sha256(source.archive.read_bytes()).hexdigest()


def test_what_gitignore_leaves_out_is_left_out(tmp_path: Path) -> None:
    root = made(
        tmp_path,
        {
            ".gitignore": "*.log\n!keep.log\n/build/\ncache/\n",
            "a.py": "",
            "a.log": "",
            "keep.log": "",
            "build/x": "",
            "src/build/y": "",
            "src/cache/z": "",
            "src/.gitignore": "*.tmp\n!important.log\n",
            "src/b.tmp": "",
            "src/important.log": "",
            "b.tmp": "",
            ".git/HEAD": "",
            ".nodeflow/nodeflow.db": "",
        },
    )
    assert listed(root) == [
        ".gitignore",
        "a.py",
        "b.tmp",
        "keep.log",
        "src/.gitignore",
        "src/build/y",
        "src/important.log",
    ]


def test_the_same_files_are_the_same_bytes_wherever_and_whenever_they_were_written(tmp_path: Path) -> None:
    files = {"b": "2", "a/c": "3", "a.txt": "1"}
    one, two = made(tmp_path / "one", files), made(tmp_path / "two", dict(reversed(files.items())))
    os.utime(two / "b", (1, 1))
    (two / "b").chmod(0o600)
    assert digest_of(one) == digest_of(two)
    (two / "b").chmod(0o700)
    assert digest_of(one) != digest_of(two)


def test_an_archive_has_modes_and_links(tmp_path: Path) -> None:
    root = made(tmp_path / "root", {"bin/tool": "x"})
    (root / "bin" / "tool").chmod(0o700)
    (root / "link").symlink_to("bin/tool")
    with packed(root) as source, tarfile.open(source.archive) as file:
        assert source.file_count == 2
        found = [(each.name, each.mode, each.linkname, each.uid, each.uname) for each in file.getmembers()]
    assert found == [("bin/tool", 0o755, "", 0, ""), ("link", 0o644, "bin/tool", 0, "")]


def test_an_archive_is_taken_as_it_is(tmp_path: Path) -> None:
    made(tmp_path, {"x": "1"})
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as file:
        file.add(tmp_path / "x", "x")
    with packed(tmp_path / "x.tgz") as source:
        assert (source.archive, source.file_count) == (tmp_path / "x.tgz", 0)


@pytest.mark.parametrize("link", ["/etc/passwd", "../outside", "a/../../outside"])
def test_a_link_out_of_the_source_is_named(tmp_path: Path, link: str) -> None:
    root = made(tmp_path / "root", {"f": ""})
    (root / "l").symlink_to(link)
    with pytest.raises(UnusableSource, match=r"root/l is a link out of the source; name it in a \.gitignore"):
        digest_of(root)


def test_what_cannot_be_packed_is_named(tmp_path: Path) -> None:
    made(tmp_path, {"text": "no archive", "empty/.gitignore": "*\n"})
    with pytest.raises(UnusableSource, match="nowhere does not exist"):
        digest_of(tmp_path / "nowhere")
    with pytest.raises(UnusableSource, match="text is no tar archive"):
        digest_of(tmp_path / "text")
    with pytest.raises(UnusableSource, match="empty has no files to pack"):
        digest_of(tmp_path / "empty")
