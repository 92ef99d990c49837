"""The SDK with real suites: scripts as users write them, and handles against a suite that runs."""

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from tests.support.suite import Finished, Suite

EXAMPLES = Path(__file__).parents[2] / "examples"
ISSUE_SAMPLE = EXAMPLES / "word_count_sdk" / "word_count_sdk.py"
WARM_START_S = 2.0

HEAD = """\
import asyncio, json, sys, time
from dataclasses import dataclass
from pathlib import Path
import nodeflow_sdk
from nodeflow_sdk import Backoff, node, workflow

@node
def double(n: int) -> int:
    return 2 * n

@node(retries=2, backoff=Backoff(initial="10ms"))
def broken(n: int) -> int:
    if n == 3:
        raise ValueError(f"{n} is too much")
    return n

@node
def large(n: int) -> str:
    return "x" * n

@node
def wait(seconds: float) -> None:
    time.sleep(seconds)

@node
def talk(n: int) -> None:
    print(f"this is {n}")

@workflow
def talks(numbers: list[int]) -> list[None]:
    return talk.map(numbers)

@workflow
def doubled(numbers: list[int]) -> list[int]:
    return double.map(double.map(numbers))

@workflow
def one(n: int) -> int:
    return double(n)

@workflow
def breaks(numbers: list[int]) -> list[int]:
    return broken.map(numbers)

@workflow
def waits(seconds: float) -> None:
    wait(seconds)

"""


async def script(directory: Path, body: str, *, name: str = "user_script.py") -> Finished:
    """Run HEAD and a body as a script in a directory, as a user would."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    (directory / name).write_text(f'{HEAD}\nif __name__ == "__main__":\n{indented}')
    return await run_file(directory, directory / name)


async def run_file(directory: Path, file: Path) -> Finished:
    """Run a Python file in a directory."""
    return await run_python(directory, str(file))


async def run_python(directory: Path, *arguments: str) -> Finished:
    """Run the interpreter in a directory."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NODEFLOW_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=directory,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Finished(code=process.returncode or 0, out=out.decode(), err=err.decode())


async def test_the_sample_of_the_readme_runs_on_a_suite_of_its_own(tmp_path: Path) -> None:
    """From an empty directory, and again on the data that the first run has left."""
    (tmp_path / "README.md").write_text("three words here\n")
    (tmp_path / "Makefile").write_text("one\n")
    for _ in range(2):
        done = await run_file(tmp_path, ISSUE_SAMPLE)
        assert (done.code, done.out) == (0, "4\n"), done.err
    assert (tmp_path / ".nodeflow" / "nodeflow.db").exists()
    assert not (tmp_path / ".nodeflow" / "suite.json").exists(), "the suite has stopped with the script"


async def test_a_warm_start_is_quick(tmp_path: Path) -> None:
    """From the start of the interpreter to the first result, with the suite started in between; the best of five.

    The promise is for a machine that has nothing else to do, so the script goes before all others where it may.
    """
    body = "one.run(n=1)\nprint(time.time())"
    await script(tmp_path, body)
    took: list[float] = []
    with ahead_of_others() as ahead:
        while len(took) < 5 and min(took, default=WARM_START_S) >= WARM_START_S:
            begin = time.time()
            done = await script(tmp_path, body)
            assert done.code == 0, done.err
            took.append(float(done.out) - begin)
    told = f"warm start to first result: {', '.join(f'{each:.2f}' for each in took)} s"
    sys.stdout.write(f"{told}\n")
    if min(took) >= WARM_START_S and not ahead and os.getloadavg()[0] > (os.cpu_count() or 1):
        pytest.skip(f"{told}, on a machine that is busy with other things, and nobody here may go before them")
    assert min(took) < WARM_START_S


@contextmanager
def ahead_of_others() -> Iterator[bool]:
    """Have processes that are started inside run before those of others; False where this user may not ask for that."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, policy, parameters)


async def test_runs_share_the_suite_that_runs_here(suite: Suite) -> None:
    done = await script(
        suite.directory,
        "print(doubled.run(numbers=[1, 2, 3]), doubled.run([]))\n"
        "started = one.start_many([{'n': n} for n in range(50)])\n"
        "print([each.result() for each in started] == [2 * n for n in range(50)])",
    )
    assert (done.code, done.out) == (0, "[4, 8, 12] []\nTrue\n"), done.err
    assert suite.record.lasting


async def test_a_failure_is_raised_with_the_remote_traceback(suite: Suite) -> None:
    body = """\
