"""Output of real runner processes: whose it is, where it is cut, and who waits when nobody takes it."""

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.worker.lab import Lab

from nodeflow_worker.domain.output import Stream
from nodeflow_worker.domain.values import Attempt

FUNCTIONS = """
import ctypes, logging, os, subprocess, sys, threading, time, warnings

print("while importing")

def say(text, end="\\n"):
    print(text, end=end)

def say_both():
    print("out 1")
    print("err 1", file=sys.stderr)
    print("out 2")

def nothing():
    pass

def raw():
    os.write(1, b"raw out\\n")
    os.write(2, b"raw err\\n")

def c_level():
    ctypes.CDLL(None).puts(b"from C")

def child():
    subprocess.run(["sh", "-c", "echo from a child; echo and its error >&2"], check=True)

def records():
    log = logging.getLogger("my.module")
    log.debug("too fine")
    log.info("it works")
    log.warning("it works %s", "badly")

def configured():
    logging.basicConfig(level=logging.DEBUG, format="mine: %(message)s")
    logging.debug("fine")

def odd_bytes():
    os.write(1, b"caf\\xe9 \\xff\\n")

def endless(size):
    os.write(1, b"\\xc3\\xa9" * (size // 2))

def many(count):
    for number in range(count):
        print("line", number)

def flood(megabytes):
    line = b"x" * 99 + b"\\n"
    data = line * 10_000
    for _ in range(megabytes):
        left = memoryview(data)
        while left:
            left = left[os.write(1, left):]

def die():
    print("last words")
    os._exit(3)

def late():
    threading.Timer(0.05, lambda: print("later")).start()
    print("now", end="")

def close_out():
    print("before")
    sys.stdout.close()

def hang():
    sys.stdout.write("hanging")
    os.write(2, b"begun\\n")
    time.sleep(1000)

def pid():
    return os.getpid()
"""


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path, attempt_limit_bytes=4 << 20) as lab:
        lab.write("fns.py", FUNCTIONS)
        await lab.call("fns:nothing")
        lab.chunks.clear()
        yield lab


async def written(lab: Lab, function: str, arguments: bytes = b"{}") -> list[tuple[Stream, str]]:
    attempt = lab.attempt(function, arguments)
    await lab.run(attempt)
    return await lab.lines(attempt)


OUT, ERR, NOTICE = Stream.STDOUT, Stream.STDERR, Stream.NOTICE


async def test_print_goes_to_its_stream(lab: Lab) -> None:
    lines = await written(lab, "fns:say_both")
    assert [text for stream, text in lines if stream is OUT] == ["out 1", "out 2"]
    assert [text for stream, text in lines if stream is ERR] == ["err 1"]


async def test_a_module_speaks_for_the_task_that_imports_it(tmp_path: Path) -> None:
    async with Lab(tmp_path) as lab:
        lab.write("fns.py", FUNCTIONS)
        assert await written(lab, "fns:nothing") == [(OUT, "while importing")]
        assert await written(lab, "fns:nothing") == []


async def test_what_is_written_below_python_counts_too(lab: Lab) -> None:
    assert sorted(await written(lab, "fns:raw")) == [(OUT, "raw out"), (ERR, "raw err")]
    assert await written(lab, "fns:c_level") == [(OUT, "from C")]
    assert sorted(await written(lab, "fns:child")) == [(OUT, "from a child"), (ERR, "and its error")]


async def test_log_records_have_level_and_logger(lab: Lab) -> None:
    assert await written(lab, "fns:records") == [
        (ERR, "INFO my.module: it works"),
        (ERR, "WARNING my.module: it works badly"),
    ]


async def test_user_code_that_configures_logging_has_its_way(lab: Lab) -> None:
    assert await written(lab, "fns:configured") == [(ERR, "mine: fine")]


async def test_a_line_without_an_end_is_one_at_the_end_of_the_task(lab: Lab) -> None:
    assert await written(lab, "fns:say", b'{"text": "no end", "end": ""}') == [(OUT, "no end")]
    assert await written(lab, "fns:say", b'{"text": "next"}') == [(OUT, "next")]


async def test_bytes_that_are_not_utf8_are_replaced(lab: Lab) -> None:
    assert await written(lab, "fns:odd_bytes") == [(OUT, "caf\ufffd \ufffd")]


