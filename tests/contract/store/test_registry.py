"""Workflows, workers and artifacts: what any store keeps beside the log."""

from dataclasses import replace

import pytest
from tests.contract.store.conftest import Home

from nodeflow_shared.errors import IllegalState, NotFound
from nodeflow_state_manager.domain.paging import Page
from nodeflow_state_manager.domain.values import ArtifactRecord, WorkerRecord, WorkerSession, WorkflowRecord
from nodeflow_state_manager.ports import Store


def a_workflow(name: str, revision: str, tenant: str = "default") -> WorkflowRecord:
    return WorkflowRecord(
        tenant=tenant,
        name=name,
        revision=revision,
        document=f"{name} {revision}".encode(),
        content_type="application/yaml",
        directory="/srv/flows",
    )


def revisions(page: Page[WorkflowRecord]) -> list[tuple[str, str]]:
    return [(each.name, each.revision) for each in page.entries]


async def test_a_revision_is_stored_once(home: Home, store: Store) -> None:
    first, created = await store.create_workflow(a_workflow("etl", "r1"))
    assert created
    assert first.create_time_ms > 1_700_000_000_000
    assert replace(first, create_time_ms=0) == a_workflow("etl", "r1")
    again, created = await store.create_workflow(replace(a_workflow("etl", "r1"), directory="/elsewhere"))
    assert (again, created) == (first, False)
    assert await (await home.reopen()).get_workflow("default", "etl", "r1") == first


async def test_the_newest_revision_is_the_one_registered_last(store: Store) -> None:
    for revision in ("r2", "r1"):
        await store.create_workflow(a_workflow("etl", revision))
    assert (await store.get_workflow("default", "etl", "")).revision == "r1"
    assert (await store.get_workflow("default", "", "r2")).name == "etl"


@pytest.mark.parametrize(
    ("tenant", "name", "revision"), [("default", "no", ""), ("default", "etl", "r9"), ("x", "etl", "")]
)
async def test_what_is_not_there_is_not_found(store: Store, tenant: str, name: str, revision: str) -> None:
    await store.create_workflow(a_workflow("etl", "r1"))
    with pytest.raises(NotFound):
        await store.get_workflow(tenant, name, revision)


async def test_workflows_are_listed_by_name_each_with_its_newest_revision(store: Store) -> None:
    for name, revision in (("b", "r1"), ("a", "r1"), ("b", "r2"), ("c", "r1")):
        await store.create_workflow(a_workflow(name, revision))
    await store.create_workflow(a_workflow("d", "r1", tenant="other"))
    first = await store.list_workflows("default", "", None, 2)
    assert revisions(first) == [("a", "r1"), ("b", "r2")]
    assert [each.document for each in first.entries] == [b"", b""]
    second = await store.list_workflows("default", "", first.next_position, 2)
    assert (revisions(second), second.next_position) == ([("c", "r1")], None)


async def test_revisions_of_a_name_are_listed_newest_first(store: Store) -> None:
    for name, revision in (("b", "r1"), ("a", "r1"), ("b", "r2"), ("b", "r3")):
        await store.create_workflow(a_workflow(name, revision))
    first = await store.list_workflows("default", "b", None, 2)
    assert revisions(first) == [("b", "r3"), ("b", "r2")]
    second = await store.list_workflows("default", "b", first.next_position, 2)
    assert (revisions(second), second.next_position) == ([("b", "r1")], None)


def a_session(session_id: str, *replaced: str, worker_id: str = "w1", version: str = "1") -> WorkerSession:
    return WorkerSession(
        worker_id=worker_id,
        session_id=session_id,
        replaced_session_ids=replaced,
        labels={"zone": "a"},
        version=version,
    )


async def workers(store: Store, *, live_only: bool = False) -> dict[str, list[str]]:
    page = await store.list_workers(None, 100, live_only=live_only)
    return {each.worker_id: list(each.live_session_ids) for each in page.entries}


async def test_a_session_makes_its_worker_known(home: Home, store: Store) -> None:
    worker, created = await store.register_session(a_session("s1"))
    assert created
    assert worker == WorkerRecord(
        worker_id="w1",
        live_session_ids=["s1"],
        labels={"zone": "a"},
        version="1",
        register_time_ms=worker.register_time_ms,
        last_session_time_ms=worker.register_time_ms,
    )
    worker, created = await store.register_session(a_session("s2", version="2"))
    assert (created, worker.version, list(worker.live_session_ids)) == (False, "2", ["s1", "s2"])
    assert await workers(await home.reopen()) == {"w1": ["s1", "s2"]}


async def test_a_repeat_changes_nothing(store: Store) -> None:
    first, _ = await store.register_session(a_session("s1"))
    again, created = await store.register_session(a_session("s1"))
    assert (again, created) == (first, False)


async def test_replaced_sessions_end_and_cannot_begin_any_more(store: Store) -> None:
    await store.register_session(a_session("s1"))
    await store.register_session(a_session("s2", "s1", "never-seen"))
    assert await workers(store) == {"w1": ["s2"]}
    for ended in ("s1", "never-seen"):
        with pytest.raises(IllegalState):
            await store.register_session(a_session(ended))
    assert await workers(store) == {"w1": ["s2"]}


async def test_a_session_of_another_worker_is_neither_replaced_nor_taken(store: Store) -> None:
    await store.register_session(a_session("s1"))
    await store.register_session(a_session("s2", "s1", worker_id="w2"))
    assert await workers(store) == {"w1": ["s1"], "w2": ["s2"]}
    with pytest.raises(IllegalState):
        await store.register_session(a_session("s1", worker_id="w2"))


async def test_ended_sessions_are_gone_and_the_worker_stays_known(store: Store) -> None:
    await store.register_session(a_session("s1"))
    await store.register_session(a_session("s2", worker_id="w2"))
    await store.end_sessions(["s1", "s1", "nobody"])
    assert await workers(store) == {"w1": [], "w2": ["s2"]}
    assert await workers(store, live_only=True) == {"w2": ["s2"]}
    with pytest.raises(IllegalState):
        await store.register_session(a_session("s1"))


async def test_workers_are_paged_by_id(store: Store) -> None:
    for number in (3, 1, 2):
        await store.register_session(a_session(f"s{number}", worker_id=f"w{number}"))
    first = await store.list_workers(None, 2, live_only=True)
    second = await store.list_workers(first.next_position, 2, live_only=True)
    assert [each.worker_id for each in [*first.entries, *second.entries]] == ["w1", "w2", "w3"]
    assert second.next_position is None


async def test_artifacts_are_known_by_tenant_and_digest(home: Home, store: Store) -> None:
    artifact = ArtifactRecord(tenant="default", digest="sha256:1", size_bytes=5, content_type="text/plain")
    await store.put_artifact(artifact)
    await store.put_artifact(replace(artifact, content_type="image/png"))
    again = await home.reopen()
    assert await again.get_artifacts("default", ["sha256:1", "sha256:2"]) == [artifact]
    assert await again.get_artifacts("other", ["sha256:1"]) == []
