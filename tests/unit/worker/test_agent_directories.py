"""Which runner serves which directory of functions, and when it makes room for another."""

import itertools

from tests.unit.worker.making import assigned, attempt, feed, quick, results, started_agent

from nodeflow_worker.domain import events
from nodeflow_worker.domain import instructions as do


def test_a_runner_serves_one_directory_and_an_idle_one_makes_room() -> None:
    agent = started_agent(slots=1)
    assigned(agent, attempt(1, directory="/a"))
    other = attempt(2, directory="/b")
    assert assigned(agent, other) == []
    assert results(agent, 1, b"1")[-1] == do.Retire(runner=1)
    exited = events.RunnerDied(runner=1, last_started=1, cause="it exited with code 0")
    assert agent.handle(exited, 2.0) == [do.Spawn(runner=2)]
    assert agent.handle(events.RunnerReady(runner=2), 2.0) == [feed(2, [other], "/b")]


def test_the_runner_that_is_idle_longest_makes_room() -> None:
    agent = started_agent(slots=2)
    assigned(agent, attempt(1, directory="/a"), attempt(2, directory="/b"))
    results(agent, 2, b"1", now=1.0)
    results(agent, 1, b"1", now=2.0)
    assert assigned(agent, attempt(3, directory="/c"), now=3.0) == [do.Retire(runner=2)]


def test_a_busy_directory_does_not_starve_another() -> None:
    agent = started_agent(slots=1)
    quick(agent)
    assigned(agent, *[attempt(task) for task in range(600)])
    other = attempt(1, execution="other", directory="/b")
    assert assigned(agent, other, now=1.0) == []
    fed = results(agent, 1, *[b"1"] * 256, now=1.2)
    assert [type(order) for order in fed] == [do.Report, do.Feed]
    assert results(agent, 1, *[b"1"] * 256, now=1.6)[1:] == [do.Retire(runner=1)]
    exited = events.RunnerDied(runner=1, last_started=513, cause="it exited with code 0")
    assert agent.handle(exited, 1.7) == [do.Spawn(runner=2)]
    assert agent.handle(events.RunnerReady(runner=2), 2.0) == [feed(2, [other], "/b")]
    # And then it is the first one's turn again.
    assert results(agent, 2, b"1", now=2.1)[1:] == [do.Retire(runner=2)]
    exited = events.RunnerDied(runner=2, last_started=1, cause="it exited with code 0")
    assert agent.handle(exited, 2.2) == [do.Spawn(runner=3)]
    [fed_again] = agent.handle(events.RunnerReady(runner=3), 2.3)
    assert isinstance(fed_again, do.Feed)
    assert fed_again.directory == "/d"


