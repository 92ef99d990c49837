"""Submissions and cancellations on their way to the core: checked, named, and answered once they are durable."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from nodeflow_scheduler.domain.admission import NOTHING, Request
from nodeflow_scheduler.domain.callers import cancelled_already, request_id_reused
from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.identity import execution_id_of_request, new_execution_id, shard_of, time_in_ms
from nodeflow_scheduler.domain.messages import Cancel, Submit
from nodeflow_scheduler.domain.workflow import Workflow, source_digest
from nodeflow_scheduler.driver import Driver
from nodeflow_scheduler.ownership import Ownership
from nodeflow_scheduler.ports import Catalogue, ExecutionRecord, Uploads
from nodeflow_shared.clock import Clock
from nodeflow_shared.errors import FieldViolation, InvalidInput, NodeflowError, Unavailable

SUBMISSIONS_LIMIT = 10_000
REQUEST_ID_LIMIT = 256
REASON_LIMIT = 1_024
CLOCK_SKEW_MS = 1_000
SUBMISSION_BYTES = 512
"""About what a submission takes beside its inputs and labels."""
LABELS_LIMIT = 64
LABEL_VALUE_LIMIT = 256
_LABEL_KEY = re.compile(r"[A-Za-z0-9._/-]{1,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a caller wants to start."""

    inputs: bytes
    request_id: str
    labels: Mapping[str, str]


Answer = Execution | NodeflowError


class Answers:
    """Collects the answers to some commands that were given together, in their order."""

    def __init__(self, count: int) -> None:
        self.future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._answers: list[Answer | None] = [None] * count
        self._missing = count

    def handle(self, position: int) -> AnswerHandle:
        """Who waits for one of the answers."""
        return AnswerHandle(self, position)

    def take(self, position: int, answer: Answer) -> None:
        """One answer has come."""
        self._answers[position] = answer
        self._missing -= 1
        if not self._missing and not self.future.done():
            self.future.set_result([each for each in self._answers if each is not None])


class AnswerHandle:
    """Who waits for one answer."""

    __slots__ = ("_answers", "_position")

    def __init__(self, answers: Answers, position: int) -> None:
        self._answers = answers
        self._position = position

    def answer(self, answer: Answer) -> None:
        """Takes the answer."""
        self._answers.take(self._position, answer)


