"""Words in files, with the SDK: `python word_count_sdk.py` runs it, on a suite of its own if none is running."""

# ruff: noqa: D103, PTH123 -- as short as a first try is written
from nodeflow_sdk import node, workflow


@node(retries=3, timeout="30s")
def count(path: str) -> int:
    return len(open(path, encoding="utf-8", errors="replace").read().split())


@node
def total(counts: list[int]) -> int:
    return sum(counts)


@workflow
def word_count(paths: list[str]) -> int:
    return total(count.map(paths))  # calls record edges, nothing runs yet


if __name__ == "__main__":
    print(word_count.run(paths=["README.md", "Makefile"]))  # embedded suite, durable in .nodeflow/
