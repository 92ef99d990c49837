"""Faults, drawn from a seed: what strikes when, for how long, and how it is mended.

Owns one function for each kind. Must not know what runs on the suite.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.simulation.seeds.diary import Diary

from nodeflow_testing.loopback import DELAY_S
from nodeflow_testing.virtual_suite import DATABASE, STATE_MANAGER, WORKER_MANAGER, VirtualSuite, address_of

FAULTS_AT_LEAST: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A fault that has struck: a sentence about it, and how to end it."""

    what: str
    lasts_s: float
    mend: Callable[[], Awaitable[None]]


class Trouble:
    """All faults of one life. None strikes what another has in its hands."""

    def __init__(
        self, suite: VirtualSuite, users: Sequence[str], chance: Random, diary: Diary, *, quarrels: Random | None = None
    ) -> None:
        self.suite = suite
        self.chance = chance
        self._quarrels = quarrels
        """Draws when two schedulers fall out over their shards, if they do."""
        self._users = users
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
            if self._quarrels is not None:
                self.group.create_task(self._quarrel(self._quarrels, within_s), name="quarrels")
            while struck < count:
                await asyncio.sleep(self.chance.uniform(0, 2 * within_s / count))
                kind = self.chance.choice(sorted(KINDS))
                strike = await KINDS[kind](self)
                if strike is None:
                    continue
                struck += 1
                self._note(kind, strike)

    async def _quarrel(self, chance: Random, within_s: float) -> None:
        """Let schedulers lose leases to each other while they cannot hear of it, now and then."""
        for _ in range(chance.randrange(1, 4)):
            await asyncio.sleep(chance.uniform(0, within_s / 3))
            strike = await two_owners(self, chance)
            if strike is not None:
                self._note("lost lease", strike)

    def _note(self, kind: str, strike: Strike) -> None:
        self._diary.struck[kind] += 1
        self._diary.note("fault", f"{kind}: {strike.what}, for {strike.lasts_s:.2f} s")
        self.group.create_task(self._mend(strike), name=f"mend {kind}")

    async def _mend(self, strike: Strike) -> None:
        began_s = asyncio.get_running_loop().time()
        await asyncio.sleep(strike.lasts_s)
        await strike.mend()
        self._diary.troubles.append((began_s, asyncio.get_running_loop().time()))
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

    def draw_process(self, *names: str) -> str | None:
        """Draw a process, of these or of all, that runs and that no other fault holds, and take it."""
        free = [name for name in names or self.suite.names if self.suite.running(name) and name not in self._held]
        if not free:
            return None
        name = self.chance.choice(free)
        self.take(name)
        return name

    def draw_link(self) -> tuple[str, str] | None:
        """Draw two addresses that speak with each other and that no other fault parts, and take what is between."""
        links = [(caller, STATE_MANAGER) for caller in (WORKER_MANAGER, *self.suite.schedulers)]
        links += [
            (caller, WORKER_MANAGER) for caller in self.suite.names if caller not in (STATE_MANAGER, WORKER_MANAGER)
        ]
        one, other = self.chance.choice([*links, (self.chance.choice(self._users), self.suite.schedulers[0])])
        if one == other or not self.take(f"{one} and {other}"):
            return None
        return one, other

    def draw_span(self, *longest_s: float) -> float:
        """Draw how long something lasts: up to one of these."""
        return self.chance.uniform(0, self.chance.choice(longest_s))

    async def revive(self, name: str) -> None:
        """Start a process that is gone."""
        await self.suite.restart(name)
        self.release(name)


# --------------------------------------------------------------------------- processes


async def crash(trouble: Trouble) -> Strike | None:
    """A process dies at once, and comes back."""
    name = trouble.draw_process()
    if name is None:
        return None
    await trouble.suite.kill(name)
    lasts_s = trouble.draw_span(0.01, 1, 8, 25)
    return Strike(what=f"{name} is killed", lasts_s=lasts_s, mend=lambda: trouble.revive(name))