class Intake:
    """The way in."""

    def __init__(
        self,
        driver: Driver,
        ownership: Ownership,
        catalogue: Catalogue,
        *,
        clock: Clock,
        random_bytes: Callable[[int], bytes],
        uploads: Uploads,
    ) -> None:
        self._driver = driver
        self._ownership = ownership
        self._catalogue = catalogue
        self._clock = clock
        self._random_bytes = random_bytes
        self._uploads = uploads

    async def submit(self, tenant: str, workflow: Workflow, submissions: Sequence[Submission]) -> list[Execution | str]:
        """Starts executions; returns them, or the ids of those that are known and no longer in memory.

        Raises the first error. Nothing has been started then, unless another call used a `request_id` at the same time.
        """
        self._driver.outage.check()
        checked = [self._check(tenant, workflow, each) for each in submissions]
        await self._refuse_reused(submissions, checked)
        await self._refuse_unknown_sources(tenant, workflow, [inputs for _, inputs, _ in checked])
        known = await self._known(submissions, checked)
        answers = Answers(len(submissions) - len(known))
        admitted = self._let_in(workflow, submissions, checked, known)
        started = 0
        for position, (execution_id, inputs, digest) in enumerate(checked):
            if position in known:
                continue
            submission = submissions[position]
            self._driver.inbox.push(
                Submit(
                    execution_id=execution_id,
                    shard=self._shard_of(execution_id),
                    tenant=tenant,
                    workflow=workflow,
                    inputs=inputs,
                    labels=submission.labels,
                    request_id=submission.request_id,
                    request_digest=digest,
                    handle=answers.handle(started),
                    admitted=admitted.get(position, NOTHING),
                ),
                SUBMISSION_BYTES + len(inputs),
            )
            started += 1
        fresh = iter(await answers.future if started else [])
        return [known[position] if position in known else _execution(next(fresh)) for position in range(len(checked))]

    def _let_in(
        self,
        workflow: Workflow,
        submissions: Sequence[Submission],
        checked: Sequence[tuple[str, bytes, bytes]],
        known: Mapping[int, str],
    ) -> dict[int, Request]:
        """What is new, let in as a whole, each by its position. Raises Overloaded."""
        new: dict[str, int] = {}
        for position, (execution_id, _, _) in enumerate(checked):
            if position not in known and self._driver.execution(execution_id) is None:
                self._shard_of(execution_id)  # raises before anything is let in
                new.setdefault(execution_id, position)
        each = {
            position: Request(
                executions=1,
                tasks=len(workflow.nodes),
                size_bytes=SUBMISSION_BYTES + len(checked[position][1]) + size_of_labels(submissions[position].labels),
            )
            for position in new.values()
        }
        self._driver.core.ledger.admission.let_in(
            Request(
                executions=len(each),
                tasks=len(each) * len(workflow.nodes),
                size_bytes=sum(one.size_bytes for one in each.values()),
            )
        )
        return each

    async def cancel(self, tenant: str, execution: Execution, reason: str) -> Execution:
        """Cancels an execution, if it is not over. Raises InvalidInput; IllegalState if it ended otherwise."""
        if len(reason) > REASON_LIMIT:
            violation = FieldViolation("reason", f"has {len(reason):,} characters", f"at most {REASON_LIMIT:,}")
            raise InvalidInput("the reason is too long", violations=[violation])
        execution_id = execution.execution_id
        if execution.finished and self._driver.execution(execution_id) is None:
            return _execution(cancelled_already(execution))
        self._driver.outage.check()
        answers = Answers(1)
        shard = self._shard_of(execution_id)
        await self._driver.inbox.room()
        self._driver.inbox.push(
            Cancel(execution_id=execution_id, shard=shard, tenant=tenant, reason=reason, handle=answers.handle(0))
        )
        return _execution((await answers.future)[0])

    def _check(self, tenant: str, workflow: Workflow, submission: Submission) -> tuple[str, bytes, bytes]:
        """The id, the inputs with defaults, and the digest of a submission. Raises InvalidInput."""
        check_labels(submission.labels)
        inputs = workflow.inputs.check(submission.inputs or b"{}")
        if not submission.request_id:
            execution_id = new_execution_id(self._clock.now_ms(), self._random_bytes(10))
            return execution_id, inputs, b""
        check_request_id(submission.request_id)
        body = json.dumps([workflow.revision, inputs.decode(), sorted(submission.labels.items())])
        digest = sha256(body.encode()).digest()
        return execution_id_of_request(tenant, submission.request_id), inputs, digest

    async def _refuse_reused(
        self, submissions: Sequence[Submission], checked: Sequence[tuple[str, bytes, bytes]]
    ) -> None:
        """Raises AlreadyExists for a `request_id` that has another body, in the same call or in memory."""
        bodies: dict[str, bytes] = {}
        for (execution_id, _, digest), submission in zip(checked, submissions, strict=True):
            if not submission.request_id:
                continue
            known = self._driver.execution(execution_id)
            if known is not None and known.origin.request_digest != digest:
                await self._driver.committed(known.shard)
                raise request_id_reused(submission.request_id, execution_id)
            if bodies.setdefault(execution_id, digest) != digest:
                raise InvalidInput(
                    f"request_id {submission.request_id!r} stands for two different submissions of this call",
                    violations=[FieldViolation("submissions", "one request_id has two bodies", "a key for each")],
                )

    async def _refuse_unknown_sources(self, tenant: str, workflow: Workflow, inputs: Sequence[bytes]) -> None:
        """Raises InvalidInput for a pipeline's source that was not uploaded."""
        sources = {digest for each in inputs if (digest := source_digest(workflow, each))}
        missing = sorted(await self._uploads.missing(tenant, sources)) if sources else []
        if missing:
            violation = FieldViolation("inputs.source", f"artifact {missing[0]} is not stored", "upload it first")
            raise InvalidInput("the source of the pipeline is not stored", violations=[violation])

    async def _known(
        self, submissions: Sequence[Submission], checked: Sequence[tuple[str, bytes, bytes]]
    ) -> dict[int, str]:
        """Submissions whose execution is over and forgotten here, but in the index.

        Raises AlreadyExists if they asked for something else.
        """
        asked = [
            checked[position][0]
            for position, submission in enumerate(submissions)
            if submission.request_id and not self._is_fresh(submission.request_id)
        ]
        unknown = dict.fromkeys(each for each in asked if self._driver.execution(each) is None)
        if not unknown:
            return {}
        records = await self._catalogue.records(list(unknown))
        known: dict[int, str] = {}
        for position, (execution_id, _, digest) in enumerate(checked):
            record = records.get(execution_id)
            if record is not None and self._driver.execution(execution_id) is None:
                known[position] = _same(record, digest)
        return known

    def _is_fresh(self, request_id: str) -> bool:
        """Whether an execution under this key could only be one that is in memory: this spares the index a question.

        A caller's clock that was ahead by more than CLOCK_SKEW_MS can make this wrong once. Then the log refuses the
        second beginning of an execution, the shard is loaded again, and that makes the key an old one.
        """
        drawn_ms = time_in_ms(request_id)
        if drawn_ms is None:
            return False
        return self._driver.forgotten_ms + CLOCK_SKEW_MS < drawn_ms <= self._clock.now_ms() + CLOCK_SKEW_MS

    def _shard_of(self, execution_id: str) -> int:
        """The shard of an execution. Raises Unavailable before the number of shards is known."""
        if not self._ownership.shard_count:
            raise Unavailable("this scheduler has no shards yet; try again", retry_after_s=0.2)
        return shard_of(execution_id, self._ownership.shard_count)


