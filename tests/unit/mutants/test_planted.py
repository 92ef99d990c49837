"""The bugs of `make mutants` can all be planted in the sources as they are today."""

import ast
import builtins
from typing import Final

import pytest
from tests.mutants.hunt import REPOSITORY
from tests.mutants.planted import BUGS, TESTS_OF, Bug

BUILT_IN: Final = {*dir(builtins), *dir(list), *dir(dict), *dir(set)}


def names_in(program: ast.AST) -> set[str]:
    """What a program calls things by."""
    nodes = list(ast.walk(program))
    return {node.id for node in nodes if isinstance(node, ast.Name)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute)
    }


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_has_one_place_and_leaves_a_program(bug: Bug) -> None:
    source = (REPOSITORY / bug.path).read_text()
    assert source.count(bug.right) == 1
    program, planted = ast.parse(source), ast.parse(source.replace(bug.right, bug.wrong))
    assert ast.dump(planted) != ast.dump(program)
    assert names_in(planted) - names_in(program) <= BUILT_IN, "a name that is not there is another bug than is meant"
    assert (REPOSITORY / TESTS_OF[bug.service]).is_dir()
