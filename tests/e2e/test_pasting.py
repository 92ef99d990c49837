"""What help and pages show works when it is pasted: examples of commands, of a workflow, of the client."""

import asyncio
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.bad_input import one_node, write_functions
from tests.support.suite import Suite, run_cli, running
from typer.main import get_command

from nodeflow_sdk.cli.main import app
from nodeflow_sdk.client import open_client, open_workers_client

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "word_count"
README = (ROOT / "README.md").read_text()
CLIENT_README = (ROOT / "clients" / "python" / "README.md").read_text()
COMMANDS = (
    "run",
    "submit",
    "wait",
    "validate",
    "ls",
    "get",
    "watch",
    "logs",
    "why",
    "graph",
    "diff",
    "export",
    "audit",
    "artifacts ls",
    "workers",
    "workflows",
)
# These go on until they are stopped, or need something that runs: they have tests of their own.
OTHERS = ("up", "worker", "cancel", "init", "artifacts get", "open")
# In this order, and where no other test is misled by them.
CONTEXTS = ("context set", "context use", "context ls", "context rm")


async def example_in_help(*command: str) -> list[str]:
    """Return the arguments of the example that a command's help shows, read from what it prints."""
    done = await run_cli(ROOT, *command, "--help")
    [line] = [each.strip() for each in done.out.splitlines() if each.strip().startswith("Example: ")]
    program, *arguments = shlex.split(line.removeprefix("Example: "))
    assert (done.code, program) == (0, "nodeflow")
    return arguments


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def example(suite: Suite) -> None:
    shutil.copytree(EXAMPLE, suite.directory, dirs_exist_ok=True)
    write_functions(suite.directory)
    # Something for the examples to look at, whichever of them are run.
    subprocess.run([sys.executable, "-m", "nodeflow_sdk.cli", "run", "workflow.yaml"], cwd=suite.directory, check=True)


# Any: the click that typer carries inside is not public.
def command_names(group: Any, *before: str) -> set[str]:  # noqa: ANN401
    """Return the names of all commands, those of groups with the name of the group."""
    found: set[str] = set()
    for name, command in group.commands.items():
        found |= command_names(command, *before, name) if hasattr(command, "commands") else {" ".join((*before, name))}
    return found


def test_every_command_is_tested_here() -> None:
    assert command_names(get_command(app)) == {*COMMANDS, *OTHERS, *CONTEXTS}


async def test_the_example_of_the_whole_command_works(suite: Suite) -> None:
    done = await suite.cli(*await example_in_help())
    assert done.code == 0, done.err


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_example_of_a_command_works(suite: Suite, command: str) -> None:
    arguments = await example_in_help(*command.split())
    assert arguments[: len(command.split())] == command.split()
    done = await suite.cli(*arguments)
    assert done.code == 0, done.err


async def test_the_examples_of_contexts_work_one_after_the_other(tmp_path: Path) -> None:
    for command in CONTEXTS:
        done = await run_cli(tmp_path, *await example_in_help(*command.split()))
        assert done.code == 0, done.err


async def test_the_example_of_artifacts_get_writes_a_result(suite: Suite) -> None:
    assert (await suite.cli("run", "workflow.yaml")).code == 0
    arguments = await example_in_help("artifacts", "get")
    done = await suite.cli(*arguments)
    assert done.code == 0, done.err
    assert json.loads((suite.directory / arguments[-1]).read_text()) == 28


