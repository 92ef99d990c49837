"""What the store holds after a run, counted from its file.

Owns the reading of the log's rows. Must not ask a service: a service could be wrong about what is on disk.
"""

import sqlite3
import struct
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.scheduler.v1.log_pb2 import LogChunk, TasksCompleted

DATABASE_FILE: Final = "nodeflow.db"
OUTPUT_BYTES: Final = 32

_CHUNKS: Final = """
    SELECT executions.execution_id, chunks.first_sequence, chunks.event_count, chunks.data
    FROM chunks JOIN executions ON executions.key = chunks.execution_key
    ORDER BY executions.key, chunks.first_sequence
"""
_FINISHED: Final = "SELECT state, count(*) FROM executions WHERE state IN (4, 5, 6) GROUP BY state"
_STATES: Final = "SELECT execution_id, state FROM executions"

# The WAL index begins with version, padding and a counter that grows with each transaction, in the machine's order
# (https://sqlite.org/walformat.html, section 2.1).
_WAL_INDEX_HEAD: Final = struct.Struct("=III")


class WrongCount(Exception):
    """The store does not hold exactly what the run should have written; the message tells the difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCount:
    """What the log holds of some executions."""

    executions: int
    chunks: int
    events: int
    results: int
    distinct_outputs: int
    data_bytes: int


class Progress:
    """A reader beside the state-manager's writer: cheap counts while a run is under way."""

    def __init__(self, data_dir: Path) -> None:
        self._wal_index = data_dir / f"{DATABASE_FILE}-shm"
        self._connection = _open(data_dir)

    def finished(self) -> dict[int, int]:
        """Return how many executions are in each final state."""
        return dict(self._connection.execute(_FINISHED).fetchall())

    def commits(self) -> int:
        """Return a number that grows by one with each committed transaction."""
        with self._wal_index.open("rb") as file:
            _, _, changes = _WAL_INDEX_HEAD.unpack(file.read(_WAL_INDEX_HEAD.size))
        return int(changes)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def count(data_dir: Path, execution_ids: Collection[str], tasks_each: int) -> StoreCount:
    """Count what the log holds of the executions.

    Raises WrongCount unless each is COMPLETED, has gapless sequences and exactly one result for each of its tasks, and
    all results are distinct and 32 bytes long.
    """
    wanted = set(execution_ids)
    with closing(_open(data_dir)) as connection:
        states = dict(connection.execute(_STATES).fetchall())
        _require_completed(wanted, states)
        rows = [row for row in connection.execute(_CHUNKS) if row[0] in wanted]
    _require_gapless(rows)
    results = [result for row in rows for result in _results(row[0], row[3])]
    _require_one_each(wanted, results, tasks_each)
    outputs = {output for _, _, output in results}
    _require_outputs(outputs, len(results))
    return StoreCount(
        executions=len(wanted),
        chunks=len(rows),
        events=sum(row[2] for row in rows),
        results=len(results),
        distinct_outputs=len(outputs),
        data_bytes=sum(len(row[3]) for row in rows),
    )


def _open(data_dir: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{(data_dir / DATABASE_FILE).resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _results(execution_id: str, data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yield execution, task number and output of each result in a chunk."""
    for record in LogChunk.FromString(data).records:
        if record.WhichOneof("record") == "tasks_completed":
            for number, output in zip(
                record.tasks_completed.task_numbers, _outputs(record.tasks_completed), strict=True
            ):
                yield execution_id, number, output


def _outputs(completed: TasksCompleted) -> list[bytes]:
    outputs = list(completed.outputs)
    for place, payload in completed.payloads.items():
        outputs[place] = payload.data
    return outputs


def _require_completed(wanted: set[str], states: dict[str, int]) -> None:
    for execution_id in wanted:
        state = states.get(execution_id)
        if state != ExecutionState.EXECUTION_STATE_COMPLETED:
            told = "missing" if state is None else ExecutionState.Name(ExecutionState.ValueType(state))
            raise WrongCount(f"execution {execution_id} is {told} in the store, not COMPLETED")


def _require_gapless(rows: list[tuple[str, int, int, bytes]]) -> None:
    following: dict[str, int] = {}
    for execution_id, first, events, _ in rows:
        expected = following.get(execution_id, 1)
        if first != expected:
            raise WrongCount(f"execution {execution_id} has sequence {first} where {expected} should be")
        following[execution_id] = first + events


def _require_one_each(wanted: set[str], results: list[tuple[str, int, bytes]], tasks_each: int) -> None:
    places = {(execution_id, number) for execution_id, number, _ in results}
    if len(places) != len(results):
        raise WrongCount(f"{len(results) - len(places)} results are of tasks that have another result")
    if len(results) != len(wanted) * tasks_each:
        raise WrongCount(f"the store has {len(results)} results, not {len(wanted) * tasks_each}")


def _require_outputs(outputs: set[bytes], results: int) -> None:
    if len(outputs) != results:
        raise WrongCount(f"{results} results have only {len(outputs)} distinct outputs")
    for output in outputs:
        if len(output) != OUTPUT_BYTES:
            raise WrongCount(f"an output has {len(output)} bytes, not {OUTPUT_BYTES}: {output[:80]!r}")
