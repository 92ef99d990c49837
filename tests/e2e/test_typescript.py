"""The TypeScript client and worker, built on stubs alone, with a real suite."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState, TaskState
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from nodeflow.worker_manager.v1.worker_manager_service_pb2 import DrainWorkerRequest, WorkerState
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import WorkerManagerServiceStub
from tests.support.suite import Finished, Suite, running
from tests.support.typescript import PACKAGE, Package, build, program

from nodeflow_sdk.client import Client, open_client, open_workers_client
from nodeflow_shared.channel import open_channel

# The fixture installs and builds once, which npm may take its time for.
pytestmark = pytest.mark.timeout(400)

ROOT = Path(__file__).parents[2]
WORD_COUNT = ROOT / "examples" / "word_count" / "workflow.yaml"
PAGE = ROOT / "docs" / "any-language.md"
WORKER = "node-1"
TASK_RUNNING = "only TASK_STATE_RUNNING"
COMPLETED = ExecutionState.EXECUTION_STATE_COMPLETED

HELD_FUNCTION = """\
import time
from pathlib import Path

def held(directory):
    print("held")
    while not Path(directory, "released").exists():
        time.sleep(0.01)
    print("released")
    return "done"
"""

HELD = """\
apiVersion: nodeflow/v1
kind: Workflow
name: held
inputs: {directory: {type: string}}
nodes:
  only: {function: "held_function:held", with: {directory: "${inputs.directory}"}}
outputs: {result: "${nodes.only.output}"}
"""

TEXT = """\
apiVersion: nodeflow/v1
kind: Workflow
name: text
inputs: {text: {type: string}}
nodes:
  words: {function: "text:split", with: {text: "${inputs.text}"}}
  reverse: {map: "${nodes.words.output}", function: "text:reverse", with: {word: "${item}"}}
  sentence: {function: "text:join", with: {words: "${nodes.reverse.output}"}}
  large: {function: "text:large", with: {length: 3000000}}
  size: {function: "text:size", with: {text: "${nodes.large.output}"}}
outputs: {text: "${nodes.sentence.output}", size: "${nodes.size.output}"}
"""

ONE = """\
apiVersion: nodeflow/v1
kind: Workflow
name: one
nodes:
  only: {function: "text:%s", with: {%s}%s}
"""

# A watch in which nothing happens for two minutes, as far as its process knows.
QUIET_WATCH = """\
import { Client } from 'nodeflow-client';
const [address, executionId] = process.argv.slice(2);
const quiet = () => {
  for (const clock of [Date, performance]) {
    const now = clock.now.bind(clock);
    clock.now = () => now() + 120_000;
  }
  console.log('quiet');
};
const client = new Client(address);
for await (const { events } of client.watch(executionId)) {
  for (const event of events) console.log(event.sequence, event.type, event.task?.state);
  if (events.some((event) => event.task?.state === 'TASK_STATE_RUNNING')) setImmediate(quiet);
}
client.close();
"""

LATE_WORKER = """\
import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'nodeflow-client';
const [address, released] = process.argv.slice(2);
const late = async () => {
  while (!existsSync(released)) await delay(5);
  return 'x'.repeat(200_000);
};
const worker = new Worker({ address, workerId: 'node-1', functions: { 'text:late': late } });
process.on('SIGTERM', () => worker.drain());
await worker.run();
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return build(tmp_path_factory.mktemp("typescript"))


@pytest.fixture(scope="module")
def bare_suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suite]:
    """A suite without a worker of its own."""
    with running(tmp_path_factory.mktemp("bare"), "--slots", "0") as started:
        yield started


@pytest.fixture
async def worker(package: Package, bare_suite: Suite) -> AsyncIterator[asyncio.subprocess.Process]:
    """The worker in TypeScript, connected; it is the only one, and has left when the next test begins."""
    command = package.command("worker", bare_suite.address("worker-manager"), WORKER)
    async with program(command, bare_suite.directory) as process:
        await connected(bare_suite, process)
        yield process
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(30):
                await process.communicate()


