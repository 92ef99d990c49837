"""A real suite, shared by the tests of a module that do not disturb it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.suite import Suite, running


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    with running(tmp_path_factory.mktemp("suite")) as started:
        yield started


@pytest.fixture
def own_suite(tmp_path: Path) -> Iterator[Suite]:
    """A suite for one test, which may kill what it likes."""
    with running(tmp_path) as started:
        yield started
