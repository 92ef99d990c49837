"""Which runner executes what: the waiting attempts, the runners, and what each was fed.

Owns feeding, binding of runners to directories, taking back what waits behind a long task, and the blame when a runner
dies. Processes share the slots with runners (`process_line`). Must not know leases or reports.
A runner executes its tasks one after the other; they are counted per runner from 1 (the *sequence*).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from nodeflow_worker.domain.instructions import (
    Feed,
    Instruction,
    Kill,
    KillProcess,
    Retire,
    Spawn,
    StartProcess,
    StopProcess,
    StopTask,
    TakeBack,
)
from nodeflow_worker.domain.pace import UNKNOWN
from nodeflow_worker.domain.process_line import ProcessLine
from nodeflow_worker.domain.values import Attempt, State, Stop, TaskSpec

FEED_S: Final = 0.005
"""How much work a runner holds at most; more than one task only of functions known to be quick."""
FEED_LIMIT: Final = 256
"""How many tasks go out in one feed at most."""
SHARE_S: Final = 0.0005
"""Less work than this is not worth being spread over idle runners."""
PATIENCE_S: Final = 0.5
"""How long a directory without a runner waits before one that is never idle is freed for it: a change costs a start."""
HELD_UP_S: Final = 5.0
"""A runner that has been busy with one task for so long is nobody's prospect: its directory counts as without one."""
MAX_FAILED_STARTS: Final = 5
MAX_RETURNS: Final = 8
"""How many runners may die before they begin an attempt that was fed to them, until the attempt fails."""
RESTART_DELAY_S: Final = 0.2

_TAKEN_BACK: Final = Attempt("", 0, 0, 0, 0, TaskSpec(tenant=""), b"", state=State.ENDED)
"""Stands in a runner's queue for a task that it was fed and will not begin."""


