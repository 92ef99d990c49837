"""Real runner processes: every way in which a function can end, and who is blamed."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.unit.worker.lab import Lab

from nodeflow_worker.domain.events import RunnerDied, RunnerResults
from nodeflow_worker.domain.values import Attempt, Ending, Extra, Failure, FailureKind, Outcome, Stored

FUNCTIONS = """
import asyncio, ctypes, os, signal, subprocess, sys, threading, time

class Shapes:
    @staticmethod
    def area(width, height):
        return width * height

def echo(value=None):
    return value

async def slow_echo(value, delay):
    await asyncio.sleep(delay)
    return value

class Callable:
    async def __call__(self, value):
        return [value]

called = Callable()

def fail(text):
    raise ValueError(text)

def chain():
    try:
        fail("inner")
    except ValueError as error:
        raise KeyError("outer") from error

def deep():
    return deep()

def type_error_inside(value):
    return len(value)

def leave(code):
    sys.exit(code)

def interrupt():
    raise KeyboardInterrupt

def memory():
    raise MemoryError("no more")

def die(code):
    os._exit(code)

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def hang():
    time.sleep(1000)

def hang_in_c():
    ctypes.PyDLL(None).sleep(1000)  # PyDLL keeps the interpreter's lock

def hang_stubbornly():
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass

def hang_politely():
    try:
        time.sleep(1000)
    except BaseException:
        return "thanks"

def clean_up(path):
    try:
        time.sleep(1000)
    finally:
        open(path, "w").write("cleaned")

async def hang_async(path):
    try:
        await asyncio.sleep(1000)
    finally:
        open(path, "w").write("cleaned")

def say(text):
    print(text)
    sys.stdin.read()
    return "said"

def flood(size):
    sys.stdout.write("x" * size)
    return "flooded"

def odd(kind):
    return {
        "set": {"rows": [1, {2}]},
        "nan": {"mean": float("nan")},
        "key": {(1, 2): 3},
        "object": object(),
        "surrogate": "\\ud800",
    }[kind]

def circular():
    value = []
    value.append(value)
    return value

def octets(size):
    return b"x" * size

def text(size):
    return "x" * size

def environment():
    return dict(os.environ)

def descriptors():
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sorted(os.readlink(link) for link in links if os.path.exists(link))

def search_path():
    return sys.path[:3]

def no_argv():
    return sys.argv

def mess_up_pipe():
    for fd in range(3, 1000):
        try:
            os.write(fd, b"\\xff" * 64)
        except OSError:
            pass
    time.sleep(1000)

def fork():
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(9)

def child():
    return subprocess.Popen(["sleep", "1000"]).pid

def nap(seconds):
    time.sleep(seconds)
    return "rested"
