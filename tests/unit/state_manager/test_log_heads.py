"""The rules of acceptance, without a store: judgements of single parts, and what the heads keep."""

from dataclasses import replace

from tests.support.state_manager_values import a_chunk, a_part, a_record, a_start

from nodeflow_state_manager.domain.append import Behind, ExecutionHead, LogHeads, Placement, ShardHead
from nodeflow_state_manager.domain.values import ExecutionState, Refusal, RefusalReason


def heads(*, next_offset: int = 10) -> LogHeads:
    found = LogHeads(next_key=5)
    found.shards = {0: ShardHead(shard=0, leased=True, fencing_token=1, next_offset=next_offset)}
    found.executions = {"old": ExecutionHead(key=3, shard=0, last_sequence=7)}
    return found


def test_an_accepted_part_becomes_rows_and_moves_the_heads() -> None:
    log = heads()
    part = replace(a_part(10, a_chunk("new", 1, 2), a_chunk("old", 8), a_chunk("new", 3)), records=[a_record("new")])
    assert log.judge(part) == Placement(
        rows=[(0, 10, 5, 1, 2, b"new@1"), (0, 12, 3, 8, 1, b"old@8"), (0, 13, 5, 3, 1, b"new@3")],
        records=[(5, a_record("new"))],
        snapshots=[],
    )
    assert log.shards[0].next_offset == 14
    assert log.executions["old"].last_sequence == 8
    assert log.executions["new"] == ExecutionHead(key=5, shard=0, last_sequence=3)
    assert log.next_key == 6


def test_a_refused_part_moves_nothing() -> None:
    log = heads()
    part = replace(a_part(10, a_chunk("new", 1), a_chunk("old", 9)), records=[a_record("new")])
    assert log.judge(part) == Refusal(
        shard=0,
        reason=RefusalReason.WRONG_SEQUENCE,
        message="shard 0: execution old of shard 0 ends at sequence 7, and the chunk begins at 9",
    )
    assert log == heads()


def test_the_token_is_judged_before_the_offset() -> None:
    judgement = heads().judge(a_part(99, token=2))
    assert isinstance(judgement, Refusal)
    assert (judgement.reason, judgement.message) == (
        RefusalReason.STALE_TOKEN,
        "shard 0: the current token of shard 0 is 1, not 2",
    )


def test_an_earlier_offset_may_be_a_resend_and_a_later_one_never_is() -> None:
    assert isinstance(heads().judge(a_part(9, a_chunk("old", 8))), Behind)
    assert isinstance(heads().judge(a_part(11, a_chunk("old", 8))), Refusal)


def test_a_resend_is_the_same_rows_and_nothing_less() -> None:
    log = heads()
    part = a_part(8, a_chunk("old", 6), a_chunk("old", 7))
    logged = [(0, 8, 3, 6, 1, b"old@6"), (0, 9, 3, 7, 1, b"old@7")]
    assert log.same_as_log(part, logged)
    assert not log.same_as_log(part, logged[:1])
    assert not log.same_as_log(part, [(0, 8, 3, 6, 1, b"old@6"), (0, 9, 3, 7, 1, b"other")])
    assert not log.same_as_log(a_part(8, a_chunk("nobody", 1)), logged)


def test_unknown_names_every_execution_that_parts_touch() -> None:
    part = replace(a_part(10, a_chunk("one", 1), a_chunk("old", 8)), records=[a_record("two")])
    assert heads().unknown([part, a_start("three")]) == {"one", "two", "three"}


def test_finished_executions_are_forgotten_after_the_commit() -> None:
    log = heads()
    done = replace(a_part(10, a_chunk("old", 8)), records=[a_record("old", state=ExecutionState.FAILED)])
    assert isinstance(log.judge(done), Placement)
    assert "old" in log.executions
    log.forget_finished()
    assert "old" not in log.executions
