"""What a task depends on: which tasks, in which order, and in pages that nothing makes too large."""

from __future__ import annotations

import pytest
from nodeflow.common.v1 import dependency_pb2, lifecycle_pb2
from tests.unit.scheduler.making import BROKEN, Lab, report, submit, updates, workflow

from nodeflow_scheduler.domain.execution import Execution
from nodeflow_scheduler.domain.values import INLINE_LIMIT_BYTES, Stored
from nodeflow_scheduler.wire.dependencies import PAGE_BYTES, dependency_list
from nodeflow_shared.errors import InvalidInput

COMPLETED = lifecycle_pb2.TASK_STATE_COMPLETED
DIGEST = f"sha256:{'a' * 64}"


def shown(dependencies: list[dependency_pb2.TaskDependency]) -> list[str]:
    return [f"{each.node}[{each.map_index}]" if each.HasField("map_index") else each.node for each in dependencies]


def all_pages(execution: Execution, task: int, page_size: int) -> list[list[str]]:
    """Reads page after page, to the end."""
    pages, token = [], ""
    while True:
        page = dependency_list(execution, task, page_size, token)
        pages.append(shown(page.dependencies))
        token = page.next_page_token
        if not token:
            return pages


def fan_in(item_count: int) -> Execution:
    """`last` waits for `one`, and for `many`, a mapped node; both are done."""
    nodes: dict[str, dict[str, object]] = {
        "one": {},
        "many": {"map": list(range(item_count)), "with": {"x": "${item}"}},
        "last": {"needs": ["many", "one"]},
    }
    lab = Lab.ready(slots=item_count + 1)
    lab.step(submit(workflow(nodes)))
    lab.assigned()
    lab.step(updates(results=[report(0), *(report(3 + item, str(item).encode()) for item in range(item_count))]))
    assert lab.execution().states[2] == lifecycle_pb2.TASK_STATE_QUEUED
    return lab.execution()


def test_a_mapped_node_is_followed_by_its_items_and_every_page_size_tells_the_same() -> None:
    execution = fan_in(3)
    expected = ["one", "many", "many[0]", "many[1]", "many[2]"]
    for size in range(1, 7):
        pages = all_pages(execution, 2, size)
        assert [name for page in pages for name in page] == expected
        assert all(len(page) == size for page in pages[:-1])
    assert all_pages(execution, 0, 10) == [[]]  # a root waits for nothing
    assert all_pages(execution, 4, 10) == [[]]  # and so do the items of one


def test_dependencies_come_with_their_results_but_a_mapped_node_leaves_them_to_its_items() -> None:
    one, many, first, *_ = dependency_list(fan_in(2), 2, 0, "").dependencies
    assert (one.task_number, one.state, one.attempt_number, one.output.data) == (0, COMPLETED, 1, b"1")
    assert (many.task_number, many.item_count, many.HasField("output")) == (1, 2, False)
    assert (first.task_number, first.map_index, first.output.data) == (3, 0, b"0")


def test_failures_and_results_by_reference_are_told_as_they_are() -> None:
    lab = Lab.ready()
    nodes: dict[str, dict[str, object]] = {"bad": {}, "big": {}, "last": {"needs": ["bad", "big"]}}
    lab.step(submit(workflow(nodes)))
    lab.assigned()
    big = Stored(digest=DIGEST, size_bytes=1 << 20)
    lab.step(updates(results=[report(1, big), report(0, BROKEN)]))
    failed, stored = dependency_list(lab.execution(), 2, 0, "").dependencies
    assert (failed.state, failed.failure.message) == (lifecycle_pb2.TASK_STATE_FAILED, "it raised")
    assert not failed.HasField("output")
    assert (stored.output.artifact.digest, stored.output.artifact.size_bytes) == (DIGEST, 1 << 20)


def test_what_is_not_over_has_a_state_and_no_result() -> None:
    lab = Lab.ready()
    lab.step(submit(workflow({"first": {}, "last": {"needs": ["first"]}})))
    (first,) = dependency_list(lab.execution(), 1, 0, "").dependencies
    assert (first.state, first.attempt_number) == (lifecycle_pb2.TASK_STATE_QUEUED, 1)
    assert not first.HasField("output")


def test_large_results_end_a_page() -> None:
    lab = Lab.ready()
    names = [f"n{number}" for number in range(20)]
    lab.step(submit(workflow({**{name: {} for name in names}, "last": {"needs": names}})))
    lab.assigned()
    value = b'"' + b"x" * (INLINE_LIMIT_BYTES - 2) + b'"'
    lab.step(updates(results=[report(task, value) for task in range(20)]))
    page = dependency_list(lab.execution(), 20, 1000, "")
    assert PAGE_BYTES <= sum(each.ByteSize() for each in page.dependencies) < PAGE_BYTES + 2 * INLINE_LIMIT_BYTES
    assert [name for each in all_pages(lab.execution(), 20, 1000) for name in each] == names


def test_a_hundred_thousand_dependencies_come_in_pages_of_a_thousand() -> None:
    count = 100_000
    execution = fan_in(count)
    assert len(dependency_list(execution, 2, 0, "").dependencies) == 100
    pages = all_pages(execution, 2, 1_000_000)
    assert max(map(len, pages)) == 1_000
    assert sum(map(len, pages)) == count + 2


@pytest.mark.parametrize("token", ["x", "bm90IG9mIHRoaXMgbGlzdA", "ZTE6MTpkZXBlbmRlbmNpZXM6MDow"])
def test_a_token_that_was_not_given_for_this_task_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        dependency_list(fan_in(1), 2, 0, token)
    assert refused.value.violations[0].path == "page_token"


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidInput):
        dependency_list(fan_in(1), 2, -1, "")