"""


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path) as lab:
        lab.write("fns.py", FUNCTIONS)
        yield lab


def failed(outcome: Outcome | None) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


class TestValues:
    @pytest.mark.parametrize(
        "value",
        [None, True, 0, -7, 2**70, 0.1, "", "äöü €", [], {}, {"a": [1, {"b": None}]}, [[["x"]]], "\x00\n\u2028"],
    )
    async def test_json_goes_in_and_out_unchanged(self, lab: Lab, value: object) -> None:
        outcome = await lab.call("fns:echo", json.dumps({"value": value}).encode())
        assert isinstance(outcome, bytes)
        assert json.loads(outcome) == value

    async def test_results_are_compact_utf8(self, lab: Lab) -> None:
        outcome = await lab.call("fns:echo", json.dumps({"value": {"ä": [1, 2]}}).encode())
        assert outcome == '{"ä":[1,2]}'.encode()

    async def test_a_coroutine_function_runs_on_a_loop(self, lab: Lab) -> None:
        assert await lab.call("fns:slow_echo", b'{"value": 3, "delay": 0.01}') == b"3"

    async def test_dotted_callables_and_callable_objects(self, lab: Lab) -> None:
        assert await lab.call("fns:Shapes.area", b'{"width": 3, "height": 4}') == b"12"
        assert await lab.call("fns:called", b'{"value": 1}') == b"[1]"

    async def test_bytes_keep_their_type(self, lab: Lab) -> None:
        outcome = await lab.call("fns:octets", b'{"size": 3}')
        assert outcome == Stored(content_type="application/octet-stream", data=b"xxx")

    async def test_large_results_are_handed_over_whole(self, lab: Lab) -> None:
        outcome = await lab.call("fns:text", b'{"size": 5000000}')
        assert outcome == Stored(data=b'"' + b"x" * 5_000_000 + b'"')

    async def test_arguments_by_reference(self, lab: Lab) -> None:
        one, two, three = (lab.attempt("fns:echo") for _ in range(3))
        one.extras = (Extra(parameter="value", content_type="application/json", data=b'{"a": 1}'),)
        manifest = b'[{"value": 1}, {"artifact": {"digest": "sha256:2", "size_bytes": 3}}]'
        kind = "application/vnd.nodeflow.manifest+json"
        two.extras = (Extra(parameter="value", content_type=kind, data=manifest, parts=(("sha256:2", b"[2]"),)),)
        three.extras = (Extra(parameter="value", content_type="image/png", data=b"PNG"),)
        octets = Stored(content_type="application/octet-stream", data=b"PNG")
        assert await lab.run(one, two, three) == [b'{"a":1}', b"[1,[2]]", octets]


class TestFailures:
    async def test_an_exception(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:fail", b'{"text": "no luck"}'))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.USER, "FUNCTION_RAISED", True)
        assert (failure.error_type, failure.message) == ("ValueError", "no luck")
        assert failure.traceback.count("File ") == 1
        assert "fns.py" in failure.traceback
        assert "raise ValueError(text)" in failure.traceback

    async def test_a_cause_is_told_too(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:chain"))
        assert failure.error_type == "KeyError"
        assert failure.cause is not None
        assert failure.cause.message == "inner"

    @pytest.mark.parametrize(
        ("function", "error_type"),
        [("deep", "RecursionError"), ("interrupt", "KeyboardInterrupt"), ("memory", "MemoryError")],
    )
    async def test_serious_exceptions_leave_the_runner_alive(self, lab: Lab, function: str, error_type: str) -> None:
        failure = failed(await lab.call(f"fns:{function}"))
        assert (failure.reason, failure.error_type) == ("FUNCTION_RAISED", error_type)
        assert len(failure.traceback) < 10_000
        assert lab.deaths() == []

    async def test_sys_exit_is_a_failure(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:leave", b'{"code": 3}'))
        assert (failure.reason, failure.error_type) == ("FUNCTION_RAISED", "SystemExit")
        assert "sys.exit(3)" in failure.message
        assert lab.deaths() == []

    async def test_a_missing_module(self, lab: Lab) -> None:
        failure = failed(await lab.call("fnz:echo"))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.PERMANENT, "FUNCTION_NOT_FOUND", False)
        assert "no module 'fnz'" in failure.message
        assert str(lab.directory) in failure.message
        assert "did you mean 'fns'?" in failure.message

    async def test_a_missing_function(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:ecko"))
        assert failure.reason == "FUNCTION_NOT_FOUND"
        assert "has no 'ecko'; did you mean 'echo'?" in failure.message

    @pytest.mark.parametrize("name", ["", "fns", "fns:", ":echo", ".fns:echo", "fns:FUNCTIONS.x"])
    async def test_a_malformed_name(self, lab: Lab, name: str) -> None:
        assert failed(await lab.call(name)).reason == "FUNCTION_NOT_FOUND"

    async def test_a_module_that_cannot_be_imported(self, lab: Lab) -> None:
        lab.write("broken.py", "import fns\nfns.fail('at import')\n")
        failure = failed(await lab.call("broken:f"))
        assert (failure.reason, failure.retryable, failure.error_type) == ("FUNCTION_NOT_FOUND", False, "ValueError")
        assert "at import" in failure.message
        assert "broken.py" in failure.traceback

    async def test_a_module_that_misses_another(self, lab: Lab) -> None:
        lab.write("needy.py", "import not_installed_anywhere\n")
        failure = failed(await lab.call("needy:f"))
        assert (failure.reason, failure.error_type) == ("FUNCTION_NOT_FOUND", "ModuleNotFoundError")
        assert "not_installed_anywhere" in failure.message

    @pytest.mark.parametrize("function", ["fns:Shapes.area", "fns:slow_echo"])
    async def test_arguments_that_do_not_fit(self, lab: Lab, function: str) -> None:
        failure = failed(await lab.call(function, b'{"widht": 3}'))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.PERMANENT, "ARGUMENTS_MISMATCH", False)
        assert "widht" in failure.message

    async def test_a_type_error_inside_is_the_functions(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:type_error_inside", b'{"value": 3}'))
        assert (failure.reason, failure.error_type) == ("FUNCTION_RAISED", "TypeError")

    @pytest.mark.parametrize(
        ("kind", "where"),
        [
            ("set", "result['rows'][1] is of type set"),
            ("nan", "result['mean'] is nan"),
            ("key", "key of type tuple"),
            ("object", "result is of type object"),
            ("surrogate", "lone surrogate"),
        ],
    )
    async def test_a_result_without_json_form(self, lab: Lab, kind: str, where: str) -> None:
        failure = failed(await lab.call("fns:odd", json.dumps({"kind": kind}).encode()))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.PERMANENT, "NOT_SERIALIZABLE", False)
        assert where in failure.message

    async def test_a_circular_result(self, lab: Lab) -> None:
        assert failed(await lab.call("fns:circular")).reason == "NOT_SERIALIZABLE"

    async def test_a_result_beyond_the_limit(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:octets", b'{"size": 268435457}'))
        assert (failure.reason, failure.retryable) == ("RESULT_TOO_LARGE", False)


class TestDeaths:
    async def test_os_exit(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:die", b'{"code": 3}'))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.USER, "RUNNER_EXITED", True)
        assert "exited with code 3" in failure.message
        assert await lab.call("fns:echo", b'{"value": 1}') == b"1"

    async def test_a_signal(self, lab: Lab) -> None:
        assert "SIGKILL" in failed(await lab.call("fns:kill")).message

    async def test_a_forked_child_hides_nothing(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:fork"))
        assert "exited with code 9" in failure.message

    async def test_garbage_on_the_pipe_is_blamed_on_its_writer(self, lab: Lab) -> None:
        failure = failed(await lab.call("fns:mess_up_pipe"))
        assert (failure.kind, failure.reason) == (FailureKind.USER, "RUNNER_EXITED")

    async def test_blame_in_a_batch(self, lab: Lab) -> None:
        lab.write(
            "batch.py",
            "import os\ndone = []\ndef step(n=0, log=None):\n"
            "    if n: open(log, 'a').write(f'{n}\\n')\n    if n == 50: os._exit(7)\n    return n\n",
        )
        log = str(lab.directory / "log")
        await lab.warm("batch:step")
        arguments = [json.dumps({"n": n, "log": log}).encode() for n in range(1, 101)]
        attempts = [lab.attempt("batch:step", each) for each in arguments]
        outcomes = await lab.run(*attempts)
        assert [each for each in outcomes if not isinstance(each, bytes)] == [
            each for each in outcomes if isinstance(each, Failure)
        ]
        blamed = [n for n, each in enumerate(outcomes, 1) if isinstance(each, Failure) and "code 7" in each.message]
        assert 50 in blamed
        exited = [
            n for n, each in enumerate(outcomes, 1) if isinstance(each, Failure) and each.reason == "RUNNER_EXITED"
        ]
        lost = [n for n, each in enumerate(outcomes, 1) if isinstance(each, Failure) and each.reason == "RESULT_LOST"]
        assert exited == [50]
        assert all(n < 50 for n in lost)
        assert [outcomes[n - 1] for n in range(51, 101)] == [str(n).encode() for n in range(51, 101)]
        executed = (lab.directory / "log").read_text().split()
        assert sorted(map(int, executed)) == list(range(1, 101))

    async def test_results_before_a_long_task_are_told_while_it_runs(self, lab: Lab) -> None:
        await lab.warm("fns:echo")
        quick = [lab.attempt("fns:echo", b'{"value": 1}') for _ in range(20)]
        lab.write("mixed.py", "import time\ndef f(s=0):\n    time.sleep(s)\n    return s\n")
        await lab.warm("mixed:f")
        batch = [lab.attempt("mixed:f", b'{"s": %d}' % (1000 if n == 10 else 0)) for n in range(20)]
        outcomes = asyncio.ensure_future(lab.run(*quick, *batch))
        await lab.until(lambda: all(each.outcome is not None for each in (*quick, *batch[:10])))
        assert all(each.outcome is None for each in batch[10:])
        lab.cancel(batch[10], 0.5)
        await outcomes
        assert [each.outcome for each in batch] == [b"0"] * 10 + [Ending.CANCELLED] + [b"0"] * 9

    async def test_quick_tasks_behind_a_long_one_run_in_an_idle_runner_once_each(self, tmp_path: Path) -> None:
        async with Lab(tmp_path, slots=2) as lab:
            log = tmp_path / "log"
            lab.write(
                "mixed.py",
                "import time\ndef f(n, s):\n"
                f"    with open({str(log)!r}, 'a') as file: file.write(f'{{n}}\\n')\n"
                "    time.sleep(s)\n    return n\n",
            )
            both = [lab.attempt("mixed:f", b'{"n": 0, "s": 0}') for _ in range(2)]
            await lab.run(*both)
            log.write_text("")
            batch = [lab.attempt("mixed:f", b'{"n": %d, "s": %d}' % (n, 1000 if n == 5 else 0)) for n in range(100)]
            outcomes = asyncio.ensure_future(lab.run(*batch))
            await lab.until(lambda: sum(each.outcome is not None for each in batch) == 99)
            lab.cancel(batch[5], 0.2)
            await outcomes
            expected = [Ending.CANCELLED if n == 5 else b"%d" % n for n in range(100)]
            assert [each.outcome for each in batch] == expected
            assert sorted(map(int, log.read_text().split())) == list(range(100))


class TestStops:
    @pytest.mark.parametrize("function", ["hang", "hang_in_c", "hang_stubbornly"])
    async def test_a_function_that_hangs_is_stopped_at_its_timeout(self, lab: Lab, function: str) -> None:
        loop = asyncio.get_running_loop()
        await lab.warm("fns:echo")
        before = loop.time()
        failure = failed(await lab.call(f"fns:{function}", timeout_s=0.2))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.TRANSIENT, "ATTEMPT_TIMEOUT", True)
        assert 0.2 <= loop.time() - before < 2.0
        assert await lab.call("fns:echo", b'{"value": 1}') == b"1"

    async def test_the_loop_never_waits_for_a_stuck_runner(self, lab: Lab) -> None:
        gaps: list[float] = []
        loop = asyncio.get_running_loop()

        async def tick() -> None:
            while True:
                before = loop.time()
                await asyncio.sleep(0.01)
                gaps.append(loop.time() - before)

        ticking = asyncio.ensure_future(tick())
        await lab.call("fns:hang_in_c", timeout_s=0.3)
        ticking.cancel()
        assert max(gaps) < 0.25

    @pytest.mark.parametrize("function", ["clean_up", "hang_async"])
    async def test_code_may_clean_up_within_the_grace_time(self, lab: Lab, function: str) -> None:
        path = lab.directory / "cleaned"
        await lab.warm("fns:echo")  # or the cancellation could come while the module is imported
        attempt = lab.attempt(f"fns:{function}", json.dumps({"path": str(path)}).encode())
        ended = asyncio.ensure_future(lab.run(attempt))
        await lab.until_running(attempt)
        lab.cancel(attempt, 5.0)
        assert await ended == [Ending.CANCELLED]
        assert path.read_text() == "cleaned"

    async def test_code_that_will_not_stop_is_killed_after_the_grace_time(self, lab: Lab) -> None:
        await lab.warm("fns:echo")
        attempt = lab.attempt("fns:hang_stubbornly")
        ended = asyncio.ensure_future(lab.run(attempt))
        await lab.until_running(attempt)
        lab.cancel(attempt, 0.1)
        assert await ended == [Ending.CANCELLED]
        assert [death.killed for death in lab.deaths()] == [True]

    async def test_a_value_returned_on_the_request_to_stop_counts_and_the_runner_goes_on(self, lab: Lab) -> None:
        await lab.warm("fns:echo")
        attempt = lab.attempt("fns:hang_politely")
        ended = asyncio.ensure_future(lab.run(attempt))
        await lab.until_running(attempt)
        lab.cancel(attempt, 5.0)
        assert await ended == [b'"thanks"']
        # More tasks than there are places on the page: none is taken for the one that was to stop.
        assert await lab.run(*[lab.attempt("fns:echo") for _ in range(3000)]) == [b"null"] * 3000
        assert lab.deaths() == []

    async def test_what_user_code_started_goes_with_its_runner(self, lab: Lab) -> None:
        outcome = await lab.call("fns:child")
        assert isinstance(outcome, bytes)
        child = psutil.Process(int(outcome))
        await lab.call("fns:die", b'{"code": 1}')
        assert child.wait(5) is None or not child.is_running()

    async def test_a_timed_task_in_time_succeeds(self, lab: Lab) -> None:
        assert await lab.call("fns:nap", b'{"seconds": 0.1}', timeout_s=5) == b'"rested"'

    async def test_a_timeout_counts_from_the_start_of_its_own_task(self, lab: Lab) -> None:
        attempts = [lab.attempt("fns:nap", b'{"seconds": 0.15}', timeout_s=0.5) for _ in range(5)]
        assert await lab.run(*attempts) == [b'"rested"'] * 5


class TestSurroundings:
    async def test_the_environment_holds_nothing_of_the_agents(self, tmp_path: Path) -> None:
        environment = {**os.environ, "NODEFLOW_WORKER_TOKEN": "secret", "AWS_SECRET_ACCESS_KEY": "secret"}
        async with Lab(tmp_path, environment=environment) as lab:
            lab.write("fns.py", FUNCTIONS)
            outcome = await lab.call("fns:environment")
        assert isinstance(outcome, bytes)
        allowed = {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE"}
        assert set(json.loads(outcome)) <= allowed

    async def test_the_runner_has_its_own_descriptors_only(self, lab: Lab) -> None:
        with (lab.directory / "of the agent").open("w"):
            outcome = await lab.call("fns:descriptors")
        assert isinstance(outcome, bytes)
        names = json.loads(outcome)
        assert "/dev/null" in names
        assert not [name for name in names if name.startswith("socket:") or "of the agent" in name]
        # Tasks, results, output and error, each of these two with its other end.
        assert len({name for name in names if name.startswith("pipe:")}) <= 4

    async def test_the_directory_comes_first_then_the_workers_path(self, tmp_path: Path) -> None:
        more = tmp_path / "more"
        more.mkdir()
        (more / "extra.py").write_text("def f():\n    return 'from the path'\n")
        async with Lab(tmp_path, paths=[str(more)]) as lab:
            lab.write("fns.py", FUNCTIONS)
            assert await lab.call("extra:f") == b'"from the path"'
            outcome = await lab.call("fns:search_path")
            assert isinstance(outcome, bytes)
            assert json.loads(outcome)[:2] == [str(tmp_path), str(more)]

    async def test_the_input_is_empty(self, lab: Lab) -> None:
        assert await lab.call("fns:say", b'{"text": "hello from user code"}') == b'"said"'

    async def test_an_edited_function_is_picked_up(self, lab: Lab) -> None:
        lab.write("edited.py", "def f():\n    return 1\n")
        assert await lab.call("edited:f") == b"1"
        lab.write("edited.py", "def f():\n    return 2\n")
        before = asyncio.get_running_loop().time()
        while await lab.call("edited:f") != b"2":
            assert asyncio.get_running_loop().time() - before < 5
        assert [death.cause for death in lab.deaths()] == ["its code had changed on disk"]

    async def test_a_function_is_pinned_to_the_bytes_of_its_file(self, lab: Lab) -> None:
        first, second = "def f():\n    return 1\n", "def f():\n    return 2\n"
        lab.write("pinned.py", first)
        assert await lab.call(f"pinned:f@{digest_of(first)}") == b"1"
        lab.write("pinned.py", second)
        assert await lab.call(f"pinned:f@{digest_of(second)}") == b"2", "however soon after the change"
        lab.write("pinned.py", first)
        assert await lab.call(f"pinned:f@{digest_of(first)}") == b"1"

    async def test_other_bytes_are_not_executed(self, lab: Lab) -> None:
        meant = "def f():\n    return 1\n"
        lab.write("other.py", f"open({str(lab.directory / 'executed')!r}, 'w').close()\n{meant}")
        failure = failed(await lab.call(f"other:f@{digest_of(meant)}"))
        assert (failure.kind, failure.reason, failure.retryable) == (FailureKind.SYSTEM, "CODE_DIFFERS", False)
        assert f"other:f is pinned to a file of {digest_of(meant)[:19]}…" in failure.message
        assert f"{lab.directory / 'other.py'} has sha256:" in failure.message
        assert not (lab.directory / "executed").exists()
        lab.write("other.py", meant)
        assert await lab.call(f"other:f@{digest_of(meant)}") == b"1"

    @pytest.mark.parametrize("function", ["nowhere:f", "nowhere.at_all:f", "sys:exit"])
    async def test_no_file_at_all_is_other_code_too(self, lab: Lab, function: str) -> None:
        failure = failed(await lab.call(f"{function}@{digest_of('')}"))
        assert failure.reason == "CODE_DIFFERS"
        assert f"there is no module {function.partition(':')[0]!r} here" in failure.message

    async def test_a_module_that_appears_is_found(self, lab: Lab) -> None:
        assert failed(await lab.call("later:f")).reason == "FUNCTION_NOT_FOUND"
        lab.write("later.py", "def f():\n    return 1\n")
        assert await lab.call("later:f") == b"1"

    async def test_two_directories_have_two_runners(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "same.py").write_text(f"def f():\n    return '{name}'\n")
        async with Lab(tmp_path) as lab:
            attempts = [lab.attempt("same:f", directory=str(tmp_path / name)) for name in ("a", "b", "a")]
            assert await lab.run(*attempts) == [b'"a"', b'"b"', b'"a"']

    async def test_started_is_told_of_long_tasks_only(self, lab: Lab) -> None:
        long = lab.attempt("fns:nap", b'{"seconds": 0.1}')
        await lab.warm("fns:echo")
        await lab.run(*[lab.attempt("fns:echo") for _ in range(50)], long)
        assert long in lab.running

    async def test_quick_tasks_travel_in_batches(self, lab: Lab) -> None:
        await lab.warm("fns:echo")
        await lab.run(*[lab.attempt("fns:echo") for _ in range(2000)])
        batches = [len(each.outcomes) for each in lab.seen if isinstance(each, RunnerResults)]
        assert sum(batches) == 2001
        assert len(batches) < 400


PARENT = """
import asyncio, os, sys
from nodeflow_worker.adapters.runner_process import RunnerProcesses
from nodeflow_worker.domain.events import RunnerReady
async def main():
    runners = RunnerProcesses([], os.environ)
    ready = asyncio.Event()
    runners.listen(lambda event: ready.set() if isinstance(event, RunnerReady) else None)
    runners.spawn(1, 0.0)
    await ready.wait()
    print(runners._processes[1]._popen.pid, flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


def test_runners_die_with_a_killed_agent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        runner = psutil.Process(int(agent.stdout.readline()))
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        psutil.wait_procs([runner], timeout=5)
        assert not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE


async def test_close_leaves_no_process(tmp_path: Path) -> None:
    async with Lab(tmp_path, slots=2) as lab:
        lab.write("fns.py", FUNCTIONS)
        await lab.call("fns:echo")
        processes = [psutil.Process(pid) for pid in lab.pids()]
        hanging: list[Attempt] = [lab.attempt("fns:hang")]
        waiting = asyncio.ensure_future(lab.run(*hanging))
        await lab.until_running(hanging[0])
        waiting.cancel()
    assert not [each for each in processes if each.is_running()]
    assert not [each for each in lab.seen[-1:] if isinstance(each, RunnerDied)]


def digest_of(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