try:
    breaks.run(numbers=[1, 3])
except nodeflow_sdk.NodeFailed as error:
    print(json.dumps([error.node, error.item, error.attempts, error.reason, error.error_type, error.error_message]))
breaks.run(numbers=[3])
"""
    done = await script(suite.directory, body)
    assert json.loads(done.out) == ["broken", 1, 3, "FUNCTION_RAISED", "ValueError", "3 is too much"], done.err
    assert done.code == 1
    line = next(number for number, text in enumerate(HEAD.splitlines(), 1) if "raise ValueError" in text)
    assert re.search(
        r"NodeFailed: broken\[0\] of breaks \(.*\) failed after 3 attempts: ValueError: 3 is too", done.err
    )
    assert f'user_script.py", line {line}, in broken' in done.err
    assert "nodeflow_worker" not in done.err
    assert "grpc" not in done.err


async def test_a_handle_gives_the_lines_that_tasks_write(suite: Suite) -> None:
    body = """\
run = talks.start(numbers=[3, 5])
lines = list(run.logs())
print(sorted((line.node, line.item, line.attempt, line.stream, line.text) for line in lines))
print([str(line) for line in talks.execution(run.id).logs("talk", follow=False)] == [str(line) for line in lines])
"""
    done = await script(suite.directory, body)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "[('talk', 0, 1, 'stdout', 'this is 3'), ('talk', 1, 1, 'stdout', 'this is 5')]",
        "True",
    ]


async def test_a_handle_tells_state_updates_and_result(suite: Suite) -> None:
    body = """\
run = one.start(n=4, labels={"test": "handle"}, request_id="handle-1")
updates = list(run.watch())
print(run.result(), run.state().is_final, run.state() == "COMPLETED", one.execution(run.id).result(timeout=5))
print([update.sequence for update in updates] == list(range(1, len(updates) + 1)))
print(not updates[0].node, updates[-1], [str(each) for each in updates if each.node][-1])
print(one.start(n=4, request_id="handle-1", labels={"test": "handle"}).id == run.id)
"""
    done = await script(suite.directory, body)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        "8 True True 8",
        "True",
        "True execution COMPLETED double COMPLETED",
        "True",
    ]


async def test_cancel_and_timeout(suite: Suite) -> None:
    body = """\
run = waits.start(60)
try:
    run.result(timeout=0.2)
except TimeoutError as error:
    print("still runs" in str(error))
run.cancel("enough")
try:
    run.result(timeout=20)
except nodeflow_sdk.ExecutionCancelled as error:
    print(error.reason, run.state())
"""
    done = await script(suite.directory, body)
    assert (done.code, done.out) == (0, "True\nenough CANCELLED\n"), done.err


async def test_async_code_awaits_what_others_wait_for(suite: Suite) -> None:
    body = """\
async def main():
    run = await one.astart(n=2)
    states = [update.state async for update in run.watch()]
    print(await run.result(), states[-1], await run.state())
    print(await asyncio.gather(*(one.arun(n=n) for n in range(5))))
    print(one.run(n=10))
asyncio.run(main())
"""
    done = await script(suite.directory, body)
    assert (done.code, done.out) == (0, "4 COMPLETED COMPLETED\n[0, 2, 4, 6, 8]\n20\n"), done.err


async def test_an_interrupted_run_cancels_its_execution(suite: Suite) -> None:
    """Ctrl-C in a script, and a cancelled task in async code."""
    process = await begun(suite, "waits.run(60, labels={'test': 'ctrl-c'})", "ctrl-c")
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert b"KeyboardInterrupt" in err
    assert "CANCELLED" in (await suite.cli("ls", "--label", "test=ctrl-c")).out
    body = """\
async def main():
    task = asyncio.create_task(waits.arun(60, labels={"test": "task"}, request_id="task-1"))
    await asyncio.to_thread(sys.stdin.readline)
    task.cancel()
    await asyncio.wait([task])
    print(task.cancelled(), waits.start(60, labels={"test": "task"}, request_id="task-1").state())
