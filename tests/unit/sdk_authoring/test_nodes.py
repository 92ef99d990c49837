"""Nodes and workflows as plain functions, as workers call them, and the inputs of a run."""

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest
from tests.unit.sdk_authoring.modules import load

from nodeflow_sdk.authoring.origin import origin_of

BODY = '''
class Colour(enum.Enum):
    RED = "red"

@dataclass
class Point:
    x: int
    y: int = 0

@node
async def later(path: str) -> int:
    return len(path)

@node
def moved(point: Point, colour: Colour = Colour.RED) -> Point:
    assert isinstance(point, Point) and isinstance(colour, Colour)
    return Point(point.x + 1)

@node
async def moved_later(point: Point) -> Point:
    return Point(point.x + 1)

@workflow
def flow(paths: list[str], point: Optional[Point] = None) -> int:
    """Words."""
    return total(count.map(paths))

@workflow
def points(point: Point) -> Point:
    return moved(point)
'''


@pytest.fixture
def code(tmp_path: Path) -> Any:  # noqa: ANN401  # a module of user code
    return load(tmp_path, BODY)


async def test_a_node_is_a_plain_function_outside_of_workflows(code: Any) -> None:  # noqa: ANN401
    assert code.count("abc") == 3
    assert code.count.map(["a", "bc"]) == [1, 2]
    assert await code.later("ab") == 2
    assert code.count.__name__ == "count"
    assert str(inspect.signature(code.count)) == "(path: str) -> int"


def test_a_workflow_is_a_plain_function_too(code: Any) -> None:  # noqa: ANN401
    assert code.flow(["a", "bc"]) == 3
    assert code.flow.__doc__ == "Words."


def test_workers_call_the_function_itself_where_json_is_enough(code: Any) -> None:  # noqa: ANN401
    assert code.count.__nodeflow_function__ is code.count.__wrapped__
    assert inspect.iscoroutinefunction(code.later.__nodeflow_function__)


def test_workers_get_hinted_types_made_of_json_and_json_of_results(code: Any) -> None:  # noqa: ANN401
    call = code.moved.__nodeflow_function__
    assert call(point={"x": 1}, colour="red") == {"x": 2, "y": 0}
    assert call(point={"x": 1}) == {"x": 2, "y": 0}
    later = code.moved_later.__nodeflow_function__
    assert inspect.iscoroutinefunction(later)
    assert asyncio.run(later(point={"x": 5})) == {"x": 6, "y": 0}
    with pytest.raises(ValueError, match=r"moved: argument point: Expected `int`, got `str` - at `\$.x`"):
        call(point={"x": "one"})


def test_inputs_are_checked_before_anything_is_sent(code: Any) -> None:  # noqa: ANN401
    inputs = code.flow._definition.inputs
    assert inputs((["a"],), {}) == {"paths": ["a"]}
    assert inputs((), {"paths": ["a"], "point": code.Point(1)}) == {"paths": ["a"], "point": {"x": 1, "y": 0}}
    for args, kwargs, said in (
        ((), {}, "missing a required argument: 'paths'"),
        ((["a"],), {"limit": 3}, "got an unexpected keyword argument 'limit'"),
        (([1],), {}, "input paths of flow: Expected `str`, got `int` - at `$[0]`; it must be list[str]"),
        ((["a"],), {"point": {"y": 1}}, "missing required field `x`"),
        (([object()],), {}, "input paths of flow has no JSON form"),
    ):
        with pytest.raises(TypeError) as caught:
            inputs(args, kwargs)
        assert said in str(caught.value)


def test_results_come_back_in_the_type_of_the_hint(code: Any) -> None:  # noqa: ANN401
    assert code.flow._definition.outputs.value({"result": 3}) == 3
    assert code.points._definition.outputs.value({"result": {"x": 1, "y": 2}}) == code.Point(1, 2)


def test_functions_are_addressed_by_module_and_directory(tmp_path: Path) -> None:
    module = load(tmp_path, "")
    origin = origin_of(module.count.__wrapped__)
    assert (str(origin), origin.directory) == (f"{module.__name__}:count", tmp_path.resolve())
    packaged = origin_of(pytest.main)
    assert str(packaged) == "_pytest.config:main"
    assert packaged.directory == Path(pytest.__file__).parents[1]
