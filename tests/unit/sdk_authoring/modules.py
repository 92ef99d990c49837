"""Modules of user code for tests: written to a file and imported, as the SDK finds functions by module and line."""

import importlib.util
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

HEAD = """\
import enum
from dataclasses import dataclass
from typing import Any, Literal, Optional, TypedDict
from nodeflow_sdk import Backoff, Limits, node, process, workflow

@node
def count(path: str) -> int:
    return len(path)

@node
def total(counts: list[int]) -> int:
    return sum(counts)

@node
def anything(value):
    return value

"""

Load = Callable[[str], ModuleType]
_numbers = itertools.count()


def load(directory: Path, body: str) -> ModuleType:
    """Import HEAD and `body` as a fresh module in a directory."""
    name = f"user_code_{next(_numbers)}"
    file = directory / f"{name}.py"
    file.write_text(HEAD + body)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line_marked(body: str, mark: str = "# fault") -> int:
    """Return the line in the module of the line of `body` that has the mark."""
    [number] = [number for number, line in enumerate((HEAD + body).splitlines(), 1) if mark in line]
    return number