asyncio.run(main())
"""
    process = await begun(suite, body, "task")
    out, err = await process.communicate(b"cancel\n")
    assert (process.returncode, out) == (0, b"True CANCELLED\n"), err


async def begun(suite: Suite, body: str, label: str) -> asyncio.subprocess.Process:
    """Start a script, and return it once its execution of that label is there."""
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    file = suite.directory / f"{label}.py".replace("-", "_")
    file.write_text(f'{HEAD}\nif __name__ == "__main__":\n{indented}')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(file)),
        cwd=suite.directory,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    while "waits" not in (await suite.cli("ls", "--label", f"test={label}")).out:
        assert process.returncode is None
    return process


async def test_a_module_of_a_package_runs_with_its_relative_imports(suite: Suite) -> None:
    package = suite.directory / "shop" / "flows"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").write_text("")
    (package / "nodes.py").write_text(
        "from nodeflow_sdk import node\n\n@node\ndef half(n: int) -> float:\n    return n / 2\n"
    )
    (package / "main.py").write_text(
        "from nodeflow_sdk import workflow\nfrom .nodes import half\n\n"
        "@workflow\ndef flow(n: int):\n    return half(n)\n\n"
        "if __name__ == '__main__':\n    print(flow.run(5))\n"
    )
    done = await run_python(suite.directory, "-m", "shop.flows.main")
    assert (done.code, done.out) == (0, "2.5\n"), done.err


async def test_a_script_that_cannot_be_imported_says_so(suite: Suite) -> None:
    file = suite.directory / "my-script.py"
    file.write_text(f"{HEAD}\nif __name__ == '__main__':\n    one.run(1)\n")
    done = await run_file(suite.directory, file)
    assert done.code == 1
    assert "my-script.py cannot be imported; rename it, to my_script.py for one" in done.err


TYPES = """\
import enum
from dataclasses import dataclass
from nodeflow_sdk import node, workflow

class Unit(enum.Enum):
    CM = "cm"
    INCH = "inch"

@dataclass
class Box:
    width: float
    height: float
    unit: Unit = Unit.CM

@node
async def scaled(box: Box, by: float) -> Box:
    assert isinstance(box, Box) and box.unit is Unit.INCH
    return Box(box.width * by, box.height * by, box.unit)

@node
def text(size: int) -> str:
    return "é" * size

@node
def octets(size: int) -> bytes:
    return bytes(range(256)) * size

@workflow
def typed(box: Box, size: int):
    bigger = scaled.map([box, box], by=2)
    return {
        "area": bigger[0].width,
        "boxes": bigger,
        "large": text(size),
        "octets": octets(1),
        "many": text.map([1, size]),
        "small": octets.map([size, 1]),
    }

@workflow
def box(box: Box) -> Box:
    return scaled(box, 0.5)

if __name__ == "__main__":
    result = typed.run(Box(1, 2, Unit.INCH), size=100_000)
    assert result["area"] == 2.0
    assert result["boxes"] == [{"width": 2.0, "height": 4.0, "unit": "inch"}] * 2
    assert result["large"] == "é" * 100_000
    assert result["octets"] == bytes(range(256))
    assert result["many"] == ["é", "é" * 100_000]
    assert result["small"] == [bytes(range(256)) * 100_000, bytes(range(256))]
    assert box.run(Box(1, 2, Unit.INCH)) == Box(0.5, 1.0, Unit.INCH)
    print("all as it should be")
"""


async def test_types_and_large_values_arrive_as_they_were(suite: Suite) -> None:
    file = suite.directory / "typed_script.py"
    file.write_text(TYPES)
    done = await run_file(suite.directory, file)
    assert (done.code, done.out) == (0, "all as it should be\n"), done.err


async def test_a_run_without_the_guard_says_so(suite: Suite) -> None:
    file = suite.directory / "unguarded.py"
    file.write_text(f"{HEAD}\nprint(one.run(n=1))\n")
    done = await run_file(suite.directory, file)
    line = len(file.read_text().splitlines())
    assert done.code == 1
    assert f"{file}:{line}: one runs whenever its module is imported" in done.err
    assert 'put it under `if __name__ == "__main__":`' in done.err


async def test_faults_that_only_the_scheduler_finds_name_their_line(suite: Suite) -> None:
    body = """\
