"""The summary of a raw profile."""

from pathlib import Path

from tests.bench.profiling import top_functions


def test_lines_of_a_function_count_together_and_callers_do_not(tmp_path: Path) -> None:
    profile = tmp_path / "profile.raw"
    profile.write_text("main (a.py:1);step (a.py:5) 3\nmain (a.py:1);step (a.py:9) 3\nmain (a.py:2) 2\n")
    assert top_functions(profile) == [("step (a.py)", 0.75), ("main (a.py)", 0.25)]
