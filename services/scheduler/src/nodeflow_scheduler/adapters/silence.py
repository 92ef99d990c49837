"""Streams of the state-manager that take as long as they take, but for its silence.

Owns how long that may last. Must not know what a stream carries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import grpc.aio

from nodeflow_shared.errors import DeadlineExceeded

READ_TIMEOUT_S = 60.0
"""How long the store may take for the next piece. The whole takes as long as it takes: begun anew, it would again."""

R = TypeVar("R")


async def in_time(call: grpc.aio.UnaryStreamCall[Any, R]) -> AsyncGenerator[R, None]:
    """The responses of a call. Raises DeadlineExceeded when the next one does not come within READ_TIMEOUT_S."""
    responses = aiter(call)
    try:
        while True:
            async with asyncio.timeout(READ_TIMEOUT_S):
                response = await anext(responses, None)
            if response is None:
                return
            yield response
    except TimeoutError as error:
        raise DeadlineExceeded(f"the state-manager has sent nothing for {READ_TIMEOUT_S:g} s") from error
    finally:
        call.cancel()
