"""Bad requests to the API of a real suite: code, reason, where, what, what would be right; nothing is left behind."""

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from nodeflow.common.v1.lifecycle_pb2 import ExecutionState
from nodeflow.common.v1.payload_pb2 import ArtifactReference, Payload
from nodeflow.scheduler.v1 import execution_pb2
from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb
from nodeflow.scheduler.v1.scheduler_service_pb2_grpc import SchedulerServiceStub
from nodeflow.scheduler.v1.workflow_pb2 import WorkflowDocument
from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as workers_pb
from nodeflow.worker_manager.v1.worker_manager_service_pb2_grpc import WorkerManagerServiceStub
from tests.support.bad_input import HEAD, LARGE_RESULT, WITH_INPUTS, large_document, nodes, one_node, write_functions
from tests.support.suite import Suite

from nodeflow_shared.channel import MAX_MESSAGE_BYTES, open_channel
from nodeflow_shared.errors import FieldViolation, NodeflowError
from nodeflow_shared.status import from_rpc_error

NOBODY = "00000000-0000-7000-8000-000000000000"
DIGEST_OF_NOTHING = f"sha256:{'0' * 64}"
GOOD_INPUTS = b'{"count": 1}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the caller of a refused call learns."""

    code: grpc.StatusCode
    error: NodeflowError

    @property
    def violation(self) -> FieldViolation:
        [only] = self.error.violations
        return only


class Api:
    """The suite's API as any client sees it: generated stubs, plain messages."""

    def __init__(self, suite: Suite, channel: grpc.aio.Channel, workers: grpc.aio.Channel) -> None:
        self.directory = str(suite.directory)
        self.scheduler = SchedulerServiceStub(channel)
        self.workers = WorkerManagerServiceStub(workers)

    def document(self, text: str | bytes, content_type: str = "") -> WorkflowDocument:
        source = text.encode() if isinstance(text, str) else text
        return WorkflowDocument(source=source, content_type=content_type, directory=self.directory)

    def reference(self, text: str | bytes) -> pb.WorkflowReference:
        return pb.WorkflowReference(document=self.document(text))

    async def refusal(self, name: str, request: Message) -> Told:
        """Make a call that must be refused."""
        stub = self.scheduler if hasattr(self.scheduler, name) else self.workers
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await answer(getattr(stub, name), request)
        return Told(code=raised.value.code(), error=from_rpc_error(raised.value))

    async def executions(self) -> list[str]:
        response = await self.scheduler.ListExecutions(pb.ListExecutionsRequest(page_size=1000))
        return [each.execution_id for each in response.executions]

    async def start(self, text: str, inputs: bytes = b"{}", request_id: str = "") -> str:
        request = pb.SubmitExecutionRequest(
            workflow=self.reference(text), inputs=Payload(data=inputs), request_id=request_id
        )
        return (await self.scheduler.SubmitExecution(request)).execution.execution_id

    async def finished(self, execution_id: str) -> execution_pb2.Execution:
        async for _ in self.scheduler.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id)):
            pass
        return (await self.scheduler.GetExecution(pb.GetExecutionRequest(execution_id=execution_id))).execution

    async def cursors(self, execution_id: str) -> list[str]:
        responses = self.scheduler.WatchExecution(pb.WatchExecutionRequest(execution_id=execution_id))
        return [each.cursor async for each in responses]


# Any: a response of whichever call is made.
async def answer(method: Callable[..., Any], request: Message) -> None:
    """Make a call to its end, whichever kind it is."""
    call = method(request, timeout=30)
    if isinstance(call, grpc.aio.UnaryUnaryCall):
        await call
        return
    async for _ in call:
        pass


@asynccontextmanager
async def api_of(suite: Suite) -> AsyncIterator[Api]:
    # The client sends what the server must refuse.
    async with (
        open_channel(suite.address(), max_message_bytes=4 * MAX_MESSAGE_BYTES) as channel,
        open_channel(suite.address("worker-manager")) as workers,
    ):
        yield Api(suite, channel, workers)


@pytest.fixture
async def api(suite: Suite) -> AsyncIterator[Api]:
    write_functions(suite.directory)
    async with api_of(suite) as opened:
        yield opened


@pytest.fixture(autouse=True)
def quiet_logs(suite: Suite) -> Iterator[None]:
    yield
    logs = "\n".join(file.read_text() for file in (suite.data_dir / "logs").glob("*.log"))
    assert "Traceback" not in logs
    assert "rpc_failed" not in logs


# ------------------------------------------------------------------- documents

