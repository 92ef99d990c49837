"""Processes on a real suite: the example with a fan-out of shell commands, and what people see of failures."""

import json
from pathlib import Path

from tests.support.suite import Suite

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "shell_fanout" / "workflow.yaml")

LIMITED = """\
apiVersion: nodeflow/v1
kind: Workflow
name: limited
nodes:
  only: {process: {script: "head -c 3000000 /dev/zero > big; sleep 60", limits: {directory: 1M}}}
"""


async def test_the_fan_out_over_files_needs_its_retry(suite: Suite) -> None:
    done = await suite.cli("run", EXAMPLE, "--label", "test=fanout")
    assert done.code == 0, done.err
    outputs = json.loads(done.out)
    worst = "billing.log (5 errors, mostly card_declined)"
    assert outputs["summary"] == {"files": "3", "lines": "17", "errors": "9", "worst": worst}
    assert [each["log"] for each in outputs["files"]] == ["api.log", "billing.log", "search.log"]
    [execution] = json.loads((await suite.cli("ls", "--label", "test=fanout", "-o", "json")).out)["executions"]
    watched = (await suite.cli("watch", execution["executionId"], "-o", "json")).out.splitlines()
    changes = [each["task"] for each in map(json.loads, watched) if "task" in each]
    [failed] = [each for each in changes if "failure" in each]
    assert (failed["mapIndex"], failed["attemptNumber"], failed["failure"]["reason"]) == (1, 1, "PROCESS_EXITED")
    assert "code 75; its last words:\nmirror: billing.log: busy" in failed["failure"]["message"]
    files = {name: each["artifact"] for change in changes for name, each in change.get("artifacts", {}).items()}
    assert sorted(files) == ["out/api.log.errors", "out/billing.log.errors", "out/search.log.errors"]
    stored = suite.data_dir / "artifacts"
    digest = files["out/billing.log.errors"]["digest"].removeprefix("sha256:")
    [file] = [each for each in stored.rglob("*") if digest in each.as_posix().replace("/", "") and each.is_file()]
    assert file.read_text().split() == ["4", "card_declined", "1", "timeout"]


async def test_a_limit_that_is_exceeded_is_named(suite: Suite) -> None:
    (suite.directory / "limited.yaml").write_text(LIMITED)
    done = await suite.cli("run", "limited.yaml")
    assert (done.code, done.out) == (1, "")
    assert "DIRECTORY_LIMIT" in done.err
    assert "1,000,000 bytes" in done.err