async def crash_within(trouble: Trouble) -> Strike | None:
    """A process dies between any two steps of what it does next, and comes back."""
    name = trouble.draw_process()
    if name is None:
        return None
    steps = trouble.chance.randrange(trouble.chance.choice([10, 100, 1_000]))
    trouble.suite.kill_after(name, steps)

    async def revive() -> None:
        if trouble.suite.running(name):
            await trouble.suite.kill(name)
        await trouble.revive(name)

    return Strike(what=f"{name} is killed after {steps} steps", lasts_s=trouble.draw_span(1, 8, 25), mend=revive)


async def drain(trouble: Trouble) -> Strike | None:
    """A process is stopped in order, and started again."""
    name = trouble.draw_process()
    if name is None:
        return None

    async def start() -> None:
        await stopping
        await trouble.revive(name)

    stopping = trouble.group.create_task(trouble.suite.drain(name), name=f"drain {name}")
    return Strike(what=f"{name} is drained", lasts_s=trouble.draw_span(0.01, 1, 8), mend=start)


async def pause(trouble: Trouble) -> Strike | None:
    """A process stands still, perhaps with its whole machine if it is a worker, and goes on as if nothing had been."""
    name = trouble.draw_process()
    if name is None:
        return None
    whole = name in trouble.suite.spans_by_worker and trouble.chance.random() < 0.5
    trouble.suite.pause(name, runners=whole)

    async def resume() -> None:
        trouble.suite.resume(name)
        trouble.release(name)

    return Strike(
        what=f"{name} stands still{' as a whole' if whole else ''}",
        lasts_s=trouble.draw_span(1, 8, 20, 60, 150),
        mend=resume,
    )


async def clock_jump(trouble: Trouble) -> Strike | None:
    """The wall clock of a machine, or of all, is set wrong, and right again."""
    name = trouble.chance.choice([None, DATABASE, *sorted(trouble.suite.clocks)])
    if not trouble.take("clocks"):
        return None
    seconds = trouble.chance.choice([-1, 1]) * trouble.draw_span(0.5, 5, 60)
    trouble.suite.shift_clock(name, seconds)

    async def correct() -> None:
        trouble.suite.shift_clock(name, -seconds)
        trouble.release("clocks")

    what = f"the clock of {name or 'all'} is set by {seconds:.3f} s"
    return Strike(what=what, lasts_s=trouble.draw_span(0.5, 20), mend=correct)


async def lost_lease(trouble: Trouble) -> Strike | None:
    """The leases of a scheduler, or of one shard, are gone, and it does not know."""
    name = trouble.chance.choice(trouble.suite.schedulers)
    held = trouble.suite.store.shards_of(name)
    if not held:
        return None
    what: int | str = name if trouble.chance.random() < 0.5 else trouble.chance.choice(held)
    await trouble.suite.seize(what)
    shown = what if isinstance(what, str) else f"shard {what}"
    return Strike(what=f"the lease of {shown} is seized", lasts_s=0, mend=_nothing)


async def two_owners(trouble: Trouble, chance: Random) -> Strike | None:
    """A scheduler loses its leases to another one, and cannot hear of it: both take the shards for their own."""
    suite = trouble.suite
    owner = max(suite.schedulers, key=lambda name: len(suite.store.shards_of(name)))
    if not suite.store.shards_of(owner) or not trouble.take(f"{owner} and {STATE_MANAGER}"):
        return None
    silence = chance.choice([suite.network.partition, suite.network.half_open])
    silence(_address(owner), _address(STATE_MANAGER))
    await suite.seize(owner)

    async def heal() -> None:
        suite.network.heal(_address(owner), _address(STATE_MANAGER))
        trouble.release(f"{owner} and {STATE_MANAGER}")

    lasts_s = chance.uniform(0, chance.choice([1, 4, 15]))
    return Strike(what=f"the leases of {owner} are seized, and it does not hear of it", lasts_s=lasts_s, mend=heal)


# ----------------------------------------------------------------------------- network


async def partition(trouble: Trouble) -> Strike | None:
    """Two processes, or a user and a scheduler, do not reach each other."""
    return _silence(trouble, trouble.suite.network.partition, "and {} do not reach each other")


async def half_open(trouble: Trouble) -> Strike | None:
    """One reaches the other, and hears nothing back."""
    return _silence(trouble, trouble.suite.network.half_open, "does not reach {}")


