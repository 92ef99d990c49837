"""A disk that is slow, full, or loses what was not synced when its machine crashes, as a test has it.

Owns files of records, one after another, and what recovery finds in them. Must not know what the records say.
"""

import asyncio
import pickle
import random
import zlib
from collections import Counter
from collections.abc import Callable
from struct import Struct
from typing import Final, Generic, TypeVar

R = TypeVar("R")
T = TypeVar("T")

SLOW_SYNC_S: Final = 0.1
"""A sync that takes this long counts as a fault."""

_HEADER: Final = Struct("<II")
"""Length and checksum of the record that follows."""


class DiskFull(Exception):
    """There is no room, and nothing was written."""


class Disk:
    """Files that survive processes. `faults` counts slow_disk, disk_full, torn_write and lost_write."""

    def __init__(self, *, chance: random.Random | None = None, faults: Counter[str] | None = None) -> None:
        self.sync_s: float | Callable[[], float] = 0.0
        """How long each sync takes; may be replaced at any time."""
        self.full = False
        """Whether there is no room for anything."""
        self._chance = chance or random.Random(0)
        self._faults: Counter[str] = Counter() if faults is None else faults
        self._files: dict[str, _File] = {}

    def open(self, name: str) -> "Journal[R]":
        """Open a file, empty if there was none. Whoever had it open cannot write to it any more."""
        file = self._files.setdefault(name, _File())
        return Journal(self, file)

    def crash(self) -> None:
        """Of what was written and not synced, keep any number of bytes; whoever had files open is dead."""
        for file in self._files.values():
            lost, rest = file.crash(self._chance)
            if lost:
                self._faults["torn_write" if rest else "lost_write"] += 1

    def require_room(self) -> None:
        """Raise DiskFull if there is none."""
        if self.full:
            self._faults["disk_full"] += 1
            raise DiskFull

    def next_sync_s(self) -> float:
        """Return how long a sync takes that begins now."""
        sync_s = self.sync_s() if callable(self.sync_s) else self.sync_s
        self._faults["slow_disk"] += sync_s >= SLOW_SYNC_S
        return sync_s


class _File:
    """Bytes, of which the first are safe."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = 0
        self.opened = 0
        """How often it was opened, and lost in a crash: the number of whoever may write to it."""

    def crash(self, chance: random.Random) -> tuple[int, int]:
        """Lose what luck has it; return how many bytes were lost, and how many remain that were not synced."""
        self.opened += 1
        unsynced = len(self.data) - self.synced
        rest = chance.choice((0, chance.randint(0, unsynced), unsynced))
        del self.data[self.synced + rest :]
        return unsynced - rest, rest


class Journal(Generic[R]):
    """One process's hold of a file of records. Transactions are serial: written, synced, and then done in memory."""

    def __init__(self, disk: Disk, file: _File) -> None:
        self._disk = disk
        self._file = file
        file.opened += 1
        self._number = file.opened
        self._turn = asyncio.Lock()

    def recover(self) -> list[R]:
        """Return the records that are whole, and cut off what comes behind them."""
        records: list[R] = []
        data, start = self._file.data, 0
        while len(data) >= start + _HEADER.size:
            size, checksum = _HEADER.unpack_from(data, start)
            record = bytes(data[start + _HEADER.size : start + _HEADER.size + size])
            if len(record) < size or zlib.crc32(record) != checksum:
                break
            records.append(pickle.loads(record))  # noqa: S301  # what this process wrote
            start += _HEADER.size + size
        del data[start:]
        self._file.synced = start
        return records

    async def commit(self, make: Callable[[], R], act: Callable[[R], T]) -> T:
        """Make a record when its turn has come, write and sync it, and act on it.

        Like a transaction on a thread, it comes to its end even if whoever waits for it is cancelled. Raises DiskFull,
        and what `act` raises.
        """
        await asyncio.sleep(0)
        sync_s = None if self._turn.locked() else self._disk.next_sync_s()
        if sync_s == 0.0:
            record = self._write(make)
            self._sync()
            return act(record)
        work = asyncio.get_running_loop().create_task(self._commit(make, act, sync_s), name="transaction")
        work.add_done_callback(_look_at)
        return await asyncio.shield(work)

    def commit_at_once(self, make: Callable[[], R], act: Callable[[R], object]) -> bool:
        """Do the same as somebody who takes no time, unless a transaction is under way or there is no room."""
        if self._turn.locked() or self._disk.full:
            return False
        record = self._write(make)
        self._sync()
        act(record)
        return True

    async def require_room(self) -> None:
        """Raise DiskFull if there is none."""
        await asyncio.sleep(0)
        self._disk.require_room()

    async def _commit(self, make: Callable[[], R], act: Callable[[R], T], sync_s: float | None) -> T:
        async with self._turn:
            record = self._write(make)
            await asyncio.sleep(self._disk.next_sync_s() if sync_s is None else sync_s)
            self._sync()
            return act(record)

    def _write(self, make: Callable[[], R]) -> R:
        self._require_hold()
        self._disk.require_room()
        record = make()
        data = pickle.dumps(record, pickle.HIGHEST_PROTOCOL)
        self._file.data += _HEADER.pack(len(data), zlib.crc32(data))
        self._file.data += data
        return record

    def _sync(self) -> None:
        self._require_hold()
        self._file.synced = len(self._file.data)

    def _require_hold(self) -> None:
        """End whoever is dead: its transactions come to nothing."""
        if self._number != self._file.opened:
            raise asyncio.CancelledError


def _look_at(transaction: asyncio.Task[T]) -> None:
    """Nobody need wait for how it ends."""
    if not transaction.cancelled():
        transaction.exception()
