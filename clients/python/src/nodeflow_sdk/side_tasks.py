"""Work beside the main work: tasks that live as long as a block, and errors that come out as they were raised.

Owns this bit of structured concurrency. Must not know what the tasks do.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager


@asynccontextmanager
async def beside(*work: Coroutine[object, object, None], name: str) -> AsyncIterator[None]:
    """Run coroutines while the block runs, and cancel them at its end; the error of any of them ends the block."""
    with unwrapped():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each, name=f"{name}.{number}") for number, each in enumerate(work)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the one error of a task group as itself, so that a caller can catch it by its class."""
    try:
        yield
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) == 1:
            raise errors.exceptions[0] from None
        raise
