"""Commands that look at executions, on a real suite: why, wait, submit, graph, diff, artifacts."""

import json
from base64 import b64decode
from pathlib import Path

from tests.support.suite import Suite

FUNCTIONS = """\
import time

def wait(seconds):
    time.sleep(seconds)

def flaky(seconds):
    raise TimeoutError("not yet")

def large(letter):
    return letter * 100_000
"""
HEAD = "apiVersion: nodeflow/v1\nkind: Workflow\nname: %s\n"
WAITS = (
    HEAD % "waits"
    + """\
nodes:
  first: {function: "functions:wait", with: {seconds: 600}, timeout: 15m}
  second: {function: "functions:wait", with: {seconds: 0}, needs: [first]}
"""
)
FLAKY = (
    HEAD % "flaky"
    + """\
nodes:
  only: {function: "functions:flaky", with: {seconds: 0}, retry: {attempts: 3, backoff: {initial: 10m}}}
"""
)
LARGE = (
    HEAD % "large"
    + """\
inputs: {letter: {type: string, default: x}}
nodes:
  large: {function: "functions:large", with: {letter: "${inputs.letter}"}}
outputs: {text: "${nodes.large.output}"}
"""
)
FILES = (
    HEAD % "files"
    + """\
nodes:
  write: {process: {script: "mkdir out; printf hello > out/greeting.txt", artifacts: ["out/*.txt"]}}
"""
)


def write(directory: Path, name: str, text: str) -> str:
    (directory / "functions.py").write_text(FUNCTIONS)
    (directory / name).write_text(text)
    return name


async def reasons(suite: Suite, execution_id: str, until: str) -> dict[str, str]:
    """Return the reason of each task that is told of, once one of them is `until`."""
    while True:
        done = await suite.cli("why", execution_id, "-o", "json")
        told = json.loads(done.out)["explanations"]
        found = {each["task"]["node"]: each["reason"].removeprefix("TASK_REASON_") for each in told}
        if until in found.values():
            return found


async def test_why_names_what_runs_and_what_waits_for_it(suite: Suite) -> None:
    submitted = await suite.cli("submit", write(suite.directory, "waits.yaml", WAITS))
    execution_id = submitted.out.strip()
    assert submitted.code == 0, submitted.err
    assert await reasons(suite, execution_id, "RUNNING") == {"first": "RUNNING", "second": "DEPENDENCIES"}
    told = (await suite.cli("why", f"{execution_id}/first")).out
    assert "▶ first RUNNING: runs on worker-0: attempt 1, " in told
    assert told.rstrip().endswith("so far of at most 15m00s")
    assert (await suite.cli("why", f"{execution_id}/second")).out == ("· second PENDING: waits for first (RUNNING)\n")
    assert (await suite.cli("graph", execution_id)).out.startswith("▶ first RUNNING")
    assert (await suite.cli("wait", execution_id, "--timeout", "0.1")).code == 1
    assert (await suite.cli("cancel", execution_id)).code == 0
    assert (await suite.cli("wait", execution_id)).code == 1
    assert (await suite.cli("why", f"{execution_id}/second", "-o", "name")).out == "CANCEL_REQUESTED\n"


async def test_why_names_a_backoff_with_its_end_and_the_failure_before_it(suite: Suite) -> None:
    submitted = await suite.cli("submit", write(suite.directory, "flaky.yaml", FLAKY))
    execution_id = submitted.out.strip()
    assert await reasons(suite, execution_id, "BACKOFF") == {"only": "BACKOFF"}
    told = (await suite.cli("why", execution_id)).out.splitlines()
    assert "attempt 2 is due in " in told[0]
    assert told[1] == "    attempt 1 of 3: TimeoutError: not yet"
    assert (await suite.cli("cancel", execution_id)).code == 0


async def test_a_large_result_is_an_artifact_that_is_listed_fetched_and_compared(suite: Suite) -> None:
    file = write(suite.directory, "large.yaml", LARGE)
    ids = [(await suite.cli("submit", file, "--input", f"letter={letter}")).out.strip() for letter in "xy"]
    for each in ids:
        done = await suite.cli("wait", each, "-o", "name")
        assert (done.code, done.out) == (0, f"{each}\n"), done.err
    listed = json.loads((await suite.cli("artifacts", "ls", ids[0], "-o", "json")).out)["artifacts"]
    assert [each["where"] for each in listed] == ["large", "outputs.text"]
    assert (await suite.cli("artifacts", "get", listed[0]["digest"])).out == json.dumps("x" * 100_000)
    assert (await suite.cli("artifacts", "get", f"{ids[1]}/large")).out == json.dumps("y" * 100_000)
    [line] = [each for each in (await suite.cli("ls")).out.splitlines() if each.startswith(ids[0])]
    assert line.split()[1:4] == ["large", "COMPLETED", "1"]  # its one task
    differences = (await suite.cli("diff", *ids, "-o", "name")).out.split()
    assert differences == ["inputs.letter", "large.result", "outputs.text"]


async def test_a_file_that_a_process_left_is_listed_and_fetched(suite: Suite) -> None:
    execution_id = (await suite.cli("submit", write(suite.directory, "files.yaml", FILES))).out.strip()
    done = await suite.cli("wait", execution_id)
    assert done.code == 0, done.err
    listed = json.loads((await suite.cli("artifacts", "ls", execution_id, "-o", "json")).out)["artifacts"]
    assert [(each["where"], each["size_bytes"]) for each in listed] == [("write:out/greeting.txt", 5)]
    assert (await suite.cli("artifacts", "get", f"{execution_id}/write:out/greeting.txt")).out == "hello"


async def test_many_are_started_from_lines_and_each_has_its_own_inputs(suite: Suite) -> None:
    file = write(suite.directory, "large.yaml", LARGE)
    (suite.directory / "many.jsonl").write_text('{"letter": "a"}\n{"letter": "b"}\n')
    start = ("submit", file, "--input-file", "many.jsonl", "--request-id", "day", "--label", "l=many")
    done = await suite.cli(*start)
    assert done.code == 0, done.err
    assert (await suite.cli(*start)).out == done.out  # the same request ids start nothing new
    ids = done.out.split()
    listed = (await suite.cli("ls", "--label", "l=many", "-o", "name")).out.split()
    assert (len(ids), sorted(ids)) == (2, sorted(listed))
    for execution_id, letter in zip(ids, "ab", strict=True):
        inputs = json.loads((await suite.cli("get", execution_id, "-o", "json")).out)["execution"]["inputs"]
        assert f'"{letter}"'.encode() in b64decode(inputs["data"])
