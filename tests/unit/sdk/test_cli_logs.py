"""`nodeflow logs` against fake services: what is asked, and how a line looks."""

import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from nodeflow.common.v1.log_chunk_pb2 import LogStream
from nodeflow.scheduler.v1.log_line_pb2 import LogLine
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import EXECUTION_ID, FakeServices


def line(number: int, text: str = "", stream: str = "STDOUT", *, attempt: int = 1, item: int | None = None) -> LogLine:
    return LogLine(
        node="count",
        task_number=3,
        map_index=item,
        attempt_number=attempt,
        line_number=number,
        read_time=Timestamp(seconds=1_000_000, nanos=5_000_000),
        stream=LogStream.Value(f"LOG_STREAM_{stream}"),
        text=text or f"line {number}",
    )


@pytest.fixture(autouse=True)
def some_lines(fakes: FakeServices) -> None:
    fakes.scheduler.lines = [line(number) for number in range(1, 6)]


async def test_lines_begin_with_who_wrote_them(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.lines = [line(1), line(2, item=3), line(3, item=3, attempt=2), line(4, "cut", "NOTICE")]
    done = await cli("logs", EXECUTION_ID)
    assert (done.code, done.out.splitlines()) == (
        0,
        ["count | line 1", "count[3] | line 2", "count[3]#2 | line 3", "count | (cut)"],
    )
    timed = await cli("logs", EXECUTION_ID, "-t")
    assert timed.out.splitlines()[0] == "13:46:40.005 count | line 1"


async def test_json_has_a_line_for_each_line(cli: Cli) -> None:
    done = await cli("logs", EXECUTION_ID, "-o", "json")
    assert [json.loads(each)["text"] for each in done.out.splitlines()] == [f"line {number}" for number in range(1, 6)]


async def test_options_become_the_request(cli: Cli, fakes: FakeServices) -> None:
    options = ["--node", "count[7]", "--attempt", "2", "--grep", "a b", "--since-line", "9", "--stream", "stderr", "-f"]
    assert (await cli("logs", EXECUTION_ID, *options, "--from-now")).code == 0
    [request] = fakes.scheduler.tails
    assert (request.node, request.map_index, request.attempt_number) == ("count", 7, 2)
    assert (request.text, request.first_line, list(request.streams)) == ("a b", 9, [LogStream.LOG_STREAM_STDERR])
    assert (request.follow, request.from_now) == (True, True)


async def test_the_last_lines_and_what_follows(cli: Cli, fakes: FakeServices) -> None:
    done = await cli("logs", EXECUTION_ID, "--tail", "2")
    assert done.out.splitlines() == ["count | line 4", "count | line 5"]
    assert [request.follow for request in fakes.scheduler.tails] == [False]
    followed = await cli("logs", EXECUTION_ID, "--tail", "2", "-f")
    assert followed.out == done.out
    assert [(request.follow, request.cursor) for request in fakes.scheduler.tails[1:]] == [(False, ""), (True, "5")]


async def test_a_lost_connection_is_resumed_without_gap_or_repeat(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.break_watch_after = [2, 1]
    done = await cli("logs", EXECUTION_ID, "-f")
    assert done.out.splitlines() == [f"count | line {number}" for number in range(1, 6)]
    assert [request.cursor for request in fakes.scheduler.tails] == ["", "2", "3"]
    assert "waiting for it" in done.err


async def test_a_node_that_cannot_be_is_refused_with_what_is_right(cli: Cli, fakes: FakeServices) -> None:
    done = await cli("logs", EXECUTION_ID, "--node", "count[x]")
    assert (done.code, done.out, fakes.scheduler.tails) == (2, "", [])
    assert "NAME[3]" in done.err


async def test_silence_is_told(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.lines = []
    for options in ([], ["--tail", "3"], ["-f"], ["--tail", "3", "-f"]):
        done = await cli("logs", EXECUTION_ID, *options)
        assert (done.code, done.out) == (0, "")
        assert done.err.count("no lines: ") == 1
