"""The index of executions: filters, order, pages, and the beginnings of ids."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.support.state_manager_values import a_part, a_record, append

from nodeflow_state_manager.domain.filters import parse_filter
from nodeflow_state_manager.domain.paging import PAGE_BYTES, Position
from nodeflow_state_manager.domain.values import ExecutionRecord, ExecutionState
from nodeflow_state_manager.ports import Store

DAY_MS = 86_400_000
RECORDS = [
    a_record(
        "a1", state=ExecutionState.COMPLETED, labels={"team": "x"}, create_time_ms=DAY_MS, finish_time_ms=DAY_MS + 5
    ),
    a_record("a2", state=ExecutionState.FAILED, labels={"team": "y", "env": "p"}, create_time_ms=2 * DAY_MS),
    a_record("b1", workflow="train", labels={"team": "x"}, create_time_ms=2 * DAY_MS),
    a_record("b2", workflow="train", create_time_ms=3 * DAY_MS),
    a_record("other", tenant="other", labels={"team": "x"}, create_time_ms=4 * DAY_MS),
]


@pytest.fixture
async def filled(leased: Store) -> Store:
    assert await append(leased, replace(a_part(0), records=RECORDS)) == []
    return leased


def ids(records: Sequence[ExecutionRecord]) -> list[str]:
    return [record.execution_id for record in records]


async def listed(store: Store, text: str, tenant: str = "default") -> list[str]:
    page = await store.list_executions(tenant, parse_filter(text), None, 100)
    assert page.next_position is None
    return ids(page.entries)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["b2", "b1", "a2", "a1"]),
        ('state = "RUNNING"', ["b2", "b1"]),
        ('state != "RUNNING"', ["a2", "a1"]),
        ('state = "Success"', ["a1"]),
        ('workflow = "train"', ["b2", "b1"]),
        ('workflow != "train" AND state = "FAILED"', ["a2"]),
        ('labels.team = "x"', ["b1", "a1"]),
        ('labels.team != "x"', ["b2", "a2"]),
        ('labels.team = "y" AND labels.env = "p"', ["a2"]),
        ('labels.team = "\' OR 1=1 --"', []),
        ('create_time >= "1970-01-03T00:00:00Z"', ["b2", "b1", "a2"]),
        ('create_time > "1970-01-03T00:00:00Z"', ["b2"]),
        ('create_time < "1970-01-03T02:00:00+02:00"', ["a1"]),
        ('create_time = "1970-01-04T00:00:00Z"', ["b2"]),
        ('finish_time <= "1970-01-02T00:00:00.005Z"', ["a1"]),
        ('finish_time != "1970-01-02T00:00:00.005Z"', []),
    ],
)
async def test_filters_find_exactly_what_they_say(filled: Store, text: str, expected: list[str]) -> None:
    assert await listed(filled, text) == expected


async def test_a_tenant_sees_its_own(filled: Store) -> None:
    assert await listed(filled, "", tenant="other") == ["other"]
    assert ids(await filled.find_executions("other", "a", 10)) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
async def test_pages_together_are_the_list(filled: Store, limit: int) -> None:
    pages: list[list[str]] = []
    after: Position | None = None
    while not pages or after is not None:
        page = await filled.list_executions("default", (), after, limit)
        pages.append(ids(page.entries))
        after = page.next_position
    assert [each for page in pages for each in page] == ["b2", "b1", "a2", "a1"]
    assert all(len(page) == limit for page in pages[:-1])


async def test_pages_of_entries_with_large_labels_are_short_and_together_the_list(leased: Store) -> None:
    labels = {f"label-{number}": "é" * 256 for number in range(64)}
    names = [f"e{number:03}" for number in range(100)]
    assert await append(leased, replace(a_part(0), records=[a_record(name, labels=labels) for name in names])) == []
    pages: list[list[str]] = []
    after: Position | None = None
    while not pages or after is not None:
        page = await leased.list_executions("default", (), after, 1_000)
        assert sum(entry.size_bytes for entry in page.entries) < PAGE_BYTES + 40_000
        pages.append(ids(page.entries))
        after = page.next_position
    assert len(pages) > 1
    assert sorted(each for page in pages for each in page) == names


async def test_an_entry_that_comes_between_pages_moves_nothing(filled: Store) -> None:
    first = await filled.list_executions("default", (), None, 2)
    assert await append(filled, replace(a_part(0), records=[a_record("new", create_time_ms=9 * DAY_MS)])) == []
    second = await filled.list_executions("default", (), first.next_position, 2)
    assert ids([*first.entries, *second.entries]) == ["b2", "b1", "a2", "a1"]


async def test_a_filter_follows_labels_and_state_as_they_change(filled: Store) -> None:
    changed = a_record("b2", workflow="train", state=ExecutionState.CANCELLED, labels={"team": "z"})
    assert await append(filled, replace(a_part(0), records=[changed])) == []
    assert await listed(filled, 'state = "CANCELED" AND labels.team = "z"') == ["b2"]
    relabelled = replace(changed, labels={"env": "q"})
    assert await append(filled, replace(a_part(0), records=[relabelled])) == []
    assert await listed(filled, 'labels.team = "z"') == []
    assert await listed(filled, 'labels.env = "q"') == ["b2"]


async def test_executions_are_found_by_the_beginning_of_their_id(filled: Store) -> None:
    assert ids(await filled.find_executions("default", "a", 10)) == ["a2", "a1"]
    assert ids(await filled.find_executions("default", "b1", 10)) == ["b1"]
    assert ids(await filled.find_executions("default", "%", 10)) == []
    assert ids(await filled.find_executions("default", "", 1)) == ["b2"]
    assert ids(await filled.find_executions("default", "a", 1)) == ["a2"]


async def test_entries_are_got_by_id_as_they_were_given(filled: Store) -> None:
    found = await filled.get_executions(["a1", "nobody", "other"])
    assert sorted(found, key=lambda record: record.execution_id) == [RECORDS[0], RECORDS[4]]