def _silence(trouble: Trouble, silence: Callable[[str, str], None], what: str) -> Strike | None:
    link = trouble.draw_link()
    if link is None:
        return None
    one, other = trouble.chance.sample(link, 2)
    silence(_address(one), _address(other))

    async def heal() -> None:
        trouble.suite.network.heal(_address(one), _address(other))
        trouble.release(f"{link[0]} and {link[1]}")

    return Strike(what=f"{one} {what.format(other)}", lasts_s=trouble.draw_span(1, 8, 40), mend=heal)


async def cut(trouble: Trouble) -> Strike | None:
    """Every connection between two processes breaks; new ones get through."""
    link = trouble.draw_link()
    if link is None:
        return None
    one, other = link
    trouble.suite.network.cut(_address(one), _address(other))
    trouble.release(f"{one} and {other}")
    return Strike(what=f"connections between {one} and {other} break", lasts_s=0, mend=_nothing)


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


# -------------------------------------------------------------------------------- disk


async def slow_disk(trouble: Trouble) -> Strike | None:
    """The state-manager's disk takes its time to sync."""
    if not trouble.take("disk"):
        return None
    slowness_s = trouble.chance.choice([0.1, 0.5, 3.0])
    _slow_down(trouble, slowness_s)

    async def quicken() -> None:
        trouble.suite.disk.sync_s = 0.0
        trouble.release("disk")

    return Strike(what=f"the disk takes up to {slowness_s} s to sync", lasts_s=trouble.draw_span(5, 30), mend=quicken)


async def full_disk(trouble: Trouble) -> Strike | None:
    """There is no room on the state-manager's disk."""
    if not trouble.take("disk"):
        return None
    trouble.suite.disk.full = True

    async def make_room() -> None:
        trouble.suite.disk.full = False
        trouble.release("disk")

    return Strike(what="the disk is full", lasts_s=trouble.draw_span(1, 8, 30), mend=make_room)


async def torn_write(trouble: Trouble) -> Strike | None:
    """The state-manager's machine dies while it writes: what was not synced is lost, from anywhere on."""
    if not trouble.take("disk"):
        return None
    name = trouble.draw_process(STATE_MANAGER)
    if name is None:
        trouble.release("disk")
        return None
    _slow_down(trouble, 1.0)
    await asyncio.sleep(trouble.draw_span(3))
    if trouble.suite.running(name):
        await trouble.suite.kill(name)

    async def revive() -> None:
        trouble.suite.disk.sync_s = 0.0
        trouble.release("disk")
        await trouble.revive(name)

    return Strike(what="the machine of the state-manager dies", lasts_s=trouble.draw_span(0.01, 8), mend=revive)


def _slow_down(trouble: Trouble, slowness_s: float) -> None:
    delays = trouble.delays
    trouble.suite.disk.sync_s = lambda: delays.uniform(0, slowness_s)


def _address(name: str) -> str:
    """Users are known to the network by their names."""
    return name if name.startswith("user-") else address_of(name)


async def _nothing() -> None:
    """What is over as soon as it has struck."""


KINDS: Final[Mapping[str, Callable[[Trouble], Awaitable[Strike | None]]]] = {
    "crash": crash,
    "crash within": crash_within,
    "drain": drain,
    "pause": pause,
    "clock jump": clock_jump,
    "lost lease": lost_lease,
    "partition": partition,
    "half open": half_open,
    "cut": cut,
    "slow network": slow_network,
    "slow disk": slow_disk,
    "full disk": full_disk,
    "torn write": torn_write,
}
"""Every kind, with what lets it strike: None if there was nothing to strike."""

EFFECTS: Final = (
    "kill",
    "kill_after",
    "pause",
    "clock",
    "lost_lease",
    "two_owners",
    "partition",
    "half_open",
    "cut",
    "dropped_message",
    "repeated_call",
    "repeated_message",
    "slow_disk",
    "disk_full",
    "torn_write",
    "lost_write",
    "full_queue",
    "refused_submission",
)
"""What the suite itself counts of them: that they had something to strike."""
