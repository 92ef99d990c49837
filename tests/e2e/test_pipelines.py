"""Pipelines on a real suite: the example that checks, tests and builds a package, and what people see of failures."""

import json
import shutil
from pathlib import Path

from tests.support.suite import Suite

EXAMPLE = Path(__file__).parents[2] / "examples" / "package_pipeline"

LATE = "2026-03-01T10:00:00 ERROR"


async def test_the_package_is_checked_tested_built_and_tried(suite: Suite) -> None:
    done = await suite.cli("run", str(EXAMPLE / "pipeline.yaml"), "--label", "test=package")
    assert done.code == 0, done.err
    levels = {"ERROR": 3, "INFO": 1, "WARNING": 1}
    smoke = {"levels": levels, "worst": "api: card declined"}
    assert json.loads(done.out) == {"smoke": smoke, "changelog": "plainlog 1.2.0"}
    assert "source sha256:" in done.err
    got = json.loads((await suite.cli("get", "@latest", "-o", "json")).out)
    states = {(task["node"], task.get("mapIndex")): task["state"] for task in got["tasks"]}
    assert states["unit", 1] == "TASK_STATE_COMPLETED"
    assert len(states) == 8


async def test_a_failed_test_ends_its_stage_and_no_other_begins(suite: Suite) -> None:
    broken = suite.directory / "broken"
    shutil.copytree(EXAMPLE, broken)
    (broken / "tests" / "test_summary.py").write_text(
        "import unittest\n\nclass T(unittest.TestCase):\n    def test_it(self):\n        self.fail('as was wanted')\n"
    )
    done = await suite.cli("run", "broken/pipeline.yaml", "--label", "test=broken")
    assert done.code == 1
    assert "as was wanted" in done.err
    got = json.loads((await suite.cli("get", "@latest", "-o", "json")).out)
    states = {task["node"]: task["state"] for task in got["tasks"] if "mapIndex" not in task}
    assert states["compile"] == "TASK_STATE_COMPLETED"
    assert states["unit"] == "TASK_STATE_FAILED"
    assert {states[name] for name in ("build", "changelog", "smoke")} == {"TASK_STATE_CANCELLED"}


async def test_a_source_that_is_not_there_is_named(suite: Suite) -> None:
    text = (EXAMPLE / "pipeline.yaml").read_text().replace("{path: .}", "{path: nowhere}")
    (suite.directory / "lost.yaml").write_text(text)
    done = await suite.cli("run", "lost.yaml")
    assert (done.code, done.out) == (3, "")
    assert "nowhere does not exist" in done.err
