"""The fixture `nodeflow`: real functions in this process, with the real suite behind them, on virtual time."""

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from unittest.mock import Mock

import pytest
from tests.unit.sdk_testing import flows
from tests.unit.sdk_testing.flows import Color, Word

from nodeflow_sdk import ExecutionCancelled, NodeFailed, State, WiringError, load, serving
from nodeflow_sdk.cli import starter
from nodeflow_sdk.testing import InProcess, in_process
from nodeflow_shared.errors import NotFound

HOUR_S = 3_600


def test_functions_run_and_what_they_print_is_seen(nodeflow: InProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert nodeflow.run(flows.word_count, paths=["abc", "de"]) == 5
    assert capsys.readouterr().out == "counting abc\ncounting de\n"


def test_an_hour_of_backoff_takes_no_time(nodeflow: InProcess) -> None:
    stubbed = nodeflow.stub(flows.count, calls=Mock(side_effect=[ConnectionError("away"), OSError("off"), 7]))
    began = time.monotonic()
    handle = nodeflow.start(flows.word_count, ["a.txt"])
    assert handle.result() == 7
    assert time.monotonic() - began < HOUR_S / 100
    assert stubbed.calls == [{"path": "a.txt"}] * 3
    assert [(each.number, each.state, each.message) for each in handle.attempts("count")] == [
        (1, State.FAILED, "ConnectionError: away"),
        (2, State.FAILED, "OSError: off"),
        (3, State.COMPLETED, ""),
    ]
    with pytest.raises(NotFound, match="has no node 'cuont'; it has count"):
        handle.attempts("cuont")
    assert timedelta(hours=2) <= handle.duration() < timedelta(hours=2, seconds=5)


def test_coroutines_sleep_virtually_and_side_by_side(nodeflow: InProcess) -> None:
    assert nodeflow.run(flows.naps, hours=[1, 2, 3]) == [1, 2, 3]
    assert 3 * HOUR_S <= nodeflow.now < 3 * HOUR_S + 5


def test_plain_functions_sleep_virtually_too(nodeflow: InProcess) -> None:
    real = time.sleep
    assert nodeflow.run(flows.dozes, 2 * HOUR_S) == "rested"
    assert 2 * HOUR_S <= nodeflow.now < 2 * HOUR_S + 5
    assert time.sleep is real


def test_what_sleeps_beyond_its_timeout_is_stopped_there(nodeflow: InProcess) -> None:
    assert nodeflow.run(flows.short_dozes, 4) == "rested"
    began = nodeflow.now
    with pytest.raises(NodeFailed, match="ran longer than its 5 s") as failed:
        nodeflow.run(flows.short_dozes, HOUR_S)
    assert failed.value.reason == "ATTEMPT_TIMEOUT"
    assert 5 <= nodeflow.now - began < 10


def test_a_stub_that_takes_too_long_times_out(nodeflow: InProcess) -> None:
    nodeflow.stub("short_doze", returns="rested", takes="1h")
    with pytest.raises(NodeFailed, match="ran longer than its 5 s"):
        nodeflow.run(flows.short_dozes, 1)


def test_time_passes_in_between_only_if_it_is_told_to(nodeflow: InProcess) -> None:
    handle = nodeflow.start(flows.naps, hours=[2])
    nodeflow.sleep("30m")
    assert handle.state() is State.RUNNING
    assert [str(each) for each in handle.attempts()] == ["nap[0] #1 RUNNING"]
    with pytest.raises(TimeoutError, match="still runs after 60 s"):
        handle.result(timeout=60)
    nodeflow.sleep(timedelta(hours=2))
    assert handle.state() is State.COMPLETED


def test_a_cancelled_coroutine_is_stopped(nodeflow: InProcess) -> None:
    handle = nodeflow.start(flows.naps, hours=[5])
    nodeflow.sleep(1)
    handle.cancel("enough")
    with pytest.raises(ExecutionCancelled, match="enough"):
        handle.result()
    assert not list(handle.logs())
    assert nodeflow.now < 60


def test_lines_belong_to_their_tasks(nodeflow: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    level = logging.getLogger().level
    handle = nodeflow.start(flows.word_count, paths=["abc", "de"])
    handle.result()
    assert [(line.item, line.stream, line.text) for line in handle.logs("count")] == [
        (0, "stdout", "counting abc"),
        (0, "stderr", "INFO words: counted abc"),
        (1, "stdout", "counting de"),
        (1, "stderr", "INFO words: counted de"),
    ]
    assert logging.getLogger().level == level
    assert "counted abc" in caplog.text


def test_a_failure_has_the_traceback_of_the_function_and_nothing_of_ours(nodeflow: InProcess) -> None:
    with pytest.raises(NodeFailed) as failed:
        nodeflow.run(flows.division, 0)
    assert failed.value.error_type == "ZeroDivisionError"
    assert 'flows.py", line' in failed.value.remote_traceback
    assert failed.value.remote_traceback.count("File ") == 1
    assert "return 1 / number" in failed.value.remote_traceback


def test_hinted_types_reach_stubs_and_results(nodeflow: InProcess) -> None:
    assert nodeflow.run(flows.painting, Word(text="a")) == Word(text="A", color=Color.GREEN)
    stubbed = nodeflow.stub(flows.painted, calls=lambda word: Word(text=word.text * 2, color=word.color))
    assert nodeflow.run(flows.painting, Word(text="a")) == Word(text="aa", color=Color.RED)
    assert stubbed.calls == [{"word": Word(text="a")}]


def test_a_stub_may_be_a_coroutine_function(nodeflow: InProcess) -> None:
    async def painted(word: Word) -> Word:
        return word

    nodeflow.stub(flows.painted, calls=painted)
    assert nodeflow.run(flows.painting, Word(text="a")) == Word(text="a")


def test_what_monkeypatch_puts_in_the_place_of_a_function_is_called(
    nodeflow: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "count", lambda path: len(path) * 100)
    assert nodeflow.run(flows.word_count, paths=["abc"]) == 300


def test_plain_code_may_run_a_loop(nodeflow: InProcess) -> None:
    assert nodeflow.run(flows.looping, 4) == 4


def test_runs_of_the_code_under_test_come_here_too(nodeflow: InProcess) -> None:
    nodeflow.stub(flows.count, returns=2)
    assert flows.word_count.run(paths=["a", "b"]) == 4
    assert [each.result() for each in flows.word_count.start_many([{"paths": ["a"]}, {"paths": []}])] == [2, 0]
    assert flows.word_count.register().startswith("sha256:")
    with pytest.raises(ValueError, match="runs stay in it"):
        flows.word_count.run(["a"], suite="127.0.0.1:7420")


def test_documents_run_too(nodeflow: InProcess) -> None:
    directory = Path(str(files(starter)))
    document = load(directory / "workflow.yaml")
    words = sum(len((directory / name).read_text().split()) for name in ("data/a.txt", "data/b.txt"))
    assert nodeflow.run(document) == {"total": words}
    assert nodeflow.start(document, paths=["data/a.txt"]).result()["total"] < words
    nodeflow.stub("count", returns=1)
    assert document.run(paths=["x", "y"]) == {"total": 2}


def test_a_fault_of_a_document_is_one_of_its_line(nodeflow: InProcess, tmp_path: Path) -> None:
    file = tmp_path / "faulty.yaml"
    file.write_text("apiVersion: nodeflow/v1\nkind: Workflow\nname: faulty\nnodes:\n  a: {function: nothing}\n")
    with pytest.raises(WiringError, match=r"faulty\.yaml:5: nodes\.a\.function: "):
        nodeflow.run(load(file))


def test_the_source_of_a_pipeline_is_packed(nodeflow: InProcess, tmp_path: Path) -> None:
    job = "{name: unit, run: make test}"
    head = "apiVersion: nodeflow/v1\nkind: Pipeline\nname: p\nsource: {path: .}\n"
    (tmp_path / "p.yaml").write_text(f"{head}stages: [{{name: s, jobs: [{job}]}}]\n")
    stubbed = nodeflow.stub("unit", returns=None)
    nodeflow.run(load(tmp_path / "p.yaml"))
    assert len(stubbed.calls) == 1


def test_what_is_served_is_served_here(nodeflow: InProcess) -> None:
    with serving(flows.naps) as worker_id:
        assert (worker_id, nodeflow.run(flows.naps, hours=[1])) == ("", [1])


async def test_tests_on_a_loop_may_await(nodeflow: InProcess) -> None:
    assert await flows.word_count.arun(["abc"]) == 3
    assert nodeflow.run(flows.naps, hours=[1]) == [1]


def test_a_process_says_how_to_stub_it(nodeflow: InProcess) -> None:
    with pytest.raises(NodeFailed, match=r'nodeflow\.stub\("sort_2", returns=…\)') as failed:
        nodeflow.run(flows.sorting, "a.txt")
    assert failed.value.reason == "PROCESS_NOT_STUBBED"
    stubbed = nodeflow.stub(flows.sort, returns={"lines": 2}, takes="10m")
    assert nodeflow.run(flows.sorting, "a.txt") == {"lines": 2}
    assert nodeflow.now >= 1_200
    assert stubbed.calls == [{"command": ["sort", "-u", "a.txt"], "env": {"LANG": "C"}, "stdin": None}] * 2


@pytest.mark.parametrize("process", ["worker-1", "worker-manager", "scheduler", "state-manager"])
def test_a_crash_loses_nothing(nodeflow: InProcess, process: str) -> None:
    handle = nodeflow.start(flows.naps, hours=[1])
    nodeflow.sleep("10m")
    nodeflow.crash(process)
    assert handle.result() == [1]
    assert len(handle.attempts("nap")) == (2 if process == "worker-1" else 1)


def test_an_unknown_process_is_named(nodeflow: InProcess) -> None:
    with pytest.raises(ValueError, match="there are state-manager, worker-manager, scheduler, worker-1"):
        nodeflow.crash("worker-9")


def test_a_stub_is_one_thing() -> None:
    with in_process() as nodeflow, pytest.raises(TypeError, match="one of returns"):
        nodeflow.stub(flows.count, returns=1, raises=ValueError)


def test_a_test_that_fails_inside_of_a_node_fails_there() -> None:
    with in_process() as nodeflow:
        nodeflow.stub(flows.count, calls=lambda path: pytest.fail(f"looked at {path}"))
        with pytest.raises(pytest.fail.Exception, match="looked at a"):
            nodeflow.run(flows.word_count, ["a"])


def test_interruption_ends_the_run() -> None:
    with in_process() as nodeflow:
        nodeflow.stub(flows.count, raises=KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            nodeflow.run(flows.word_count, ["a"])


def test_the_same_run_has_the_same_ids_and_times() -> None:
    def story() -> Iterator[str]:
        with in_process() as nodeflow:
            handle = nodeflow.start(flows.naps, hours=[1, 2])
            handle.result()
            yield from (f"{handle.id} {each.time} {each}" for each in handle.watch())

    assert list(story()) == list(story())


def test_what_never_ends_is_told() -> None:
    with in_process(horizon="2h") as nodeflow, pytest.raises(TimeoutError, match="2h of virtual time"):
        nodeflow.run(flows.naps, hours=[100_000])
