"""Wrong wiring fails where it is written: the error names file and line, what is wrong, and what would be right."""

from pathlib import Path

import pytest
from tests.unit.sdk_authoring.modules import line_marked, load

from nodeflow_sdk import WiringError


def flow(*lines: str, head: str = "", parameters: str = "paths: list[str]") -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f"{head}\n@workflow\ndef flow({parameters}):\n{body}\n"


ARGUMENTS = {
    "missing": (flow("return count()  # fault"), "count(path: str) -> int: missing a required argument: 'path'"),
    "unknown": (flow("return count(paht='a')  # fault"), "missing a required argument: 'path'"),
    "unexpected": (flow("return count('a', x=1)  # fault"), "got an unexpected keyword argument 'x'"),
    "twice": (flow("return count('a', path='b')  # fault"), "multiple values for argument 'path'"),
    "too many": (flow("return count('a', 'b')  # fault"), "too many positional arguments"),
    "in the second line": (flow("made = count('a')", "return total(counts=made, x=2)  # fault"), "argument 'x'"),
    "constant": (flow("return count(3)  # fault"), "argument path of count: Expected `str`, got `int`"),
    "constant inside": (
        flow("return total([1, 'two'])  # fault"),
        "argument counts of total: Expected `int`, got `str` - at `$[1]`; it must be list[int]",
    ),
    "bytes": (flow("return anything(b'abc')  # fault"), "argument value of anything is bytes"),
    "no JSON": (flow("return anything(object())  # fault"), "argument value of anything cannot be sent to a worker"),
    "key": (flow("return anything({1: count('a')})  # fault"), "has the key 1; keys are constant text"),
    "map without room": (flow("return count.map(paths, path='a')  # fault"), "has no parameter left for the item"),
    "map of a constant": (flow("return count.map(3)  # fault"), "count.map() takes a list, not int"),
    "map of wrong items": (flow("return count.map(['a', 2])  # fault"), "item 1, argument path of count"),
}

TYPES = {
    "output": (
        flow("return count(count('a'))  # fault"),
        "argument path of count must be str, and <the output of count: int>",
    ),
    "input": (flow("return total(paths)  # fault"), "must be list[int], and <input paths: list[str]> cannot be that"),
    "list for one": (
        flow("return count(count.map(paths))  # fault"),
        "<the outputs of count: list[int]> cannot be that",
    ),
    "list whose items fit": (
        flow("return count(paths)  # fault"),
        "<input paths: list[str]> cannot be that; count.map(…) makes one task of each item",
    ),
    "one for a list": (flow("return total(count('a'))  # fault"), "must be list[int]"),
    "map over one": (
        flow("return count.map(count('a'))  # fault"),
        "takes a list, and <the output of count: int> is none",
    ),
    "items": (
        flow("return count.map(count.map(paths))  # fault"),
        "each item goes to argument path of count, which must be str; the items of",
    ),
    "enum": (
        flow(
            "return paint(colour)  # fault",
            head="class C(enum.Enum):\n    RED = 'red'\n@node\ndef paint(colour: C): ...",
            parameters="colour: Literal['blue', 'green']",
        ),
        "argument colour of paint must be",
    ),
    "dataclass": (
        flow(
            "return use(make())  # fault",
            head=(
                "@dataclass\nclass A:\n    x: int\n@dataclass\nclass B:\n    x: str\n"
                "@node\ndef make() -> A: ...\n@node\ndef use(b: B): ..."
            ),
        ),
        "argument b of use must be",
    ),
    "field": (
        flow("return count(make()['y'])  # fault", head="class T(TypedDict):\n    x: str\n@node\ndef make() -> T: ..."),
        "its fields are x",
    ),
    "field of a list": (flow("return count(paths['x'])  # fault"), "it is no object but list[str]"),
    "item of an int": (flow("return count(count('a')[0])  # fault"), "it is no list but int"),
}