def test_two_busy_directories_take_turns() -> None:
    """Neither changes its runner more often than it has to: that costs the start of a process."""
    agent = started_agent(slots=1, max_credits=10_000)
    agent.bid.credits = 10_000
    agent.handle(events.BeatSent(beat=1), 0.0)
    quick(agent)
    for directory in ("/d", "/b"):
        assigned(agent, *[attempt(task, execution=directory, directory=directory) for task in range(4_900)])
    now, runner, fed = 0.0, 1, [("/d", 0.0)]
    size = 256
    while now < 3.0:
        now += 0.1
        orders = results(agent, runner, *[b"1"] * size, now=now)
        if do.Retire(runner=runner) in orders:
            agent.handle(events.RunnerDied(runner=runner, last_started=0, cause="it exited with code 0"), now)
            runner += 1
            now += 0.2
            orders = agent.handle(events.RunnerReady(runner=runner), now)
        [feeding] = [each for each in orders if isinstance(each, do.Feed)]
        size = len(feeding.attempts)
        if feeding.directory != fed[-1][0]:
            fed.append((feeding.directory, now))
    assert [directory for directory, _ in fed] == ["/d", "/b"] * (len(fed) // 2) + ["/d"] * (len(fed) % 2)
    assert runner == len(fed), "no runner is started for the directory that had the one before"
    turns = [after - before for (_, before), (_, after) in itertools.pairwise(fed)]
    assert len(turns) > 2
    assert all(0.6 < turn < 1.2 for turn in turns), turns


def test_a_runner_that_is_busy_for_long_is_not_the_one_that_makes_room() -> None:
    agent = started_agent(slots=2)
    quick(agent)
    long = attempt(0, function="m:long")
    assert assigned(agent, long) == [feed(1, [long])]
    agent.handle(events.TaskRunning(runner=1, sequence=2), 0.1)
    assigned(agent, *[attempt(task) for task in range(1, 600)])
    other = attempt(1, execution="other", directory="/b")
    assigned(agent, other, now=1.0)
    assert results(agent, 2, *[b"1"] * 256, now=1.6)[1:] == [do.Retire(runner=2)]


def test_an_idle_runner_makes_room_for_what_waits_behind_a_long_task_of_another() -> None:
    """Nothing else happens meanwhile: a heartbeat has the pool look again."""
    agent = started_agent(slots=2)
    assigned(agent, attempt(1, directory="/a"), attempt(2, directory="/b"))
    agent.handle(events.TaskRunning(runner=1, sequence=1), 0.1)
    results(agent, 2, b"1", now=0.2)
    other = attempt(3, directory="/a")
    assert assigned(agent, other, now=0.3) == []
    assert agent.handle(events.BeatSent(beat=1), 2.0) == [do.Retire(runner=2)]
    exited = events.RunnerDied(runner=2, last_started=1, cause="it exited with code 0")
    assert agent.handle(exited, 2.1) == [do.Spawn(runner=3)]
    assert agent.handle(events.RunnerReady(runner=3), 2.2) == [feed(3, [other], "/a")]


def test_what_was_fed_behind_a_long_task_is_taken_back_for_an_idle_runner_of_another() -> None:
    agent = started_agent(slots=2)
    quick(agent)
    results(agent, 2, now=0.0)
    elsewhere = attempt(0, directory="/b")
    assert assigned(agent, elsewhere) == [feed(2, [elsewhere], "/b")]
    long, behind = attempt(1), attempt(2)
    assert assigned(agent, long, behind) == [feed(1, [long, behind])]
    assert agent.handle(events.TaskRunning(runner=1, sequence=2), 1.0) == [do.Report(started=[long])]
    taken = results(agent, 2, b"1", now=1.1)
    assert taken == [do.Report(results=[elsewhere]), do.TakeBack(runner=1, sequences=[3])]
    assert agent.handle(events.TasksTakenBack(runner=1, sequences=[3]), 1.1) == []
    assert agent.handle(events.BeatSent(beat=2), 2.0) == [do.Retire(runner=2)]


def test_a_directory_whose_runners_are_all_held_up_has_its_turn_before_a_busy_one() -> None:
    agent = started_agent(slots=2, max_credits=10_000)
    agent.bid.credits = 10_000
    agent.handle(events.BeatSent(beat=0), 0.0)
    quick(agent)
    long = attempt(0, function="m:long", directory="/a")
    assert assigned(agent, long) == [feed(2, [long], "/a")]
    agent.handle(events.TaskRunning(runner=2, sequence=1), 0.1)
    assigned(agent, *[attempt(task) for task in range(1, 2_000)], now=0.1)
    other = attempt(1, execution="other", directory="/a")
    assert assigned(agent, other, now=0.2) == []
    assert isinstance(results(agent, 1, *[b"1"] * 256, now=4.0)[1], do.Feed)
    assert results(agent, 1, *[b"1"] * 256, now=5.2)[1:] == [do.Retire(runner=1)]
    exited = events.RunnerDied(runner=1, last_started=513, cause="it exited with code 0")
    assert agent.handle(exited, 5.3) == [do.Spawn(runner=3)]
    assert agent.handle(events.RunnerReady(runner=3), 5.4) == [feed(3, [other], "/a")]
