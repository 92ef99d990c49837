"""`nodeflow artifacts`: what is listed, and bytes that come as they are or not at all."""

import hashlib
import json

from nodeflow.common.v1.lifecycle_pb2 import TaskState
from nodeflow.common.v1.payload_pb2 import ArtifactReference, Payload
from nodeflow.scheduler.v1.execution_pb2 import Task
from nodeflow.scheduler.v1.explanation_pb2 import TaskExplanation
from tests.unit.sdk.conftest import Cli
from tests.unit.sdk.fake_services import EXECUTION_ID, FakeServices, execution

DATA = b"\x00\xff" * 40
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
STORED = Payload(artifact=ArtifactReference(digest=DIGEST, size_bytes=len(DATA)), content_type="image/png")


def task(number: int, output: Payload, state: TaskState.ValueType = TaskState.TASK_STATE_COMPLETED) -> Task:
    return Task(execution_id=EXECUTION_ID, task_number=number, node=f"n{number}", state=state, output=output)


async def test_ls_lists_results_and_outputs_that_are_stored(cli: Cli, fakes: FakeServices) -> None:
    outputs = {"picture": {"artifact": {"digest": DIGEST, "size_bytes": 80}, "content_type": "image/png"}, "count": 1}
    fakes.scheduler.executions = [execution(outputs=Payload(data=json.dumps(outputs).encode()))]
    left = task(1, Payload(data=b"1"))
    left.artifacts["plots/a.png"].CopyFrom(STORED)
    fakes.scheduler.tasks = [task(0, STORED), left]
    listed = json.loads((await cli("artifacts", "ls", "@latest", "-o", "json")).out)["artifacts"]
    about = {"digest": DIGEST, "size_bytes": 80, "content_type": "image/png"}
    places = ["n0", "n1:plots/a.png", "outputs.picture"]
    assert listed == [{"where": where, **about} for where in places]
    table = (await cli("artifacts", "ls", "@latest")).out.splitlines()
    assert table[1].split() == ["n0", "80", "B", "image/png", DIGEST]
    assert (await cli("artifacts", "ls", "@latest", "-o", "name")).out == f"{DIGEST}\n" * 3


async def test_ls_of_none_says_where_results_are(cli: Cli, fakes: FakeServices) -> None:
    done = await cli("artifacts", "ls", "@latest", "-o", "json")
    assert (done.code, json.loads(done.out)) == (0, {"artifacts": []})
    assert "kept inline" in done.err


async def test_get_writes_bytes_as_they_are(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.artifacts[DIGEST] = DATA
    fakes.scheduler.tasks = [task(0, STORED)]
    fakes.scheduler.explanations = [TaskExplanation(task=fakes.scheduler.tasks[0])]
    process = await cli.start("artifacts", "get", DIGEST)
    assert (await process.communicate())[0] == DATA
    done = await cli("artifacts", "get", "@latest/n0", "-O", "picture.png")
    assert (done.code, done.out) == (0, ""), done.err
    assert (cli.directory / "picture.png").read_bytes() == DATA
    assert (await cli("artifacts", "get", "@latest")).out == '{"total":28}'


async def test_get_of_a_file_that_a_process_left(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.artifacts[DIGEST] = DATA
    left = task(0, Payload(data=b"1"))
    left.artifacts["plots/a.png"].CopyFrom(STORED)
    fakes.scheduler.tasks, fakes.scheduler.explanations = [left], [TaskExplanation(task=left)]
    done = await cli("artifacts", "get", "@latest/n0:plots/a.png", "-O", "a.png")
    assert done.code == 0, done.err
    assert (cli.directory / "a.png").read_bytes() == DATA


async def test_bytes_that_are_not_those_of_the_digest_leave_the_file_as_it_was(cli: Cli, fakes: FakeServices) -> None:
    fakes.scheduler.artifacts[DIGEST] = DATA[:-1]
    (cli.directory / "picture.png").write_text("before")
    done = await cli("artifacts", "get", DIGEST, "-O", "picture.png")
    assert done.code == 70
    assert "another digest" in done.err
    assert [each.name for each in cli.directory.iterdir() if "png" in each.name] == ["picture.png"]
    assert (cli.directory / "picture.png").read_text() == "before"


async def test_what_has_no_result_or_no_place_says_what_to_do(cli: Cli, fakes: FakeServices) -> None:
    running = task(0, Payload(), TaskState.TASK_STATE_RUNNING)
    fakes.scheduler.tasks = [running]
    fakes.scheduler.explanations = [TaskExplanation(task=running), TaskExplanation(task=running)]
    waiting = await cli("artifacts", "get", "@latest/n0")
    assert (waiting.code, "try: nodeflow why @latest/n0" in waiting.err) == (1, True)
    missing = await cli("artifacts", "get", "@latest/n0:report.html")
    assert (missing.code, "left no artifact 'report.html'" in missing.err) == (2, True)
    nowhere = await cli("artifacts", "get", "@latest", "-O", "none/here.json")
    assert (nowhere.code, "none/here.json cannot be written: No such file" in nowhere.err) == (2, True)
