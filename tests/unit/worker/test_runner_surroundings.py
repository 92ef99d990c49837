"""Real runner processes: what is around a function, which bytes it is, and what outlives whom."""

import asyncio
import errno
import gc
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
from tests.unit.worker.runner_functions import FUNCTIONS, failed

from nodeflow_worker.domain.events import RunnerDied, RunnerResults
from nodeflow_worker.domain.values import Attempt, FailureKind


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path) as lab:
        lab.write("fns.py", FUNCTIONS)
        yield lab


class TestSurroundings:
    async def test_the_environment_holds_nothing_of_the_agents(self, tmp_path: Path) -> None:
        environment = {**os.environ, "NODEFLOW_WORKER_TOKEN": "secret", "AWS_SECRET_ACCESS_KEY": "secret"}
        async with Lab(tmp_path, environment=environment) as lab:
            lab.write("fns.py", FUNCTIONS)
            outcome = await lab.call("fns:environment")
        assert isinstance(outcome, bytes)
        allowed = {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE"}
        assert set(json.loads(outcome)) <= allowed

    @pytest.mark.parametrize(("name", "nth"), [("pipe", 1), ("pipe", 2), ("pipe", 3), ("pipe", 4), ("pidfd_open", 1)])
    async def test_a_runner_that_cannot_be_started_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int
    ) -> None:
        make, made = getattr(os, name), []

        def scarce(*arguments: int) -> object:
            made.append(name)
            if len(made) == nth:
                raise OSError(errno.EMFILE, "Too many open files")
            return make(*arguments)

        async with Lab(tmp_path) as lab:
            lab.write("fns.py", FUNCTIONS)
            await lab.call("fns:echo")
            gc.collect()  # what tests before this one have left
            before, children = psutil.Process().num_fds(), psutil.Process().children()
            monkeypatch.setattr(os, name, scarce)
            lab.runners.spawn(100, 0.0)
            await lab.until(lambda: any(each.runner == 100 for each in lab.deaths()))
            assert (psutil.Process().num_fds(), psutil.Process().children()) == (before, children)

    async def test_a_runner_that_is_gone_leaves_nothing_for_the_garbage_collector(self, tmp_path: Path) -> None:
        """It comes by after 200,000 objects, and each runner has a descriptor for its page."""
        gc.collect()
        gc.disable()
        try:
            async with Lab(tmp_path) as lab:
                lab.write("fns.py", FUNCTIONS)
                open_after: list[int] = []
                for _ in range(4):
                    await lab.call("fns:kill")
                    await lab.call("fns:echo")  # by the one in its place
                    open_after.append(psutil.Process().num_fds())
        finally:
            gc.enable()
        assert len(set(open_after)) == 1, open_after

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
