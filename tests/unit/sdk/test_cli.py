"""The command line against fake services: what is on stdout, what on stderr, and the exit code."""

import json
import signal

from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.common.v1.payload_pb2 import ArtifactReference, Payload
from nodeflow.scheduler.v1.execution_pb2 import Task, TaskCounts
from nodeflow.scheduler.v1.workflow_pb2 import DocumentFault
from nodeflow.worker_manager.v1.worker_manager_service_pb2 import Worker, WorkerState
from ruamel.yaml import YAML
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import (
    EXECUTION_ID,
    EventScript,
    FakeServices,
    execution,
    failed_execution,
    failed_task,
    happy_events,
)

from nodeflow_shared.errors import FieldViolation, InvalidInput, Overloaded

OTHER_ID = "0199b000-0000-7000-8000-000000000002"


async def test_run_prints_the_outputs_and_nothing_else_on_stdout(cli: Cli, fakes: FakeServices) -> None:
    done = await cli("run", "workflow.yaml", "--label", "team=a", "--request-id", "r1")
    assert (done.code, json.loads(done.out)) == (0, {"total": 28})
    [request] = fakes.scheduler.submitted
    assert request.workflow.document.source.startswith(b"apiVersion")
    assert request.workflow.document.directory == str(cli.directory)
    assert (dict(request.labels), request.request_id) == ({"team": "a"}, "r1")
    assert f"{EXECUTION_ID} COMPLETED after 3.0s" in done.err


async def test_run_reads_inputs_as_the_schema_wants_them(cli: Cli, fakes: FakeServices) -> None:
    (cli.directory / "in.json").write_text('{"paths": ["x"], "title": "from file"}')
    done = await cli("run", "workflow.yaml", "--input-file", "in.json", "--input", "title=123")
    assert done.code == 0, done.err
    assert json.loads(fakes.scheduler.submitted[0].inputs.data) == {"paths": ["x"], "title": "123"}


async def test_run_watched_without_a_terminal_prints_plain_lines_to_stderr(cli: Cli, fakes: FakeServices) -> None:
    done = await cli("run", "workflow.yaml", "--watch")
    lines = [line.partition(" ")[2] for line in done.err.splitlines() if line[:2].isdigit()]
    assert lines[1:9] == [
        "count QUEUED attempt 1",
        "count has 2 items",
        "count[0] RUNNING attempt 1 worker-0",
        "count[0] COMPLETED attempt 1",
        "count[1] RUNNING attempt 1 worker-0",
        "count[1] COMPLETED attempt 1",
        "count COMPLETED",
        "total RUNNING attempt 1 worker-0",
    ]
    assert json.loads(done.out) == {"total": 28}


async def test_run_downloads_outputs_that_are_an_artifact(cli: Cli, fakes: FakeServices) -> None:
    value = {"words": ["word"] * 20}
    fakes.scheduler.artifacts["sha256:1"] = json.dumps(value).encode()
    reference = Payload(artifact=ArtifactReference(digest="sha256:1", size_bytes=200))
    fakes.scheduler.executions = [execution(outputs=reference)]
    done = await cli("run", "workflow.yaml")
    assert (done.code, json.loads(done.out)) == (0, value)


async def test_a_failed_execution_names_node_attempts_reason_and_the_users_traceback(
    cli: Cli, fakes: FakeServices
) -> None:
    fakes.scheduler.executions = [failed_execution()]
    fakes.scheduler.tasks = [failed_task()]
    done = await cli("run", "workflow.yaml")
    assert (done.code, done.out) == (1, "")
    assert "NODE_FAILED: node count failed" in done.err
    told = "count[1] failed after 3 attempts on worker-0: FileNotFoundError: no such file: b.txt (FUNCTION_RAISED)"
    assert told in done.err
    assert 'File "word_count.py", line 10, in count' in done.err


