"""The fixture `nodeflow` of pytest, which finds this by its entry point.

Owns the fixture only. pytest loads it wherever the SDK is installed, with the extra `testing` or without: what the
fixture needs is imported when a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from types import ModuleType

    from nodeflow_sdk.testing import InProcess


@pytest.fixture
def nodeflow() -> Iterator[InProcess]:
    """Runs workflows in this process, on virtual time: `nodeflow.run(word_count, paths=["a.txt"])`."""
    with _testing().in_process() as runs:
        yield cast("InProcess", runs)


def _testing() -> ModuleType:
    try:
        return import_module("nodeflow_sdk.testing")
    except ModuleNotFoundError as error:
        if error.name != "nodeflow_testing":
            raise
        pytest.fail(f"fixture nodeflow: {error}", pytrace=False)
