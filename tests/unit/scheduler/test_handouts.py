"""How much is handed out in one go, and how much is on its way to a worker at most."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final
from unittest.mock import patch

import pytest
from tests.unit.scheduler.making import Lab, held, opened, ref, report, submit, updates, workflow

from nodeflow_scheduler import handouts
from nodeflow_scheduler.domain import placement
from nodeflow_scheduler.domain.expressions import Rendered
from nodeflow_scheduler.domain.messages import CapacityChanged, Input, Tick
from nodeflow_scheduler.domain.placement import Placement
from nodeflow_scheduler.domain.values import Stored
from nodeflow_scheduler.handouts import Handouts
from nodeflow_scheduler.ports import Prepared
from nodeflow_shared.streams import Inbox

HEAVY: Final = "x" * 1_000
NODES: Final = 10


class Clock:
    """Each look at it takes time."""

    def __init__(self, look_s: float = 0.0) -> None:
        self._now_s = 0.0
        self._look_s = look_s

    def monotonic(self) -> float:
        self._now_s += self._look_s
        return self._now_s

    def now_ms(self) -> int:
        return 0


class Sent:
    """What workers are given."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, list[int]]] = []

    def assign(self, manager: str, session_id: str, generation: int, prepared: Sequence[Prepared]) -> None:
        self.tasks.append((session_id, [grant.task for grant, _ in prepared]))


class Hand:
    """A lab whose attempts are handed out."""

    def __init__(self, clock: Clock | None = None, *, slots: int = 100, credits: int = 0) -> None:  # noqa: A002
        self.lab = Lab.ready(slots=slots)
        self.lab.step(CapacityChanged(session_id="s1", slots=slots, credits=credits))
        self.inbox: Inbox[Input] = Inbox()
        self.sent = Sent()
        sent: Any = self.sent
        self.handouts = Handouts(self.lab.core.placement, sent, self.inbox, clock or Clock())

    def submit(self, data: str, count: int = NODES) -> None:
        self.lab.step(submit(workflow({f"n{n}": {"with": {"data": data}} for n in range(count)})))

    async def out(self) -> list[tuple[str, list[int]]]:
        """Hand out once; returns what was."""
        self.sent.tasks.clear()
        self.handouts.hand_out()
        await asyncio.sleep(0)
        return list(self.sent.tasks)

    def follows(self) -> bool:
        """Whether it is to go on by itself."""
        return self.inbox.take() == [Tick()]


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with (
        patch.object(placement, "LIGHT_BYTES", 500),
        patch.object(handouts, "LIGHT_BYTES", 500),
        patch.object(placement, "LOAD_BYTES", 5_000),
        patch.object(handouts, "TURN_BYTES", 3_000),
    ):
        yield


async def test_so_much_at_a_time_and_the_rest_after_everybody_else() -> None:
    hand = Hand()
    hand.submit(HEAVY)
    assert await hand.out() == [("s1", [0, 1, 2])]
    assert hand.follows()
    assert await hand.out() == [("s1", [3, 4])]
    assert len(hand.lab.core.placement.sessions["s1"].live) == 5


async def test_a_session_gets_no_more_until_it_has_begun_what_is_on_its_way() -> None:
    hand = Hand()
    hand.submit(HEAVY)
    for _ in range(3):
        await hand.out()
    assert await hand.out() == []
    hand.inbox.take()
    assert await hand.out() == []
    assert not hand.follows(), "nothing goes on by itself while there is no room"
    hand.lab.step(updates(started=[ref(0)]))
    hand.lab.step(updates(results=[report(1)]))
    hand.lab.step(updates(refused=[ref(2)]))
    hand.lab.step(updates(results=[report(3)]))  # which makes it take what it refused
    assert await hand.out() == [("s1", [2, 5, 6])]


async def test_what_is_light_is_bounded_by_its_number_alone() -> None:
    hand = Hand()
    hand.submit("x" * 100, 20)
    assert await hand.out() == [("s1", list(range(20)))]
    assert hand.lab.core.placement.sessions["s1"].loads == {}
    assert not hand.follows()


async def test_what_a_session_names_as_held_has_come_to_it() -> None:
    hand = Hand()
    hand.submit(HEAVY)
    await hand.out()
    await hand.out()
    session = hand.lab.core.placement.sessions["s1"]
    assert sorted(key[1] for key in session.loads) == [0, 1, 2, 3, 4]
    hand.lab.step(held(live=[ref(0), ref(1)], generation=2))
    assert (session.loads, session.load_bytes) == ({}, 0)


async def test_free_slots_come_before_the_credits_of_others() -> None:
    hand = Hand(slots=2, credits=100)
    hand.lab.step(opened("s2", slots=2, credits=100), held("s2"))
    hand.submit(HEAVY, 20)
    assert await hand.out() == [("s1", [0, 1]), ("s2", [2])]
    assert await hand.out() == [("s2", [3]), ("s1", [4, 5])]


async def test_light_tasks_pass_workers_that_have_enough_on_their_way() -> None:
    hand = Hand()
    hand.submit(HEAVY, 5)
    await hand.out()
    await hand.out()
    hand.lab.step(opened("s2"), held("s2"))
    hand.lab.step(submit(workflow({"light": {}}), "e2"))
    assert await hand.out() == [("s2", [0])]


async def test_of_much_that_waits_only_some_is_looked_at() -> None:
    hand = Hand()
    hand.submit(HEAVY, 500)
    await hand.out()
    with patch.object(Placement, "put_back", autospec=True) as put_back:
        await hand.out()
    assert len(put_back.call_args.args[1]) <= handouts.FEW


def test_what_is_stored_travels_as_a_reference() -> None:
    stored, inline = Stored(digest="sha256:1", data=HEAVY.encode()), Stored(content_type="text/plain", data=b"12345")
    assert handouts.size_of(Rendered(b"{}", (("a", stored), ("b", inline)))) == 2 + 5


async def test_what_takes_long_to_compute_lets_others_have_their_turn() -> None:
    hand = Hand(Clock(look_s=handouts.TURN_S / 2.5))
    hand.submit("x", 40)
    several = 2 * handouts.LOOK_EVERY
    assert await hand.out() == [("s1", list(range(several)))]
    assert hand.follows()
    assert await hand.out() == [("s1", list(range(several, 2 * several)))]