async def test_failures_that_a_workflow_allows_are_told_beside_its_outputs(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.executions = [execution(task_counts=TaskCounts(total=2, completed=1, failed=1))]
    fakes.scheduler.tasks = [failed_task()]
    done = await cli("run", "workflow.yaml")
    assert done.code == 0
    assert json.loads(done.out)
    assert "in spite of these failures, as its `on_failure: continue` says" in done.err
    assert "count[1] failed after 3 attempts" in done.err


async def test_an_invalid_document_is_shown_with_path_line_marker_and_hint(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.faults = [
        DocumentFault(path="nodes.count.functon", description="unknown field", hint="function", line=6)
    ]
    for command in ("run", "validate"):
        done = await cli(command, "workflow.yaml")
        assert (done.code, done.out) == (3, "")
        assert done.err.splitlines() == [
            "error: workflow.yaml is not a valid document: 1 fault",
            "  workflow.yaml:6: nodes.count.functon: unknown field",
            "      6 |     functon: word_count:count",
            "        |     ^^^^^^^",
            "    try: function",
        ]
    assert fakes.scheduler.submitted == []


async def test_refused_inputs_are_shown_field_by_field(cli: Cli, fakes: FakeServices) -> None:
    violation = FieldViolation("inputs.paths[0]", "7 is not a string", '"a.txt"')
    fakes.scheduler.submit_error = InvalidInput("the inputs do not fit", violations=[violation])
    done = await cli("run", "workflow.yaml", "--input", "paths=[7]")
    assert (done.code, done.out) == (3, "")
    assert done.err.splitlines() == [
        "error: the inputs do not fit",
        "  inputs.paths[0]: 7 is not a string",
        '    try: "a.txt"',
    ]


async def test_an_overloaded_service_is_exit_3_when_it_does_not_recover(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.faults = []
    fakes.scheduler.submit_error = Overloaded("too many executions", retry_after_s=120)
    done = await cli("run", "workflow.yaml")
    assert (done.code, done.out) == (3, "")
    assert "too many executions" in done.err
    assert "repeat after 120 s" in done.err


async def test_wrong_usage_is_exit_2(cli: Cli, fakes: FakeServices) -> None:
    (cli.directory / "bad.json").write_text('{"a": 1,}')
    for arguments, told in {
        ("run", "none.yaml"): "none.yaml does not exist",
        ("run", "."): "is a directory",
        ("run", "workflow.yaml", "--input", "paths"): "--input 'paths' has no value",
        ("run", "workflow.yaml", "--input", "paths=a.txt"): "paths should be of type array",
        ("run", "workflow.yaml", "--input-file", "bad.json"): "bad.json:1:",
        ("run", "workflow.yaml", "--colour"): "No such option",
        ("ls", "--state", "DONE"): "no state of an execution",
        ("ls", "--address", "nowhere"): "should be host:port",
        ("get", "ffff"): "no execution ffff",
        ("cancel", "ffff"): "no execution ffff",
        ("watch", "ffff"): "no execution ffff",
        ("workers",): "nothing here says where the worker-manager",
    }.items():
        done = await cli(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert told in done.err, (arguments, done.err)
    assert fakes.scheduler.submitted == []


async def test_no_service_is_exit_4_and_says_what_to_do(cli: Cli) -> None:
    for arguments in (["ls"], ["run", "workflow.yaml"], ["validate", "workflow.yaml"], ["workers"]):
        extra = ["--worker-manager", "127.0.0.1:1"] if arguments == ["workers"] else ["--address", "127.0.0.1:1"]
        done = await cli(*arguments, *extra)
        assert (done.code, done.out) == (4, ""), arguments
        assert "127.0.0.1:1 (connection refused)" in done.err
        assert f"nodeflow up`, or name one with {extra[0]} or " in done.err


async def test_ls_pages_filters_and_prints_each_form(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.executions = [execution(), execution(execution_id=OTHER_ID, labels={"team": "a"})]
    done = await cli(
        *("ls", "--state", "completed", "--workflow", "etl", "--label", "team=a", "--filter", 'x = "y"', "-o", "json")
    )
    assert fakes.scheduler.filters[0] == 'state = "COMPLETED" AND workflow = "etl" AND labels.team = "a" AND x = "y"'
    listed = json.loads(done.out)["executions"]
    assert [each["executionId"] for each in listed] == [EXECUTION_ID, OTHER_ID]
    assert listed[0]["state"] == "EXECUTION_STATE_COMPLETED"
    in_yaml = await cli("ls", "-o", "yaml")
    assert YAML(typ="safe", pure=True).load(in_yaml.out) == {"executions": listed}
    names = await cli("-o", "name", "ls", "--limit", "1")
    assert names.out == f"{EXECUTION_ID}\n"
    table = await cli("ls")
    assert table.out.splitlines()[0].split() == ["ID", "WORKFLOW", "STATE", "TASKS", "AGE", "TOOK", "LABELS"]
    assert "team=a" in table.out.splitlines()[2]


async def test_ls_of_nothing_is_an_empty_list(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.executions = []
    done = await cli("ls", "-o", "json")
    assert (done.code, json.loads(done.out)) == (0, {"executions": []})
    assert (await cli("ls")).out == ""


async def test_get_shows_an_execution_with_its_tasks(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.tasks = [failed_task()]
    got = json.loads((await cli("get", "0199a7", "-o", "json")).out)
    assert got["execution"]["executionId"] == EXECUTION_ID
    assert got["tasks"][0]["failure"]["errorType"] == "FileNotFoundError"
    table = (await cli("get", "@latest")).out
    assert "count[1]" in table
    assert "FileNotFoundError: no such file: b.txt" in table


async def test_watch_resumes_where_the_connection_broke(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.break_watch_after = [3, 2, 0]
    done = await cli("watch", "@latest", "-o", "json")
    assert done.code == 0
    assert [int(json.loads(line)["sequence"]) for line in done.out.splitlines()] == list(
        range(1, len(happy_events()) + 1)
    )


async def test_the_exit_code_of_watch_is_the_executions(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.events = EventScript().started().finished("CANCELLED").events
    cancelled = execution(state=ExecutionState.EXECUTION_STATE_CANCELLED, cancel_reason="wrong input")
    fakes.scheduler.executions = [cancelled]
    done = await cli("watch", EXECUTION_ID)
    assert done.code == 1
    assert done.out.splitlines()[-1].endswith("word-count CANCELLED in 250ms")
    assert "reason: wrong input" in done.err


async def test_cancel_passes_the_reason_on(cli: Cli, fakes: FakeServices) -> None:
    done = await cli("cancel", "0199a7", "--reason", "wrong input")
    assert (done.code, done.out) == (0, f"{EXECUTION_ID} CANCELLED\n")
    [request] = fakes.scheduler.cancelled
    assert (request.execution_id, request.reason) == ("0199a7", "wrong input")


async def test_workers_of_the_suite_here(cli: Cli, fakes: FakeServices, suite_here: None) -> None:
    fakes.worker_manager.workers = [Worker(worker_id="gpu-1", state=WorkerState.WORKER_STATE_CONNECTED)]
    done = await cli("workers", "-o", "json")
    assert json.loads(done.out) == {"workers": [{"workerId": "gpu-1", "state": "WORKER_STATE_CONNECTED"}]}
    assert "CONNECTED" in (await cli("workers")).out


async def test_workflows(cli: Cli) -> None:
    assert (await cli("workflows", "-o", "name")).out == "word-count\n"
    assert (await cli("workflows", "word-count", "-o", "name")).out == "sha256:abc\n"


async def test_a_wait_without_workers_is_noticed_and_ctrl_c_leaves_the_execution(
    cli: Cli, fakes: FakeServices, suite_here: None
) -> None:
    fakes.scheduler.events = EventScript().started().task("count", "QUEUED").events
    fakes.scheduler.watch_end.clear()
    process = await cli.start("watch", "@latest")
    assert process.stderr is not None
    assert b"no worker is connected" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130
    assert fakes.scheduler.cancelled == []


async def test_options_for_a_suite_of_ones_own_are_refused_where_one_runs(cli: Cli, fakes: FakeServices) -> None:
    done = await cli("run", "workflow.yaml", "--slots", "9", "--path", ".")
    assert (done.code, done.out) == (2, "")
    assert f"--slots and --path cannot be heeded: the suite at {fakes.address} runs already" in done.err
    assert fakes.scheduler.submitted == []


async def test_the_tasks_and_nodes_of_a_pipeline_have_their_stages(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.tasks = [Task(node="count", task_number=0), Task(node="count", map_index=0, task_number=2)]
    assert "STAGE" not in (await cli("get", "@latest")).out
    assert "STAGE" not in (await cli("validate", "workflow.yaml")).out
    for node, stage in zip(fakes.scheduler.workflow.nodes, ("test", "package"), strict=True):
        node.stage = stage
    table = (await cli("get", "@latest")).out.partition("STAGE")[2].splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["test", "count"], ["test", "count[0]"]]
    nodes = (await cli("validate", "workflow.yaml")).out.splitlines()
    assert [line.split()[:2] for line in nodes] == [["STAGE", "NODE"], ["test", "count"], ["package", "total"]]


async def test_a_path_that_is_no_directory_is_refused_by_whoever_takes_one(cli: Cli) -> None:
    (cli.directory / "file").touch()
    for command in (["run", "workflow.yaml"], ["up"], ["worker"]):
        for path, told in (("nowhere", "does not exist"), ("file", "is a file")):
            done = await cli(*command, "--path", path)
            assert (done.code, done.out) == (2, ""), command
            assert f"'{path}' {told}" in " ".join(done.err.replace("│", " ").split())


async def test_a_python_program_is_not_taken_for_a_document(cli: Cli) -> None:
    (cli.directory / "flow.py").touch()
    done = await cli("run", "flow.py")
    assert (done.code, done.out) == (2, "")
    assert "flow.py is a Python program, not a workflow document; run it as such: python flow.py" in done.err


async def test_an_option_before_a_command_that_would_not_heed_it_is_refused(cli: Cli) -> None:
    for arguments, command in {
        ("-o", "json", "graph", "workflow.yaml"): "graph",
        ("--output", "json", "artifacts", "get", "@latest"): "artifacts get",
        ("--context", "here", "init", "my-flows"): "init",
        ("--address", "127.0.0.1:1", "context", "ls"): "context ls",
    }.items():
        done = await cli(*arguments)
        assert (done.code, done.out) == (2, ""), arguments
        assert f" says nothing to `nodeflow {command}`\ntry: nodeflow {command} --help" in done.err
    assert (await cli("-o", "json", "artifacts", "ls", "@latest")).code == 0
