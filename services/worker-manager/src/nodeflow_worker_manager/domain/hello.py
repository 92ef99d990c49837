"""What a worker may say of itself.

Owns the limits and the wording of faults. Must not know sessions that exist.
"""

import re
from collections.abc import Iterator
from typing import Final

from nodeflow_shared.errors import FieldViolation, InvalidInput
from nodeflow_worker_manager.domain.events import Hello
from nodeflow_worker_manager.domain.sessions import Capacity

MAX_SLOTS: Final = 10_000
MAX_CREDITS: Final = 10_000
MAX_REPLACED: Final = 1_000
MAX_LABELS: Final = 64
MAX_LABEL_CHARS: Final = 256
MAX_VERSION_CHARS: Final = 128

_WORKER_ID: Final = re.compile(r"[a-zA-Z0-9._-]{1,128}")
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def check_hello(hello: Hello) -> None:
    """Raise InvalidInput that names each fault of a hello."""
    _refuse("the hello is malformed", list(_hello_faults(hello)))


def check_heartbeat(capacity: Capacity) -> None:
    """Raise InvalidInput if a heartbeat bids too much."""
    _refuse("the heartbeat is malformed", list(_capacity_faults("heartbeat.capacity", capacity)))


def check_worker_id(worker_id: str) -> None:
    """Raise InvalidInput if no worker can have this name."""
    _refuse("the worker's id is malformed", list(_worker_id_faults("worker_id", worker_id)))


def check_session_id(session_id: str) -> None:
    """Raise InvalidInput if no session can have this id."""
    if not _UUID.fullmatch(session_id):
        _refuse("the hello is malformed", [_no_session("hello.session_id", session_id)])


def _no_session(path: str, session_id: str) -> FieldViolation:
    return FieldViolation(path, f"is not a UUID: {session_id[:64]!r}", "draw one at process start")


def _refuse(message: str, faults: list[FieldViolation]) -> None:
    if faults:
        raise InvalidInput(f"{message}: {faults[0].path} {faults[0].description}", violations=faults)


def _hello_faults(hello: Hello) -> Iterator[FieldViolation]:
    yield from _worker_id_faults("hello.worker_id", hello.worker_id)
    if not _UUID.fullmatch(hello.session_id):
        yield _no_session("hello.session_id", hello.session_id)
    if len(hello.replaced_session_ids) > MAX_REPLACED:
        yield FieldViolation("hello.replaced_session_ids", f"names more than {MAX_REPLACED} sessions")
    for index, replaced in enumerate(hello.replaced_session_ids[:MAX_REPLACED]):
        path = f"hello.replaced_session_ids[{index}]"
        if not _UUID.fullmatch(replaced):
            yield FieldViolation(path, f"is not a UUID: {replaced[:64]!r}")
        elif replaced == hello.session_id:
            yield FieldViolation(path, "is the session itself, which cannot replace itself")
    yield from _capacity_faults("hello.capacity", hello.capacity)
    if not hello.capacity.slots:
        yield FieldViolation("hello.capacity.slots", "is 0", "a worker needs at least one slot")
    if len(hello.labels) > MAX_LABELS:
        yield FieldViolation("hello.labels", f"has {len(hello.labels)} entries", f"at most {MAX_LABELS}")
    for key, value in hello.labels.items():
        if not 1 <= len(key) <= MAX_LABEL_CHARS or len(value) > MAX_LABEL_CHARS:
            yield FieldViolation(
                f"hello.labels[{key[:64]!r}]", f"is longer than {MAX_LABEL_CHARS} characters or has no key"
            )
    if len(hello.version) > MAX_VERSION_CHARS:
        yield FieldViolation("hello.version", f"is longer than {MAX_VERSION_CHARS} characters")


def _worker_id_faults(path: str, worker_id: str) -> Iterator[FieldViolation]:
    if not _WORKER_ID.fullmatch(worker_id):
        yield FieldViolation(path, f"is {worker_id[:64]!r}", "1 to 128 of a-z A-Z 0-9 . _ -, like build-host-3")


def _capacity_faults(path: str, capacity: Capacity) -> Iterator[FieldViolation]:
    if capacity.slots > MAX_SLOTS:
        yield FieldViolation(f"{path}.slots", f"is {capacity.slots}", f"at most {MAX_SLOTS}")
    if capacity.credits > MAX_CREDITS:
        yield FieldViolation(f"{path}.credits", f"is {capacity.credits}", f"at most {MAX_CREDITS}")
