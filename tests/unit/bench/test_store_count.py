"""Counting from the store finds exactly what is there, and tells what is not."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from nodeflow.common.v1.payload_pb2 import Payload
from nodeflow.scheduler.v1.log_pb2 import ExecutionStarted, LogChunk, LogRecord, TasksCompleted, TasksQueued
from sqlalchemy import create_engine, insert
from tests.bench.store_count import DATABASE_FILE, Progress, StoreCount, WrongCount, count

from nodeflow_state_manager.adapters import schema

COMPLETED, FAILED, RUNNING = 4, 5, 3


def output(number: int) -> bytes:
    return b'"%030x"' % number


def started() -> LogRecord:
    return LogRecord(execution_started=ExecutionStarted(workflow="w"))


def completed(tasks: dict[int, bytes]) -> LogRecord:
    return LogRecord(tasks_completed=TasksCompleted(task_numbers=tasks, outputs=tasks.values()))


class Log:
    """A state-manager's database, written by hand."""

    def __init__(self, directory: Path) -> None:
        self._engine = create_engine(f"sqlite:///{directory / DATABASE_FILE}")
        schema.METADATA.create_all(self._engine)
        self._offset = 0

    def execution(self, name: str, chunks: list[tuple[int, list[LogRecord]]], *, state: int = COMPLETED) -> None:
        """Add an execution; a chunk is its number of events and its records."""
        key, sequence = self._offset + 1, 1
        texts = dict.fromkeys(("tenant", "workflow", "revision", "labels", "request_id"), "")
        numbers = dict.fromkeys(("shard", "create_time_ms", "task_count", "finished_task_count"), 0)
        with self._engine.begin() as connection:
            connection.execute(
                insert(schema.EXECUTIONS).values(
                    key=key, execution_id=name, state=state, request_digest=b"", **texts, **numbers
                )
            )
            for events, records in chunks:
                self._offset += 1
                row = {"shard": 0, "first_offset": self._offset, "execution_key": key, "first_sequence": sequence}
                data = LogChunk(records=records).SerializeToString()
                connection.execute(insert(schema.CHUNKS).values(**row, event_count=events, data=data))
                sequence += events

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_counts_results_of_the_executions_asked_for(log: Log, tmp_path: Path) -> None:
    queued = LogRecord(tasks_queued=TasksQueued(task_numbers=[0, 1], attempt_numbers=[1, 1]))
    log.execution("warm-up", [(3, [started(), completed({0: output(9), 1: output(10)})])])
    log.execution("a", [(3, [started(), queued]), (2, [completed({0: output(1), 1: output(2)})])])
    log.execution("b", [(2, [started(), completed({1: output(3)})]), (1, [completed({0: output(4)})])])
    log.close()
    counted = count(tmp_path, ["a", "b"], tasks_each=2)
    assert counted == StoreCount(
        executions=2, chunks=4, events=8, results=4, distinct_outputs=4, data_bytes=counted.data_bytes
    )
    assert counted.data_bytes > 4 * 32


def test_an_output_beside_the_list_counts(log: Log, tmp_path: Path) -> None:
    record = completed({0: output(1), 1: b""})
    record.tasks_completed.payloads[1].CopyFrom(Payload(data=output(2)))
    log.execution("a", [(3, [started(), record])])
    log.close()
    assert count(tmp_path, ["a"], tasks_each=2).distinct_outputs == 2


@pytest.mark.parametrize(
    ("records", "state", "told"),
    [
        ([completed({0: output(1)})], COMPLETED, "1 results, not 2"),
        ([completed({0: output(1), 1: output(2)}), completed({1: output(3)})], COMPLETED, "1 results are of tasks"),
        ([completed({0: output(1), 1: output(1)})], COMPLETED, "2 results have only 1 distinct"),
        ([completed({0: output(1), 1: b'"short"'})], COMPLETED, "an output has 7 bytes"),
        ([completed({0: output(1), 1: output(2)})], FAILED, "is EXECUTION_STATE_FAILED"),
    ],
)
def test_tells_what_is_wrong(log: Log, tmp_path: Path, records: list[LogRecord], state: int, told: str) -> None:
    log.execution("a", [(1, [started()]), (2, records)], state=state)
    log.close()
    with pytest.raises(WrongCount, match=told):
        count(tmp_path, ["a"], tasks_each=2)


def test_tells_of_an_execution_that_is_not_there(log: Log, tmp_path: Path) -> None:
    log.close()
    with pytest.raises(WrongCount, match="execution a is missing"):
        count(tmp_path, ["a"], tasks_each=2)


def test_tells_of_a_gap(log: Log, tmp_path: Path) -> None:
    log.execution("a", [(1, [started()]), (1, [completed({0: output(1)})])])
    log.close()
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as connection, connection:
        connection.execute("UPDATE chunks SET first_sequence = 3 WHERE first_sequence = 2")
    with pytest.raises(WrongCount, match="sequence 3 where 2 should be"):
        count(tmp_path, ["a"], tasks_each=1)


def test_progress_counts_finished_executions_and_commits(log: Log, tmp_path: Path) -> None:
    log.execution("a", [], state=RUNNING)
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("UPDATE executions SET state = 4")
        writer.commit()
        with closing(Progress(tmp_path)) as progress:
            before = progress.commits()
            assert progress.finished() == {COMPLETED: 1}
            for state in (FAILED, RUNNING, FAILED):
                writer.execute("UPDATE executions SET state = ?", (state,))
                writer.commit()
            assert progress.commits() - before == 3
            assert progress.finished() == {FAILED: 1}
    log.close()
