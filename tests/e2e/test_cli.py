"""The command line with a real suite."""

import asyncio
import json
import socket
from pathlib import Path

from tests.support.suite import Suite, run_cli

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "word_count" / "workflow.yaml")
ITEMS = 800

FUNCTIONS = """\
import time

def numbers(count):
    return list(range(count))

def square(n):
    return {"n": n, "square": n * n}

def wait(seconds):
    time.sleep(seconds)

def boom():
    raise ValueError("no such thing")
"""

SQUARES = """\
apiVersion: nodeflow/v1
kind: Workflow
name: squares
inputs: {count: {type: integer}}
nodes:
  numbers: {function: "functions:numbers", with: {count: "${inputs.count}"}}
  square: {map: "${nodes.numbers.output}", function: "functions:square", with: {n: "${item}"}}
outputs: {squares: "${nodes.square.output}"}
"""

ONE_NODE = """\
apiVersion: nodeflow/v1
kind: Workflow
name: one
nodes:
  only: {function: "functions:%s"%s}
"""


def write(directory: Path, name: str, text: str) -> str:
    (directory / "functions.py").write_text(FUNCTIONS)
    (directory / name).write_text(text)
    return name


async def test_run_get_ls_and_watch_tell_of_the_same_execution(suite: Suite) -> None:
    done = await suite.cli("run", EXAMPLE, "--label", "test=same")
    assert (done.code, json.loads(done.out)) == (0, {"total": 28}), done.err
    listed = json.loads((await suite.cli("ls", "--label", "test=same", "-o", "json")).out)["executions"]
    [execution_id] = [each["executionId"] for each in listed]
    got = json.loads((await suite.cli("get", execution_id[:13], "-o", "json")).out)
    assert got["execution"]["executionId"] == execution_id
    assert {task["state"] for task in got["tasks"]} == {"TASK_STATE_COMPLETED"}
    watched = await suite.cli("watch", execution_id, "-o", "json")
    sequences = [int(json.loads(line)["sequence"]) for line in watched.out.splitlines()]
    assert (watched.code, sequences) == (0, list(range(1, len(sequences) + 1)))


async def test_every_item_of_a_map_has_its_own_result(suite: Suite) -> None:
    """A completed execution is not enough: a result that lands on another item is silent."""
    file = write(suite.directory, "squares.yaml", SQUARES)
    done = await suite.cli("run", file, "--input", f"count={ITEMS}")
    assert done.code == 0, done.err
    assert json.loads(done.out)["squares"] == [{"n": n, "square": n * n} for n in range(ITEMS)]


async def test_a_failure_shows_the_users_own_error(suite: Suite) -> None:
    done = await suite.cli("run", write(suite.directory, "boom.yaml", ONE_NODE % ("boom", "")))
    assert (done.code, done.out) == (1, "")
    assert "ValueError: no such thing" in done.err
    assert "functions.py" in done.err
    assert "nodeflow_" not in done.err


async def test_cancel_ends_a_running_execution(suite: Suite) -> None:
    file = write(suite.directory, "wait.yaml", ONE_NODE % ("wait", ", with: {seconds: 600}"))
    submitted = await suite.cli("run", file, "--detach")
    execution_id = submitted.out.strip()
    assert (await suite.cli("cancel", execution_id, "--reason", "enough")).code == 0
    watched = await suite.cli("watch", execution_id)
    assert watched.code == 1
    assert "enough" in watched.err


async def test_bad_input_is_refused_with_what_and_where(suite: Suite) -> None:
    broken = await suite.cli("validate", write(suite.directory, "broken.yaml", "name: [unclosed\n"))
    assert (broken.code, broken.out) == (3, "")
    assert "broken.yaml" in broken.err
    file = write(suite.directory, "squares.yaml", SQUARES)
    assert (await suite.cli("run", file, "--input", "count=many")).code == 2
    refused = await suite.cli("run", file, "--input", "count=1.5")
    assert refused.code == 3
    assert "count" in refused.err
    unknown = await suite.cli("get", "00000000-0000-7000-8000-000000000000")
    assert unknown.code == 2


async def test_workers_names_the_suites_worker(suite: Suite) -> None:
    [worker] = json.loads((await suite.cli("workers", "-o", "json")).out)["workers"]
    assert (worker["workerId"], worker["state"]) == ("worker-0", "WORKER_STATE_CONNECTED")


async def test_no_suite_is_exit_4(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        done = await run_cli(tmp_path, "ls", "--address", address)
    assert done.code == 4
    assert "nodeflow up" in done.err


async def test_a_port_in_use_is_told(suite: Suite, tmp_path: Path) -> None:
    port = suite.address().rpartition(":")[2]
    done = await run_cli(tmp_path, "up", "--port", port)
    assert done.code == 4
    assert f"port {port}, wanted for the scheduler, is in use by another Node Flow suite" in done.err


async def test_run_has_a_suite_of_its_own_when_none_runs(tmp_path: Path) -> None:
    for _ in range(2):
        done = await run_cli(tmp_path, "run", EXAMPLE)
        assert (done.code, json.loads(done.out or "null")) == (0, {"total": 28}), done.err
        assert "no suite is running" in done.err


async def test_a_killed_service_is_back_at_once(own_suite: Suite) -> None:
    for service in ("worker", "worker-manager", "scheduler", "state-manager"):
        killed = own_suite.kill(service)
        async with asyncio.timeout(60):
            done = await own_suite.cli("run", EXAMPLE, "--request-id", f"after-{service}")
            while done.code == 4:
                done = await own_suite.cli("run", EXAMPLE, "--request-id", f"after-{service}")
        assert (done.code, json.loads(done.out or "null")) == (0, {"total": 28}), (service, done.err)
        assert own_suite.pid(service) != killed
