"""What a log line looks like; libraries' records go the same way."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from nodeflow_shared.logs import configure_logs, get_log

log = get_log()


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Give back what `configure_logs` changes in this process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # or they would be closed, and they are pytest's
    yield
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def test_json_lines_carry_event_keys_level_time_and_service(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("thing", "INFO", "json")
    log.debug("too_fine")
    log.info("thing_done", count=3)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("thing_failed")
    logging.getLogger("some.library").info("too fine")
    logging.getLogger("some.library").warning("it %s", "warns")
    output = capsys.readouterr()
    assert output.out == ""
    done, failed, library = (json.loads(line) for line in output.err.splitlines())
    assert done.pop("time").endswith("Z")
    assert done == {"event": "thing_done", "count": 3, "level": "info", "service": "thing"}
    assert failed["exception"].endswith("ValueError: broken")
    assert (library["event"], library["logger"], library["level"]) == ("it warns", "some.library", "warning")


def test_console_lines_are_plain_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("thing", "WARNING", "console")
    log.info("too_fine")
    log.warning("thing_odd", count=3)
    [line] = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line
    assert line.split(maxsplit=1)[1].split() == ["[warning", "]", "thing_odd", "count=3", "service=thing"]


def test_a_reader_that_is_gone_is_no_error_in_what_is_logged() -> None:
    """As when a supervisor was killed: the process that logs it must go on to stop in order."""
    program = (
        "import sys\n"
        "from nodeflow_shared.logs import configure_logs, get_log\n"
        "configure_logs('test', 'INFO', 'console')\n"
        "sys.stdin.read()\n"
        "get_log().info('stopping')\n"
        "print('went on')\n"
    )
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writing, text=True
    )
    os.close(writing)
    os.close(reading)
    out, _ = process.communicate("", timeout=30)
    assert out == "went on\n"
