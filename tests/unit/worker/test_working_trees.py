"""What processes find in their working directories: sources, files of earlier jobs, and nothing elsewhere."""

import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.worker.process_lab import ProcessLab

from nodeflow_worker.domain.values import Attempt, Ending, Failure, FailureKind, Reason


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[ProcessLab]:
    async with ProcessLab(tmp_path) as lab:
        yield lab


def archive(*entries: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:  # type: ignore[call-overload]  # a mode in a variable
        for entry, data in entries:
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def entry(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def job(lab: ProcessLab, script: str, **arguments: Any) -> Attempt:
    return lab.attempt(script=script, filled=True, **arguments)


def file(name: str) -> dict[str, object]:
    return {"digest": name, "size_bytes": 1}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
async def test_the_source_is_there_with_its_modes(lab: ProcessLab, mode: str) -> None:
    tool = (entry("bin/tool", mode=0o755), b"#!/bin/sh\necho ran\n")
    lab.stored["s"] = archive((entry("a.txt"), b"text"), tool, mode=mode)
    script = "find . -type f | sort; cat a.txt; ./bin/tool; test ! -e ../source.tar"
    assert await lab.run(job(lab, script, source=file("s"))) == [b"null"]
    assert lab.printed() == "./a.txt\n./bin/tool\ntextran"


async def test_files_stand_where_they_were_left_over_what_the_source_has(lab: ProcessLab) -> None:
    lab.stored.update(s=archive((entry("a"), b"old"), (entry("b"), b"b")), x=b"new", y=b"deep")
    files = {"a": file("x"), "dist/deep/y": file("y")}
    assert await lab.run(job(lab, "cat a b dist/deep/y", source=file("s"), files=files)) == [b"null"]
    assert lab.printed() == "newbdeep"


async def test_without_any_the_directory_is_empty(lab: ProcessLab) -> None:
    assert await lab.run(job(lab, "ls -A")) == [b"null"]
    assert lab.printed() == ""


@pytest.mark.parametrize(
    ("stored", "arguments", "problem"),
    [
        (b"no archive at all", {"source": "s"}, "the source cannot be unpacked"),
        (archive((entry("../out"), b"x")), {"source": "s"}, "outside the destination"),
        (archive((entry("/etc/out"), b"x"), (entry("../../x"), b"")), {"source": "s"}, "cannot be unpacked"),
        (b"x", {"files": {"../out": "s"}}, "'../out' is not a path below"),
        (b"x", {"files": {"/etc/out": "s"}}, "'/etc/out' is not a path below"),
    ],
)
async def test_nothing_is_written_elsewhere(
    lab: ProcessLab, stored: bytes, arguments: dict[str, Any], problem: str
) -> None:
    lab.stored["s"] = stored
    given = json.loads(json.dumps(arguments).replace('"s"', '{"digest": "s"}'))
    [failure] = await lab.run(job(lab, "exit 0", **given))
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.kind, failure.retryable) == (Reason.SOURCE_UNUSABLE, FailureKind.PERMANENT, False)
    assert problem in failure.message


async def test_a_link_of_the_source_leads_no_file_elsewhere(lab: ProcessLab, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    lab.stored["s"] = archive((entry("out", type=tarfile.SYMTYPE, linkname=str(tmp_path / "outside")), b""))
    lab.stored["x"] = b"x"
    [failure] = await lab.run(job(lab, "exit 0", source=file("s"), files={"out/x": file("x")}))
    assert isinstance(failure, Failure)
    assert list((tmp_path / "outside").iterdir()) == []


async def test_what_is_not_stored_is_named(lab: ProcessLab) -> None:
    [failure] = await lab.run(job(lab, "exit 0", files={"a/b": file("lost")}))
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.retryable) == (Reason.ARGUMENT_UNAVAILABLE, False)
    assert "the file 'a/b' could not be put into the working directory: there is no artifact lost" in failure.message


async def test_arguments_that_are_none_fail_the_attempt_alone(lab: ProcessLab) -> None:
    [failure, fine] = await lab.run(job(lab, "exit 0", source=3), lab.attempt(script="exit 0"))
    assert isinstance(failure, Failure)
    assert (failure.reason, fine) == (Reason.SOURCE_UNUSABLE, b"null")


async def test_a_job_is_cancelled_while_its_files_come(lab: ProcessLab) -> None:
    attempt = job(lab, "echo ran", source=file("never"))
    lab.stored["never"] = b""
    lab.assign(attempt)
    lab.cancel(attempt, 10)
    await lab.until(lambda: attempt.outcome is not None)
    assert (attempt.outcome, lab.printed()) == (Ending.CANCELLED, "")
