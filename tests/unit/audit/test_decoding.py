"""Records of the log become facts, each value by its digest, wherever the value is."""

from dataclasses import replace
from hashlib import sha256

import pytest
from nodeflow.common.v1.payload_pb2 import ArtifactReference, Payload
from nodeflow.scheduler.v1.log_pb2 import LogChunk, LogRecord, TasksCompleted
from tests.unit.audit.told import GOOD

from nodeflow_sdk.audit.auditing import Audit
from nodeflow_sdk.audit.decoding import UnknownRecord, digest_of, facts_of

STORED = Payload(artifact=ArtifactReference(digest="sha256:aa", size_bytes=100_000))


def test_values_are_known_by_their_digests() -> None:
    assert digest_of(STORED) == "sha256:aa"
    assert digest_of(Payload(data=b"1")) == f"sha256:{sha256(b'1').hexdigest()}"
    assert digest_of(Payload()) == ""


def test_results_are_inline_stored_or_those_of_a_mapped_node_which_has_none() -> None:
    done = TasksCompleted(
        task_numbers=[4, 5, 6], attempt_numbers=[1, 2, 0], outputs=[b"1", b"", b""], payloads={1: STORED}
    )
    chunk = LogChunk(time_unix_ms=8, fencing_token=3, records=[LogRecord(tasks_completed=done)])
    facts = list(facts_of(chunk, first_sequence=10, first_offset=20))
    assert [(each.task, each.attempt, each.value) for each in facts] == [
        (4, 1, f"sha256:{sha256(b'1').hexdigest()}"),
        (5, 2, "sha256:aa"),
        (6, 0, ""),
    ]
    assert [(each.sequence, each.offset, each.time_ms, each.token) for each in facts] == [
        (10, 20, 8, 3),
        (11, 21, 8, 3),
        (12, 22, 8, 3),
    ]


def test_a_record_of_a_newer_version_is_refused_in_words() -> None:
    with pytest.raises(UnknownRecord, match="use a newer nodeflow"):
        list(facts_of(LogChunk(records=[LogRecord()]), first_sequence=1, first_offset=0))


def test_executions_without_a_request_id_have_none_in_common() -> None:
    audit = Audit()
    for name in "ef":
        one = replace(GOOD.executions[0], execution_id=name, request_id="")
        audit.add(replace(GOOD, executions=(one,)))
    assert audit.violation_count == 0
