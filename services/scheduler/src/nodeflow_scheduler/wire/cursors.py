"""Cursors and page tokens: opaque to callers, and bound to what they were given for."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, urlsafe_b64encode

from nodeflow.scheduler.v1 import scheduler_service_pb2 as pb2

from nodeflow_shared.errors import FieldViolation, InvalidInput

# No execution has more events or tasks.
_NUMBER = re.compile(r"[0-9]{1,18}")


def execution_cursor(execution_id: str, sequence: int) -> str:
    """Where to go on after an event."""
    return _encode(f"{execution_id}:{sequence}")


def sequence_in(cursor: str, execution_id: str) -> int:
    """The last sequence that the holder of a cursor has seen. Raises InvalidInput."""
    if not cursor:
        return 0
    named, _, sequence = _decode(cursor, "cursor").rpartition(":")
    if named != execution_id or not _NUMBER.fullmatch(sequence):
        violation = FieldViolation(
            "cursor", f"is not one of execution {execution_id}", "one from its own watch, or none"
        )
        raise InvalidInput("the cursor belongs to something else", violations=[violation])
    return int(sequence)


def log_cursor(execution_id: str, position: int, line_count: int) -> str:
    """Where to go on in the output: after a chunk, and some lines of the next."""
    return _encode(f"{execution_id}:logs:{position}:{line_count}")


def log_place_in(cursor: str, execution_id: str) -> tuple[int, int]:
    """The position of the last chunk that was read, and how many lines of the next were. Raises InvalidInput."""
    if not cursor:
        return 0, 0
    named, _, place = _decode(cursor, "cursor").partition(":logs:")
    position, _, line_count = place.partition(":")
    if named != execution_id or not _NUMBER.fullmatch(position) or not _NUMBER.fullmatch(line_count):
        violation = FieldViolation(
            "cursor", f"is not one of the output of execution {execution_id}", "one from its own TailLogs, or none"
        )
        raise InvalidInput("the cursor belongs to something else", violations=[violation])
    return int(position), int(line_count)


def task_page(request: pb2.ListTasksRequest, execution_id: str, start: int) -> str:
    """The token of the page that begins at a task."""
    return _encode(f"{execution_id}:{request.node}:{request.state}:{start}")


def task_page_start(request: pb2.ListTasksRequest, execution_id: str) -> int:
    """The first task of the page that a request asks for. Raises InvalidInput."""
    if not request.page_token:
        return 0
    asked, _, start = _decode(request.page_token, "page_token").rpartition(":")
    if asked != f"{execution_id}:{request.node}:{request.state}" or not _NUMBER.fullmatch(start):
        raise _other_list()
    return int(start)


def dependency_page(execution_id: str, task: int, place: tuple[int, int]) -> str:
    """The token of the page of a task's dependencies that begins at a place."""
    return _encode(f"{execution_id}:{task}:dependencies:{place[0]}:{place[1]}")


def dependency_page_start(page_token: str, execution_id: str, task: int) -> tuple[int, int]:
    """The place at which the page that a request asks for begins. Raises InvalidInput."""
    if not page_token:
        return 0, 0
    asked, _, place = _decode(page_token, "page_token").partition(":dependencies:")
    parent, _, position = place.partition(":")
    if asked != f"{execution_id}:{task}" or not _NUMBER.fullmatch(parent) or not _NUMBER.fullmatch(position):
        raise _other_list()
    return int(parent), int(position)


def _other_list() -> InvalidInput:
    violation = FieldViolation("page_token", "is not of this list", "the next_page_token of the page before")
    return InvalidInput("the page token belongs to another list", violations=[violation])


def _encode(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(token: str, field: str) -> str:
    try:
        return b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        violation = FieldViolation(field, "is malformed", "one that the service gave, unchanged")
        raise InvalidInput(f"the {field} is malformed", violations=[violation]) from None
