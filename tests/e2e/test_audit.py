"""`nodeflow export` and `nodeflow audit` on a real suite: what was kept is told so, and what was tampered with too."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.suite import Suite

FUNCTIONS: Final = """\
import time

def numbers(count):
    return list(range(count))

def square(n):
    return n * n

def fail():
    raise ValueError("no")

def wait():
    time.sleep(600)
"""
HEAD: Final = "apiVersion: nodeflow/v1\nkind: Workflow\nname: %s\n"
SQUARES: Final = (
    HEAD % "squares"
    + """\
nodes:
  numbers: {function: "functions:numbers", with: {count: 200}}
  square: {map: "${nodes.numbers.output}", function: "functions:square", with: {n: "${item}"}}
outputs: {squares: "${nodes.square.output}"}
"""
)
FAILS: Final = (
    HEAD % "fails"
    + """\
nodes:
  fail: {function: "functions:fail", retry: {attempts: 2, backoff: {initial: 10ms}}}
  after: {function: "functions:numbers", with: {count: 1}, needs: [fail]}
"""
)
WAITS: Final = HEAD % "waits" + 'nodes: {wait: {function: "functions:wait", timeout: 15m}}\n'

# Any: a line of the file is a JSON object.
Line = dict[str, Any]
Lines = list[Line]


async def submitted(suite: Suite, name: str, text: str) -> str:
    (suite.directory / "functions.py").write_text(FUNCTIONS)
    (suite.directory / f"{name}.yaml").write_text(text)
    return (await suite.cli("submit", f"{name}.yaml")).out.strip()


async def finished(suite: Suite, name: str, text: str) -> str:
    execution_id = await submitted(suite, name, text)
    await suite.cli("wait", execution_id)
    return execution_id


def first(lines: Lines, **wanted: object) -> Line:
    return next(line for line in lines if wanted.items() <= line.items())


def read(file: Path) -> Lines:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(file: Path, lines: Lines) -> None:
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture(scope="module")
async def exported(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An execution that is over, and the file of its export."""
    execution_id = await finished(suite, "squares", SQUARES)
    file = tmp_path_factory.mktemp("exported") / "run.jsonl"
    assert (await suite.cli("export", execution_id, "-O", str(file))).code == 0
    return execution_id, file


async def test_what_a_suite_has_done_is_audited_while_some_of_it_goes_on(suite: Suite) -> None:
    over = [await finished(suite, "squares", SQUARES), await finished(suite, "fails", FAILS)]
    cancelled = await submitted(suite, "waits", WAITS)
    await suite.cli("cancel", cancelled)
    running = await submitted(suite, "waits", WAITS)

    four = await suite.cli("audit", *over, cancelled, running, "--json")
    assert four.code == 0, four.out + four.err
    told = json.loads(four.out)
    assert (told["executions"], told["violations"]) == (4, 0)
    judged = {each["promise"]: each["judged"] for each in told["promises"]}
    assert list(judged) == [f"I{number}" for number in range(1, 12)]
    assert judged["I4"] == {"executions that are over": 3, "executions that are not over": 1}
    assert judged["I7"]["tasks told"] == 202 + 2 + 1 + 1
    assert judged["I8"]["streams"] == 4

    everything = await suite.cli("audit", "-o", "json")
    assert everything.code == 0, everything.out
    assert json.loads(everything.out)["executions"] >= 4
    newest = await suite.cli("audit", "--limit", "2")
    assert "2 executions: every promise was kept; nothing here shows I6, I9, I11" in newest.out
    await suite.cli("cancel", running)


