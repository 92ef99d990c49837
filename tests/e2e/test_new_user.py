"""A new user: wheels in an empty environment, an empty directory, and what is printed and written there, word for word.

Needs a package index that pip knows: without one, nothing can be installed, and the tests say so and are skipped.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("scheduler", "state-manager", "worker-manager", "worker")
DISTRIBUTIONS = ["gen", "shared", *(f"services/{name}" for name in SERVICES), "clients/python", "clients/testing"]
README = (ROOT / "README.md").read_text()
START_S = 60.0

pytestmark = pytest.mark.timeout(600)


class User:
    """Somebody with a shell, in a directory, with what was installed and nothing else."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.programs = programs
        self.directory = directory

    @property
    def environment(self) -> dict[str, str]:
        """This process's, without what would let Python find packages elsewhere."""
        ours = ("PYTHON", "VIRTUAL_ENV", "NODEFLOW_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        path = f"{self.programs}{os.pathsep}{kept['PATH']}"
        return {**kept, "PATH": path, "NO_COLOR": "1", "XDG_CONFIG_HOME": str(self.directory / ".config")}

    def types(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line in a shell, to its end."""
        command = ["sh", "-c", line]
        return subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )

    def gets(self, line: str) -> str:
        """Run a line that has to succeed; returns what is on stdout."""
        done = self.types(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def suite(self) -> Iterator[None]:
        """`nodeflow up` in another terminal, until the end of the block."""
        command = [str(self.programs / "nodeflow"), "up", "--port", "0"]
        with (self.directory / "up.log").open("wb") as log:
            up = subprocess.Popen(command, cwd=self.directory, env=self.environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_S
            while not (self.directory / ".nodeflow" / "suite.json").exists():
                assert up.poll() is None, (self.directory / "up.log").read_text()
                assert time.monotonic() < deadline, (self.directory / "up.log").read_text()
                time.sleep(0.1)  # it tells by that file
            yield
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(START_S)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `nodeflow`, `python` and `pytest` are: in an environment that has the wheels and what they ask for."""
    directory = tmp_path_factory.mktemp("installed")
    user = User(directory / "venv" / "bin", directory)
    subprocess.run([sys.executable, "-m", "venv", str(directory / "venv")], check=True, env=user.environment)
    reach = user.types("pip download --quiet --no-deps --dest . hatchling")
    if reach.returncode:
        pytest.skip(f"pip reaches no package index: {(reach.stderr.strip() or 'no message').splitlines()[-1]}")
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    sources = [f"./{name}" for name in DISTRIBUTIONS]
    subprocess.run([*wheel, "--wheel-dir", str(directory / "wheels"), *sources], check=True, cwd=ROOT)
    constraints = f"--constraint {ROOT / 'constraints.txt'}"
    user.gets(f"pip install --quiet {constraints} --find-links wheels 'nodeflow-sdk[embedded,testing]'")
    return user.programs


@pytest.fixture
def user(programs: Path, tmp_path: Path) -> User:
    return User(programs, tmp_path)


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_wheels_are_all_there_is_of_ours_and_fit_together(user: User) -> None:
    listed = json.loads(user.gets("pip list --format json"))
    ours = {each["name"] for each in listed if each["name"].startswith("nodeflow")}
    names = {f"nodeflow-{name}" for name in (*SERVICES, "protos", "shared", "sdk", "testing")}
    assert ours == names
    user.gets("pip check")


def test_what_init_prints_works_and_so_does_its_readme(user: User) -> None:
    made = user.types("nodeflow init")
    assert made.returncode == 0, made.stderr
    assert all((user.directory / name).is_file() for name in made.stdout.split())
    [line] = [each.removeprefix("try: ") for each in made.stderr.splitlines() if each.startswith("try: ")]
    assert json.loads(user.gets(line)) == {"total": 7}
    readme = (user.directory / "README.md").read_text()
    [commands] = blocks(readme, "sh")
    looks = re.findall(r"`(nodeflow [^`]*)`", readme.partition("`nodeflow up` in another terminal")[2])
    assert looks
    with user.suite():
        for command in (*commands.splitlines(), *looks):
            user.gets(command)
    known = {*(each.split("/")[0] for each in made.stdout.split()), ".nodeflow", "__pycache__", "up.log"}
    assert {each.name for each in user.directory.iterdir()} <= known
    assert "Traceback" not in (user.directory / "up.log").read_text()


BREAKS: dict[str, tuple[str, str, str, int, list[str]]] = {
    "a function raises": (
        *("functions.py", "return sum(counts)", 'raise ValueError("too few")'),
        *(1, ["✗ total failed: ValueError: too few", "functions.py", 'raise ValueError("too few")']),
    ),
    "a function is not Python": (
        *("functions.py", "return sum(counts)", "return sum(counts"),
        *(1, ["SyntaxError", "functions.py, line 15", "was never closed"]),
    ),
    "a function is misspelt": (
        *("workflow.yaml", "functions:total", "functions:totl"),
        *(1, ["functions.py) has no 'totl'; did you mean 'total'?"]),
    ),
    "a module is misspelt": (
        *("workflow.yaml", "functions:total", "function:total"),
        *(1, ["there is no module 'function'", "did you mean 'functions'?"]),
    ),
    "a node is misspelt": (
        *("workflow.yaml", "nodes.count.output", "nodes.cont.output"),
        *(3, ["workflow.yaml:20: nodes.total.with.counts: there is no node 'cont'", "try: did you mean count?"]),
    ),
    "a field is misspelt": (
        *("workflow.yaml", "timeout:", "timout:"),
        *(3, ["workflow.yaml:17: nodes.count.timout: is not a known field", "try: did you mean timeout?"]),
    ),
    "a type is wrong": (
        *("workflow.yaml", "attempts: 3", "attempts: three"),
        *(3, ["workflow.yaml:16: nodes.count.retry.attempts: must be a whole number, not text"]),
    ),
    "a default is wrong": (
        *("workflow.yaml", "default: [data/a.txt, data/b.txt]", "default: data/a.txt"),
        *(3, ["workflow.yaml:10: inputs.paths.default"]),
    ),
    "a file is missing": (
        *("workflow.yaml", "data/b.txt", "data/c.txt"),
        *(1, ["count[1] failed after 3 attempts", "FileNotFoundError", "data/c.txt"]),
    ),
}


def test_what_is_broken_is_told_where_it_is_and_once_mended_runs(user: User) -> None:
    user.gets("nodeflow init")
    with user.suite():
        for case, (name, right, wrong, code, told) in BREAKS.items():
            file = user.directory / name
            text = file.read_text()
            assert right in text, case
            file.write_text(text.replace(right, wrong))
            done = user.types("nodeflow run workflow.yaml")
            assert (done.returncode, done.stdout) == (code, ""), (case, done.stderr)
            assert not [words for words in told if words not in done.stderr], (case, done.stderr)
            assert "site-packages" not in done.stderr, case
            file.write_text(text)
            assert json.loads(user.gets("nodeflow run workflow.yaml")) == {"total": 7}, case


def test_the_program_of_the_readme_runs_and_its_faults_are_the_users_own(user: User) -> None:
    [program] = [each for each in blocks(README, "python") if "@workflow" in each]
    (user.directory / "README.md").write_text("one two")
    (user.directory / "Makefile").write_text("three")
    flow = user.directory / "flow.py"
    with user.suite():
        flow.write_text(program)
        assert user.gets("python flow.py") == "3\n"
        flow.write_text(program.replace("count.map(paths)", "count(paths)"))
        wired = user.types("python flow.py")
        assert (
            f"flow.py:{program[: program.index('count.map')].count(chr(10)) + 1}: argument path of count"
            in wired.stderr
        )
        assert wired.stderr.rstrip().endswith("count.map(…) makes one task of each item")
        flow.write_text(program.replace('"Makefile"', '"Makefil"'))
        failed = user.types("python flow.py")
        assert "Remote traceback:" in failed.stderr
        assert "FileNotFoundError: [Errno 2] No such file or directory: 'Makefil'" in failed.stderr


def test_a_test_of_the_program_uses_the_fixture(user: User) -> None:
    [program] = [each for each in blocks(README, "python") if "@workflow" in each]
    (user.directory / "flow.py").write_text(program)
    (user.directory / "test_flow.py").write_text(
        "from flow import word_count\n\n\n"
        "def test_words_are_counted(nodeflow, tmp_path):\n"
        "    (tmp_path / 'a').write_text('one two')\n"
        "    assert nodeflow.run(word_count, paths=[str(tmp_path / 'a')]) == 2\n"
    )
    assert "1 passed" in user.gets("python -m pytest -q")