async def test_an_endless_line_comes_in_parts_of_whole_characters(lab: Lab) -> None:
    lines = await written(lab, "fns:endless", b'{"size": 1000001}')
    assert "".join(text for _, text in lines) == "é" * 500_000
    assert max(len(text.encode()) for _, text in lines) == 64 * 1024
    assert len(lines) == -(-1_000_000 // (64 * 1024))


async def test_each_of_many_quick_tasks_has_its_own_output(tmp_path: Path) -> None:
    """All in the same batches, some silent: attribution is what is at stake."""
    async with Lab(tmp_path, slots=2) as lab:
        lab.write("fns.py", FUNCTIONS)
        await lab.warm("fns:nothing")
        await lab.warm("fns:raw")
        attempts: list[tuple[Attempt, list[tuple[Stream, str]]]] = []
        for number in range(300):
            text = f"task {number}"
            attempts += [
                (lab.attempt("fns:say", b'{"text": "%s"}' % text.encode()), [(OUT, text)]),
                (lab.attempt("fns:nothing"), []),
                (lab.attempt("fns:raw"), [(OUT, "raw out"), (ERR, "raw err")]),
            ]
        lab.chunks.clear()
        await lab.run(*[attempt for attempt, _ in attempts])
        wrong = [
            (attempt.task_number, lines)
            for attempt, expected in attempts
            if sorted(lines := await lab.lines(attempt)) != expected and ("while importing") not in str(lines)
        ]
        assert wrong == []


async def test_lines_are_numbered_without_gaps(lab: Lab) -> None:
    attempt = lab.attempt("fns:many", b'{"count": 20000}')
    await lab.run(attempt)
    assert [text for _, text in await lab.lines(attempt)] == [f"line {number}" for number in range(20_000)]
    first = 1
    for chunk in lab.chunks:
        assert chunk.first_line == first
        first += chunk.line_count
    assert first == 20_001


async def test_last_words_of_a_dying_runner_are_kept(lab: Lab) -> None:
    assert await written(lab, "fns:die") == [(OUT, "last words")]


async def test_what_a_stopped_task_said_is_kept(lab: Lab) -> None:
    attempt = lab.attempt("fns:hang")
    running = asyncio.ensure_future(lab.run(attempt))
    await lab.until(lambda: bool(lab.chunks))
    lab.cancel(attempt, 5.0)
    await running
    await lab.until(lambda: bool(lab.deaths()))
    assert await lab.lines(attempt) == [(ERR, "begun"), (OUT, "hanging")]


async def test_a_thread_that_outlives_its_task_speaks_for_it(lab: Lab) -> None:
    attempt = lab.attempt("fns:late")
    await lab.run(attempt)
    await lab.until(lambda: sum(chunk.line_count for chunk in lab.chunks) == 2)
    assert await lab.lines(attempt) == [(OUT, "now"), (OUT, "later")]
    assert [chunk.first_line for chunk in lab.chunks] == [1, 2]


async def test_code_that_closes_its_output_harms_nothing(lab: Lab) -> None:
    assert await written(lab, "fns:close_out") == [(OUT, "before")]
    assert await lab.call("fns:nothing") == b"null"


async def test_beyond_the_limit_a_notice_says_where_it_was_cut(lab: Lab) -> None:
    lines = await written(lab, "fns:flood", b'{"megabytes": 6}')
    kept = [text for stream, text in lines if stream is OUT]
    assert sum(len(text) + 1 for text in kept[:-1]) + len(kept[-1]) == 4 << 20
    assert [text for stream, text in lines if stream is NOTICE] == [
        "the limit of 4 MiB is reached: no more is kept",
        "1.722 MiB were left out",
    ]


async def test_two_hundred_megabytes_pass_in_bounded_memory(tmp_path: Path) -> None:
    async with Lab(tmp_path) as lab:
        lab.write("fns.py", FUNCTIONS)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taken = 0

        def deliver() -> None:
            nonlocal taken
            while batch := lab.outputs.take():
                taken += sum(len(run.text) + 1 for chunk in batch.chunks for run in chunk.runs)
                lab.outputs.acknowledge(batch.batch_id)
            lab._changed.set()

        lab.outputs.on_added = deliver
        assert await lab.call("fns:flood", b'{"megabytes": 200}') == b"null"
        await lab.until(lambda: lab.runners.drain_output() and not lab.outputs.held)
        assert 64 << 20 <= taken < (64 << 20) + 1_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


async def test_who_writes_faster_than_it_is_taken_waits_and_nobody_else(tmp_path: Path) -> None:
    async with Lab(tmp_path, slots=2) as lab:
        lab.write("fns.py", FUNCTIONS)
        lab.delivers = False
        flooding = lab.attempt("fns:flood", b'{"megabytes": 3}')
        running = asyncio.ensure_future(lab.run(flooding))
        await lab.until(lambda: lab.outputs.held >= (1 << 20) // 8)
        for _ in range(20):
            assert await lab.call("fns:nothing") == b"null"
        assert flooding.outcome is None
        assert lab.outputs.held < (1 << 20) // 2
        lab.deliver()
        await running
        assert len(await lab.lines(flooding)) == 30_000 + 1  # and that of the import
