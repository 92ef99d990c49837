"""Real processes: what they are given, how they end, what they leave, and that nothing of them stays."""

import asyncio
import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.unit.worker.process_lab import ProcessLab, noted_threads

from nodeflow_worker.domain import events
from nodeflow_worker.domain.output import Stream
from nodeflow_worker.domain.values import JSON, MANIFEST, Attempt, Ending, Extra, FailureKind, Limits, State, Stored

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/home/u", "LANG": "C.UTF-8", "SECRET": "s", "NODEFLOW_TOKEN": "t"}


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[ProcessLab]:
    async with ProcessLab(tmp_path, environment=ENVIRONMENT) as lab:
        yield lab


def gone(pid: int) -> bool:
    """Whether a process runs no more; one that nobody has waited for yet does not run."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Filled:
    """Files that are there at once."""

    async def fill(self, attempt: Attempt, root: str) -> None:
        """They are."""


async def test_what_is_stopped_as_soon_as_it_has_its_files_is_not_started(lab: ProcessLab, tmp_path: Path) -> None:
    attempt = lab.attempt(script=f"touch {tmp_path}/started", filled=True)
    lab.processes._trees = Filled()  # type: ignore[assignment]  # all that is used of it
    lab.assign(attempt)
    await asyncio.sleep(0)  # the task that fills has ended, and nobody has been told
    lab.cancel(attempt, 0.0)
    await lab.until(lambda: attempt.outcome is not None)
    assert attempt.outcome == Ending.CANCELLED
    assert not (tmp_path / "started").exists()


async def test_what_the_kernel_has_no_room_for_is_sent_a_little_later(
    lab: ProcessLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = socket.socket.sendmsg
    refused: list[Any] = []

    def sendmsg(self: socket.socket, *arguments: Any) -> int:
        if len(refused) < 3:
            refused.append(arguments)
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        return send(self, *arguments)

    monkeypatch.setattr(socket.socket, "sendmsg", sendmsg)
    assert await lab.outcome(["true"]) == b"null"


async def test_one_whose_launcher_was_lost_while_it_got_its_files_is_started_by_the_next(lab: ProcessLab) -> None:
    attempt = lab.attempt(["true"], filled=True)
    lab.assign(attempt)
    link = lab.processes._link
    assert link is not None
    link._lose()
    await lab.until(lambda: attempt.outcome is not None)
    assert attempt.outcome == b"null"


class TestWhatItIsGiven:
    async def test_the_environment_is_clean(self, lab: ProcessLab) -> None:
        attempt = lab.attempt(["env"], env={"NAMED": "x", "COUNT": 3})
        attempt.map_index = 7
        assert await lab.run(attempt) == [b"null"]
        told = dict(line.split("=", 1) for line in lab.printed().splitlines())
        root = told.pop("TMPDIR")
        assert Path(root).parent.parent == lab.directory / "state"
        assert told == {
            **{name: ENVIRONMENT[name] for name in ("PATH", "HOME", "LANG")},
            "NAMED": "x",
            "COUNT": "3",
            "NODEFLOW_EXECUTION_ID": "e",
            "NODEFLOW_WORKFLOW": "w",
            "NODEFLOW_NODE": "n",
            "NODEFLOW_TASK_NUMBER": "1",
            "NODEFLOW_ATTEMPT_NUMBER": "1",
            "NODEFLOW_MAP_INDEX": "7",
            "NODEFLOW_OUTPUT": f"{root}/output",
            "NODEFLOW_WORK_DIR": f"{root}/work",
            "NODEFLOW_WORKFLOW_DIR": str(lab.directory),
        }

    @pytest.mark.parametrize("limits", [Limits(), Limits(open_files=64)], ids=["spawned", "forked"])
    async def test_it_leads_a_session_and_a_group_of_its_own(self, lab: ProcessLab, limits: Limits) -> None:
        program = "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())"
        assert await lab.outcome([sys.executable, "-c", program], limits=limits) == b"null"
        assert lab.printed() == "True"

    async def test_its_directory_is_its_own_empty_and_removed(self, lab: ProcessLab) -> None:
        script = "pwd; ls -A; echo x > left; mkdir -p deep/er; touch deep/er/y; chmod 500 deep/er; echo z > $TMPDIR/t"
        assert await lab.outcome(script=script) == b"null"
        [work] = lab.printed().splitlines()
        await lab.until(lambda: not Path(work).parent.exists())
        await lab.outcome(script="pwd; ls -A")
        assert lab.printed().splitlines()[1] != work

    async def test_an_untouched_directory_serves_again_and_a_changed_one_does_not(self, lab: ProcessLab) -> None:
        for script in ("pwd", "pwd", "pwd; chmod 750 .", "pwd", "pwd; touch $TMPDIR/x", "pwd"):
            assert await lab.outcome(script=script) == b"null"
        first, second, third, fourth, fifth, sixth = lab.printed().splitlines()
        assert first == second == third
        assert fourth == fifth
        assert len({third, fourth, sixth}) == 3

    async def test_words_are_passed_as_they_are(self, lab: ProcessLab) -> None:
        words = ["a b", "$HOME", "", 5, True, "é\n"]
        await lab.outcome(["printf", "<%s>", *words])
        assert lab.printed() == "<a b><$HOME><><5><true><é\n>"

    @pytest.mark.parametrize(
        ("stdin", "read"),
        [("text\n", "text"), ({"a": [1]}, '{"a":[1]}'), ("", ""), ("x" * 1_000_000, "x" * 1_000_000)],
    )
    async def test_stdin(self, lab: ProcessLab, stdin: object, read: str) -> None:
        assert await lab.outcome(["cat"], stdin=stdin) == b"null"
        assert lab.printed().replace("\n", "") == read  # a line that is too long comes in parts

    async def test_without_stdin_there_is_nothing_to_read(self, lab: ProcessLab) -> None:
        assert await lab.outcome(["cat"]) == b"null"

    @pytest.mark.parametrize(
        ("extra", "read"),
        [
            (Extra(parameter="stdin", content_type=JSON, data=b'"text"'), "text"),
            (Extra(parameter="stdin", content_type=JSON, data=b"[1,2]"), "[1,2]"),
            (Extra(parameter="stdin", content_type=JSON, data=b'"lines"\n"of it"'), '"lines"\n"of it"'),
            (Extra(parameter="stdin", content_type="text/csv", data=b"a,b"), "a,b"),
            (
                Extra(
                    parameter="stdin",
                    content_type=MANIFEST,
                    data=b'[{"value": 1}, {"artifact": {"digest": "d"}}]',
                    parts=(("d", b'"x"'),),
                ),
                '[1,"x"]',
            ),
        ],
    )
    async def test_stdin_by_reference(self, lab: ProcessLab, extra: Extra, read: str) -> None:
        attempt = lab.attempt(["cat"])
        attempt.extras = (extra,)
        await lab.run(attempt)
        assert lab.printed() == read

    @pytest.mark.parametrize("data", [b"no JSON", b"[1]", b'[{"artifact": {}}]', b'{"value": 1}'])
    async def test_a_manifest_that_is_none_fails_the_attempt(self, lab: ProcessLab, data: bytes) -> None:
        attempt = lab.attempt(["cat"])
        attempt.extras = (Extra(parameter="stdin", content_type=MANIFEST, data=data),)
        [failure] = await lab.run(attempt)
        assert getattr(failure, "reason", None) == "ARGUMENTS_MISMATCH"

    async def test_arguments_that_are_nested_too_deeply_fail_the_attempt(self, lab: ProcessLab) -> None:
        attempt = lab.attempt(["cat"])
        attempt.arguments = b'{"stdin":%s%s}' % (b"[" * 5_000, b"]" * 5_000)
        [failure] = await lab.run(attempt)
        assert getattr(failure, "reason", None) == "ARGUMENTS_MISMATCH"

    async def test_a_program_beside_the_document_is_found(self, lab: ProcessLab) -> None:
        tool = lab.directory / "tool.sh"
        tool.write_text("#!/bin/sh\necho ran from $PWD\n")
        tool.chmod(0o755)
        assert await lab.outcome(["./tool.sh"]) == b"null"
        assert lab.printed().startswith("ran from ")

    async def test_it_has_its_own_descriptors_only(self, lab: ProcessLab) -> None:
        for limits in (Limits(), Limits(open_files=64)):
            assert await lab.outcome(script="ls /proc/self/fd", stdin="x", limits=limits) == b"null"
        assert lab.printed().split() == ["0", "1", "2", "3"] * 2  # the last is the directory that ls reads

    async def test_a_command_larger_than_a_packet(self, lab: ProcessLab) -> None:
        await lab.outcome(["sh", "-c", 'printf %s "${#1}"', "sh", "x" * 100_000])
        assert lab.printed() == "100000"


class TestHowItEnds:
    async def test_lines_become_an_object(self, lab: ProcessLab) -> None:
        script = 'echo name=a=b > "$NODEFLOW_OUTPUT"; echo count=3 >> "$NODEFLOW_OUTPUT"'
        assert await lab.outcome(script=script) == b'{"name":"a=b","count":"3"}'

    async def test_a_json_document_is_taken_as_it_is(self, lab: ProcessLab) -> None:
        assert await lab.outcome(script='echo "[1, {\\"a\\": null}]" > $NODEFLOW_OUTPUT') == b'[1,{"a":null}]'

    @pytest.mark.parametrize("text", ["no equals sign", '{"a": ', "[NaN]", "a=1\nb"])
    async def test_an_output_of_another_form_is_a_failure(self, lab: ProcessLab, text: str) -> None:
        failure = await lab.failure(["sh", "-c", 'printf %s "$1" > "$NODEFLOW_OUTPUT"', "sh", text])
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.USER, "OUTPUT_INVALID", True)

    async def test_a_directory_in_place_of_the_output_file_is_a_failure(self, lab: ProcessLab) -> None:
        failure = await lab.failure(script='mkdir "$NODEFLOW_OUTPUT"')
        assert failure.reason == "OUTPUT_INVALID"
        assert "NODEFLOW_OUTPUT names is a directory, and should be a file" in failure.message

    async def test_a_large_output_is_read_while_others_have_their_turn(
        self, lab: ProcessLab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads = noted_threads(monkeypatch, "read_output")
        assert await lab.outcome(script='printf "a=%0300000d" 1 > "$NODEFLOW_OUTPUT"') is not None
        assert await lab.outcome(script='echo a=1 > "$NODEFLOW_OUTPUT"') == b'{"a":"1"}'
        assert [each is threading.main_thread() for each in threads] == [False, True]

    async def test_an_exit_code_tells_the_last_lines_of_stderr(self, lab: ProcessLab) -> None:
        failure = await lab.failure(script="for i in $(seq 100); do echo line $i >&2; done; exit 3")
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.USER, "PROCESS_EXITED", True)
        assert failure.message.startswith("it exited with code 3; its last words:\nline 81\n")
        assert failure.message.endswith("\nline 100")

    async def test_a_signal_is_named(self, lab: ProcessLab) -> None:
        failure = await lab.failure(script="kill -SEGV $$")
        assert (failure.reason, failure.message) == ("PROCESS_EXITED", "it was ended by SIGSEGV")

    async def test_a_script_ends_at_its_first_failure(self, lab: ProcessLab) -> None:
        failure = await lab.failure(script="false\necho went on")
        assert (failure.reason, lab.printed()) == ("PROCESS_EXITED", "")

    @pytest.mark.parametrize("command", ["no-such-program", "./nothing", "/etc/passwd", "/etc"])
    async def test_a_command_that_is_none_is_permanent(self, lab: ProcessLab, command: str) -> None:
        failure = await lab.failure([command])
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.PERMANENT, "COMMAND_NOT_FOUND", False)
        assert command in failure.message

    async def test_arguments_without_a_command(self, lab: ProcessLab) -> None:
        failure = await lab.failure()
        assert (failure.kind, failure.reason) == (FailureKind.PERMANENT, "ARGUMENTS_MISMATCH")

    async def test_a_flood_of_output_is_read_and_not_kept(self, lab: ProcessLab) -> None:
        lab.output.clear()
        failure = await lab.failure(script="head -c 20000000 /dev/zero >&2; head -c 20000000 /dev/zero; exit 1")
        assert failure.reason == "PROCESS_EXITED"
        assert sum(len(line) for _, line in lab.output) == 40_000_000
        assert len(failure.message) < 5_000

    async def test_output_goes_to_its_stream_line_by_line(self, lab: ProcessLab) -> None:
        lab.output.clear()
        await lab.outcome(script="echo one; echo two >&2; sleep 0.1; printf 'no end'")
        assert [line for stream, line in lab.output if stream is Stream.STDOUT] == ["one", "no end"]
        assert [line for stream, line in lab.output if stream is Stream.STDERR] == ["two"]

    async def test_a_process_that_writes_faster_than_it_is_taken_waits(self, lab: ProcessLab) -> None:
        lab.delivers = False
        attempt = lab.attempt(script='head -c 3000000 /dev/zero; touch "$TMPDIR/done"')
        running = asyncio.ensure_future(lab.run(attempt))
        await lab.until(lambda: lab.outputs.held >= (1 << 20) // 8)
        await lab.outcome(["true"])  # others go on
        assert attempt.outcome is None
        assert lab.outputs.held < 1 << 20
        lab.delivers = True
        lab.deliver()
        await running
        assert sum(len(line) for _, line in lab.output) == 3_000_000

    async def test_ends_do_not_wait_for_room(self, lab: ProcessLab) -> None:
        lab.delivers = False
        for _ in range(60):
            await lab.outcome(script="head -c 60000 /dev/zero")
        assert (1 << 20) * 2 <= lab.outputs.held < (1 << 20) * 2.2
        lab.delivers = True
        lab.deliver()
        notices = {line for stream, line in lab.output if stream is Stream.NOTICE}
        assert notices == {"the end of it is not kept: too much waits to be delivered"}


class TestLimits:
    async def test_memory_of_all_processes_together(self, lab: ProcessLab) -> None:
        hold = f"'{sys.executable}' -c 'x = bytearray(40_000_000); import time; time.sleep(60)'"
        failure = await lab.failure(script=f"{hold} & {hold} & wait", limits=Limits(memory_bytes=70_000_000))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.USER, "MEMORY_LIMIT", True)
        assert "70,000,000 bytes" in failure.message

    async def test_memory_of_one_that_is_quickly_done(self, lab: ProcessLab) -> None:
        command = [sys.executable, "-c", "x = bytearray(200_000_000)"]
        assert (await lab.failure(command, limits=Limits(memory_bytes=100_000_000))).reason == "MEMORY_LIMIT"

    async def test_cpu_time_of_children_too(self, lab: ProcessLab) -> None:
        failure = await lab.failure(script="(while :; do :; done); echo", limits=Limits(cpu_time_s=0.2))
        assert failure.reason == "CPU_TIME_LIMIT"
        assert "0.2 s" in failure.message

    async def test_open_files(self, lab: ProcessLab) -> None:
        command = [sys.executable, "-c", "x = [open('/dev/null') for _ in range(50)]"]
        failure = await lab.failure(command, limits=Limits(open_files=20))
        assert failure.reason == "OPEN_FILES_LIMIT"
        assert failure.message.startswith("it wanted more than 20 open files")

    async def test_directory(self, lab: ProcessLab) -> None:
        script = "mkdir sub; head -c 2000000 /dev/zero > sub/x; sleep 60"
        failure = await lab.failure(script=script, limits=Limits(directory_bytes=1_000_000))
        assert failure.reason == "DIRECTORY_LIMIT"

    async def test_directory_of_one_that_is_quickly_done(self, lab: ProcessLab) -> None:
        script = "head -c 2000000 /dev/zero > $TMPDIR/x"
        assert (await lab.failure(script=script, limits=Limits(directory_bytes=1_000_000))).reason == "DIRECTORY_LIMIT"

    async def test_what_keeps_to_all_limits_succeeds(self, lab: ProcessLab) -> None:
        limits = Limits(memory_bytes=10**9, cpu_time_s=60, open_files=64, directory_bytes=10**7)
        assert await lab.outcome(["true"], limits=limits) == b"null"
        assert (await lab.failure(["nope"], limits=limits)).reason == "COMMAND_NOT_FOUND"


class TestStops:
    async def test_a_cancelled_process_may_clean_up(self, lab: ProcessLab) -> None:
        attempt = lab.attempt(script="trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.02; done")
        lab.assign(attempt)
        await lab.until(lambda: "ready" in lab.printed())
        lab.cancel(attempt, 10.0)
        await lab.until(lambda: attempt.outcome is not None)
        assert (attempt.outcome, "cleaned" in lab.printed()) == (Ending.CANCELLED, True)

    async def test_one_that_ignores_it_is_killed_with_its_children(self, lab: ProcessLab) -> None:
        script = "trap '' TERM; sleep 60 & echo $!; (setsid sleep 61 & echo $!); echo $$; wait; sleep 60"
        attempt = lab.attempt(script=script)
        lab.assign(attempt)
        await lab.until(lambda: len(lab.printed().splitlines()) == 3)
        lab.cancel(attempt, 0.1)
        await lab.until(lambda: attempt.outcome is not None)
        assert attempt.outcome is Ending.CANCELLED
        for pid in map(int, lab.printed().split()):
            await lab.until(partial(gone, pid))

    async def test_its_time(self, lab: ProcessLab) -> None:
        failure = await lab.failure(["sleep", "60"], timeout_s=0.1)
        assert (failure.kind, failure.reason) == (FailureKind.TRANSIENT, "ATTEMPT_TIMEOUT")

    async def test_what_it_leaves_running_ends_with_it(self, lab: ProcessLab) -> None:
        script = (
            "sleep 60 & echo $!; (sh -c 'sleep 61 & echo $!' &) ; (setsid sh -c 'echo $$; exec sleep 62' &); sleep 0.2"
        )
        assert await lab.outcome(script=script) == b"null"
        pids = list(map(int, lab.printed().split()))
        assert len(pids) == 3
        for pid in pids:
            await lab.until(partial(gone, pid))

    async def test_a_session_lost_kills_at_once(self, lab: ProcessLab) -> None:
        attempt = lab.attempt(script="trap '' TERM; echo $$; sleep 60; sleep 60")
        lab.assign(attempt)
        await lab.until(lambda: bool(lab.printed()))
        lab.handle(events.LeaseEnding())
        await lab.until(lambda: gone(int(lab.printed())))
        assert (attempt.state, attempt.outcome) == (State.ENDED, None)

    async def test_slots_bound_how_many_run(self, lab: ProcessLab) -> None:
        attempts = [lab.attempt(script="echo +; sleep 0.05; echo -") for _ in range(6)]
        await lab.run(*attempts)
        running, most = 0, 0
        for mark in lab.printed().split():
            running += 1 if mark == "+" else -1
            most = max(most, running)
        assert most <= 2

    async def test_a_lost_launcher_ends_all_and_another_is_started(self, lab: ProcessLab) -> None:
        attempt = lab.attempt(script="echo $$; sleep 60 & echo $!; wait")
        lab.assign(attempt)
        await lab.until(lambda: len(lab.printed().splitlines()) == 2)
        first = int(lab.printed().split()[0])
        os.kill(psutil.Process(first).ppid(), signal.SIGKILL)
        await lab.until(lambda: attempt.outcome is not None)
        assert getattr(attempt.outcome, "reason", None) == "RUNNER_LOST"
        for pid in map(int, lab.printed().split()):
            await lab.until(partial(gone, pid))
        assert await lab.outcome(["true"]) == b"null"


async def test_a_launcher_that_was_lost_guards_no_more_and_the_next_does(lab: ProcessLab) -> None:
    runner = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    pid_fd = os.pidfd_open(runner.pid)
    lab.processes.watch(runner.pid, pid_fd)
    before = psutil.Process().children()
    lab.processes.guard(time.monotonic() + 60)
    [launcher] = set(psutil.Process().children()).difference(before)
    launcher.kill()
    await lab.until(lambda: not launcher.is_running())
    lab.processes.guard(time.monotonic())
    assert await runner.wait() == -signal.SIGKILL
    lab.processes.watch(runner.pid, None)
    os.close(pid_fd)


async def test_a_guard_that_cannot_be_had_is_told_once_and_tried_again(
    lab: ProcessLab, capsys: pytest.CaptureFixture[str]
) -> None:
    state = lab.directory / "state"
    state.write_text("in the way of the directory")
    runner = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    pid_fd = os.pidfd_open(runner.pid)
    lab.processes.watch(runner.pid, pid_fd)
    for _ in range(2):
        lab.processes.guard(time.monotonic() + 60)
    assert capsys.readouterr().out.count("no_guard") == 1
    state.unlink()
    before = psutil.Process().children()
    lab.processes.guard(time.monotonic() + 60)
    assert len(set(psutil.Process().children()).difference(before)) == 1, "the launcher is there"
    lab.processes.guard(time.monotonic())
    assert await runner.wait() == -signal.SIGKILL
    lab.processes.watch(runner.pid, None)
    os.close(pid_fd)


async def test_a_guard_that_stood_still_hears_first_that_the_lease_was_extended(lab: ProcessLab) -> None:
    attempt = lab.attempt(script="echo $$; sleep 0.5; echo done")
    lab.assign(attempt)
    await lab.until(lambda: bool(lab.printed()))
    launcher = psutil.Process(int(lab.printed())).parent()
    assert launcher is not None
    launcher.suspend()
    due = time.monotonic() + 0.1
    lab.processes.guard(due)
    lab.processes.guard(due + 60)
    await lab.until(lambda: time.monotonic() > due)
    launcher.resume()
    await lab.until(lambda: attempt.outcome is not None)
    assert lab.printed().split()[1:] == ["done"]


async def test_a_large_output_is_stored(tmp_path: Path) -> None:
    async with ProcessLab(tmp_path) as lab:
        script = 'awk \'BEGIN { printf "["; for (i = 0; i < 50000; i++) printf i ","; print "0]" }\' > $NODEFLOW_OUTPUT'
        assert await lab.outcome(script=script) == Stored(digest="sha256:o")


async def test_closing_ends_what_runs(tmp_path: Path) -> None:
    async with ProcessLab(tmp_path) as lab:
        lab.assign(lab.attempt(script="echo $$; sleep 60"))
        await lab.until(lambda: bool(lab.printed()))
        pid = int(lab.printed())
        assert not gone(pid)
    await lab.until(lambda: gone(pid))
