"""What the tests of this directory have in common: a way to run one scenario, and workflows with known answers."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from tests.support.virtual_client import VirtualClient

from nodeflow_testing.virtual_loop import run
from nodeflow_testing.virtual_runners import Raised, Scripted, Simulated, Value
from nodeflow_testing.virtual_suite import VirtualSuite

HANGS: Final = float("inf")
LAYERS: Final = 10
WIDTH: Final = 10
NODES: Final = range(LAYERS * WIDTH)

Scenario = Callable[[VirtualSuite, VirtualClient], Awaitable[None]]


def simulate(functions: Mapping[str, Simulated], scenario: Scenario, *, seed: int = 0, workers: int = 2) -> None:
    """Run a scenario on a suite of its own."""

    async def main() -> None:
        async with VirtualSuite(functions, seed=seed, workers=workers) as suite:
            await scenario(suite, VirtualClient(suite))

    run(main, seed=seed)


def parents_of(node: int) -> list[int]:
    """Three nodes of the layer before."""
    layer, place = divmod(node, WIDTH)
    return [(layer - 1) * WIDTH + (place + step) % WIDTH for step in (0, 1, 3)] if layer else []


def add_up(arguments: dict[str, Any], attempt: int) -> tuple[float, Scripted]:
    """Add a node's number to its parents' values; some nodes raise first, some hang until their time is up."""
    node = arguments["node"]
    if attempt <= raises(node):
        return 20.0, Raised()
    if attempt <= raises(node) + hangs(node):
        return HANGS, Value(None)
    return 50.0 + node * 37 % 150, Value(node + sum(arguments["parents"]))


def raises(node: int) -> int:
    """How many attempts of a node raise."""
    return 1 if node % 7 == 3 else 0


def hangs(node: int) -> int:
    """How many attempts of a node hang, after those that raise."""
    return 1 if node % 10 == 5 else 0


def layered_nodes() -> dict[str, dict[str, object]]:
    """A hundred nodes in ten layers, for `add_up`."""
    retry = {"attempts": 3, "backoff": {"initial": "5s", "factor": 2, "max": "60s", "jitter": 0.2}}
    return {
        f"n{node}": {
            "function": "work:add_up",
            "with": {"node": node, "parents": [f"${{nodes.n{parent}.output}}" for parent in parents_of(node)]},
            "retry": retry,
            "timeout": "4m",
        }
        for node in NODES
    }


def layered_outputs() -> dict[str, str]:
    """Every node's value as an output of its own."""
    return {f"n{node}": f"${{nodes.n{node}.output}}" for node in NODES}


def layered_values() -> dict[str, int]:
    """What `layered_outputs` must be."""
    values: list[int] = []
    for node in NODES:
        values.append(node + sum(values[parent] for parent in parents_of(node)))
    return {f"n{node}": value for node, value in enumerate(values)}
