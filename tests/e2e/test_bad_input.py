"""Bad input through the real command line: what, where, what would be right; the exit code; nothing half-done."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.bad_input import (
    LARGE_RESULT,
    WITH_INPUTS,
    large_document,
    nodes,
    one_node,
    write_functions,
)
from tests.support.suite import Finished, Suite, run_cli

from nodeflow_sdk.client import open_client
from nodeflow_sdk.suite.record import read_record

NOBODY = "00000000-0000-7000-8000-000000000000"

FILES = {
    "right.yaml": WITH_INPUTS,
    "large.yaml": LARGE_RESULT,
    "yaml.yaml": "name: [unclosed\n",
    "field.yaml": one_node("f:g", ", tiemout: 3s") + "colour: red\n",
    "cycle.yaml": nodes("{a: {function: 'f:g', needs: [b]}, b: {function: 'f:g', needs: [a]}}"),
    "long.yaml": large_document(),
    "no.json": "{count: 1}",
    "list.json": "[1]",
    "digits.json": '{"count": ' + "1" * 5000 + "}",
    "deep.json": '{"count": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "long.json": json.dumps({"count": 1, "text": "x" * (1 << 20)}),
    "huge.json": json.dumps({"count": 1, "text": "x" * (64 << 20)}),
}


@pytest.fixture(scope="module", autouse=True)
def files(suite: Suite) -> None:
    write_functions(suite.directory)
    for name, text in FILES.items():
        (suite.directory / name).write_text(text)


@pytest.fixture(autouse=True)
def quiet_logs(suite: Suite) -> Iterator[None]:
    yield
    logs = "\n".join(file.read_text() for file in (suite.data_dir / "logs").glob("*.log"))
    assert "Traceback" not in logs
    assert "rpc_failed" not in logs


async def executions(suite: Suite) -> list[str]:
    async with open_client(suite.address()) as client:
        return [each.execution_id for each in await client.executions(limit=1000)]


def assert_told(done: Finished, code: int, *words: str) -> None:
    assert (done.code, done.out) == (code, ""), done.err
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err
    assert "nodeflow_" not in done.err
    assert "unexpected" not in done.err


# --------------------------------------------------------- what is never started

RUNS: dict[str, tuple[str, int, list[str]]] = {
    "malformed YAML": ("yaml.yaml", 3, ["yaml.yaml:1: the document is not YAML", "try: close each ["]),
    "unknown fields": (
        "field.yaml",
        3,
        ["2 faults", "field.yaml:5: nodes.only.tiemout", "^^^^^^^", "try: did you"],
    ),
    "a cycle": ("cycle.yaml", 3, ["cycle.yaml:4: nodes.a: these nodes wait", "a → b → a", "try: take one"]),
    "over 1 MiB": ("long.yaml", 3, ["1,048,576 are allowed", "try: move large constants"]),
    "no file": ("nowhere.yaml", 2, ["nowhere.yaml does not exist", "a workflow document"]),
    "no inputs": ("right.yaml", 3, ["inputs.count: is missing", "try: give an integer"]),
    "a word": ("right.yaml --input count=many", 2, ["should be of type integer", "try: --input 'count=3'"]),
    "unknown": ("right.yaml --input count=1 --input m=2", 3, ["inputs.m: is not an input", "try: its inputs are"]),
    "no JSON": ("right.yaml --input-file no.json", 2, ["no.json:1:2: not JSON"]),
    "no object": ("right.yaml --input-file list.json", 2, ["JSON of type array", "try: an object"]),
    "digits": ("right.yaml --input-file digits.json", 2, ["too many digits", "try: write it as a string"]),
    "deep": ("right.yaml --input-file deep.json", 2, ["deep.json is nested too deeply"]),
    "over 1 MiB of inputs": ("right.yaml --input-file long.json", 3, ["at most 1,048,576", "try: upload large values"]),
    "over 64 MiB": ("right.yaml --input-file huge.json", 3, ["at most 67,108,864", "try: pass large values"]),
    "a label": ("right.yaml --input count=1 --label a", 2, ["--label 'a' has no value", "try: --label a=value"]),
    "a label's key": ("right.yaml --input count=1 --label a!b=c", 3, ["labels['a!b']: is not a label", "try: 1 to 63"]),
}


@pytest.mark.parametrize("case", RUNS)
async def test_what_cannot_run_is_told_and_not_started(suite: Suite, case: str) -> None:
    line, code, words = RUNS[case]
    before = await executions(suite)
    assert_told(await suite.cli("run", *line.split()), code, *words)
    assert await executions(suite) == before


async def test_a_repeated_message_is_shown_once(suite: Suite) -> None:
    done = await suite.cli("run", "right.yaml")
    assert done.err.count("is missing, and has no default") == 1


COMMANDS: dict[str, tuple[tuple[str, ...], int, list[str]]] = {
    "validate": (("validate", "field.yaml"), 3, ["2 faults", "field.yaml:6: colour", "try: the fields here are"]),
    "an unknown id": (("get", NOBODY), 2, [f"no execution {NOBODY}", "try: nodeflow ls"]),
    "an unknown prefix": (("get", "zzz"), 2, ["no execution 'zzz'", "try: nodeflow ls"]),
    "an empty id": (("get", ""), 2, ["execution_id: is empty", "try: an id, the beginning of one"]),
    "an unknown workflow": (("workflows", "nope"), 2, ["no workflow 'nope'", "try: nodeflow workflows"]),
    "a state": (("ls", "--state", "gone"), 2, ["--state 'gone' is no state", "try: one of PENDING"]),
    "a filter": (("ls", "--filter", 'colour = "red"'), 2, ["filter: column 1: there is no field", "try: state ="]),
    "a key to look for": (("ls", "--label", 'a"b=c'), 2, ["is no label's key", "try: 1 to 63"]),
    "an address": (("ls", "--address", "nonsense"), 2, ["should be host:port, like 127.0.0.1:7420"]),
    "a command": (("frobnicate",), 2, ["No such command 'frobnicate'"]),
    "no argument": (("run",), 2, ["Missing argument 'FILE'"]),
    "a worker's id": (("worker", "--id", "a b"), 2, ["--id 'a b' is no worker's id", "try: 1 to 128"]),
    "a port": (("up", "--port", "99999"), 2, ["'--port'"]),
    "a log level": (("up", "--log-level", "LOUD"), 2, ["'--log-level'", "'LOUD' is not one of"]),
    "a data directory": (("up", "--data-dir", "/proc/none"), 4, ["/proc/none cannot be used"]),
    "a second suite": (("up", "--port", "0"), 4, ["a suite already runs in .nodeflow", "--data-dir"]),
}


@pytest.mark.parametrize("case", COMMANDS)
async def test_a_command_that_is_wrong_says_so(suite: Suite, case: str) -> None:
    arguments, code, words = COMMANDS[case]
    assert_told(await suite.cli(*arguments), code, *words)


# ------------------------------------------------------------- what runs and fails

FUNCTIONS = {
    "no module": ("nowhere:f", "", "there is no module 'nowhere' in"),
    "no function": ("functions:rasies", "", "did you mean 'raises'?"),
    "raises": ("functions:raises", "", 'raise ValueError("no such thing")'),
    "hangs": ("functions:holds_on", ", timeout: 300ms", "ran longer than its 0.3 s and was stopped"),
    "exits": ("functions:exits", "", "exited with code 3"),
    "no JSON": ("functions:returns_an_object", "", "return JSON values, or bytes"),
}


@pytest.mark.parametrize("case", FUNCTIONS)
async def test_a_function_that_fails_is_exit_1_and_the_users_own_fault_is_shown(suite: Suite, case: str) -> None:
    function, extra, words = FUNCTIONS[case]
    (suite.directory / "failing.yaml").write_text(one_node(function, extra))
    assert_told(await suite.cli("run", "failing.yaml"), 1, "✗ only failed", words)


async def test_a_large_result_is_no_fault(suite: Suite) -> None:
    done = await suite.cli("run", "large.yaml", "--input", "count=200000")
    assert (done.code, json.loads(done.out)) == (0, {"size": 200_000}), done.err


async def test_a_key_for_another_run_and_a_cancel_too_late(suite: Suite) -> None:
    first = await suite.cli("run", "right.yaml", "--input", "count=1", "--request-id", "key", "-o", "name")
    execution_id = first.out.strip()
    again = await suite.cli("run", "right.yaml", "--input", "count=2", "--request-id", "key")
    assert_told(again, 3, "request_id 'key' was used for another submission", execution_id)
    assert_told(await suite.cli("cancel", execution_id), 1, f"{execution_id} is COMPLETED already")


# ------------------------------------------------------------------- suites, settings


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


async def test_a_port_that_another_program_has_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = min(taken.getsockname()[1], 65_532)
        done = await run_cli(tmp_path, "up", "--port", str(port))
    assert_told(done, 4, f"port {port}, wanted for the scheduler, is in use by process", "--port 0")


@pytest.mark.parametrize("command", ["ls", "cancel @latest"])
async def test_without_a_suite_the_way_to_one_is_told(tmp_path: Path, command: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = await run_cli(tmp_path, *command.split(), "--address", address)
    assert_told(done, 4, f"answers at {address} (connection refused)", "try: start a suite with `nodeflow up`")


def names_in(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


async def test_validate_needs_no_suite_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "field.yaml").write_text(FILES["field.yaml"])
    assert_told(await run_cli(tmp_path, "validate", "field.yaml"), 3, "no suite is running", "nodes.only.tiemout")
    assert names_in(tmp_path) == ["field.yaml"]


async def test_beside_the_suite_of_another_run_the_ways_out_are_told_and_work(tmp_path: Path) -> None:
    write_functions(tmp_path)
    (tmp_path / "sleeps.yaml").write_text(one_node("functions:sleeps"))
    (tmp_path / "quick.yaml").write_text(one_node("functions:ok"))
    first = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nodeflow_sdk.cli", "run", "sleeps.yaml"), cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        while read_record(tmp_path / ".nodeflow") is None:  # noqa: ASYNC110  # the suite tells by a file
            await asyncio.sleep(0.05)
    refused = await run_cli(tmp_path, "run", "quick.yaml")
    assert_told(refused, 4, f"belongs to another run (process {first.pid})", "another --data-dir", "`nodeflow up`")
    own = await run_cli(tmp_path, "run", "quick.yaml", "--data-dir", "other")
    assert own.code == 0, own.err
    asked = await run_cli(tmp_path, "validate", "quick.yaml")
    assert asked.code == 0, asked.err
    first.send_signal(signal.SIGINT)
    _, err = await first.communicate()
    assert first.returncode == 130, err.decode()


SETTINGS = {
    "nodeflow_scheduler": ("SCHEDULER_LEASE_TIMEOUT_S", "soon", "for example NODEFLOW_SCHEDULER_LEASE_TIMEOUT_S=10.0"),
    "nodeflow_state_manager": ("STATE_MANAGER_SHARD_COUNT", "0", "for example NODEFLOW_STATE_MANAGER_SHARD_COUNT=64"),
    "nodeflow_worker_manager": ("WORKER_MANAGER_STATE_MANAGER", "nonsense", "host:port"),
    "nodeflow_worker": ("WORKER_WORKER_ID", "a b", "1 to 128 of a-z A-Z 0-9 . _ -"),
}


@pytest.mark.parametrize("module", SETTINGS)
def test_a_bad_setting_ends_a_service_at_once_with_its_name(tmp_path: Path, module: str) -> None:
    name, value, words = SETTINGS[module]
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(sys.path), f"NODEFLOW_{name}": value},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert f"NODEFLOW_{name}" in done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "Undefined" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
