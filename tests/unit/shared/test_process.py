"""Services as real processes: exit codes, signals, what is on stderr, and the death of a parent."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

PROBE = [sys.executable, "-m", "tests.unit.shared.probe"]
ROOT = Path(__file__).parents[3]
DEADLINE_S = 30

# Starts the command it is given, says its pid, and waits.
PARENT = "import subprocess, sys; child = subprocess.Popen(sys.argv[1:]); print(child.pid, flush=True); child.wait()"


def environment(**settings: object) -> dict[str, str]:
    ours = {f"NODEFLOW_PROBE_{name.upper()}": str(value) for name, value in settings.items()}
    return {**os.environ, "NODEFLOW_PROBE_LOG_FORMAT": "json", **ours}


@contextmanager
def started(command: list[str], **settings: object) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(**settings), stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(**settings: object) -> tuple[int, str]:
    """Run a probe that ends by itself; return its exit code and what it wrote to stderr."""
    with started(PROBE, **settings) as process:
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert stdout == ""
    return process.returncode, stderr


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def lines_of_log(stderr: str) -> list[str]:
    """Without what Python itself writes of tasks that fail."""
    return [line for line in stderr.splitlines() if line.startswith("{")]


def events(stderr: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("use_uvloop", [True, False])
def test_a_signal_leads_to_a_clean_exit(tmp_path: Path, number: signal.Signals, use_uvloop: bool) -> None:
    file = tmp_path / "address"
    with started(PROBE, announce_file=file, use_uvloop=use_uvloop) as process:
        wait_until(file.exists)
        address = file.read_text()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    logs = events(stderr)
    assert [log["event"] for log in logs] == ["listening", "ready", "stopping", "stopped"]
    assert {log["service"] for log in logs} == {"probe"}
    assert (logs[0]["address"], logs[2]["cause"]) == (address, number.name)
    assert not file.exists()


@pytest.mark.parametrize(
    ("mode", "where"),
    [("never_end", "_never_end"), ("fail_and_never_end", "_never_end"), ("block_in_close", "in close")],
)
def test_a_stop_that_hangs_ends_with_a_code_of_its_own_and_says_where(tmp_path: Path, mode: str, where: str) -> None:
    file = tmp_path / "address"
    with started(PROBE, announce_file=file, mode=mode, drain_timeout_s=0.1) as process:
        wait_until(file.exists)
        process.terminate()
        _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 3, stderr
    [told] = [log for log in events("\n".join(lines_of_log(stderr))) if log["event"] == "stop_hangs"]
    assert where in json.dumps([told["tasks"], told["threads"]])


def test_signals_of_one_ctrl_c_count_once(tmp_path: Path) -> None:
    file = tmp_path / "address"
    with started(PROBE, announce_file=file, mode="hang", drain_timeout_s=0.3) as process:
        wait_until(file.exists)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while json.loads(process.stderr.readline())["event"] != "draining":
            pass
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    assert [log["event"] for log in events(stderr)] == ["drain_timed_out", "stopped"]


def test_a_signal_during_a_drain_that_hangs_ends_the_process_at_once(tmp_path: Path) -> None:
    file = tmp_path / "address"
    with started(PROBE, announce_file=file, mode="hang", drain_timeout_s=1000) as process:
        wait_until(file.exists)

        def is_dead() -> bool:
            process.terminate()
            return process.poll() is not None

        wait_until(is_dead)
    assert process.returncode == -signal.SIGTERM


def test_an_interrupt_before_anything_runs_leaves_no_traceback() -> None:
    with started(PROBE, mode="hang_in_build") as process:
        assert process.stderr is not None
        assert "building" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, stderr) == (130, "")


def test_wrong_settings_are_one_line_and_exit_code_2() -> None:
    code, stderr = run(bind="nowhere", drain_timeout_s="long")
    assert code == 2
    [line] = stderr.splitlines()
    assert "NODEFLOW_PROBE_BIND is 'nowhere'" in line
    assert "NODEFLOW_PROBE_DRAIN_TIMEOUT_S is 'long'" in line


def test_an_address_that_cannot_be_had_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "address"
    with started(PROBE, announce_file=file) as first:
        wait_until(file.exists)
        address = file.read_text()
        code, stderr = run(bind=address, announce_file=file, log_level="ERROR")
        assert first.poll() is None
        assert file.read_text() == address
    assert code == 2
    [line] = stderr.splitlines()
    assert "the port is in use" in line


def test_a_start_up_error_of_the_service_itself_is_exit_code_2() -> None:
    code, stderr = run(mode="misconfigured", log_level="ERROR")
    assert (code, stderr) == (2, "the probe's database is not there\n")


@pytest.mark.parametrize(("mode", "message"), [("crash", "the probe failed"), ("crash_in_build", "nothing was built")])
def test_a_crash_is_logged_with_its_traceback_and_exit_code_1(mode: str, message: str) -> None:
    code, stderr = run(mode=mode, log_level="ERROR")
    assert code == 1
    [log] = events(stderr)
    assert (log["event"], log["level"]) == ("crashed", "critical")
    assert f"ValueError: {message}" in log["exception"]
    assert "Traceback" in log["exception"]


@pytest.mark.parametrize("exit_with_parent", [True, False])
def test_a_service_ends_with_its_parent_if_told_so(tmp_path: Path, exit_with_parent: bool) -> None:
    file = tmp_path / "address"
    settings = {"announce_file": file, "exit_with_parent": exit_with_parent}
    with started([sys.executable, "-c", PARENT, *PROBE], **settings) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            wait_until(file.exists)
            parent.kill()
            parent.wait(DEADLINE_S)
            if not exit_with_parent:
                os.kill(child, signal.SIGTERM)
            _, stderr = parent.communicate(timeout=DEADLINE_S)  # ends when the child, too, has closed its end
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    logs = events(stderr)
    assert [log["event"] for log in logs] == ["listening", "ready", "stopping", "stopped"]
    assert logs[2]["cause"] == ("parent_died" if exit_with_parent else "SIGTERM")
