"""The workflow in a test: `pip install "nodeflow-sdk[testing]"`, then `pytest`."""

from pathlib import Path
from unittest.mock import Mock

from nodeflow_sdk import load
from nodeflow_sdk.testing import InProcess

WORKFLOW = load(Path(__file__).parent / "workflow.yaml")


def test_words_are_added_up(nodeflow: InProcess) -> None:
    """The functions run in this process; put a breakpoint into one."""
    assert nodeflow.run(WORKFLOW) == {"total": 7}


def test_a_file_that_comes_late_is_found_by_a_retry(nodeflow: InProcess) -> None:
    """A stub stands for a function; backoffs take no time."""
    tries = nodeflow.stub("count", calls=Mock(side_effect=[FileNotFoundError("late.txt"), 5]))
    assert nodeflow.run(WORKFLOW, paths=["late.txt"]) == {"total": 5}
    assert len(tries.calls) == 2
