"""Faults, drawn from a seed: what strikes when, for how long, and how it is mended.

Owns one function for each kind. Must not know what runs on the suite.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.simulation.seeds.diary import Diary

from nodeflow_testing.loopback import DELAY_S
from nodeflow_testing.virtual_suite import VirtualSuite, address_of

FAULTS_AT_LEAST: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A fault that has struck: a sentence about it, and how to end it."""

    what: str
    lasts_s: float
    mend: Callable[[], Awaitable[None]]


class Trouble:
    """All faults of one life. None strikes what another has in its hands."""

    def __init__(self, suite: VirtualSuite, chance: Random, diary: Diary) -> None:
        self.suite = suite
        self.chance = chance
        self._diary = diary
        self.delays = Random(chance.random())
        """Apart from `chance`, so that the number of messages does not change the plan."""
        self._held: set[str] = set()
        self.group = asyncio.TaskGroup()
        """In which faults that take time go on; new with every `come`."""

    async def come(self, within_s: float) -> None:
        """Let faults strike within these seconds; all of them are mended when it returns."""
        count = self.chance.randrange(FAULTS_AT_LEAST + 1, 14)
        struck = 0
        async with asyncio.TaskGroup() as self.group:
            while struck < count:
                await asyncio.sleep(self.chance.uniform(0, 2 * within_s / count))
                kind = self.chance.choice(sorted(KINDS))
                strike = await KINDS[kind](self)
                if strike is None:
                    continue
                struck += 1
                self._diary.struck[kind] += 1
                self._diary.note("fault", f"{kind}: {strike.what}, for {strike.lasts_s:.2f} s")
                self.group.create_task(self._mend(strike), name=f"mend {kind}")

    async def _mend(self, strike: Strike) -> None:
        await asyncio.sleep(strike.lasts_s)
        await strike.mend()
        self._diary.note("fault", f"mended: {strike.what}")

    def take(self, *things: str) -> bool:
        """Take hold of things, if nobody has."""
        if self._held.intersection(things):
            return False
        self._held.update(things)
        return True

    def release(self, *things: str) -> None:
        """Let others have them."""
        self._held.difference_update(things)

    def draw_name(self) -> str | None:
        """Draw a process that runs and that no other fault holds, and take it."""
        free = [name for name in self.suite.names if self.suite.running(name) and name not in self._held]
        if not free:
            return None
        name = self.chance.choice(free)
        self.take(name)
        return name

    def draw_span(self, *longest_s: float) -> float:
        """Draw how long something lasts: up to one of these."""
        return self.chance.uniform(0, self.chance.choice(longest_s))

    async def restart(self, name: str) -> None:
        """Start a process that is gone."""
        await self.suite.restart(name)
        self.release(name)


async def crash(trouble: Trouble) -> Strike | None:
    """A process dies at once, and comes back."""
    name = trouble.draw_name()
    if name is None:
        return None
    await trouble.suite.kill(name)
    lasts_s = trouble.draw_span(0.01, 1, 8, 25)
    return Strike(what=f"{name} is killed", lasts_s=lasts_s, mend=lambda: trouble.restart(name))


async def drain(trouble: Trouble) -> Strike | None:
    """A process is stopped in order, and started again."""
    name = trouble.draw_name()
    if name is None:
        return None
    lasts_s = trouble.draw_span(0.01, 1, 8)

    async def start() -> None:
        await stopping
        await trouble.restart(name)

    stopping = trouble.group.create_task(trouble.suite.drain(name), name=f"drain {name}")
    return Strike(what=f"{name} is drained", lasts_s=lasts_s, mend=start)


async def partition(trouble: Trouble) -> Strike | None:
    """Two processes, or a user and the scheduler, do not reach each other."""
    one, other = trouble.chance.sample(trouble.suite.names, 2)
    pair = f"{min(one, other)} and {max(one, other)}"
    if not trouble.take(pair):
        return None
    trouble.suite.network.partition(address_of(one), address_of(other))

    async def heal() -> None:
        trouble.suite.network.heal(address_of(one), address_of(other))
        trouble.release(pair)

    return Strike(what=f"{pair} are parted", lasts_s=trouble.draw_span(1, 8, 40), mend=heal)


async def slow_network(trouble: Trouble) -> Strike | None:
    """Messages take their time, and those of different calls overtake each other."""
    if not trouble.take("network"):
        return None
    slowness_s = trouble.chance.choice([0.02, 0.2, 1.0])
    delays = trouble.delays
    trouble.suite.network.delay = lambda _source, _target: delays.uniform(0, slowness_s)

    async def quicken() -> None:
        trouble.suite.network.delay = lambda _source, _target: DELAY_S
        trouble.release("network")

    return Strike(what=f"messages take up to {slowness_s} s", lasts_s=trouble.draw_span(5, 30), mend=quicken)


KINDS: Final[Mapping[str, Callable[[Trouble], Awaitable[Strike | None]]]] = {
    "crash": crash,
    "drain": drain,
    "partition": partition,
    "slow network": slow_network,
}
"""Every kind, with what lets it strike: None if there was nothing to strike."""
