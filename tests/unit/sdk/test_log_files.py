"""Logs of services take no more room than they may, and do not end a suite when there is none."""

from pathlib import Path

from nodeflow_sdk.suite.log_files import MAX_FILE_BYTES, OLD_FILES, TAIL_LINES, LogFile
from nodeflow_sdk.suite.services import SuiteService

LINE_BYTES = 1_000_000


def test_the_oldest_lines_go(tmp_path: Path) -> None:
    log = LogFile(tmp_path, SuiteService.SCHEDULER)
    count = (OLD_FILES + 2) * MAX_FILE_BYTES // LINE_BYTES
    for number in range(count):
        log.write(f"{number} ".ljust(LINE_BYTES, "x"))
    log.close()
    files = sorted(log.path.parent.iterdir())
    assert [file.name for file in files] == ["scheduler.log", "scheduler.log.1", "scheduler.log.2"]
    assert all(file.stat().st_size <= MAX_FILE_BYTES for file in files)
    assert log.path.read_text().splitlines()[-1].split()[0] == str(count - 1)
    assert [line.split()[0] for line in log.tail] == [str(number) for number in range(count - TAIL_LINES, count)]


def test_on_a_full_disk_lines_are_left_out(tmp_path: Path) -> None:
    log = LogFile(tmp_path, SuiteService.SCHEDULER)
    log.path.symlink_to("/dev/full")
    log.write("lost")
    log.path.unlink()
    log.close()
    log.write("kept")
    log.close()
    assert log.path.read_text() == "kept\n"
    assert list(log.tail) == ["lost", "kept"]
