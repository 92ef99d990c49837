"""Who owns which shard: claims with fencing tokens, and the scheduler streams that made them.

Owns ownership and fencing. Must not know sessions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nodeflow_shared.errors import StaleLease


@dataclass(slots=True)
class SchedulerStream:
    """An attached scheduler and the shards whose reports it gets."""

    number: int
    scheduler_id: str
    shards: set[int] = field(default_factory=set)


class ShardTable:
    """The attached schedulers, the owner of each shard, and the highest token seen of it."""

    def __init__(self) -> None:
        self.streams: dict[int, SchedulerStream] = {}
        self.tokens: dict[int, int] = {}
        self._owners: dict[int, SchedulerStream] = {}
        self._sole: SchedulerStream | None = None

    @property
    def sole_owner(self) -> SchedulerStream | None:
        """The stream that owns every shard ever claimed here: then nothing needs to be split by shard."""
        return self._sole

    def owner(self, shard: int) -> int | None:
        """The stream that owns a shard, if one does."""
        stream = self._owners.get(shard)
        return None if stream is None else stream.number

    def attach(self, number: int, scheduler_id: str) -> int | None:
        """Add a stream; return that of the same scheduler which it replaces, if there is one."""
        old = next((each.number for each in self.streams.values() if each.scheduler_id == scheduler_id), None)
        self.streams[number] = SchedulerStream(number, scheduler_id)
        return old

    def detach(self, number: int) -> None:
        """Remove a stream; its shards have no owner until they are claimed again. Their tokens stay."""
        stream = self.streams.pop(number, None)
        if stream is not None:
            self.release(stream, tuple(stream.shards))

    def claim(self, stream: SchedulerStream, tokens: Mapping[int, int]) -> bool:
        """Give shards to a stream; say whether it gained any.

        Raises StaleLease if a token is lower than one seen; then nothing has changed.
        """
        for shard, token in tokens.items():
            if token < self.tokens.get(shard, 0):
                raise StaleLease(
                    f"the lease on shard {shard} has been granted anew: {token} is lower than {self.tokens[shard]}",
                    metadata={"shard": str(shard)},
                )
        gained = False
        for shard, token in tokens.items():
            owner = self._owners.get(shard)
            gained = gained or owner is not stream or token > self.tokens[shard]
            if owner is not None:
                owner.shards.discard(shard)
            self._owners[shard] = stream
            self.tokens[shard] = token
            stream.shards.add(shard)
        self._find_sole()
        return gained

    def release(self, stream: SchedulerStream, shards: tuple[int, ...]) -> None:
        """Take shards from a stream; those that it does not own are left alone."""
        for shard in shards:
            if self._owners.get(shard) is stream:
                del self._owners[shard]
                stream.shards.discard(shard)
        self._find_sole()

    def _find_sole(self) -> None:
        known = len(self.tokens)
        self._sole = next((each for each in self.streams.values() if known and len(each.shards) == known), None)
