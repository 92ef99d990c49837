"""The TypeScript package, built in a directory of its own, and its programs as processes.

Owns where Node is looked for, and what counts as a reason to skip. Must not know what the programs are tested for.
"""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients" / "typescript"
LEAST_NODE = 18
# What npm prints when its registry cannot be reached: then nothing can be installed, whatever the package is like.
NO_REGISTRY = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH")
MADE = shutil.ignore_patterns("node_modules", "dist", "gen")


@dataclass(frozen=True, slots=True)
class Package:
    """A built package."""

    directory: Path

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return what runs one of its example programs."""
        return ["node", str(self.directory / "dist" / "examples" / f"{program}.js"), *arguments]


def require_node() -> None:
    """Skip the test if Node is missing or too old."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node.js >= 18 and npm on PATH")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < LEAST_NODE:
        pytest.skip(f"needs Node.js >= {LEAST_NODE}, and finds {version}")


def build(directory: Path) -> Package:
    """Install and build a copy of the package, beside a copy of the protos as in the repository."""
    require_node()
    package = Package(directory / "clients" / "typescript")
    shutil.copytree(PACKAGE, package.directory, ignore=MADE)
    shutil.copytree(ROOT / "protos", directory / "protos")
    options = ("--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-timeout=30000")
    installed = _npm(package, "ci", *options)
    if installed.returncode != 0 and NO_REGISTRY.search(installed.stderr):
        pytest.skip("npm cannot reach a registry to install the package's dependencies from")
    assert installed.returncode == 0, installed.stderr
    built = _npm(package, "run", "build")
    assert built.returncode == 0, built.stdout + built.stderr
    return package


def _npm(package: Package, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["npm", *arguments], cwd=package.directory, capture_output=True, text=True, check=False, timeout=200
    )


@asynccontextmanager
async def program(command: list[str], directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program whose output is read by the test; kills it at the end of the block if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