async def test_an_export_is_audited_without_the_suite(suite: Suite, tmp_path: Path) -> None:
    ids = [await finished(suite, "squares", SQUARES), await finished(suite, "fails", FAILS)]
    file = tmp_path / "run.jsonl"
    exported = await suite.cli("export", *ids, ids[0], "-O", str(file))
    assert (exported.code, exported.err) == (0, f"2 executions written to {file}\n")
    assert (await suite.cli("export", *ids)).out.splitlines()[1:] == file.read_text().splitlines()[1:]

    lines = read(file)
    assert [line["execution_id"] for line in lines if line["line"] == "execution"] == ids
    attempts = [line for line in lines if line["line"] == "attempt" and line["execution_id"] == ids[1]]
    assert [(each["attempt"], each["end"]) for each in attempts] == [(1, "task_failed"), (2, "task_failed")]

    audited = await suite.cli("audit", "--from", str(file))
    assert audited.code == 0, audited.out
    assert "2 executions: every promise was kept" in audited.out


def drop_a_result(lines: Lines) -> None:
    lines.remove(first(lines, line="event", kind="tasks_completed", task=7))


def repeat_a_result(lines: Lines) -> None:
    place = lines.index(first(lines, line="event", kind="execution_finished"))
    again = dict(first(lines, line="event", kind="tasks_completed", task=7))
    end = lines[place]
    lines.insert(place, {**again, **{name: end[name] for name in ("sequence", "offset", "time_ms", "token")}})
    lines[place + 1] = {**end, "sequence": end["sequence"] + 1, "offset": end["offset"] + 1}


def change_a_result(lines: Lines) -> None:
    first(lines, line="event", kind="tasks_completed", task=7)["value"] = f"sha256:{'0' * 64}"


def change_the_state(lines: Lines) -> None:
    first(lines, line="execution")["state"] = "FAILED"


def begin_before_the_parent_is_done(lines: Lines) -> None:
    first(lines, line="execution")["nodes"].append({"name": "later", "parents": [1]})
    first(lines, line="execution")["nodes"][0]["parents"] = [1]


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (drop_a_result, "I8 {id}: sequences are"),
        (repeat_a_result, "I2 {id}, task 7, sequence [0-9]+: it ends 2 times"),
        (change_a_result, "I1 {id}, task 7: attempt 1 was noted as tasks_completed"),
        (change_the_state, "I7 {id}: the log says COMPLETED, the index FAILED"),
        (begin_before_the_parent_is_done, "I3 {id}, task 0, sequence 2: tasks_queued before the results of .1."),
    ],
)
async def test_a_file_that_was_tampered_with_is_rejected(
    tamper: Callable[[Lines], None], told: str, suite: Suite, exported: tuple[str, Path], tmp_path: Path
) -> None:
    execution_id, file = exported
    lines = read(file)
    tamper(lines)
    write(tmp_path / "other.jsonl", lines)
    rejected = await suite.cli("audit", "--from", str(tmp_path / "other.jsonl"))
    assert rejected.code == 1
    assert re.search(told.format(id=execution_id), rejected.out), rejected.out


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (("export", "nothing"), "there is no execution 'nothing'", "nodeflow ls"),
        (("audit", "nothing"), "there is no execution 'nothing'", "nodeflow ls"),
        (("export", "@latest", "-O", "no/such/file"), "no/such/file cannot be written", ""),
        (("audit", "--from", "no.jsonl"), "no.jsonl cannot be read: No such file or directory", ""),
        (("audit", "--from", "squares.yaml"), "squares.yaml is no export: its first line is", "nodeflow export ID"),
        (("audit", "--from", "later.jsonl"), "it has version 2, and this nodeflow reads up to 1", ""),
        (("audit", "--from", "later.jsonl", "@latest"), "--from audits the whole file", ""),
        (("audit", "--limit", "1", "@latest"), "both executions and --limit are given", "one of them"),
        (("audit", "--address", "127.0.0.1:1"), "no Node Flow scheduler answers", ""),
    ],
)
@pytest.mark.usefixtures("exported")
async def test_bad_input_is_told(suite: Suite, arguments: tuple[str, ...], error: str, hint: str) -> None:
    (suite.directory / "later.jsonl").write_text('{"line":"head","format":"nodeflow.history","version":2}\n')
    done = await suite.cli(*arguments)
    assert done.code == (4 if "--address" in arguments else 2)
    assert done.out == ""
    assert error in done.err
    assert hint in done.err
    assert "Traceback" not in done.err
