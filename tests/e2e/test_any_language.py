"""docs/any-language.md: each program on the page is built and run as it stands there, where its language's tools are.

Owns which tools a language needs. The TypeScript parts of the page are tested with the package, in test_typescript.py.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from tests.support.suite import Finished, Suite

# Compilers take their time, most of all on a busy machine.
pytestmark = pytest.mark.timeout(500)

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "any-language.md").read_text()
ADDRESS: Final = "127.0.0.1:7420"
OUTPUTS: Final = '{"total":28}'
GOCODE: Final = Path("/usr/share/gocode/src/google.golang.org/grpc")
JARS: Final = Path("/usr/share/java")


def missing_commands(*names: str) -> list[str]:
    return [name for name in names if shutil.which(name) is None]


def missing_for_go() -> list[str]:
    missing = missing_commands("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    return missing if GOCODE.is_dir() else [*missing, "golang-google-grpc-dev"]


def missing_for_java() -> list[str]:
    missing = missing_commands("javac", "protoc", "grpc_java_plugin")
    jars = ("grpc-netty", "grpc-stub", "grpc-protobuf", "netty-all", "perfmark-api", "protobuf")
    return missing + [f"{jar}.jar" for jar in jars if not (JARS / f"{jar}.jar").exists()]


def missing_for_cpp() -> list[str]:
    missing = missing_commands("g++", "protoc", "grpc_cpp_plugin", "pkg-config")
    return missing or ([] if succeeds("pkg-config", "--exists", "grpc++", "protobuf") else ["libgrpc++-dev"])


def missing_for_ruby() -> list[str]:
    missing = missing_commands("ruby", "protoc", "grpc_ruby_plugin")
    return missing or ([] if succeeds("ruby", "-e", "require 'grpc'") else ["ruby-grpc"])


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A section of the page: how its program's block is marked, its file, and what is missing to build it."""

    title: str
    mark: str
    file: str
    missing: Callable[[], list[str]]


LANGUAGES: Final = (
    Language(title="Go", mark="go", file="submit.go", missing=missing_for_go),
    Language(title="Java", mark="java", file="Submit.java", missing=missing_for_java),
    Language(title="C++", mark="cpp", file="submit.cc", missing=missing_for_cpp),
    Language(title="Ruby", mark="ruby", file="submit.rb", missing=missing_for_ruby),
)


def block(title: str, mark: str) -> str:
    """Return the one code block of a section that is marked so."""
    [section] = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    [found] = re.findall(rf"^```{mark}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert isinstance(found, str)
    return found


async def shell(suite: Suite, directory: Path, script: str) -> Finished:
    """Run commands of the page in a copy of the example that the page names."""
    assert ADDRESS in script
    shutil.copytree(ROOT / "examples" / "word_count", directory, dirs_exist_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *("sh", "-euc", script.replace(ADDRESS, suite.address())),
        cwd=directory,
        env={**os.environ, "PATH": path, "PROTOS": str(ROOT / "protos")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Finished(code=process.returncode or 0, out=out.decode(), err=err.decode())


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda each: each.title)
async def test_a_program_of_the_page_submits_and_watches(suite: Suite, tmp_path: Path, language: Language) -> None:
    if missing := language.missing():
        pytest.skip(f"{language.title} needs {', '.join(missing)}: docs/any-language.md names the packages")
    (tmp_path / language.file).write_text(block(language.title, language.mark))
    done = await shell(suite, tmp_path, block(language.title, "sh"))
    assert (done.code, done.out.splitlines()[-1:]) == (0, [OUTPUTS]), done.err
    sequences = [int(each) for each in re.findall(r"^(\d+) EVENT_TYPE_", done.err, re.MULTILINE)]
    assert sequences == list(range(1, len(sequences) + 1))
    assert "EVENT_TYPE_EXECUTION_COMPLETED" in done.err.splitlines()[-1]


async def test_the_commands_with_buf_curl_submit_and_watch(suite: Suite, tmp_path: Path) -> None:
    done = await shell(suite, tmp_path, block("buf curl", "sh"))
    assert done.code == 0, done.err
    assert "EVENT_TYPE_EXECUTION_COMPLETED" in done.out
    assert done.out.endswith(OUTPUTS)
