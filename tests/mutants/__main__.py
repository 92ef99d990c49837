"""`make mutants`: plants each bug in a copy of the sources, and says by which seed and which test it is caught.

    python -m tests.mutants [NAME…] [--seeds N] [--list]

It ends with 1 if a bug escapes both, or if anything is caught where no bug was planted.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.hunt import Catch, Copy
from tests.mutants.planted import BUGS, TESTS_OF, Bug

SHARED_TESTS = ("tests/contract", "tests/simulation", "--ignore=tests/simulation/test_seeds.py")
JOBS = 2


def hunt(bug: Bug | None, seeds: int) -> tuple[Catch | None, Catch | None]:
    """Return what caught a bug: a seed, a test. Without a bug, nothing may be caught."""
    with tempfile.TemporaryDirectory(prefix="nodeflow-mutant-") as directory:
        copy = Copy(Path(directory))
        if bug is not None:
            copy.plant(bug)
        tests = [TESTS_OF[bug.service]] if bug is not None else list(TESTS_OF.values())
        return copy.seeds(seeds), copy.tests(*tests, *SHARED_TESTS)


def describe(name: str, breaks: str, caught: Sequence[Catch | None]) -> str:
    """One line of the report."""
    seed, test = (f"{each.by} ({each.seconds:.0f} s)" if each is not None else "–" for each in caught)
    return f"{breaks:<4}{name:<66}{seed:<26}{test}"


def main() -> int:
    """Hunt the bugs that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of the name of a bug; all bugs without one")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds look for each bug (default: 20)")
    parser.add_argument("--list", action="store_true", help="print the bugs, and plant none")
    arguments = parser.parse_args()
    bugs = [bug for bug in BUGS if not arguments.names or any(name in bug.name for name in arguments.names)]
    if not bugs:
        parser.error(f"no bug is called {arguments.names[0]!r}; --list prints their names")
    if arguments.list:
        print("\n".join(f"{bug.breaks:<4}{bug.name}  ({bug.path})" for bug in bugs))
        return 0
    control = hunt(None, arguments.seeds)
    print(describe("(no bug: nothing may be caught)", "", control), flush=True)
    if any(control):
        return 1
    escaped = []
    with ThreadPoolExecutor(JOBS) as pool:
        for bug, caught in zip(bugs, pool.map(lambda each: hunt(each, arguments.seeds), bugs), strict=True):
            print(describe(bug.name, bug.breaks, caught), flush=True)
            if not any(caught):
                escaped.append(bug.name)
    print(f"{len(bugs) - len(escaped)} of {len(bugs)} bugs were caught", *(f"escaped: {each}" for each in escaped))
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
