"""What workflows compile to: golden documents, each of which the scheduler's own compiler accepts."""

from pathlib import Path

import pytest
from tests.unit.sdk_authoring.modules import load

from nodeflow_scheduler.domain.document import compile_document
from nodeflow_scheduler.domain.templates import Hole, split
from nodeflow_scheduler.domain.workflow import Workflow as Compiled
from nodeflow_sdk import Workflow

GOLDEN = Path(__file__).with_name("golden")

CASES = {
    "word_count": '''
@node(name="tally", retries=2, timeout="30s", backoff=Backoff(initial="100ms", factor=3, max=10), when="true")
def tally(path: str) -> int:
    """Count something.

    More of it.
    """

@workflow(name="word-count", timeout=90, on_failure="continue")
def flow(paths: list[str] = ["a", "b"], limit: Optional[int] = None) -> int:
    """Words in files."""
    return total(tally.map(paths))
''',
    "wiring": """
@node
def scale(factor: float, value: int, offset: int = 0) -> float: ...

@workflow
def flow(paths: list[str], factor: float):
    counts = count.map(paths)
    scaled = scale.map(counts, factor=factor)
    first = scale(factor=1.5, value=counts[0])
    last = anything([first, "a${b"])
    done = count.after(last, scaled)("done")
    done.after(first)
    return {"scaled": scaled, "last": last, "all": [done, {"counts": counts}]}
""",
    "fields": """
@dataclass
class Size:
    width: int
    height: int

class Report(TypedDict):
    size: Size
    names: list[str]

@node
def measure(path: str) -> Size: ...

@node
def report() -> Report: ...

@node
def area(width: int, height: int) -> int: ...

@workflow
def flow(size: Size, colour: Literal["red", "green"] = "red"):
    mine = measure(report()["names"][0])
    return area(mine.width, size.height), report()["size"].width, colour
""",
    "inlined": """
@workflow
def part(paths: list[str]) -> int:
    return total(count.map(paths))

@workflow
def flow():
    return anything([part(["a"]), part(["b"])])
""",
    "processes": """
sort = process("sort -u --key={key} {path}", retries=1, timeout="30s", limits=Limits(memory="512Mi", cpu_time=10))
words = process(
    script='echo "$FILE ${HOME}" > "$NODEFLOW_OUTPUT"',
    env={"FILE": "{path}", "FIXED": "{{braces}} ${{HOME}} ${path}"},
    stdin="{text}",
    artifacts=["out/*.csv"],
    name="words",
)

@workflow
def flow(paths: list[str], text: str):
    first = words.after(sort("k", path="p"))("a{b}${c}", [text])
    return anything([sort(3, paths[0]), words.map(paths, text=text), first])
""",
    "no_result": """
@workflow
def flow():
    count("a")
""",
}


def compiled(flow: Workflow[..., object]) -> Compiled:
    source = flow._definition.source()
    return compile_document(source, "application/json", "/somewhere")


@pytest.mark.parametrize("name", CASES)
def test_a_workflow_compiles_to_its_golden_document(tmp_path: Path, name: str) -> None:
    module = load(tmp_path, CASES[name])
    text = module.flow._definition.source().decode().replace(module.__name__, "user_code") + "\n"
    golden = GOLDEN / f"{name}.json"
    assert text == golden.read_text(), f"if the change is meant, write this to {golden}:\n{text}"
    compiled(module.flow)


DOLLARS = """
pay = process(["US${amount}", "$${amount}", "{amount}{{x}}", "{amount}${{x}}"])

@workflow
def flow(amount: str):
    pay("{3}")
    pay("3$")
    pay(amount)
"""


def test_dollar_signs_beside_placeholders_stay_what_they_are(tmp_path: Path) -> None:
    nodes = load(tmp_path, DOLLARS).flow.document()["nodes"].values()
    commands = [[list(split(text)) for text in each["process"]["command"]] for each in nodes]
    assert commands[:2] == [
        [["US${3}"], ["$${3}"], ["{3}{x}"], ["{3}${x}"]],
        [["US$3$"], ["$$3$"], ["3${x}"], ["3$${x}"]],
    ]
    amount = Hole("inputs.amount")
    assert commands[2] == [["US", Hole("'$'"), amount], [Hole("'$$'"), amount], [amount, "{x}"], [amount, "${x}"]]


def test_dependencies_follow_from_data_and_from_order(tmp_path: Path) -> None:
    workflow = compiled(load(tmp_path, CASES["wiring"]).flow)
    names = [node.name for node in workflow.nodes]
    needed = {node.name: {names[each] for each in node.dependencies} for node in workflow.nodes}
    assert needed == {
        "count": set(),
        "scale": {"count"},
        "scale_2": {"count"},
        "anything": {"scale_2"},
        "count_2": {"anything", "scale", "scale_2"},
    }


def test_defining_twice_gives_the_same_revision(tmp_path: Path) -> None:
    module = load(tmp_path, CASES["wiring"])
    again = type(module.flow._definition)(
        module.flow._function, name="", timeout=None, on_failure=None, reserved=frozenset()
    )
    assert again.source() == module.flow._definition.source()