async def test_the_example_of_open_writes_a_page_and_shows_it(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = suite.directory / "shown"
    browser = suite.directory / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {shlex.quote(str(shown))}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    monkeypatch.setenv("TMPDIR", str(suite.directory))
    assert (await suite.cli("run", "workflow.yaml")).code == 0
    done = await suite.cli(*await example_in_help("open"))
    assert (done.code, done.err) == (0, "")
    page = suite.directory / done.out.strip().rpartition("/")[2]
    assert shown.read_text().strip() == page.as_uri()
    assert "COMPLETED, 2/2 items" in page.read_text()


async def test_what_init_makes_runs_and_is_not_overwritten(tmp_path: Path) -> None:
    arguments = await example_in_help("init")
    made = await run_cli(tmp_path, *arguments)
    assert made.code == 0, made.err
    project = tmp_path / arguments[-1]
    [block] = blocks((project / "README.md").read_text(), "sh")
    for line in block.splitlines():
        done = await run_cli(project, *shlex.split(line, comments=True)[1:])
        assert done.code == 0, (line, done.err)
    again = await run_cli(tmp_path, *arguments)
    assert (again.code, "has workflow.yaml" in again.err) == (2, True)


async def test_the_example_of_cancel_cancels_what_runs(suite: Suite) -> None:
    (suite.directory / "sleeps.yaml").write_text(one_node("functions:sleeps"))
    submitted = await suite.cli("run", "sleeps.yaml", "--detach")
    done = await suite.cli(*await example_in_help("cancel"))
    assert done.code == 0, done.err
    assert submitted.out.strip() in done.out


async def test_the_example_of_worker_starts_one_that_leaves_at_ctrl_c(suite: Suite) -> None:
    arguments = await example_in_help("worker")
    name = arguments[arguments.index("--id") + 1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nodeflow_sdk.cli", *arguments), cwd=suite.directory, stderr=asyncio.subprocess.PIPE
    )
    async with open_workers_client(suite.address("worker-manager")) as client, asyncio.timeout(20):
        while name not in {each.worker_id for each in await client.workers()}:  # noqa: ASYNC110  # there is no watch
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


async def test_the_example_of_up_starts_a_suite(tmp_path: Path) -> None:
    arguments = await example_in_help("up")
    port = arguments.index("--port")
    # The port of the example may be in use on this machine.
    del arguments[port : port + 2]
    with running(tmp_path, *arguments[1:]) as suite:
        async with open_workers_client(suite.address("worker-manager")) as client:
            [worker] = await client.workers()
        assert worker.capacity.slots == int(arguments[arguments.index("--slots") + 1])


async def test_the_commands_of_the_readme_work(suite: Suite) -> None:
    lines = [shlex.split(line, comments=True) for block in blocks(README, "sh") for line in block.splitlines()]
    commands = [line[1:] for line in lines if line[:1] == ["nodeflow"]]
    assert ["up"] in commands
    for arguments in commands:
        if arguments != ["up"]:
            done = await suite.cli(*arguments)
            assert done.code == 0, (arguments, done.err)
    for line in re.findall(r"`nodeflow ([a-z@ ]+)`", README):
        done = await suite.cli(*shlex.split(line))
        assert done.code == 0, (line, done.err)


async def test_the_workflow_of_the_readme_is_valid_and_runs(suite: Suite) -> None:
    [document] = blocks(README, "yaml")
    (suite.directory / "readme.yaml").write_text(document)
    done = await suite.cli("run", "readme.yaml", "--input", 'paths=["data/haiku.txt"]')
    assert done.code == 0, done.err


async def test_the_python_workflow_of_the_readme_runs(suite: Suite) -> None:
    [program] = blocks(README, "python")
    file = suite.directory / "pasted.py"
    file.write_text(program)
    (suite.directory / "README.md").write_text("three words here")
    (suite.directory / "Makefile").write_text("one")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(file)),
        cwd=suite.directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, out.decode()) == (0, "4\n"), err.decode()


async def test_the_program_in_the_page_of_the_client_runs(suite: Suite) -> None:
    [program] = [block for block in blocks(CLIENT_README, "python") if "open_client" in block]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program.replace("127.0.0.1:7420", suite.address())),
        cwd=suite.directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "{'total': " in out.decode()
    async with open_client(suite.address()) as client:
        assert await client.executions('labels.team = "a"')
