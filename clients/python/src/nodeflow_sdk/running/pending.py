"""A submission on its way, for whoever waits for the end of its execution: it can be undone at any moment.

Owns the time between the request and its answer. Must not know who stops waiting, or why.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from nodeflow.scheduler.v1.execution_pb2 import Execution

from nodeflow_sdk.client import Client

ANSWER_TIMEOUT_S: Final = 5.0
"""How long whoever stops waiting is held up by a submission that has no answer yet."""

# The standard library's: a script that configured nothing sees it on standard error.
_log = logging.getLogger("nodeflow")


class Pending:
    """Nothing yet, then a submission under way, then its execution. On the loop only."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._submission: asyncio.Task[Execution] | None = None

    async def answer(self, client: Client, submission: Coroutine[Any, Any, Execution]) -> Execution:
        """Return the answer to a submission.

        It goes on when this is cancelled: it may be durable already, and only its answer says what there is to cancel.
        """
        self._client = client
        # Held in a field; `undo` awaits it if this does not.
        self._submission = asyncio.get_running_loop().create_task(submission, name="submission")
        return await asyncio.shield(self._submission)

    async def undo(self) -> None:
        """Cancel the execution, as soon as it is known; nothing is done if none was started. Raises NodeflowError."""
        client, submission = self._client, self._submission
        if client is None or submission is None:
            return
        await asyncio.wait([submission], timeout=ANSWER_TIMEOUT_S)
        if not submission.done():
            submission.cancel()
            _log.warning("a submission was interrupted and has had no answer: it may have been started, and goes on")
        elif submission.exception() is None:
            await client.cancel(submission.result().execution_id, "interrupted")
