"""What workers ask about the attempts that they hold: checked, answered from committed state, all that came at once.

Knows the questions as they travel, and no worker-manager: `adapters/workers.py` brings them.
"""

from __future__ import annotations

import asyncio

from nodeflow.worker_manager.v1 import worker_manager_service_pb2 as manager_pb2

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.ledger import not_ours
from nodeflow_scheduler.driver import Driver
from nodeflow_scheduler.ports import Question, Workers
from nodeflow_scheduler.wire.dependencies import dependency_list
from nodeflow_shared.errors import IllegalState, NodeflowError, Unavailable
from nodeflow_shared.status import to_status
from nodeflow_shared.streams import Inbox

COMMIT_TIMEOUT_S = 5.0
"""How long answers wait for the log. Questions that nobody waits for any more would pile up behind them."""


class Answering:
    """Answers until cancelled."""

    def __init__(self, driver: Driver, workers: Workers, questions: Inbox[Question]) -> None:
        self._driver = driver
        self._workers = workers
        self._questions = questions

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            questions = await self._questions.drain()
            answers = [self._answer(each.message) for each in questions]
            try:
                async with asyncio.timeout(COMMIT_TIMEOUT_S):
                    await self._driver.committed()
            except Unavailable as error:
                answers = [_refusal(each.message, error) for each in questions]
            except TimeoutError:
                away = Unavailable("the log does not answer at the moment; ask again", retry_after_s=0.5)
                answers = [_refusal(each.message, away) for each in questions]
            for question, answer in zip(questions, answers, strict=True):
                self._workers.answer(question, answer)

    def _answer(self, question: manager_pb2.DependencyQuestion) -> manager_pb2.DependencyAnswer:
        request = question.request
        try:
            execution = self._held(request)
            page = dependency_list(execution, request.attempt.task_number, request.page_size, request.page_token)
        except NodeflowError as error:
            return _refusal(question, error)
        return manager_pb2.DependencyAnswer(
            question_id=question.question_id,
            dependencies=manager_pb2.GetTaskDependenciesResponse(
                dependencies=page.dependencies, next_page_token=page.next_page_token
            ),
        )

    def _held(self, request: manager_pb2.GetTaskDependenciesRequest) -> Execution:
        """The execution of an attempt that the asking session holds, and that may still have a result."""
        attempt = request.attempt
        if attempt.shard not in self._driver.core.ledger.leases:
            raise not_ours(attempt.shard)
        execution = self._driver.execution(attempt.execution_id)
        if execution is None or not execution.is_current(
            attempt.task_number, attempt.attempt_number, attempt.fencing_token
        ):
            raise _not_held(request)
        placement = self._driver.core.placement
        key = (attempt.execution_id, attempt.task_number, attempt.attempt_number)
        if key in placement.doubtful:
            raise Unavailable("the worker's report of what it holds is on its way; ask again", retry_after_s=0.2)
        session = placement.sessions.get(request.session_id)
        if session is None or key not in session.live:
            raise _not_held(request)
        return execution


def _not_held(request: manager_pb2.GetTaskDependenciesRequest) -> IllegalState:
    attempt = request.attempt
    return IllegalState(
        f"session {request.session_id[:64]} does not hold attempt {attempt.attempt_number} of task "
        f"{attempt.task_number} of execution {attempt.execution_id[:64]} under token {attempt.fencing_token}; "
        "ask about an attempt that is assigned to it and not over, as it was assigned",
        reason="ATTEMPT_NOT_HELD",
    )


def _refusal(question: manager_pb2.DependencyQuestion, error: NodeflowError) -> manager_pb2.DependencyAnswer:
    return manager_pb2.DependencyAnswer(question_id=question.question_id, refusal=to_status(error).SerializeToString())