print(registered.register()[:7])
"""
    head = "@node(when='inputs.m > 1')\ndef maybe(n): ...\n@workflow\ndef registered(n: int):\n    maybe(n)  # here\n"
    file = suite.directory / "faulty.py"
    file.write_text(f'{HEAD}{head}if __name__ == "__main__":\n    {body}')
    line = next(number for number, text in enumerate(file.read_text().splitlines(), 1) if "# here" in text)
    done = await run_file(suite.directory, file)
    assert done.code == 1
    assert f"WiringError: {file}:{line}: nodes.maybe.when: there is no input 'm'; the inputs are n\n" in done.err
    assert "direct cause" not in done.err


async def test_a_script_that_was_edited_since_it_was_registered_is_not_run(suite: Suite) -> None:
    """Its revision names the bytes of its file; who has them is asked, and nobody else."""
    home, away = suite.directory / "pinned_home", suite.directory / "pinned_away"
    for directory in (home, away):
        directory.mkdir()
    assert (await script(home, "one.register()", name="pinned.py")).code == 0
    assert json.loads((await run_by_name(suite, "one")).out) == {"result": 8}
    whole = (home / "pinned.py").read_text()
    (home / "pinned.py").write_text(whole.replace("2 * n", "3 * n"))
    edited = await run_by_name(suite, "one")
    assert edited.code == 1
    assert "CODE_DIFFERS: pinned:double is pinned to a file of sha256:" in edited.err
    assert f"{home / 'pinned.py'} has sha256:" in edited.err
    again = await script(home, "print(one.run(n=4))", name="pinned.py")
    assert again.out == "8\n", "what the file is now is another revision"
    (home / "pinned.py").rename(away / "pinned.py")
    async with another_worker(suite, away):
        assert json.loads((await run_by_name(suite, "one")).out) == {"result": 8}


async def run_by_name(suite: Suite, name: str) -> Finished:
    """Run a registered workflow whose input n is 4."""
    submitted = await suite.cli("submit", name, "--input", "n=4")
    return await suite.cli("wait", submitted.out.strip())


@asynccontextmanager
async def another_worker(suite: Suite, path: Path) -> AsyncIterator[None]:
    """Have a worker that imports from another directory, too."""
    command = [sys.executable, "-m", "nodeflow_sdk.cli", "worker", "--id", "away", "--slots", "1", "--path", str(path)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=suite.directory, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while "away" not in (await suite.cli("workers", "-o", "name")).out.split():
            assert process.returncode is None
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_a_registered_workflow_is_run_by_name(suite: Suite) -> None:
    done = await script(suite.directory, "print(one.register())", name="registering.py")
    assert done.code == 0, done.err
    listed = await suite.cli("workflows", "one", "-o", "name")
    assert done.out.strip() in listed.out.split()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("one.run()", "TypeError: one(n: int) -> int: missing a required argument: 'n'"),
        ("one.run(n='x')", "TypeError: input n of one: Expected `int`, got `str`; it must be int"),
        ("one.run(n=1, suite='127.0.0.1:1')", "Unavailable: no Node Flow scheduler answers at 127.0.0.1:1; start"),
        ("one.run(n=1, suite='nowhere')", "InvalidInput: the address of the suite, 'nowhere', should be host:port"),
    ],
)
async def test_bad_runs_say_what_is_wrong(suite: Suite, body: str, said: str) -> None:
    done = await script(suite.directory, body)
    assert done.code == 1
    assert said in done.err


PROCESSES = """\
from nodeflow_sdk import node, process, workflow

words = process(script='printf %s "$(wc -w < "$FILE")" > "$NODEFLOW_OUTPUT"', env={"FILE": "{path}"}, name="words")
sort = process(["sh", "-c", 'sort -u "$1" > "$NODEFLOW_OUTPUT"', "sort", "{path}"])
say = process(script='cat > "$NODEFLOW_OUTPUT"', stdin="{text}")
fail = process("sh -c 'echo no such luck >&2; exit 3'", name="fail")

@node
def total(counts: list[int]) -> int:
    return sum(counts)

@workflow
def count(paths: list[str]):
    return {"total": total(words.map(paths)), "sorted": sort(paths[0]), "said": say({"a": ["it's", total([1])]})}

@workflow
def failing():
    fail()

if __name__ == "__main__":
    with open("it's a file", "w") as file:
        file.write("b=2\\na=1\\nb=2\\n")
    import os
    print(count.run(paths=[os.path.abspath("it's a file")] * 2))
    failing.run()
"""


async def test_processes_are_nodes_like_functions(suite: Suite) -> None:
    file = suite.directory / "processes.py"
    file.write_text(PROCESSES)
    done = await run_file(suite.directory, file)
    assert (
        done.out == f"{ {'total': 6, 'sorted': {'a': '1', 'b': '2'}, 'said': {'a': ['it' + chr(39) + 's', 1]}} }\n"
    ), done.err
    assert "NodeFailed: fail of failing" in done.err
