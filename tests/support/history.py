"""The history that a store's SQLite file holds.

Owns how it is read. Must not know what makes a history right, and so corrects nothing.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from nodeflow.scheduler.v1.log_pb2 import LogChunk

from nodeflow_scheduler.domain.document import compile_document
from nodeflow_sdk.audit.decoding import execution_state, facts_of
from nodeflow_sdk.audit.history import ExecutionHistory, Fact, Graph, History, Node, ShardHistory


def read_history(database: Path) -> History:
    """Read a store that no process works on any more."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        facts = _facts_by_execution(connection)
        graphs = {
            (row["tenant"], row["revision"]): graph_in(row["document"], row["content_type"], row["directory"])
            for row in connection.execute("SELECT * FROM workflows")
        }
        executions = tuple(
            ExecutionHistory(
                execution_id=row["execution_id"],
                tenant=row["tenant"],
                shard=row["shard"],
                workflow=row["workflow"],
                revision=row["revision"],
                request_id=row["request_id"],
                state=execution_state(row["state"]),
                task_count=row["task_count"],
                graph=graphs[row["tenant"], row["revision"]],
                facts=tuple(facts.get(row["key"], ())),
            )
            for row in connection.execute("SELECT * FROM executions ORDER BY key")
        )
        shards = tuple(
            ShardHistory(shard=row["shard"], fencing_token=row["fencing_token"], next_offset=row["next_offset"])
            for row in connection.execute("SELECT * FROM shards ORDER BY shard")
        )
    return History(executions=executions, shards=shards)


def graph_in(document: bytes, content_type: str, directory: str) -> Graph:
    """Return the graph of a workflow document."""
    nodes = compile_document(document, content_type, directory).nodes
    return tuple(Node(name=node.name, parents=node.dependencies, allow_failure=node.allow_failure) for node in nodes)


def _facts_by_execution(connection: sqlite3.Connection) -> Mapping[int, list[Fact]]:
    facts: dict[int, list[Fact]] = {}
    for row in connection.execute("SELECT * FROM chunks ORDER BY shard, first_offset"):
        chunk = LogChunk.FromString(row["data"])
        decoded = list(facts_of(chunk, first_sequence=row["first_sequence"], first_offset=row["first_offset"]))
        # Offsets and sequences were given out by this count; facts that are not there would be silent gaps.
        assert len(decoded) == row["event_count"], f"a chunk of {len(decoded)} events says {row['event_count']}"
        facts.setdefault(row["execution_key"], []).extend(decoded)
    return facts