async def connected(suite: Suite, process: asyncio.subprocess.Process) -> None:
    async with open_workers_client(suite.address("worker-manager")) as client, asyncio.timeout(20):
        while not await client.workers(WorkerState.WORKER_STATE_CONNECTED):  # there is no watch
            assert process.returncode is None
            await asyncio.sleep(0.02)


async def submitted(package: Package, suite: Suite, file: str | Path, inputs: object = None) -> Finished:
    arguments = (suite.address(), str(file), json.dumps(inputs or {}))
    async with program(package.command("submit", *arguments), suite.directory) as process, asyncio.timeout(60):
        out, err = await process.communicate()
        return Finished(code=process.returncode or 0, out=out.decode(), err=err.decode())


def lines_of_only(err: str) -> list[str]:
    return re.findall(r"^only #1 \| (.*)$", err, re.MULTILINE)


def sequences(err: str) -> list[int]:
    return [int(each) for each in re.findall(r"^(\d+) EVENT_TYPE_", err, re.MULTILINE)]


# ------------------------------------------------------------------------ client


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (PACKAGE / "package-lock.json").read_text()


async def test_a_workflow_is_submitted_watched_and_read(package: Package, suite: Suite) -> None:
    done = await submitted(package, suite, WORD_COUNT)
    assert (done.code, json.loads(done.out or "null")) == (0, {"total": 28}), done.err
    seen = sequences(done.err)
    assert seen == list(range(1, len(seen) + 1))
    assert "EVENT_TYPE_EXECUTION_COMPLETED EXECUTION_STATE_COMPLETED" in done.err.splitlines()[-1]


