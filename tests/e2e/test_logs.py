"""What tasks write, through the command line and a real suite: print, logging, files of shell commands, floods."""

import asyncio
import json
import sys
from pathlib import Path

import psutil
from tests.support.suite import Suite

SERVICES = ("worker", "worker-manager", "state-manager", "scheduler")

FUNCTIONS = """\
import logging, os, time

def numbers(count):
    return list(range(count))

def say(n):
    print(f"item {n} speaks")
    return n

def recite(n):
    for line in range(60):
        print(n, line, "x" * 1_000)

def report():
    print("to the output")
    logging.getLogger("my.report").warning("careful")
    os.system("echo from a shell >&2")

def slow(path):
    print("begins")
    while not os.path.exists(path):
        time.sleep(0.02)
    print("ends")

def flaky(path):
    if not os.path.exists(path):
        open(path, "w").close()
        print("first try")
        raise ValueError("not yet")
    print("second try")

def flood(megabytes):
    data = (b"x" * 99 + b"\\n") * 10_000
    for _ in range(megabytes):
        left = memoryview(data)
        while left:
            left = left[os.write(1, left):]
"""


def write(directory: Path, name: str, nodes: str) -> str:
    (directory / "talking.py").write_text(FUNCTIONS)
    file = f"{name}.yaml"
    (directory / file).write_text(f"apiVersion: nodeflow/v1\nkind: Workflow\nname: {name}\nnodes:\n{nodes}")
    return file


async def run(suite: Suite, file: str) -> str:
    """Run a workflow to its end; returns its id."""
    submitted = await suite.cli("run", file, "--detach")
    assert submitted.code == 0, submitted.err
    watched = await suite.cli("watch", submitted.out.strip())
    assert watched.code == 0, watched.err
    return submitted.out.strip()


async def test_logs_are_there_right_after_the_run(suite: Suite) -> None:
    execution_id = await run(suite, write(suite.directory, "report", "  write: {function: 'talking:report'}\n"))
    shown = await suite.cli("logs", execution_id)
    assert shown.code == 0, shown.err
    assert sorted(shown.out.splitlines()) == [
        "write | WARNING my.report: careful",
        "write | from a shell",
        "write | to the output",
    ]
    errors = await suite.cli("logs", execution_id, "--stream", "stderr", "--grep", "shell", "-o", "json")
    [line] = map(json.loads, errors.out.splitlines())
    assert (line["node"], line["stream"], line["text"]) == ("write", "LOG_STREAM_STDERR", "from a shell")
    assert (await suite.cli("logs", execution_id, "--tail", "1")).out.count("\n") == 1


async def test_processes_speak_too(suite: Suite) -> None:
    nodes = "  sh: {process: {script: 'echo to the output; echo to the error >&2; head -c 70000 /dev/zero'}}\n"
    execution_id = await run(suite, write(suite.directory, "process", nodes))
    shown = await suite.cli("logs", execution_id, "-o", "json")
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert {(line["stream"], line["text"]) for line in lines if "\0" not in line["text"]} == {
        ("LOG_STREAM_STDOUT", "to the output"),
        ("LOG_STREAM_STDERR", "to the error"),
    }
    assert [len(line["text"]) for line in lines if "\0" in line["text"]] == [65_536, 70_000 - 65_536]


async def test_a_follower_sees_lines_as_they_appear_and_ends_with_the_execution(suite: Suite) -> None:
    marker = suite.directory / "go on"
    nodes = f"  wait: {{function: 'talking:slow', with: {{path: '{marker}'}}}}\n"
    submitted = await suite.cli("run", write(suite.directory, "slow", nodes), "--detach")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nodeflow_sdk.cli", "logs", submitted.out.strip(), "-f"),
        cwd=suite.directory,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"wait | begins\n"
        marker.touch()
        assert await process.stdout.read() == b"wait | ends\n"
        assert await process.wait() == 0


async def test_each_attempt_has_its_own_lines(suite: Suite) -> None:
    nodes = f"  again: {{function: 'talking:flaky', with: {{path: '{suite.directory / 'tried'}'}}, retry: 2}}\n"
    execution_id = await run(suite, write(suite.directory, "flaky", nodes))
    assert (await suite.cli("logs", execution_id)).out == "again | first try\nagain#2 | second try\n"
    assert (await suite.cli("logs", execution_id, "--attempt", "2")).out == "again#2 | second try\n"


