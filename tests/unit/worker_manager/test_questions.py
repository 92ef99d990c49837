"""What workers ask: given events, when one more comes, then exactly these instructions."""

import pytest
from tests.unit.worker_manager.registry_lab import Core, connected

from nodeflow_shared.errors import IllegalState, Unavailable
from nodeflow_worker_manager.domain import events as ev
from nodeflow_worker_manager.domain import instructions as do

REQUEST, ANSWER = object(), object()


def attached(stream: int, *shards: int, token: int = 1) -> list[ev.Event]:
    """A scheduler with shards."""
    return [
        ev.SchedulerAttached(stream=stream, scheduler_id=f"scheduler-{stream}"),
        ev.ShardsClaimed(stream=stream, tokens=dict.fromkeys(shards, token)),
    ]


def asked(question: int = 1, shard: int = 5, session_id: str = "A") -> ev.Event:
    return ev.QuestionAsked(question=question, session_id=session_id, shard=shard, request=REQUEST)


def answered(stream: int, question: int = 1) -> ev.Event:
    return ev.QuestionAnswered(stream=stream, question=question, answer=ANSWER)


@pytest.fixture
def core() -> Core:
    """Two schedulers, and a worker with the session A."""
    core = Core()
    core.when(*attached(7, 5), *attached(8, 6), *connected())
    return core


def refused(instructions: list[do.Instruction]) -> list[tuple[int, type[Exception]]]:
    return [(each.question, type(each.error)) for each in instructions if isinstance(each, do.RefuseQuestion)]


def test_a_question_goes_to_the_owner_of_its_shard_and_the_answer_comes_back(core: Core) -> None:
    assert core.when(asked(shard=6)) == [do.SendQuestion(stream=8, question=1, request=REQUEST)]
    assert core.when(answered(8)) == [do.Answer(question=1, answer=ANSWER)]


def test_only_the_first_answer_of_the_stream_that_owes_it_counts(core: Core) -> None:
    core.when(asked())
    assert core.when(answered(8)) == []
    assert core.when(answered(7)) == [do.Answer(question=1, answer=ANSWER)]
    assert core.when(answered(7)) == []


def test_nobody_is_asked_about_a_shard_without_an_owner(core: Core) -> None:
    assert refused(core.when(asked(shard=9))) == [(1, Unavailable)]


def test_a_session_that_has_ended_or_never_was_is_told_nothing(core: Core) -> None:
    assert refused(core.when(asked(session_id="B"))) == [(1, IllegalState)]


def test_a_stream_that_ends_takes_its_questions_along_and_no_others(core: Core) -> None:
    core.when(asked(1), asked(2, shard=6), asked(3))
    assert refused(core.when(ev.SchedulerLost(stream=7))) == [(1, Unavailable), (3, Unavailable)]
    assert core.when(answered(8, 2)) == [do.Answer(question=2, answer=ANSWER)]


def test_a_scheduler_that_attaches_anew_owes_nothing_of_before(core: Core) -> None:
    core.when(asked())
    again = core.when(ev.SchedulerAttached(stream=9, scheduler_id="scheduler-7"))
    assert refused(again) == [(1, Unavailable)]


def test_an_answer_that_nobody_waits_for_is_dropped(core: Core) -> None:
    core.when(asked(), ev.QuestionDropped(question=1))
    assert core.when(answered(7)) == []
    assert core.when(ev.SchedulerLost(stream=7)) == []
