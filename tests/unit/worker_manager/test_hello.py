"""What a worker may say of itself, and how it is told what is wrong."""

import dataclasses
from typing import Any

import pytest

from nodeflow_shared.errors import InvalidInput
from nodeflow_worker_manager.domain.events import Hello
from nodeflow_worker_manager.domain.hello import check_heartbeat, check_hello, check_worker_id
from nodeflow_worker_manager.domain.sessions import Capacity

A = "aaaaaaaa-0000-4000-8000-000000000001"
GOOD = Hello(worker_id="host-1.example_X", session_id=A, capacity=Capacity(slots=1), labels={"zone": ""}, version="1")


def test_a_good_hello_passes() -> None:
    check_hello(GOOD)
    check_hello(dataclasses.replace(GOOD, session_id=A.upper(), worker_id="w" * 128))
    check_heartbeat(Capacity())


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"worker_id": ""}, "hello.worker_id"),
        ({"worker_id": "a b"}, "hello.worker_id"),
        ({"worker_id": "w\n"}, "hello.worker_id"),
        ({"worker_id": "w" * 129}, "hello.worker_id"),
        ({"session_id": "1"}, "hello.session_id"),
        ({"session_id": A.replace("-", "")}, "hello.session_id"),
        ({"replaced_session_ids": ("x",)}, "hello.replaced_session_ids[0]"),
        ({"replaced_session_ids": (A,)}, "hello.replaced_session_ids[0]"),
        ({"replaced_session_ids": (A[:-1] + "2",) * 1_001}, "hello.replaced_session_ids"),
        ({"capacity": Capacity()}, "hello.capacity.slots"),
        ({"capacity": Capacity(slots=10_001)}, "hello.capacity.slots"),
        ({"capacity": Capacity(slots=1, credits=10_001)}, "hello.capacity.credits"),
        ({"labels": {str(number): "" for number in range(65)}}, "hello.labels"),
        ({"labels": {"": "x"}}, "hello.labels['']"),
        ({"labels": {"k": "x" * 257}}, "hello.labels['k']"),
        ({"version": "x" * 129}, "hello.version"),
    ],
)
def test_each_fault_is_named_with_its_path(change: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_hello(dataclasses.replace(GOOD, **change))
    assert [violation.path for violation in caught.value.violations] == [path]


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_hello(Hello(worker_id="", session_id="", capacity=Capacity()))
    paths = [violation.path for violation in caught.value.violations]
    assert paths == ["hello.worker_id", "hello.session_id", "hello.capacity.slots"]


def test_a_heartbeat_cannot_bid_without_bounds() -> None:
    with pytest.raises(InvalidInput, match=r"heartbeat\.capacity\.credits"):
        check_heartbeat(Capacity(credits=10_001))


def test_a_worker_that_cannot_exist_cannot_be_drained() -> None:
    with pytest.raises(InvalidInput):
        check_worker_id("a/b")
