"""Examples written in Python, run as a user runs them."""

import asyncio
import importlib.util
import inspect
import json
import os
import re
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

from tests.support.suite import Finished, Suite

EXAMPLES = Path(__file__).parents[2] / "examples"


async def run_example(directory: Path, *arguments: str) -> Finished:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NODEFLOW_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=directory,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Finished(code=process.returncode or 0, out=out.decode(), err=err.decode())


def imported(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_census_counts_every_character_once(suite: Suite) -> None:
    done = await run_example(suite.directory, str(EXAMPLES / "unicode_census" / "unicode_census.py"))
    assert done.code == 0, done.err
    assigned = sum(unicodedata.category(chr(point)) != "Cn" for point in range(sys.maxunicode + 1))
    assert done.out.startswith(f"Unicode {unicodedata.unidata_version}: {assigned:,} characters; ")
    hangul = sum(unicodedata.name(chr(point), "").startswith("HANGUL ") for point in range(sys.maxunicode + 1))
    assert f"hangul{hangul:>30,}"[-14:] in done.out


async def test_the_census_is_the_same_in_smaller_ranges(suite: Suite) -> None:
    """The same workflow with other inputs, on a suite that this process did not start, and as plain Python."""
    module = imported(EXAMPLES / "unicode_census" / "unicode_census.py")
    plain = module.unicode_census(size=0x4_0000)
    remote = await module.unicode_census.arun(size=0x2000, suite=suite.address())
    assert remote == plain
    assert isinstance(remote, module.Census)


async def test_what_make_run_starts_prints_the_report_of_the_standard_library(suite: Suite) -> None:
    done = await run_example(suite.directory, str(EXAMPLES / "stdlib_report" / "main.py"))
    assert done.code == 0, done.err
    report = json.loads((suite.directory / "build" / "stdlib_report" / "report.json").read_text())
    modules = {module["module"]: module for module in report["modules"]}
    assert len(modules) > 400
    assert modules["asyncio.events"]["lines"] == inspect.getsource(asyncio.events).count("\n")
    assert [title in done.out for title in ("Largest modules", "Deepest nesting", "Most imported")] == [True] * 3
    [totals] = [line for line in done.out.splitlines() if line.startswith(f"Python {sys.version.split()[0]}: ")]
    assert f" {len(modules):,} modules, {sum(each['lines'] for each in modules.values()):,} lines" in totals
    [tasks] = re.findall(r"^([0-9,]+) tasks in ", done.out, re.MULTILINE)
    assert int(tasks.replace(",", "")) == len(modules) + 4, "each module, and the four nodes"