async def test_a_thousand_tasks_that_print(suite: Suite) -> None:
    nodes = (
        "  numbers: {function: 'talking:numbers', with: {count: 1000}}\n"
        "  say: {map: '${nodes.numbers.output}', function: 'talking:say', with: {n: '${item}'}}\n"
    )
    execution_id = await run(suite, write(suite.directory, "thousand", nodes))
    shown = await suite.cli("logs", execution_id, "--node", "say")
    assert sorted(shown.out.splitlines()) == sorted(f"say[{n}] | item {n} speaks" for n in range(1_000))
    assert (await suite.cli("logs", execution_id, "--node", "say[7]")).out == "say[7] | item 7 speaks\n"


async def test_a_thousand_tasks_that_print_much_fill_no_memory(own_suite: Suite) -> None:
    """60 MB of them all together: each line is there, and no process holds what waits."""
    nodes = (
        "  numbers: {function: 'talking:numbers', with: {count: 1000}}\n"
        "  recite: {map: '${nodes.numbers.output}', function: 'talking:recite', with: {n: '${item}'}}\n"
    )
    before = {service: _resident(own_suite, service) for service in SERVICES}
    execution_id = await run(own_suite, write(own_suite.directory, "recital", nodes))
    grown = {service: _resident(own_suite, service) - before[service] for service in SERVICES}
    assert max(grown.values()) < 48 << 20, grown  # 32 MiB may wait for delivery
    last = await own_suite.cli("logs", execution_id, "--node", "recite", "--grep", " 59 x")
    assert sorted(last.out.splitlines()) == sorted(f"recite[{n}] | {n} 59 {'x' * 1_000}" for n in range(1_000))
    one = await own_suite.cli("logs", execution_id, "--node", "recite[7]")
    assert one.out.splitlines() == [f"recite[7] | 7 {line} {'x' * 1_000}" for line in range(60)]
    assert "lease_ending" not in own_suite.logs()


async def test_what_is_asked_for_and_not_there_is_told(suite: Suite) -> None:
    execution_id = await run(suite, write(suite.directory, "report", "  write: {function: 'talking:report'}\n"))
    for arguments, said in (
        (("--node", "wriite"), "it has write"),
        (("--node", "write[x]"), "NAME[3]"),
        (("--task", "9"), "its tasks are 0 to 0"),
    ):
        refused = await suite.cli("logs", execution_id, *arguments)
        assert (refused.code, refused.out) == (2, "")
        assert said in refused.err


async def test_a_flood_is_cut_with_a_notice_and_harms_nobody(own_suite: Suite) -> None:
    """200 MB from one task: memory of every process stays in bounds, and heartbeats go on."""
    nodes = "  flood: {function: 'talking:flood', with: {megabytes: 200}}\n"
    file = write(own_suite.directory, "flood", nodes)
    before = {service: _resident(own_suite, service) for service in SERVICES}
    execution_id = await run(own_suite, file)
    notices = await own_suite.cli("logs", execution_id, "--stream", "notice")
    assert notices.out.splitlines() == [
        "flood | (the limit of 64 MiB is reached: no more is kept)",
        "flood | (126.7 MiB were left out)",
    ]
    grown = {service: _resident(own_suite, service) - before[service] for service in SERVICES}
    assert max(grown.values()) < 200 << 20, grown
    assert "lease_ending" not in own_suite.logs()
    assert "worker_left" not in own_suite.logs()


async def test_lines_survive_the_kill_of_each_service(own_suite: Suite) -> None:
    execution_id = await run(own_suite, write(own_suite.directory, "report", "  write: {function: 'talking:report'}\n"))
    before = await own_suite.cli("logs", execution_id)
    for service in ("worker", "worker-manager", "scheduler", "state-manager"):
        own_suite.kill(service)
    async with asyncio.timeout(60):
        after = await own_suite.cli("logs", execution_id)
        while after.code == 4:
            after = await own_suite.cli("logs", execution_id)
    assert after.out == before.out
    assert before.out.count("\n") == 3


def _resident(suite: Suite, service: str) -> int:
    return psutil.Process(suite.pid(service)).memory_info().rss
