"""The journal's files: what is in them when a process dies, how large they get, and files that are no journal."""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.worker.test_journal import PROCESS, Life, finished, left_of
from tests.unit.worker.making import process_attempt

import nodeflow_worker.adapters.session_journal as journals
from nodeflow_worker.adapters.session_journal import UNUSABLE_NAME, SessionJournal
from nodeflow_worker.ports import Left

WRITER = """\
import asyncio, os, signal, sys
from pathlib import Path
from tests.contract.worker.test_journal import Life, finished
from nodeflow_worker.adapters.session_journal import SessionJournal

async def main():
    life = Life(SessionJournal(Path(sys.argv[1])), "one")
    await life.record(*(finished(task) for task in range(20)))
    await life.record(finished(20))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def names_in(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


async def test_what_was_told_as_recorded_is_there_after_kill_9(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    ended = await asyncio.to_thread(subprocess.run, command, cwd=root, check=False)
    assert ended.returncode == -9
    left = await left_of(SessionJournal(tmp_path), "one")
    assert [each.task_number for each in left.results] == list(range(21))


async def test_nothing_is_made_before_there_is_something_to_keep(tmp_path: Path) -> None:
    life = Life(SessionJournal(tmp_path), "one")
    life.journal.forget([])
    await life.journal.take_over(["dead"])
    await life.journal.close()
    assert names_in(tmp_path) == []


async def test_the_file_goes_with_its_session(tmp_path: Path) -> None:
    life = Life(SessionJournal(tmp_path), "one")
    await life.record(finished())
    assert "session-one.sqlite" in names_in(tmp_path)
    life.journal.drop(["one"], lambda: None)
    await life.journal.close()
    assert names_in(tmp_path) == []


async def test_what_follows_a_drop_waits_until_the_files_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that goes before them would leave them to nobody, should the process die in between."""
    life = Life(SessionJournal(tmp_path), "one")
    await life.record(finished())
    seen: list[list[str]] = []
    dropped = asyncio.Event()

    def note() -> None:
        seen.append(names_in(tmp_path))
        dropped.set()

    life.journal.drop(["one", "never"], note)
    assert seen == []
    await dropped.wait()
    assert seen == [[]]

    def refuse(_path: Path, *, missing_ok: bool) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    life.journal.drop(["two"], lambda: seen.append([]))
    await life.journal.close()
    assert len(seen) == 1


async def test_what_is_still_to_be_forgotten_does_not_bring_the_file_back(tmp_path: Path) -> None:
    life = Life(SessionJournal(tmp_path), "one")
    result = finished()
    await life.record(result)
    life.journal.forget([result])
    life.journal.drop(["one"], lambda: None)
    await life.journal.close()
    assert names_in(tmp_path) == []


async def test_what_is_acknowledged_takes_no_room(tmp_path: Path) -> None:
    life = Life(SessionJournal(tmp_path), "one")
    for turn in range(40):
        attempts = [finished(turn * 50 + task, outcome=b"x" * 20_000) for task in range(50)]
        await life.record(*attempts)
        life.journal.forget(attempts)
    size = sum(each.stat().st_size for each in tmp_path.iterdir())  # noqa: ASYNC240  # three files
    await life.journal.close()
    assert size < 16_000_000, "forty million bytes went through it"


async def test_acknowledged_results_are_dropped_in_time_without_others_to_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "FORGET_AFTER_S", 0.01)
    life = Life(SessionJournal(tmp_path), "one")
    await life.record(finished())
    life.journal.forget([finished()])
    async with asyncio.timeout(10):
        # What is waited for has no event.
        while life.journal._later is not None or life.journal._commit is not None:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    life.journal._files.close()  # type: ignore[attr-defined]  # as a death does
    assert (await left_of(SessionJournal(tmp_path), "one")).results == ()
    await life.journal.close()


async def test_what_is_recorded_again_while_it_is_being_forgotten_stays(tmp_path: Path) -> None:
    life = Life(SessionJournal(tmp_path), "one")
    await life.record(finished())
    life.journal.forget([finished()])
    await life.record(finished())
    await life.journal.close()
    assert [each.key for each in (await left_of(SessionJournal(tmp_path), "one")).results] == [finished().key]


async def test_processes_of_another_boot_are_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boot_id").write_text("before\n")
    monkeypatch.setattr(journals, "BOOT_ID_FILE", tmp_path / "boot_id")
    life = Life(SessionJournal(tmp_path), "one")
    life.journal.note(process_attempt(), PROCESS)
    await life.journal.close()
    monkeypatch.undo()
    left = await left_of(SessionJournal(tmp_path), "one")
    assert (left.unfinished, left.processes) == ((("e", 1, 1),), ())


@pytest.mark.parametrize("damage", ["text", "truncated", "another format", "a row"])
async def test_a_file_that_is_no_journal_is_set_aside_and_the_rest_is_taken(tmp_path: Path, damage: str) -> None:
    for session_id, task in (("bad", 1), ("good", 2)):
        life = Life(SessionJournal(tmp_path), session_id)
        await life.record(*(finished(task, outcome=b"x" * 30_000) for task in range(task, task + 1)))
        await life.journal.close()
    spoil(tmp_path / "session-bad.sqlite", damage)
    left = await left_of(SessionJournal(tmp_path), "bad", "good")
    assert [each.task_number for each in left.results] == [2]
    assert UNUSABLE_NAME in names_in(tmp_path)
    assert "session-bad.sqlite" not in names_in(tmp_path)


def spoil(file: Path, damage: str) -> None:
    match damage:
        case "text":
            file.write_text("this is no database, and never was one\n" * 100)
        case "truncated":
            file.write_bytes(file.read_bytes()[: 4096 + 100])
        case "another format":
            with sqlite3.connect(file) as connection:
                connection.execute("PRAGMA user_version = 99")
            connection.close()
        case _:
            with sqlite3.connect(file) as connection:
                connection.execute("UPDATE attempts SET result = x'ff'")
            connection.close()


async def test_results_are_told_although_they_cannot_be_kept(tmp_path: Path) -> None:
    life = Life(SessionJournal(tmp_path / "not there"), "one")
    await life.record(finished(1))
    (tmp_path / "not there").mkdir()
    await life.record(finished(2))
    await life.journal.close()
    left = await left_of(SessionJournal(tmp_path / "not there"), "one")
    assert [each.task_number for each in left.results] == [2]


async def test_a_worker_of_functions_needs_no_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "BOOT_ID_FILE", tmp_path / "none")
    left = await left_of(SessionJournal(tmp_path), "dead")
    assert left == Left(results=(), unfinished=(), processes=())


async def test_a_file_that_cannot_be_removed_does_not_keep_the_next_session_from_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path, *, missing_ok: bool) -> None:
        raise PermissionError(1, "Operation not permitted")

    life = Life(SessionJournal(tmp_path), "one")
    await life.record(finished(1))
    monkeypatch.setattr(Path, "unlink", refuse)
    life.journal.begin("two")
    await life.record(finished(2))
    await life.journal.close()
    left = await left_of(SessionJournal(tmp_path), "two")
    assert [each.task_number for each in left.results] == [2]