async def test_the_program_in_the_page_of_the_package_runs(package: Package, suite: Suite) -> None:
    text = (PACKAGE / "README.md").read_text()
    [code] = [each for each in re.findall(r"^```ts\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "Client(" in each]
    file = package.directory / "readme.mjs"
    file.write_text(code.replace("127.0.0.1:7420", suite.address()))
    async with program(["node", str(file)], WORD_COUNT.parent) as process, asyncio.timeout(60):
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.decode().splitlines()[-1].startswith("EXECUTION_STATE_COMPLETED { total: "), out


async def test_a_refusal_says_what_is_wrong(package: Package, suite: Suite) -> None:
    done = await submitted(package, suite, WORD_COUNT, {"paths": 3})
    assert (done.code, done.out) == (1, "")
    assert "INVALID_ARGUMENT: inputs.paths" in done.err


async def test_events_and_lines_go_on_where_they_were_when_the_scheduler_is_killed(
    package: Package, own_suite: Suite, tmp_path: Path
) -> None:
    (tmp_path / "held_function.py").write_text(HELD_FUNCTION)
    (tmp_path / "held.yaml").write_text(HELD)
    command = package.command("submit", own_suite.address(), "held.yaml", json.dumps({"directory": str(tmp_path)}))
    async with program(command, tmp_path) as process, asyncio.timeout(60):
        assert process.stdout is not None
        assert process.stderr is not None
        seen = ""
        while TASK_RUNNING not in seen or not lines_of_only(seen):
            line = await process.stderr.readline()
            assert line, seen
            seen += line.decode()
        killed = own_suite.kill("scheduler")
        while own_suite.pid("scheduler") == killed:  # noqa: ASYNC110  # the supervisor tells by a file
            await asyncio.sleep(0.02)
        (tmp_path / "released").touch()
        out, err = await process.communicate()
    seen += err.decode()
    assert (process.returncode, json.loads(out or "null")) == (0, {"result": "done"}), seen
    assert sequences(seen) == list(range(1, len(sequences(seen)) + 1)), seen
    assert lines_of_only(seen) == ["held", "released"], seen


async def test_a_watch_in_which_nothing_happened_for_long_goes_on_when_the_scheduler_is_killed(
    package: Package, own_suite: Suite, tmp_path: Path
) -> None:
    (tmp_path / "held_function.py").write_text(HELD_FUNCTION)
    file = package.directory / "quiet-watch.mjs"
    file.write_text(QUIET_WATCH)
    async with open_client(own_suite.address()) as client, asyncio.timeout(60):
        document = WorkflowDocument(source=HELD.encode(), directory=str(tmp_path))
        execution_id = (await client.submit(document, {"directory": str(tmp_path)})).execution_id
    command = ["node", str(file), own_suite.address(), execution_id]
    async with program(command, tmp_path) as process, asyncio.timeout(60):
        assert process.stdout is not None
        seen = ""
        while not seen.endswith("quiet\n"):
            line = await process.stdout.readline()
            assert line, seen
            seen += line.decode()
        killed = own_suite.kill("scheduler")
        while own_suite.pid("scheduler") == killed:  # noqa: ASYNC110  # the supervisor tells by a file
            await asyncio.sleep(0.02)
        (tmp_path / "released").touch()
        out, err = await process.communicate()
    seen += out.decode()
    assert (process.returncode, err) == (0, b""), seen
    assert sequences(seen) == list(range(1, len(sequences(seen)) + 1)), seen


# ------------------------------------------------------------------------ worker


async def started(client: Client, suite: Suite, function: str, arguments: str, more: str = "") -> str:
    """Start a workflow of one task, and return its execution once the task runs."""
    document = WorkflowDocument(source=(ONE % (function, arguments, more)).encode())
    execution_id = (await client.submit(document)).execution_id
    async for response in client.watch(execution_id):
        if any(event.task.state == TaskState.TASK_STATE_RUNNING for event in response.events):
            break
    return execution_id


async def ended(client: Client, execution_id: str) -> ExecutionState.ValueType:
    async with asyncio.timeout(60):
        async for _ in client.watch(execution_id):
            pass
    return (await client.get(execution_id)).state


async def test_a_worker_in_typescript_executes_maps_and_large_values(
    package: Package, bare_suite: Suite, worker: asyncio.subprocess.Process
) -> None:
    (bare_suite.directory / "text.yaml").write_text(TEXT)
    done = await submitted(package, bare_suite, "text.yaml", {"text": "one two three four five six"})
    expected = {"text": "eno owt eerht ruof evif xis", "size": 3_000_000}
    assert (done.code, json.loads(done.out or "null")) == (0, expected), done.err
    async with open_client(bare_suite.address()) as client:
        tasks = [each async for each in client.tasks("@latest", node="reverse")]
    assert {each.worker_id for each in tasks if each.HasField("map_index")} == {WORKER}


async def test_what_a_function_throws_is_the_tasks_failure(
    bare_suite: Suite, worker: asyncio.subprocess.Process
) -> None:
    async with open_client(bare_suite.address()) as client:
        raised = await client.submit(WorkflowDocument(source=(ONE % ("refuse", "word: x", "")).encode()))
        missing = await client.submit(WorkflowDocument(source=(ONE % ("nothing", "", ", retry: 3")).encode()))
        assert await ended(client, raised.execution_id) == ExecutionState.EXECUTION_STATE_FAILED
        failure = (await client.task(raised.execution_id, 0)).failure
        assert (failure.reason, failure.error_type, failure.message) == ("FUNCTION_RAISED", "RangeError", "not x")
        assert await ended(client, missing.execution_id) == ExecutionState.EXECUTION_STATE_FAILED
        task = await client.task(missing.execution_id, 0)
        # It is not tried again: a retry cannot help.
        assert (task.failure.reason, task.attempt_number) == ("FUNCTION_NOT_FOUND", 1)


async def test_attempts_stop_when_cancelled_and_when_out_of_time(
    bare_suite: Suite, worker: asyncio.subprocess.Process
) -> None:
    async with open_client(bare_suite.address()) as client:
        execution_id = await started(client, bare_suite, "nap", "seconds: 600")
        await client.cancel(execution_id, "enough")
        assert await ended(client, execution_id) == ExecutionState.EXECUTION_STATE_CANCELLED
        execution_id = await started(client, bare_suite, "nap", "seconds: 600", ", timeout: 1s")
        assert await ended(client, execution_id) == ExecutionState.EXECUTION_STATE_FAILED
        assert (await client.task(execution_id, 0)).failure.reason == "ATTEMPT_TIMEOUT"


async def test_a_timeout_of_weeks_is_one(bare_suite: Suite, worker: asyncio.subprocess.Process) -> None:
    async with open_client(bare_suite.address()) as client:
        execution_id = await started(client, bare_suite, "nap", "seconds: 0.1", ", timeout: 30d")
        assert await ended(client, execution_id) == COMPLETED


async def test_a_large_result_waits_for_a_worker_manager_that_is_away(
    package: Package, bare_suite: Suite, tmp_path: Path
) -> None:
    file, released = package.directory / "late-worker.mjs", tmp_path / "released"
    file.write_text(LATE_WORKER)
    command = ["node", str(file), bare_suite.address("worker-manager"), str(released)]
    async with program(command, tmp_path) as process, open_client(bare_suite.address()) as client:
        await connected(bare_suite, process)
        execution_id = await started(client, bare_suite, "late", "")
        bare_suite.kill("worker-manager")
        released.touch()
        assert await ended(client, execution_id) == COMPLETED
        assert (await client.task(execution_id, 0)).attempt_number == 1
        process.terminate()
        async with asyncio.timeout(30):
            assert await process.communicate() == (b"", b"")


async def test_an_attempt_survives_the_death_of_the_worker_manager(
    bare_suite: Suite, worker: asyncio.subprocess.Process
) -> None:
    async with open_client(bare_suite.address()) as client:
        execution_id = await started(client, bare_suite, "nap", "seconds: 4")
        bare_suite.kill("worker-manager")
        assert await ended(client, execution_id) == COMPLETED
        task = await client.task(execution_id, 0)
    assert (task.attempt_number, task.output.data) == (1, b'"awake"')


async def test_a_worker_that_slept_through_its_lease_begins_anew(
    bare_suite: Suite, worker: asyncio.subprocess.Process
) -> None:
    async with open_client(bare_suite.address()) as client, asyncio.timeout(60):
        execution_id = await started(client, bare_suite, "nap", "seconds: 1")
        worker.send_signal(signal.SIGSTOP)
        async for response in client.watch(execution_id):
            if any(event.task.attempt_number == 2 for event in response.events):
                break
        worker.send_signal(signal.SIGCONT)
        assert await ended(client, execution_id) == COMPLETED
        # What the first attempt gave came too late: only the second one counts.
        assert (await client.task(execution_id, 0)).attempt_number == 2


async def test_a_worker_that_is_told_to_stop_finishes_what_it_holds(
    bare_suite: Suite, worker: asyncio.subprocess.Process
) -> None:
    async with open_client(bare_suite.address()) as client:
        execution_id = await started(client, bare_suite, "nap", "seconds: 2")
        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            _, err = await worker.communicate()
        assert (worker.returncode, err) == (0, b"")
        assert await ended(client, execution_id) == COMPLETED
        assert (await client.task(execution_id, 0)).attempt_number == 1
    async with open_workers_client(bare_suite.address("worker-manager")) as client:
        [left] = await client.workers()
        assert left.state == WorkerState.WORKER_STATE_OFFLINE


async def test_the_minimal_worker_of_the_page_executes_and_leaves_when_drained(
    package: Package, bare_suite: Suite
) -> None:
    [code] = re.findall(r"^```js\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    file = package.directory / "minimal-worker.mjs"
    file.write_text(code)
    manager = bare_suite.address("worker-manager")
    async with program(["node", str(file), manager, str(ROOT / "protos")], bare_suite.directory) as process:
        await connected(bare_suite, process)
        async with open_client(bare_suite.address()) as client:
            document = WorkflowDocument(source=(ONE % ("reverse", "word: abc", "")).encode())
            execution_id = (await client.submit(document)).execution_id
            assert await ended(client, execution_id) == COMPLETED
            assert (await client.task(execution_id, 0)).output.data == b'"cba"'
        async with open_channel(manager) as channel:
            await WorkerManagerServiceStub(channel).DrainWorker(DrainWorkerRequest(worker_id="minimal"), timeout=10)
        async with asyncio.timeout(20):
            _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