DOCUMENTS: dict[str, tuple[str | bytes, str, str, str]] = {
    "malformed YAML": ("name: [unclosed\n", "", "not YAML", "close each [ and {"),
    "tabs": ("name:\tx\n\tkind: y\n", "", "not YAML", "spaces, not tabs"),
    "nothing": ("", "", "is empty", "apiVersion: nodeflow/v1"),
    "a list": ("- a\n", "", "must be a mapping, not a list", "apiVersion: nodeflow/v1"),
    "not UTF-8": (b"name: \xff\xfe", "", "not UTF-8 text: byte 6", ""),
    "a key twice": (nodes("\n  a: {function: 'f:g'}\n  a: {function: 'f:g'}"), "nodes.a", "stands twice", "keep one"),
    "an unknown field": (one_node("f:g", ", tiemout: 3s"), "nodes.only.tiemout", "not a known field", "timeout?"),
    "an unknown field on top": (one_node("f:g") + "colour: red\n", "colour", "not a known field", "the fields here"),
    "a cycle": (
        nodes("{a: {function: 'f:g', needs: [b]}, b: {function: 'f:g', needs: [a]}}"),
        "nodes.a",
        "a → b → a",
        "take one of these references",
    ),
    "a cycle of data": (
        nodes("{a: {function: 'f:g', with: {x: '${nodes.b.output}'}}, b: {function: 'f:g', needs: [a]}}"),
        "nodes.a",
        "wait for each other",
        "take one of these references",
    ),
    "a node that needs itself": (one_node("f:g", ", needs: [only]"), "nodes.only.needs[0]", "itself", "take it out"),
    "an unknown node": (one_node("f:g", ", needs: [olny]"), "nodes.only.needs[0]", "no node 'olny'", "only?"),
    "an unknown node in an expression": (
        one_node("f:g", ", with: {x: '${nodes.other.output}'}"),
        "nodes.only.with.x",
        "no node 'other'",
        "name a node of this document",
    ),
    "an unknown input": (
        one_node("f:g", ", with: {x: '${inputs.nope}'}"),
        "nodes.only.with.x",
        "no input 'nope'",
        "declare it",
    ),
    "no CEL": (one_node("f:g", ", when: 1 +"), "nodes.only.when", "not a CEL expression", "such as"),
    "no function": (nodes("{a: {}}"), "nodes.a.function", "missing", "my_module:my_function"),
    "no module:callable": (one_node("nope"), "nodes.only.function", "module:callable", "such as"),
    "no nodes": (HEAD, "nodes", "there are no nodes", "add one"),
    "no duration": (one_node("f:g", ", timeout: soon"), "nodes.only.timeout", "not a duration", "30s"),
    "no type": (
        HEAD + "inputs: {n: {type: intger}}\nnodes: {a: {function: 'f:g'}}\n",
        "inputs.n.type",
        "not a type",
        "integer?",
    ),
    "over 1 MiB": (large_document(), "", "at most 1,048,576", "inputs or files"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
async def test_a_faulty_document_is_refused_with_each_fault_at_its_place(api: Api, case: str) -> None:
    text, path, description, hint = DOCUMENTS[case]
    before = await api.executions()
    registering = await api.refusal("RegisterWorkflow", pb.RegisterWorkflowRequest(document=api.document(text)))
    submitting = await api.refusal("SubmitExecution", pb.SubmitExecutionRequest(workflow=api.reference(text)))
    for told in (registering, submitting):
        assert (told.code, told.error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DOCUMENT")
        assert told.violation.path == path
        assert description in told.violation.description
        assert hint in told.violation.hint
    assert await api.executions() == before


async def test_faults_of_a_document_are_an_answer_to_validate(api: Api) -> None:
    text = one_node("nope", ", needs: [other], tiemout: 3s")
    verdict = await api.scheduler.ValidateWorkflow(pb.ValidateWorkflowRequest(document=api.document(text)))
    assert {fault.path for fault in verdict.faults} == {
        "nodes.only.function",
        "nodes.only.needs[0]",
        "nodes.only.tiemout",
    }
    assert all(fault.line == 5 and fault.description and fault.hint for fault in verdict.faults)


async def test_hundreds_of_faults_fit_into_one_status(api: Api) -> None:
    many = "".join(f"\n  n{each}: {{function: x, needs: [zz{each}]}}" for each in range(300))
    told = await api.refusal("RegisterWorkflow", pb.RegisterWorkflowRequest(document=api.document(nodes(many))))
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "more; correct the ones above" in told.error.violations[-1].description


async def test_an_unknown_content_type_is_refused(api: Api) -> None:
    request = pb.RegisterWorkflowRequest(document=api.document(one_node("f:g"), "text/plain"))
    told = await api.refusal("RegisterWorkflow", request)
    assert "text/plain" in told.violation.description
    assert "application/yaml or application/json" in told.violation.hint


# ---------------------------------------------------------------- submissions

INPUTS = {
    "a missing one": (b"{}", "inputs.count", "is missing", "give an integer"),
    "an unknown one": (b'{"count": 1, "m": 2}', "inputs.m", "is not an input", "its inputs are count, text"),
    "a wrong type": (b'{"count": "x"}', "inputs.count", 'must be an integer, not "x"', ""),
    "a fraction": (b'{"count": 1.5}', "inputs.count", "must be an integer, not 1.5", ""),
    "no JSON": (b"{count", "inputs", "not JSON", ""),
    "no object": (b"[1]", "inputs", "must be a JSON object", ""),
    "NaN": (b'{"count": NaN}', "inputs", "NaN is not a number", ""),
    "not UTF-8": (b'{"text": "\xff"}', "inputs", "not UTF-8 text", ""),
    "thousands of digits": (b'{"count": 1' + b"0" * 5000 + b"}", "inputs", "too many digits", ""),
    "deep nesting": (b'{"count": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "inputs", "nested too deeply", ""),
    "over 1 MiB": (json.dumps({"text": "x" * (1 << 20)}).encode(), "inputs", "at most 1,048,576", "artifacts"),
}


@pytest.mark.parametrize("case", INPUTS)
async def test_faulty_inputs_start_nothing(api: Api, case: str) -> None:
    inputs, path, description, hint = INPUTS[case]
    before = await api.executions()
    request = pb.SubmitExecutionRequest(workflow=api.reference(WITH_INPUTS), inputs=Payload(data=inputs))
    told = await api.refusal("SubmitExecution", request)
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told.error.reason in ("INVALID_INPUTS", "INPUTS_TOO_LARGE")
    assert told.violation.path == path
    assert description in told.violation.description
    assert hint in told.violation.hint
    assert await api.executions() == before


SUBMISSIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a label's key": ({"labels": {"a b": "x"}}, "labels['a b']", "not a label key"),
    "a label's length": ({"labels": {"a": "x" * 300}}, "labels.a", "300 characters"),
    "a control character": ({"labels": {"a": "x\x1b[31m"}}, "labels.a", "control character"),
    "too many labels": ({"labels": {f"a{each}": "x" for each in range(70)}}, "labels", "there are 70"),
    "a long request id": ({"request_id": "x" * 300}, "request_id", "300 characters"),
    "a NUL in a request id": ({"request_id": "a\x00b"}, "request_id", "control character"),
    "inputs of another type": ({"inputs": Payload(data=b"{}", content_type="text/plain")}, "inputs", "not inline JSON"),
    "inputs by reference": (
        {"inputs": Payload(artifact=ArtifactReference(digest=DIGEST_OF_NOTHING))},
        "inputs",
        "not inline JSON",
    ),
}


@pytest.mark.parametrize("case", SUBMISSIONS)
async def test_a_malformed_submission_starts_nothing(api: Api, case: str) -> None:
    fields, path, description = SUBMISSIONS[case]
    before = await api.executions()
    request = pb.SubmitExecutionRequest(
        **{"workflow": api.reference(WITH_INPUTS), "inputs": Payload(data=GOOD_INPUTS), **fields}
    )
    told = await api.refusal("SubmitExecution", request)
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told.violation.path == path
    assert description in told.violation.description
    assert told.violation.hint
    assert await api.executions() == before


async def test_a_message_over_64_mib_is_refused_and_no_repeat_is_suggested(api: Api) -> None:
    request = pb.SubmitExecutionRequest(
        workflow=api.reference(WITH_INPUTS), inputs=Payload(data=b" " * (MAX_MESSAGE_BYTES + 1))
    )
    told = await api.refusal("SubmitExecution", request)
    assert told.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (told.error.reason, told.error.retry_after_s) == ("MESSAGE_TOO_LARGE", None)
    assert "at most 67,108,864" in told.error.message


async def test_a_request_id_with_another_body_is_refused_while_it_runs_and_after(api: Api) -> None:
    first = await api.start(WITH_INPUTS, GOOD_INPUTS, "twice")
    other = pb.SubmitExecutionRequest(
        workflow=api.reference(WITH_INPUTS), inputs=Payload(data=b'{"count": 2}'), request_id="twice"
    )
    for _ in range(2):
        told = await api.refusal("SubmitExecution", other)
        assert (told.code, told.error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert told.error.metadata == {"execution_id": first}
        await api.finished(first)
    assert await api.start(WITH_INPUTS, GOOD_INPUTS, "twice") == first


async def test_one_faulty_submission_of_many_starts_none(api: Api) -> None:
    used = await api.start(WITH_INPUTS, GOOD_INPUTS, "used")
    good, before = pb.Submission(inputs=Payload(data=GOOD_INPUTS)), await api.executions()
    cases = {
        "inputs.count": [good, pb.Submission()],
        "submissions": [
            pb.Submission(inputs=Payload(data=b'{"count": 1}'), request_id="same"),
            pb.Submission(inputs=Payload(data=b'{"count": 2}'), request_id="same"),
        ],
    }
    for path, submissions in cases.items():
        request = pb.SubmitExecutionsRequest(workflow=api.reference(WITH_INPUTS), submissions=submissions)
        told = await api.refusal("SubmitExecutions", request)
        assert (told.code, told.violation.path) == (grpc.StatusCode.INVALID_ARGUMENT, path)
    reused = pb.Submission(inputs=Payload(data=b'{"count": 2}'), request_id="used")
    request = pb.SubmitExecutionsRequest(workflow=api.reference(WITH_INPUTS), submissions=[good, reused])
    told = await api.refusal("SubmitExecutions", request)
    assert (told.code, told.error.metadata) == (grpc.StatusCode.ALREADY_EXISTS, {"execution_id": used})
    assert await api.executions() == before


# -------------------------------------------------------------------- requests

NOT_FOUND: dict[str, tuple[str, Message, str, str]] = {
    "an execution": ("GetExecution", pb.GetExecutionRequest(execution_id=NOBODY), "EXECUTION_NOT_FOUND", NOBODY),
    "a prefix": ("GetExecution", pb.GetExecutionRequest(execution_id="zzz"), "EXECUTION_NOT_FOUND", "'zzz'"),
    "a wildcard": ("GetExecution", pb.GetExecutionRequest(execution_id="%"), "EXECUTION_NOT_FOUND", "'%'"),
    "a long id": ("GetExecution", pb.GetExecutionRequest(execution_id="0" * 9999), "EXECUTION_NOT_FOUND", "0…"),
    "tasks": ("ListTasks", pb.ListTasksRequest(execution_id=NOBODY), "EXECUTION_NOT_FOUND", NOBODY),
    "a task": ("GetTask", pb.GetTaskRequest(execution_id=NOBODY), "EXECUTION_NOT_FOUND", NOBODY),
    "a watch": ("WatchExecution", pb.WatchExecutionRequest(execution_id=NOBODY), "EXECUTION_NOT_FOUND", NOBODY),
    "a cancel": ("CancelExecution", pb.CancelExecutionRequest(execution_id=NOBODY), "EXECUTION_NOT_FOUND", NOBODY),
    "a workflow": ("GetWorkflow", pb.GetWorkflowRequest(name="nope"), "WORKFLOW_NOT_FOUND", "nope"),
    "a name to run": (
        "SubmitExecution",
        pb.SubmitExecutionRequest(workflow=pb.WorkflowReference(name="nope")),
        "WORKFLOW_NOT_FOUND",
        "nope",
    ),
    "a revision to run": (
        "SubmitExecution",
        pb.SubmitExecutionRequest(workflow=pb.WorkflowReference(revision=DIGEST_OF_NOTHING)),
        "WORKFLOW_NOT_FOUND",
        DIGEST_OF_NOTHING,
    ),
    "an artifact": (
        "DownloadArtifact",
        pb.DownloadArtifactRequest(digest=DIGEST_OF_NOTHING),
        "ARTIFACT_NOT_FOUND",
        DIGEST_OF_NOTHING,
    ),
    "a worker": ("DrainWorker", workers_pb.DrainWorkerRequest(worker_id="nope"), "NOT_FOUND", "nope"),
}


@pytest.mark.parametrize("case", NOT_FOUND)
async def test_what_does_not_exist_is_named(api: Api, case: str) -> None:
    method, request, reason, name = NOT_FOUND[case]
    told = await api.refusal(method, request)
    assert (told.code, told.error.reason) == (grpc.StatusCode.NOT_FOUND, reason)
    assert name in told.error.message
    assert len(told.error.message) < 200


MALFORMED: dict[str, tuple[str, Message, str, str]] = {
    "no id": ("GetExecution", pb.GetExecutionRequest(), "execution_id", "is empty"),
    "no workflow": ("SubmitExecution", pb.SubmitExecutionRequest(), "workflow", "is not set"),
    "no name": ("GetWorkflow", pb.GetWorkflowRequest(), "name", "is empty"),
    "a field": ("ListExecutions", pb.ListExecutionsRequest(filter='colour = "red"'), "filter", "column 1: there is no"),
    "a value": ("ListExecutions", pb.ListExecutionsRequest(filter="state = RUNNING"), "filter", "column 9"),
    "a state": ("ListExecutions", pb.ListExecutionsRequest(filter='state = "GONE"'), "filter", "no state; there are"),
    "a time": ("ListExecutions", pb.ListExecutionsRequest(filter='create_time > "now"'), "filter", "no RFC 3339 time"),
    "an OR": ("ListExecutions", pb.ListExecutionsRequest(filter='state="A" OR state="B"'), "filter", "column"),
    "a page size": ("ListExecutions", pb.ListExecutionsRequest(page_size=-1), "page_size", "is negative"),
    "a token": ("ListExecutions", pb.ListExecutionsRequest(page_token="!!"), "page_token", "malformed"),
    "a token of workflows": ("ListWorkflows", pb.ListWorkflowsRequest(page_token="abc"), "page_token", "malformed"),
    "a token of workers": ("ListWorkers", workers_pb.ListWorkersRequest(page_token="abc"), "page_token", "malformed"),
    "a digest": ("DownloadArtifact", pb.DownloadArtifactRequest(digest="../../etc/passwd"), "digest", "not a digest"),
    "a worker's id": ("DrainWorker", workers_pb.DrainWorkerRequest(), "worker_id", "is ''"),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_request_is_told_where(api: Api, case: str) -> None:
    method, request, path, description = MALFORMED[case]
    told = await api.refusal(method, request)
    assert told.code is grpc.StatusCode.INVALID_ARGUMENT
    assert told.violation.path == path
    assert description in told.violation.description
    assert told.violation.hint


async def test_cursors_and_tokens_of_something_else_are_refused(api: Api) -> None:
    mine, other = await api.start(WITH_INPUTS, GOOD_INPUTS), await api.start(WITH_INPUTS, GOOD_INPUTS)
    [*_, of_other] = await api.cursors(other)
    await api.finished(mine)
    beyond = base64.urlsafe_b64encode(f"{mine}:999999".encode()).decode().rstrip("=")
    endless = base64.urlsafe_b64encode(f"{mine}:{'9' * 40}".encode()).decode().rstrip("=")
    for cursor in (of_other, beyond, endless, "!!", "abc", "x" * 5000):
        told = await api.refusal("WatchExecution", pb.WatchExecutionRequest(execution_id=mine, cursor=cursor))
        assert (told.code, told.violation.path) == (grpc.StatusCode.INVALID_ARGUMENT, "cursor"), cursor
        assert told.violation.hint
    page = await api.scheduler.ListExecutions(pb.ListExecutionsRequest(page_size=1))
    request = pb.ListExecutionsRequest(page_token=page.next_page_token, filter='state = "FAILED"')
    told = await api.refusal("ListExecutions", request)
    assert "another filter" in told.violation.description
    for token in (page.next_page_token, "!!"):
        told = await api.refusal("ListTasks", pb.ListTasksRequest(execution_id=mine, page_token=token))
        assert (told.code, told.violation.path) == (grpc.StatusCode.INVALID_ARGUMENT, "page_token")


async def test_an_ambiguous_prefix_names_those_that_have_it(api: Api) -> None:
    # One more than there are hexadecimal digits: two begin with the same one.
    ids = [await api.start(one_node("functions:ok"), request_id=f"prefix-{each}") for each in range(17)]
    first = next(each[0] for each in ids if sum(other[0] == each[0] for other in ids) > 1)
    told = await api.refusal("GetExecution", pb.GetExecutionRequest(execution_id=first))
    assert (told.code, told.violation.path) == (grpc.StatusCode.INVALID_ARGUMENT, "execution_id")
    assert any(each in told.error.message for each in ids if each[0] == first)
    assert "more characters" in told.violation.hint


async def test_a_finished_execution_cannot_be_cancelled(api: Api) -> None:
    execution_id = await api.start(WITH_INPUTS, GOOD_INPUTS)
    await api.finished(execution_id)
    told = await api.refusal("CancelExecution", pb.CancelExecutionRequest(execution_id=execution_id))
    assert told.code is grpc.StatusCode.FAILED_PRECONDITION
    assert f"{execution_id} is COMPLETED already" in told.error.message


async def test_a_task_that_is_not_there_is_told_which_are(api: Api) -> None:
    execution_id = await api.start(WITH_INPUTS, GOOD_INPUTS)
    told = await api.refusal("GetTask", pb.GetTaskRequest(execution_id=execution_id, task_number=99))
    assert told.code is grpc.StatusCode.NOT_FOUND
    assert "its tasks are 0 to 0" in told.error.message


# ------------------------------------------------------------------- functions

QUICK = ", timeout: 300ms"
FAILURES = {
    "no module": ("nowhere:f", "", "FUNCTION_NOT_FOUND", "there is no module 'nowhere' in"),
    "no function": ("functions:rasies", "", "FUNCTION_NOT_FOUND", "did you mean 'raises'?"),
    "nothing to call": ("functions:not_a_function", "", "FUNCTION_NOT_FOUND", "type int, which cannot be called"),
    "an import that fails": ("needs_more:f", "", "FUNCTION_NOT_FOUND", "No module named 'nothing_such_anywhere'"),
    "no Python": ("no_python:f", "", "FUNCTION_NOT_FOUND", "no_python.py, line 1)"),
    "a missing argument": ("functions:echo", "", "ARGUMENTS_MISMATCH", "missing a required argument: 'text'"),
    "an unknown argument": ("functions:ok", ", with: {a: 1}", "ARGUMENTS_MISMATCH", "unexpected keyword argument 'a'"),
    "raises": ("functions:raises", "", "FUNCTION_RAISED", "no such thing"),
    "leaves": ("functions:leaves", "", "FUNCTION_RAISED", "sys.exit(4)"),
    "exits": ("functions:exits", "", "RUNNER_EXITED", "exited with code 3"),
    "kills itself": ("functions:kills_itself", "", "RUNNER_EXITED", "ended by SIGKILL"),
    "sleeps": ("functions:sleeps", QUICK, "ATTEMPT_TIMEOUT", "longer than its 0.3 s"),
    "spins": ("functions:spins", QUICK, "ATTEMPT_TIMEOUT", "longer than its 0.3 s"),
    "awaits": ("functions:awaits", QUICK, "ATTEMPT_TIMEOUT", "longer than its 0.3 s"),
    "holds on": ("functions:holds_on", QUICK, "ATTEMPT_TIMEOUT", "longer than its 0.3 s"),
    "an object": ("functions:returns_an_object", "", "NOT_SERIALIZABLE", "result['rows'][1] is of type object"),
    "NaN": ("functions:returns_nan", "", "NOT_SERIALIZABLE", "result is nan"),
    "itself": ("functions:returns_itself", "", "NOT_SERIALIZABLE", "contains itself"),
    "odd keys": ("functions:returns_odd_keys", "", "NOT_SERIALIZABLE", "key of type tuple"),
}


async def test_whatever_a_function_does_its_execution_fails_with_the_cause_and_the_worker_goes_on(api: Api) -> None:
    started = {case: await api.start(one_node(row[0], row[1])) for case, row in FAILURES.items()}
    for case, execution_id in started.items():
        execution = await api.finished(execution_id)
        task = (await api.scheduler.GetTask(pb.GetTaskRequest(execution_id=execution_id))).task
        _, _, reason, message = FAILURES[case]
        assert execution.state == ExecutionState.EXECUTION_STATE_FAILED, case
        assert (case, task.failure.reason) == (case, reason)
        assert message in task.failure.message
        assert task.failure.kind
        # The user's frames, never ours, nor those of the import that we asked for.
        assert "nodeflow_" not in task.failure.traceback
        assert "importlib" not in task.failure.traceback
    assert (await api.finished(await api.start(one_node("functions:ok")))).state == (
        ExecutionState.EXECUTION_STATE_COMPLETED
    )


async def test_a_result_over_64_kib_becomes_an_artifact_and_is_passed_on(api: Api) -> None:
    size = 3 << 20
    execution_id = await api.start(LARGE_RESULT, json.dumps({"count": size}).encode())
    execution = await api.finished(execution_id)
    assert json.loads(execution.outputs.data) == {"size": size}
    task = (await api.scheduler.GetTask(pb.GetTaskRequest(execution_id=execution_id))).task
    assert task.output.artifact.size_bytes == size + 2