def check_request_id(request_id: str) -> None:
    """Raises InvalidInput for one that is too long, or that a log or a terminal would not survive."""
    if len(request_id) > REQUEST_ID_LIMIT:
        violation = FieldViolation("request_id", f"has {len(request_id)} characters", f"at most {REQUEST_ID_LIMIT}")
        raise InvalidInput("the request_id is too long", violations=[violation])
    if not request_id.isprintable():
        violation = FieldViolation("request_id", "holds a control character", "letters, digits, signs and spaces")
        raise InvalidInput("the request_id is malformed", violations=[violation])


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises InvalidInput with a violation for each faulty label."""
    violations = [
        FieldViolation(f"labels[{key!r}]", "is not a label key", "1 to 63 of A-Z a-z 0-9 . _ / -")
        for key in labels
        if not _LABEL_KEY.fullmatch(key)
    ]
    violations += [
        FieldViolation(f"labels.{key}", f"has {len(value)} characters", f"at most {LABEL_VALUE_LIMIT}")
        for key, value in labels.items()
        if len(value) > LABEL_VALUE_LIMIT
    ]
    violations += [
        FieldViolation(f"labels.{key}", "holds a control character", "letters, digits, signs and spaces")
        for key, value in labels.items()
        if not value.isprintable()
    ]
    if len(labels) > LABELS_LIMIT:
        violations.append(FieldViolation("labels", f"there are {len(labels)}", f"at most {LABELS_LIMIT}"))
    if violations:
        raise InvalidInput("the labels are not valid", violations=violations)


def size_of_labels(labels: Mapping[str, str]) -> int:
    """About how many bytes they take."""
    return sum(len(key) + 4 * len(value) for key, value in labels.items())


def _same(record: ExecutionRecord, digest: bytes) -> str:
    if record.request_digest == digest:
        return record.execution_id
    raise request_id_reused(record.request_id, record.execution_id)


def _execution(answer: Answer) -> Execution:
    if isinstance(answer, NodeflowError):
        raise answer
    return answer