LOOKS = {
    "if": ("if handle: pass  # fault", "a condition (if, while, and, or, not) needs the value of the output of count"),
    "and": ("x = handle and 1  # fault", "a condition"),
    "for": ("for x in handle: pass  # fault", "map a node over it: some_node.map(…)"),
    "unpacking": ("x, y = handle  # fault", "iteration needs the value"),
    "in": ("x = 1 in handle  # fault", "in needs the value"),
    "len": ("len(handle)  # fault", "len() needs the value"),
    "add": ("handle + 1  # fault", "+ needs the value"),
    "radd": ("1 + handle  # fault", "+ needs the value"),
    "equal": ("handle == 1  # fault", "== needs the value"),
    "less": ("handle < 1  # fault", "< needs the value"),
    "str": ("str(handle)  # fault", "build the text inside a node"),
    "f-string": ("f'{handle}'  # fault", "an f-string needs the value"),
    "int": ("int(handle)  # fault", "int() needs the value"),
    "range": ("range(handle)  # fault", "int() needs the value"),
    "set": ("{handle}  # fault", "a set or the key of a dict needs the value"),
    "open": ("open(handle)  # fault", "open() and Path() needs the value"),
    "call": ("handle()  # fault", "a call needs the value"),
    "attribute": ("handle.real  # fault", ".real needs the value of the output of count, which is known only when"),
    "from the end": ("handle[-1]  # fault", "count items from 0"),
    "slice": ("handle[1:2]  # fault", "take a field by its name or an item by its number"),
    "input": ("paths[0].upper()  # fault", ".upper needs the value of input paths[0]"),
}

DEFINITIONS = {
    "retries": ("@node(retries=-1)  # fault\ndef f(): ...\n", "@node(retries=-1 must be a whole number from 0 to 999)"),
    "timeout": ("@node(timeout='soon')  # fault\ndef f(): ...\n", "timeout='soon' is no duration; write it like"),
    "backoff": ("@node(backoff=Backoff(factor=0))  # fault\ndef f(): ...\n", "factor=0 must be between 1 and 1000"),
    "name": ("@node(name='a b')  # fault\ndef f(): ...\n", "name='a b' should be letters"),
    "positional": (
        "@node  # fault\ndef f(x, /): ...\n@workflow\ndef flow():\n    f(1)\n",
        "parameter x of node f can only be given by position; workers pass arguments by name",
    ),
    "lambda": (
        "f = node(lambda x: x)  # fault\n@workflow\ndef flow():\n    f(1)\n",
        "it has no name that workers could import",
    ),
    "inside": (
        "def make():\n    @node  # fault\n    def f(x): ...\n    return f\nf = make()\n@workflow\ndef flow(): f(1)\n",
        "make.f is defined inside a function, where workers cannot import it",
    ),
    "no node": ("@workflow  # fault\ndef flow():\n    return 1\n", "workflow flow calls no node"),
    "async": ("@workflow  # fault\nasync def flow():\n    return count('a')\n", "workflow flow is async"),
    "workflow's timeout": ("@workflow(timeout=0)  # fault\ndef flow():\n    return count('a')\n", "must be longer"),
    "on_failure": (
        "@workflow(on_failure='stop')  # fault\ndef flow():\n    return count('a')\n",
        '@workflow(on_failure=\'stop\') is not known; write "cancel_dependents", "fail_fast", "continue"',
    ),
    "inputs": (
        "@workflow  # fault\ndef flow(*paths):\n    return count('a')\n",
        "*paths of workflow flow is no single",
    ),
    "reserved": ("@workflow  # fault\ndef flow(suite):\n    return count('a')\n", "would hide an option of run()"),
    "result": (
        "@workflow  # fault\ndef flow() -> str:\n    return count('a')\n",
        "workflow flow returns <the output of count: int>, and its hint says str",
    ),
}

PROCESSES = {
    "nothing": ("process()  # fault\n", "process(): takes either a command or a script"),
    "both": ("process('a', script='b')  # fault\n", "takes either a command or a script"),
    "quote": ("process('it\"s')  # fault\n", "process(): No closing quotation"),
    "brace": ("process('echo {')  # fault\n", "write {name} for a value, {{ and }} for braces"),
    "no name": ("process('echo {0}')  # fault\n", "'{0}' has the placeholder {0}, which is no name"),
    "format": ("process(['echo', '{x:>3}'])  # fault\n", "which is no name"),
    "retries": ("process('ls', retries=-1)  # fault\n", "retries=-1 must be a whole number"),
    "missing": (flow("p()  # fault", head="p = process('cat {path}')"), "cat(path): missing a required argument"),
    "unknown": (flow("p('a', b=1)  # fault", head="p = process('cat {path}')"), "unexpected keyword argument 'b'"),
    "map": (flow("p.map('abc')  # fault", head="p = process('cat {path}')"), "cat.map() takes a list, not str"),
    "no room": (flow("p.map(paths)  # fault", head="p = process('ls')"), "ls() has no parameter left for the item"),
    "outside": ("process('ls')()  # fault\n", "process ls is called outside of a workflow"),
}

