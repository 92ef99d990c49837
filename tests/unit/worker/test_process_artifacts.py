"""The files that a process publishes."""

import errno
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import pytest
from tests.unit.worker.process_lab import ProcessLab, noted_threads

from nodeflow_worker.adapters import local_processes
from nodeflow_worker.domain.values import FailureKind, State


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[ProcessLab]:
    async with ProcessLab(tmp_path, environment={"PATH": os.environ["PATH"]}) as lab:
        yield lab


async def test_declared_files_are_published_and_then_removed(lab: ProcessLab) -> None:
    script = "mkdir -p out/sub other; echo 1 > out/a.csv; echo 2 > out/sub/b.csv; echo 3 > out/c.txt; echo 4 > other/d"
    attempt = lab.attempt(script=script, artifacts=("out/**/*.csv", "other"))
    assert await lab.run(attempt) == [b"null"]
    assert lab.stored == {"out/a.csv": b"1\n", "out/sub/b.csv": b"2\n", "other/d": b"4\n"}
    assert [name for name, _ in attempt.artifacts] == list(lab.stored)
    [parent] = (lab.directory / "state").iterdir()
    await lab.until(lambda: list(parent.iterdir()) == [])


async def test_they_are_looked_for_while_others_have_their_turn(
    lab: ProcessLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = noted_threads(monkeypatch, "find_files")
    assert await lab.outcome(script="echo 1 > a", artifacts=("**/a",)) == b"null"
    assert [each is threading.main_thread() for each in threads] == [False]


async def test_when_they_cannot_be_looked_at_the_attempt_fails(
    lab: ProcessLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a process that is not root's has `chmod -R 644 out` last."""

    def refuse(*_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied", "out/a")

    monkeypatch.setattr(local_processes, "find_files", refuse)
    failure = await lab.failure(script="echo 1 > a", artifacts=("a",))
    assert (failure.reason, "'out/a'" in failure.message) == ("OUTPUT_INVALID", True)


async def test_links_that_lead_in_circles_are_not_followed(lab: ProcessLab) -> None:
    script = "mkdir a b; ln -s ../b a/b; ln -s ../a b/a; ln -s .. a/c; ln -s .. b/c; echo 1 > a/x"
    assert await lab.outcome(script=script, artifacts=("**/x",)) == b"null"
    assert lab.stored == {"a/x": b"1\n"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (".", ["b.csv", "out/.hidden/b"]),
        ("./**", ["b.csv", "out/.hidden/b"]),
        ("**.csv", ["b.csv"]),
        ("*/**/[b]*", ["out/.hidden/b"]),
        ("o*/*/..", ["out/.hidden/b"]),
        ("out/", ["out/.hidden/b"]),
    ],
)
async def test_the_forms_of_globs(lab: ProcessLab, pattern: str, names: list[str]) -> None:
    await lab.outcome(script="mkdir -p out/.hidden; touch out/.hidden/b b.csv", artifacts=(pattern,))
    assert list(lab.stored) == names


async def test_more_than_are_kept(lab: ProcessLab) -> None:
    failure = await lab.failure(script="mkdir -p a/b; touch $(seq 1001 | sed 's:^:a/b/:')", artifacts=("**",))
    assert failure.reason == "TOO_MANY_ARTIFACTS"
    touched = await lab.outcome(script="mkdir -p a/b; touch $(seq 1000 | sed 's:^:a/b/:')", artifacts=("**",))
    assert touched == b"null"


async def test_a_name_that_is_no_text_is_told_in_escapes(lab: ProcessLab) -> None:
    attempt = lab.attempt(script=r"""printf x > "$(printf 'caf\351.txt')" """, artifacts=("*.txt",))
    assert await lab.run(attempt) == [b"null"]
    assert lab.stored == {r"caf\udce9.txt": b"x"}
    await lab.until(lambda: attempt.state is State.FINISHED)


async def test_a_glob_without_files_is_a_failure(lab: ProcessLab) -> None:
    failure = await lab.failure(script="echo 1 > a.csv", artifacts=("*.csv", "out/*.txt"))
    assert (failure.kind, failure.reason) == (FailureKind.USER, "ARTIFACTS_MISSING")
    assert "'out/*.txt'" in failure.message
    assert lab.stored == {}


async def test_links_out_of_the_directory_are_no_artifacts(lab: ProcessLab) -> None:
    assert (await lab.failure(script="ln -s /etc/passwd x", artifacts=("x",))).reason == "ARTIFACTS_MISSING"


async def test_a_failed_process_leaves_none(lab: ProcessLab) -> None:
    assert (await lab.failure(script="echo 1 > a; exit 1", artifacts=("a",))).reason == "PROCESS_EXITED"
    assert lab.stored == {}
