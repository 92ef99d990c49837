"""The bytes of artifacts: stored whole under their digest, or not at all."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeflow_shared.errors import InvalidInput, NotFound, QuotaExceeded
from nodeflow_state_manager.adapters.artifact_directory import INCOMING, ArtifactDirectory
from nodeflow_state_manager.ports import ArtifactFiles
from nodeflow_testing.memory_artifacts import MemoryArtifactFiles

LIMIT = 3 << 20


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def read(files: ArtifactFiles, tenant: str, digest: str) -> bytes:
    return b"".join([piece async for piece in files.read(tenant, digest)])


@pytest.fixture(params=["directory", "memory"])
async def files(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ArtifactFiles]:
    files: ArtifactFiles = (
        ArtifactDirectory(tmp_path, max_bytes=LIMIT)
        if request.param == "directory"
        else MemoryArtifactFiles(max_bytes=LIMIT)
    )
    yield files
    await files.close()


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[ArtifactDirectory]:
    files = ArtifactDirectory(tmp_path, max_bytes=LIMIT)
    yield files
    await files.close()


@pytest.mark.parametrize("data", [(), (b"",), (b"one",), (b"one", b"", b"two"), (b"x" * (1 << 20), b"y" * 5_000)])
async def test_bytes_come_back_as_they_were(files: ArtifactFiles, data: tuple[bytes, ...]) -> None:
    whole = b"".join(data)
    assert await files.receive("default", pieces(*data), "") == (digest_of(whole), len(whole))
    assert await files.receive("default", pieces(whole), digest_of(whole)) == (digest_of(whole), len(whole))
    assert await read(files, "default", digest_of(whole)) == whole


async def test_large_files_are_read_in_pieces_of_a_mebibyte(files: ArtifactFiles) -> None:
    digest, _ = await files.receive("default", pieces(b"a" * (5 << 19)), "")
    assert [len(piece) async for piece in files.read("default", digest)] == [1 << 20, 1 << 20, 1 << 19]


async def test_another_digest_is_refused_and_nothing_is_stored(files: ArtifactFiles) -> None:
    with pytest.raises(InvalidInput) as caught:
        await files.receive("default", pieces(b"data"), digest_of(b"other"))
    assert caught.value.violations[0].path == "header.digest"
    for data in (b"data", b"other"):
        with pytest.raises(NotFound):
            await read(files, "default", digest_of(data))


async def test_too_many_bytes_are_refused_and_nothing_is_stored(files: ArtifactFiles) -> None:
    data = b"x" * (LIMIT + 1)
    with pytest.raises(QuotaExceeded):
        await files.receive("default", pieces(data[:10], data[10:]), "")
    with pytest.raises(NotFound):
        await read(files, "default", digest_of(data))


async def test_tenants_do_not_see_each_other(files: ArtifactFiles) -> None:
    digest, _ = await files.receive("one", pieces(b"data"), "")
    with pytest.raises(NotFound):
        await read(files, "two", digest)


@pytest.mark.parametrize("tenant", ["", "..", ".incoming", "a/b", "a\0", "../one", "x" * 64])
async def test_a_tenant_that_is_no_plain_name_is_refused(files: ArtifactFiles, tenant: str) -> None:
    with pytest.raises(InvalidInput):
        await files.receive(tenant, pieces(b"data"), "")
    with pytest.raises(InvalidInput):
        await read(files, tenant, digest_of(b"data"))


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + "a" * 64, "sha256:" + "A" * 64])
async def test_a_malformed_digest_is_refused(files: ArtifactFiles, digest: str) -> None:
    with pytest.raises(InvalidInput):
        await read(files, "default", digest)


def leftovers(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def test_an_upload_that_breaks_off_leaves_no_file(directory: ArtifactDirectory, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"data"
        raise ConnectionError("gone")

    for attempt in (broken(), pieces(b"x" * (LIMIT + 1))):
        with pytest.raises((ConnectionError, QuotaExceeded)):
            await directory.receive("default", attempt, "")
    with pytest.raises(InvalidInput):
        await directory.receive("default", pieces(b"data"), digest_of(b"other"))
    assert leftovers(tmp_path) == []


async def test_a_start_removes_what_a_dead_process_was_receiving(tmp_path: Path) -> None:
    first = ArtifactDirectory(tmp_path, max_bytes=LIMIT)
    digest, _ = await first.receive("default", pieces(b"kept"), "")
    await first.close()
    (tmp_path / INCOMING / "half").write_bytes(b"half")
    second = ArtifactDirectory(tmp_path, max_bytes=LIMIT)
    assert [path.name for path in leftovers(tmp_path)] == [digest.removeprefix("sha256:")]
    assert await read(second, "default", digest) == b"kept"
    await second.close()


async def test_files_lie_below_tenant_and_first_digits(directory: ArtifactDirectory, tmp_path: Path) -> None:
    digest, _ = await directory.receive("default", pieces(b"data"), "")
    name = digest.removeprefix("sha256:")
    assert leftovers(tmp_path) == [tmp_path / "default" / name[:2] / name]
