"""The fixture `nodeflow` in somebody's project: a pytest of its own, with the extra and without it."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

FLOWS = """
from pathlib import Path

from nodeflow_sdk import Backoff, node, workflow


@node(retries=1, backoff=Backoff(initial="1h"))
def count(path: str) -> int:
    return len(Path(path).read_text().split())


@node
def total(counts: list[int]) -> int:
    return sum(counts)


@workflow
def word_count(paths: list[str]) -> int:
    return total(count.map(paths))
"""
TESTS = """
import pytest
from flows import count, word_count
from nodeflow_sdk import NodeFailed


def test_words_are_counted(nodeflow, tmp_path):
    (tmp_path / "a.txt").write_text("one two three")
    assert nodeflow.run(word_count, paths=[str(tmp_path / "a.txt")]) == 3


def test_a_missing_file_is_tried_again_an_hour_later(nodeflow):
    with pytest.raises(NodeFailed, match="FileNotFoundError"):
        nodeflow.run(word_count, paths=["missing.txt"])
    assert nodeflow.now > 2_000
"""
WITHOUT_THE_EXTRA = "import sys\nsys.modules['nodeflow_testing'] = None\n"


def project(directory: Path, **files: str) -> Path:
    for name, text in {"flows": FLOWS, "test_flows": TESTS, **files}.items():
        (directory / f"{name}.py").write_text(text)
    return directory


def run_pytest(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:hypothesispytest"]
    command = [sys.executable, "-m", "pytest", *quiet, "-W", "error", *options]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=100)


def test_an_empty_project_just_uses_the_fixture(tmp_path: Path) -> None:
    done = run_pytest(project(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_a_wrong_expectation_fails_with_the_test_s_own_line(tmp_path: Path) -> None:
    call = "nodeflow.run(word_count, paths=['missing.txt'])"
    wrong = f"from flows import word_count\n\n\ndef test_wrong(nodeflow):\n    {call}\n"
    done = run_pytest(project(tmp_path, test_flows=wrong), "--tb=short")
    assert done.returncode == 1
    assert call in done.stdout
    assert "Remote traceback:" in done.stdout
    assert "stepped_suite" not in done.stdout


def test_without_the_extra_the_fixture_says_what_to_install_and_other_tests_run(tmp_path: Path) -> None:
    other = TESTS + "\n\ndef test_other():\n    assert count.__name__ == 'count'\n"
    done = run_pytest(project(tmp_path, conftest=WITHOUT_THE_EXTRA, test_flows=other))
    assert done.returncode == 1
    assert "1 passed, 2 errors" in done.stdout
    assert "pip install 'nodeflow-sdk[testing]'" in done.stdout


def test_the_project_of_init_passes_its_test(tmp_path: Path) -> None:
    init = [sys.executable, "-m", "nodeflow_sdk.cli", "init", str(tmp_path / "flows")]
    subprocess.run(init, check=True, capture_output=True, timeout=100)
    done = run_pytest(tmp_path / "flows")
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_found_by_its_entry_point() -> None:
    (found,) = [each for each in entry_points(group="pytest11") if each.name == "nodeflow"]
    assert found.value == "nodeflow_sdk.pytest_plugin"