KEPT = "kept = []\n@workflow\ndef first():\n    kept.append(count('a'))\n"
ORDER = {
    "itself": (flow("a = count('a')", "a.after(a)  # fault"), "count cannot come after count"),
    "cycle": (flow("a = count('a')", "b = anything(a)", "a.after(b)  # fault"), "count cannot come after anything"),
    "no node": (flow("count.after(paths)  # fault"), "after() takes outputs of nodes, not <input paths: list[str]>"),
    "value": (flow("count('a').after(3)  # fault"), "after() takes outputs of nodes, not 3"),
    "another workflow": (
        f"{KEPT}@workflow\ndef second():\n    total([kept[0]])  # fault\n",
        "<the output of count: int> belongs to workflow first",
    ),
    "outside": (
        f"{KEPT}count(kept[0])  # fault\n",
        "and is used outside of it",
    ),
}


def check(directory: Path, body: str, said: str) -> None:
    with pytest.raises(WiringError) as caught:
        load(directory, body)
    error = caught.value
    assert (error.place.file.startswith(str(directory)), error.place.line) == (True, line_marked(body)), str(error)
    assert str(error).startswith(f"{error.place}: ")
    assert said in str(error)


@pytest.mark.parametrize(("body", "said"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_that_do_not_fit_the_signature(tmp_path: Path, body: str, said: str) -> None:
    check(tmp_path, body, said)


@pytest.mark.parametrize(("body", "said"), TYPES.values(), ids=TYPES)
def test_types_that_certainly_do_not_fit(tmp_path: Path, body: str, said: str) -> None:
    check(tmp_path, body, said)


@pytest.mark.parametrize(("line", "said"), LOOKS.values(), ids=LOOKS)
def test_looking_at_a_value_that_does_not_exist_yet(tmp_path: Path, line: str, said: str) -> None:
    check(tmp_path, flow("handle = count('a')", line), said)


@pytest.mark.parametrize(("body", "said"), DEFINITIONS.values(), ids=DEFINITIONS)
def test_nodes_and_workflows_that_cannot_be(tmp_path: Path, body: str, said: str) -> None:
    check(tmp_path, body, said)


@pytest.mark.parametrize(("body", "said"), PROCESSES.values(), ids=PROCESSES)
def test_processes_that_cannot_be(tmp_path: Path, body: str, said: str) -> None:
    check(tmp_path, body, said)


@pytest.mark.parametrize(("body", "said"), ORDER.values(), ids=ORDER)
def test_order_and_ownership(tmp_path: Path, body: str, said: str) -> None:
    check(tmp_path, body, said)


@pytest.mark.parametrize(
    "line",
    [
        "total([count('a'), 3])",
        "anything({'deep': [count('a'), {'er': paths}]})",
        "anything(total(anything(1)))",
        "total(anything(1))",
        "count.map(anything(1))",
        "count(anything(1)['field'][0])",
        "total(count.map(['a', 'b']))",
    ],
)
def test_what_may_be_right_is_let_through(tmp_path: Path, line: str) -> None:
    assert load(tmp_path, flow(f"return {line}")).flow.document()


def test_a_handle_can_be_shown_for_debugging(tmp_path: Path) -> None:
    shown: list[str] = load(tmp_path, flow("shown.append(repr(count('a')))", head="shown = []")).shown
    assert shown == ["<the output of count: int>"]


def test_the_error_comes_without_its_way_through_this_package(tmp_path: Path) -> None:
    with pytest.raises(WiringError) as raised:
        load(tmp_path, flow("return count(paths)"))
    assert not [
        str(each.path) for each in raised.traceback if "/authoring/" in str(each.path).split("nodeflow_sdk")[-1]
    ]
