"""Frames between agent and runner: cut right, and never given twice."""

import asyncio

import pytest
import uvloop

from nodeflow_worker.driver import _Timers
from nodeflow_worker.runner.frames import FrameReader, Results, encode

FRAMES = [encode(Results(1, [b"1"], [])), encode(Results(2, [b"2", b"3"], []))]


def test_frames_are_cut_wherever_the_pipe_cuts() -> None:
    stream = b"".join(FRAMES)
    for cut in range(len(stream) + 1):
        reader = FrameReader()
        found = [*reader.feed(stream[:cut]), *reader.feed(stream[cut:])]
        assert found == [bytes(each[4:]) for each in FRAMES]


def test_a_frame_on_which_its_reader_fails_does_not_come_again() -> None:
    reader = FrameReader()

    def take_one() -> None:
        for _ in reader.feed(b"".join(FRAMES)):
            raise LookupError

    with pytest.raises(LookupError):
        take_one()
    assert [*reader.feed(b"")] == [bytes(FRAMES[1][4:])]


def test_timers_that_are_due_already_can_be_set_again() -> None:
    """On uvloop such a timer has no time of its own."""

    async def beats() -> int:
        fired = asyncio.Event()
        count = 0

        def on_beat() -> None:
            nonlocal count
            count += 1
            fired.set()

        timers = _Timers(on_beat, lambda: None)
        now = asyncio.get_running_loop().time()
        timers.beat_at(now - 1)
        timers.beat_at(now - 2)
        timers.beat_at(now)
        await fired.wait()
        await asyncio.sleep(0)
        return count

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(beats()) == 1
