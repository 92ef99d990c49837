"""Attempts and cores for the worker's tests, with defaults that the tests need not repeat."""

from collections.abc import Sequence

from nodeflow_worker.domain import events
from nodeflow_worker.domain import instructions as do
from nodeflow_worker.domain.agent import Agent
from nodeflow_worker.domain.values import Attempt, Outcome, ProcessSpec, Reference, TaskSpec


def attempt(
    task: int = 1,
    number: int = 1,
    *,
    execution: str = "e",
    shard: int = 1,
    token: int = 1,
    function: str = "m:f",
    directory: str = "/d",
    timeout_s: float | None = None,
    arguments: bytes = b"{}",
    references: tuple[Reference, ...] = (),
) -> Attempt:
    spec = TaskSpec(tenant="t", function=function, directory=directory, timeout_s=timeout_s)
    return Attempt(execution, task, number, shard, token, spec, arguments, references)


def started_agent(slots: int = 2, max_credits: int = 1024) -> Agent:
    """A core whose runners 1 to `slots` are ready."""
    agent = Agent(slots=slots, max_credits=max_credits)
    agent.handle(events.Started(), 0.0)
    for runner in range(1, slots + 1):
        assert agent.handle(events.RunnerReady(runner=runner), 0.0) == []
    return agent


def process_attempt(task: int = 1, number: int = 1, *, arguments: bytes = b'{"command":["true"]}') -> Attempt:
    spec = TaskSpec(tenant="t", node="n", directory="/d", process=ProcessSpec())
    return Attempt("e", task, number, 1, 1, spec, arguments)


def assigned(agent: Agent, *attempts: Attempt, now: float = 0.0) -> list[do.Instruction]:
    return agent.handle(events.Assigned(attempts=attempts), now)


def results(agent: Agent, runner: int, *outcomes: Outcome, now: float = 1.0) -> list[do.Instruction]:
    return agent.handle(events.RunnerResults(runner=runner, outcomes=outcomes, spent=[]), now)


def quick(agent: Agent, function: str = "m:f") -> None:
    """Let the core have measured that the function takes no time to speak of, so that it is fed in batches."""
    probe = attempt(task=10_000, execution="probe", function=function)
    assigned(agent, probe)
    agent.handle(events.RunnerResults(runner=probe.runner, outcomes=[b"1"], spent=[(function, 1, 0.000_01)]), 0.0)
    agent.handle(events.Acknowledged(result_ids=[probe.result_id]), 0.0)
    agent.handle(events.BeatSent(beat=1), 0.0)


def feed(runner: int, attempts: Sequence[Attempt], directory: str = "/d") -> do.Feed:
    return do.Feed(runner=runner, directory=directory, attempts=list(attempts))
