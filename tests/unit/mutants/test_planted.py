"""The bugs of `make mutants` can all be planted in the sources as they are today."""

import ast

import pytest
from tests.mutants.hunt import REPOSITORY
from tests.mutants.planted import BUGS, TESTS_OF, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_has_one_place_and_leaves_a_program(bug: Bug) -> None:
    source = (REPOSITORY / bug.path).read_text()
    assert source.count(bug.right) == 1
    planted = source.replace(bug.right, bug.wrong)
    assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(source))
    assert (REPOSITORY / TESTS_OF[bug.service]).is_dir()
