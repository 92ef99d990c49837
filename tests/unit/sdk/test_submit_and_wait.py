"""`nodeflow submit` and `nodeflow wait`: what is sent, what is printed, and the exit code."""

import json

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import EXECUTION_ID, EventScript, FakeServices, execution, failed_execution

from nodeflow_shared.errors import FieldViolation, InvalidInput


async def test_submit_prints_the_id_and_does_not_wait(cli: Cli, fakes: FakeServices) -> None:
    done = await cli("submit", "workflow.yaml", "--request-id", "r1", "--label", "team=a", "--input", "title=7")
    assert (done.code, done.out) == (0, "r1\n"), done.err
    [request] = fakes.scheduler.submitted_many
    assert request.workflow.document.source.startswith(b"apiVersion")
    [submission] = request.submissions
    assert (dict(submission.labels), json.loads(submission.inputs.data)) == ({"team": "a"}, {"title": "7"})


async def test_submit_takes_a_registered_workflow_by_name_or_revision(cli: Cli, fakes: FakeServices) -> None:
    for target in ("word-count", "sha256:abc"):
        assert (await cli("submit", target)).code == 0
    by_name, by_revision = fakes.scheduler.submitted_many
    assert (by_name.workflow.name, by_revision.workflow.revision) == ("word-count", "sha256:abc")


async def test_submit_of_lines_starts_one_for_each_in_batches(cli: Cli, fakes: FakeServices) -> None:
    lines = [json.dumps({"paths": [str(number)]}) for number in range(1_500)]
    (cli.directory / "many.jsonl").write_text("\n".join([lines[0], "", *lines[1:]]) + "\n")
    done = await cli(
        *("submit", "workflow.yaml", "--input-file", "many.jsonl", "--input", "title=t", "--request-id", "day1")
    )
    assert done.out.splitlines() == [f"day1:{number}" for number in range(1, 1_501)]
    sent = fakes.scheduler.submitted_many
    assert [len(each.submissions) for each in sent] == [1_000, 500]
    assert json.loads(sent[1].submissions[0].inputs.data) == {"paths": ["1000"], "title": "t"}
    listed = json.loads(
        (await cli("submit", "workflow.yaml", "--input-file", "many.jsonl", "--request-id", "r", "-o", "json")).out
    )
    assert listed["executions"][1] == {"executionId": "r:2"}


async def test_a_bad_line_is_named_and_nothing_is_sent(cli: Cli, fakes: FakeServices) -> None:
    for text, told in {
        '{"paths": []}\n{"paths": [}\n': "bad.jsonl:2: not JSON",
        "{}\n[1]\n": "bad.jsonl:2: JSON of type array",
        "\n": "bad.jsonl has no lines",
    }.items():
        (cli.directory / "bad.jsonl").write_text(text)
        done = await cli("submit", "workflow.yaml", "--input-file", "bad.jsonl")
        assert (done.code, done.out) == (2, "")
        assert told in done.err
        assert "try: an object in each line" in done.err
    assert fakes.scheduler.submitted_many == []


async def test_a_refused_submission_is_exit_3_and_a_missing_file_2(cli: Cli, fakes: FakeServices) -> None:
    violation = FieldViolation("submissions[0].inputs.paths", "7 is not an array", '["a.txt"]')
    fakes.scheduler.submit_error = InvalidInput("the inputs do not fit", violations=[violation])
    done = await cli("submit", "workflow.yaml")
    assert (done.code, done.out) == (3, "")
    assert "submissions[0].inputs.paths: 7 is not an array" in done.err
    assert (await cli("submit", "none.yaml")).code == 2


async def test_wait_prints_the_outputs_and_its_exit_code_is_the_executions(cli: Cli, fakes: FakeServices) -> None:
    done = await cli("wait", "@latest")
    assert (done.code, json.loads(done.out)) == (0, {"total": 28})
    assert f"{EXECUTION_ID} COMPLETED after 3.0s" in done.err
    assert (await cli("wait", "@latest", "-o", "name")).out == f"{EXECUTION_ID}\n"
    fakes.scheduler.executions = [failed_execution()]
    failed = await cli("wait", "@latest")
    assert (failed.code, failed.out) == (1, "")
    assert "NODE_FAILED: node count failed" in failed.err
    assert (await cli("wait", "ffff")).code == 2


async def test_wait_gives_up_when_it_was_told_to_and_says_how_to_go_on(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.executions = [execution(state=ExecutionState.EXECUTION_STATE_RUNNING)]
    fakes.scheduler.events = EventScript().started().events
    fakes.scheduler.watch_end.clear()
    done = await cli("wait", "@latest", "--timeout", "0.2")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == [
        f"error: {EXECUTION_ID} is still RUNNING after 0.2 s",
        f"try: nodeflow why {EXECUTION_ID}, which tells what it waits for; or wait again",
    ]