class Runner:
    """A runner process as the pool sees it."""

    __slots__ = (
        "directory",
        "done",
        "idle_since",
        "load_s",
        "long",
        "long_since",
        "number",
        "queue",
        "ready",
        "relieved",
        "retiring",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.directory: str | None = None
        self.ready = False
        self.retiring = False
        self.queue: deque[Attempt] = deque()
        self.done = 0
        self.long = 0
        self.long_since = 0.0
        self.relieved = 0
        self.load_s = 0.0
        self.idle_since = 0.0

    @property
    def held_up(self) -> bool:
        """Whether it executes a task that runs for some time."""
        return self.long > self.done

    @property
    def idle(self) -> bool:
        """Whether it could execute something, and has nothing."""
        return self.ready and not self.retiring and not self.queue

    def at(self, sequence: int) -> Attempt | None:
        """Return the task with this number, if it has not ended."""
        place = sequence - self.done - 1
        return self.queue[place] if 0 <= place < len(self.queue) else None

    def can_take(self, directory: str) -> bool:
        """Whether it can be fed tasks of this directory."""
        return (
            self.ready
            and not self.retiring
            and self.directory in (directory, None)
            and (not self.queue or (self.load_s < FEED_S / 2 and not self.held_up))
        )

    def behind(self) -> list[int]:
        """Return the numbers of the tasks that wait behind the long one that it executes."""
        if not self.held_up or self.long == self.relieved:
            return []
        first = self.done + 1
        return [
            first + place
            for place, attempt in enumerate(self.queue)
            if first + place > self.long and attempt.state is State.FED and attempt.stop is Stop.NONE
        ]

    def took(self, count: int) -> None:
        """Note that the next `count` tasks have ended; they are off the queue already."""
        left = len(self.queue)
        self.done += count
        self.load_s = self.load_s * left / (left + count) if left else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What a dead runner leaves.

    Tasks that it had ended without telling (`lost`), the one that it died in (`blamed`), those that were to be stopped
    before it began them (`stopped`), and one before whose beginning too many runners died (`refused`).
    """

    lost: Sequence[Attempt] = ()
    blamed: Attempt | None = None
    stopped: Sequence[Attempt] = ()
    refused: Sequence[Attempt] = ()


class Pool:
    """The runners of a worker and the attempts that wait for them, by directory, each first come, first served."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._runners: dict[int, Runner] = {}
        self._waiting: dict[str, deque[Attempt]] = {}
        self._since: dict[str, float] = {}
        self._bound_at = 0.0
        self._processes = ProcessLine(slots)
        self._last_number = 0
        self._failed_starts = 0

    def start(self) -> list[Instruction]:
        """Spawn a runner for each slot that has none."""
        spawns: list[Instruction] = []
        delay_s = RESTART_DELAY_S * self._failed_starts
        while len(self._runners) < self._slots:
            self._last_number += 1
            self._runners[self._last_number] = Runner(self._last_number)
            spawns.append(Spawn(runner=self._last_number, delay_s=delay_s))
        return spawns

    def runner(self, number: int) -> Runner | None:
        """Return a runner that has not died."""
        return self._runners.get(number)

    def enqueue(self, attempts: Iterable[Attempt]) -> None:
        """Put attempts at the end of the line; `dispatch` feeds them."""
        waiting = self._waiting
        for attempt in attempts:
            attempt.state = State.WAITING
            if attempt.spec.process is not None:
                self._processes.enqueue(attempt)
                continue
            line = waiting.get(attempt.spec.directory)
            if line is None:
                line = waiting[attempt.spec.directory] = deque()
            line.append(attempt)

    def ready(self, number: int) -> None:
        """Note that a runner can be fed."""
        runner = self._runners.get(number)
        if runner is not None:
            runner.ready = True
            self._failed_starts = 0

    def stop(self, attempt: Attempt, grace_s: float) -> list[Instruction]:
        """Stop a fed attempt; its runner, or its process, will tell how it ended."""
        if self._processes.runs(attempt):
            return [StopProcess(attempt=attempt, grace_s=grace_s)]
        runner = self._runners.get(attempt.runner)
        if runner is None or attempt not in runner.queue:
            return []
        sequence = runner.done + 1 + runner.queue.index(attempt)
        return [StopTask(runner=runner.number, sequence=sequence, grace_s=grace_s)]

    def abandon(self) -> list[Instruction]:
        """Forget what waits, and kill every process, and every runner that was fed."""
        self._waiting.clear()
        self._since.clear()
        orders: list[Instruction] = [KillProcess(attempt=each) for each in self._processes.abandon()]
        return orders + [Kill(runner=each.number) for each in self._runners.values() if each.queue]

    def process_ended(self, attempt: Attempt) -> None:
        """Free the slot of a process that is gone."""
        self._processes.ended(attempt)

    def running_long(self, number: int, sequence: int, now: float) -> None:
        """Note that a runner is busy with a task for some time: nothing waits behind it if it can run elsewhere."""
        runner = self._runners.get(number)
        if runner is not None:
            runner.long, runner.long_since = sequence, now

    def taken_back(self, number: int, sequence: int) -> None:
        """Put a task that its runner will not begin at the head of its line; `dispatch` feeds it to another."""
        runner = self._runners[number]
        place = sequence - runner.done - 1
        attempt = runner.queue[place]
        runner.queue[place] = _TAKEN_BACK
        attempt.state = State.WAITING
        self._waiting.setdefault(attempt.spec.directory, deque()).appendleft(attempt)

    def died(self, number: int, last_started: int) -> Remains:
        """Remove a dead runner and sort what it was fed; what it had not started waits again, first in line."""
        runner = self._runners.pop(number, None)
        if runner is None:
            return Remains()
        if not runner.ready:
            self._failed_starts += 1
        begun = [runner.queue.popleft() for _ in range(min(last_started - runner.done, len(runner.queue)))]
        unstarted = [each for each in runner.queue if each.state is State.FED and each.stop is Stop.NONE]
        refused: list[Attempt] = []
        if unstarted:
            # Something in the first may be what keeps a runner from beginning it, such as its size.
            unstarted[0].returns += 1
            if unstarted[0].returns > MAX_RETURNS:
                refused.append(unstarted.pop(0))
        if unstarted:
            line = self._waiting.setdefault(unstarted[0].spec.directory, deque())
            for attempt in reversed(unstarted):
                attempt.state = State.WAITING
                line.appendleft(attempt)
        return Remains(
            lost=begun[:-1],
            blamed=begun[-1] if begun else None,
            stopped=[each for each in runner.queue if each.state is State.FED and each not in refused],
            refused=refused,
        )

    def give_up(self) -> list[Attempt]:
        """Return all that waits, and forget it, once runner processes do not start at all; otherwise nothing."""
        if self._failed_starts < MAX_FAILED_STARTS or any(each.ready for each in self._runners.values()):
            return []
        given_up = [each for line in self._waiting.values() for each in line if each.state is State.WAITING]
        self._waiting.clear()
        self._since.clear()
        return given_up

    def dispatch(self, now: float) -> list[Instruction]:
        """Start and feed whatever can be, and make room for directories that no runner is bound to."""
        orders: list[Instruction] = [] if self._processes.idle else self._start_processes()
        orders += self._relieve()
        if not self._waiting:
            return orders
        for directory in self._waiting:
            self._since.setdefault(directory, now)
        withheld = self._withheld(now)
        for directory in self._in_turn(now):
            line = self._waiting[directory]
            orders += self._feed(directory, line, withheld, now)
            if not line:
                del self._waiting[directory], self._since[directory]
        for directory, line in self._waiting.items():
            if directory not in self._served(now) or now - self._since[directory] > PATIENCE_S:
                orders += self._make_room(directory, len(line), now)
        return orders

    def _start_processes(self) -> list[Instruction]:
        contested = any(each.state is State.WAITING for line in self._waiting.values() for each in line)
        started = self._processes.start(busy=self._busy(), contested=contested)
        return [StartProcess(attempt=each) for each in started]

    def _busy(self) -> int:
        return sum(bool(each.queue) for each in self._runners.values())

    def _relieve(self) -> list[Instruction]:
        """Take back what waits behind long tasks, if there is a runner for it; it comes before what is not fed yet."""
        runners = self._runners.values()
        if not any(each.held_up for each in runners):
            return []
        room = self._slots if self._processes.idle else self._processes.for_runners()
        spare = self._busy() < room
        orders: list[Instruction] = []
        for runner in runners:
            behind = runner.behind()
            # An idle one of another directory counts: `_make_room` has it go, if they wait for long.
            if behind and any(spare if each.idle else each.can_take(runner.directory or "") for each in runners):
                runner.relieved = runner.long
                orders.append(TakeBack(runner=runner.number, sequences=behind))
        return orders

    def _in_turn(self, now: float) -> list[str]:
        """Return the directories that wait, those without a runner first: the next unbound one is there for them."""
        if len(self._waiting) == 1:
            return list(self._waiting)
        served = self._served(now)
        return sorted(self._waiting, key=lambda each: (each in served, self._since[each]))

    def _served(self, now: float) -> set[str | None]:
        """Return the directories that have a runner, which is or will be free before long."""
        held_up = {each for each in self._runners.values() if each.held_up and now - each.long_since > HELD_UP_S}
        return {each.directory for each in self._runners.values() if not each.retiring and each not in held_up}

    def _withheld(self, now: float) -> set[int]:
        """Return runners that are not fed, so that they become idle, and make room for directories without one."""
        if len(self._waiting) == 1 or now - self._bound_at < PATIENCE_S:
            return set()
        served = self._served(now)
        starved = [each for each, since in self._since.items() if each not in served and now - since > PATIENCE_S]
        bound = [each for each in self._runners.values() if each.directory is not None and not each.retiring]
        bound.sort(key=lambda each: each.held_up)  # One with a long task becomes idle who knows when.
        return {each.number for each in bound[: len(starved)]}

    def _feed(self, directory: str, line: deque[Attempt], withheld: set[int], now: float) -> list[Instruction]:
        free = [each for each in self._runners.values() if each.can_take(directory) and each.number not in withheld]
        # Those bound already come first: an unbound one may be needed for another directory.
        free.sort(key=lambda each: (each.directory is None, bool(each.queue)))
        if not self._processes.idle:
            free = self._within_share(free)
        orders: list[Instruction] = []
        for place, runner in enumerate(free):
            if not line:
                break
            batch = _take(runner, line, -(-len(line) // (len(free) - place)))
            if batch:
                if runner.directory is None:
                    runner.directory, self._bound_at = directory, now
                orders.append(Feed(runner=runner.number, directory=directory, attempts=batch))
        return orders

    def _within_share(self, free: list[Runner]) -> list[Runner]:
        """Return those that may be fed beside the processes: the idle ones while there are slots, no others if few."""
        room = self._processes.for_runners() - self._busy()
        idle = [each for each in free if not each.queue][: max(room, 0)]
        if idle:
            self._processes.runner_began()
        return idle + ([each for each in free if each.queue] if room >= 0 else [])

    def _make_room(self, directory: str, wanted: int, now: float) -> list[Instruction]:
        """Retire idle runners of other directories, the longest idle first; the ones that replace them are unbound.

        Who loses one has had its turn, and waits anew.
        """
        runners = self._runners.values()
        wanted -= sum(each.retiring or (each.directory in (directory, None) and not each.held_up) for each in runners)
        idle = [each for each in runners if each.idle and each.directory not in (directory, None)]
        idle.sort(key=lambda each: each.idle_since)
        for each in idle[: max(wanted, 0)]:
            each.retiring = True
            if each.directory in self._since:
                self._since[each.directory] = now
        return [Retire(runner=each.number) for each in idle[: max(wanted, 0)]]


def _take(runner: Runner, line: deque[Attempt], share: int) -> list[Attempt]:
    """Move from the line to the runner what it should hold: one task, or as many quick ones as make up FEED_S."""
    batch: list[Attempt] = []
    cost_s = runner.load_s
    occupied = bool(runner.queue)
    while line and len(batch) < FEED_LIMIT:
        attempt = line[0]
        if attempt.state is not State.WAITING:  # ended while it waited
            line.popleft()
            continue
        duration_s = attempt.pace.duration_s
        if (occupied or batch) and cost_s + duration_s > FEED_S:
            break
        if len(batch) >= share and cost_s > SHARE_S:
            break
        if attempt.extras and batch:  # they may be large: one such task fills a frame
            break
        line.popleft()
        attempt.state = State.FED
        attempt.runner = runner.number
        batch.append(attempt)
        cost_s += duration_s
    runner.queue.extend(batch)
    runner.load_s = cost_s if cost_s != UNKNOWN else FEED_S
    return batch
