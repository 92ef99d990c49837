"""What goes wrong in documents and functions, for the tests of bad input.

Owns the texts. Must not know how they are sent, nor what is answered.
"""

from pathlib import Path
from typing import Final

HEAD: Final = "apiVersion: nodeflow/v1\nkind: Workflow\nname: bad\n"
DOCUMENT_LIMIT_BYTES: Final = 1 << 20

FUNCTIONS: Final = """\
import asyncio
import os
import signal
import time


def ok():
    return 1


def echo(text):
    return text


def size(text):
    return len(text)


def long(n):
    return "x" * n


def raises():
    raise ValueError("no such thing")


def exits():
    os._exit(3)


def leaves():
    raise SystemExit(4)


def kills_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def sleeps():
    time.sleep(600)


def spins():
    while True:
        pass


async def awaits():
    await asyncio.sleep(600)


def holds_on():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass


def returns_an_object():
    return {"rows": [1, object()]}


def returns_nan():
    return float("nan")


def returns_itself():
    rows = []
    rows.append(rows)
    return rows


def returns_odd_keys():
    return {(1, 2): 3}


not_a_function = 3
"""

WITH_INPUTS: Final = (
    HEAD
    + """\
inputs: {count: {type: integer}, text: {type: string, default: a}}
nodes:
  only: {function: "functions:echo", with: {text: "${inputs.text}"}}
outputs: {text: "${nodes.only.output}"}
"""
)

LARGE_RESULT: Final = (
    HEAD
    + """\
inputs: {count: {type: integer}}
nodes:
  long: {function: "functions:long", with: {n: "${inputs.count}"}}
  size: {function: "functions:size", with: {text: "${nodes.long.output}"}}
outputs: {size: "${nodes.size.output}"}
"""
)


def one_node(function: str, extra: str = "") -> str:
    """Return a document with a single node, called `only`."""
    return f'{HEAD}nodes:\n  only: {{function: "{function}"{extra}}}\n'


def nodes(text: str) -> str:
    """Return a document with the nodes in a YAML flow mapping."""
    return f"{HEAD}nodes: {text}\n"


def large_document() -> str:
    """Return a right document that is too long."""
    return f"{HEAD}# {'x' * DOCUMENT_LIMIT_BYTES}\nnodes: {{a: {{function: 'functions:ok'}}}}\n"


def write_functions(directory: Path) -> None:
    """Write the modules that documents name, two of which cannot be imported."""
    (directory / "functions.py").write_text(FUNCTIONS)
    (directory / "needs_more.py").write_text("import nothing_such_anywhere\n")
    (directory / "no_python.py").write_text("def f(:\n")
