"""A census of Unicode: every code point of the database that ships with Python, counted by category and by script.

Run it with `python examples/unicode_census/unicode_census.py`: a suite of its own is started if none is running, and
its data stays in `.nodeflow/`. One task for each range of code points, two reports from what they found.
"""

import unicodedata
from collections import Counter
from dataclasses import dataclass

from nodeflow_sdk import node, workflow

CODE_POINTS = 0x11_0000
NOT_ASSIGNED = "Cn"
TOP = 12


@dataclass
class Range:
    """Code points from `first` up to, but without, `end`."""

    first: int
    end: int


@dataclass
class Survey:
    """What was found in a range."""

    categories: dict[str, int]
    """How many code points have each general category."""
    scripts: dict[str, int]
    """How many characters have a name that begins with this word, which is mostly that of their script."""
    longest_name: str


@dataclass
class Census:
    """All ranges together."""

    version: str
    characters: int
    categories: dict[str, int]
    scripts: dict[str, int]
    longest_name: str


@node
def ranges(size: int) -> list[Range]:
    """Divide all code points into ranges."""
    return [Range(first, min(first + size, CODE_POINTS)) for first in range(0, CODE_POINTS, size)]


@node(retries=2, timeout="60s")
def survey(block: Range) -> Survey:
    """Look at every code point of a range."""
    characters = [chr(point) for point in range(block.first, block.end)]
    names = [name for name in (unicodedata.name(each, "") for each in characters) if name]
    return Survey(
        categories=Counter(unicodedata.category(each) for each in characters),
        scripts=Counter(name.replace("-", " ").split()[0] for name in names),
        longest_name=max(names, key=len, default=""),
    )


@node
def census(surveys: list[Survey]) -> Census:
    """Put all ranges together."""
    categories: Counter[str] = Counter()
    scripts: Counter[str] = Counter()
    for each in surveys:
        categories.update(each.categories)
        scripts.update(each.scripts)
    return Census(
        version=unicodedata.unidata_version,
        characters=categories.total() - categories[NOT_ASSIGNED],
        categories=dict(categories.most_common()),
        scripts=dict(scripts.most_common(TOP)),
        longest_name=max((each.longest_name for each in surveys), key=len),
    )


@workflow(name="unicode-census", timeout="10m")
def unicode_census(size: int = 0x1_0000) -> Census:
    """Count every code point of Unicode."""
    return census(survey.map(ranges(size)))


if __name__ == "__main__":
    found = unicode_census.run()
    print(f"Unicode {found.version}: {found.characters:,} characters; the longest name is {found.longest_name}")
    for title, counts in (("category", found.categories), ("script", found.scripts)):
        print(f"\n{title:<24}{'characters':>12}")
        for name, count in list(counts.items())[:TOP]:
            print(f"{name.lower() if title == 'script' else name:<24}{count:>12,}")
