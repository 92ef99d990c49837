"""The supervisor over real processes that only serve health: start, restart, stop, refusals. No service is involved."""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from nodeflow_sdk.suite import SuiteError, SuiteOptions, SuiteService, running_suite, supervisor
from nodeflow_sdk.suite.health import Patience, is_healthy, wait_until_healthy
from nodeflow_sdk.suite.observer import SilentObserver
from nodeflow_sdk.suite.ports import choose_addresses, is_free
from nodeflow_sdk.suite.record import read_record

REPOSITORY = Path(__file__).parents[3]


class Recorder(SilentObserver):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.lines: list[tuple[SuiteService, str]] = []
        self.restarts: asyncio.Queue[tuple[SuiteService, int, int]] = asyncio.Queue()
        self.silences: list[tuple[SuiteService, int]] = []
        self.waits: list[str] = []

    def on_line(self, service: SuiteService, line: str) -> None:
        self.lines.append((service, line))

    def on_restart(self, service: SuiteService, exit_code: int, pid: int) -> None:
        self.restarts.put_nowait((service, exit_code, pid))

    def on_silence(self, service: SuiteService, pid: int) -> None:
        self.silences.append((service, pid))

    def on_wait(self, reason: str) -> None:
        self.waits.append(reason)


def is_running(pid: int) -> bool:
    # An orphan that has ended may wait for a parent that never asks for it.
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts an idle service in the place of each service, for child processes only; returns their notes."""
    modules = tmp_path / "modules"
    for service in SuiteService:
        package = modules / service.module
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(
            f"import sys\nfrom tests.unit.sdk.idle_service import main\nsys.exit(main({service.value!r}))\n"
        )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(modules), str(REPOSITORY))))
    monkeypatch.setenv("IDLE_SERVICE_NOTES", str(tmp_path))
    return tmp_path


@pytest.fixture
def options(notes: Path) -> SuiteOptions:
    return SuiteOptions(data_dir=notes / ".nodeflow", port=0)


async def test_a_suite_is_healthy_recorded_and_stopped_in_order(options: SuiteOptions, notes: Path) -> None:
    recorder = Recorder()
    async with running_suite(options, recorder) as suite:
        for address in suite.addresses.values():
            assert await is_healthy(address, 5)
        record = read_record(options.data_dir)
        assert record is not None
        assert record.pid == os.getpid()
        assert record.pids == {service.value: pid for service, pid in suite.pids.items()}
        assert record.addresses["scheduler"] == suite.scheduler
        pids = list(suite.pids.values())
    assert (notes / "stopped").read_text().split() == ["worker", "scheduler", "worker-manager", "state-manager"]
    assert not any(is_running(pid) for pid in pids)
    assert read_record(options.data_dir) is None
    assert any(service == "scheduler" and "listening" in line for service, line in recorder.lines)
    assert "listening" in (options.data_dir / "logs" / "scheduler.log").read_text()


async def test_services_are_stopped_although_the_disk_was_made_read_only(
    options: SuiteOptions, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_data_dir: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async with running_suite(options):
        monkeypatch.setattr(supervisor, "remove_record", refused)
    assert (notes / "stopped").read_text().split() == ["worker", "scheduler", "worker-manager", "state-manager"]


async def test_a_suite_without_slots_has_no_worker(options: SuiteOptions, notes: Path) -> None:
    async with running_suite(replace(options, slots=0)) as suite:
        assert set(suite.addresses) == set(suite.pids) == set(SuiteService) - {SuiteService.WORKER}
    assert (notes / "stopped").read_text().split() == ["scheduler", "worker-manager", "state-manager"]


async def test_a_killed_service_comes_back_at_its_address(options: SuiteOptions) -> None:
    recorder = Recorder()
    async with running_suite(options, recorder) as suite:
        for service in SuiteService:
            killed = suite.pids[service]
            os.kill(killed, signal.SIGKILL)
            assert (await recorder.restarts.get())[:2] == (service, -signal.SIGKILL)
            await wait_until_healthy(suite.addresses[service])
            record = read_record(options.data_dir)
            assert record is not None
            assert record.pids[service] == suite.pids[service] != killed


async def test_a_system_without_room_for_a_process_is_asked_again(
    options: SuiteOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, start, descriptors = Recorder(), asyncio.create_subprocess_exec, list[int]()

    async def started(*command: str, **how: Any) -> asyncio.subprocess.Process:  # passed on
        descriptors.append(psutil.Process().num_fds())
        if len(descriptors) <= 3:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return await start(*command, **how)

    async with running_suite(options, recorder) as suite:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
        os.kill(suite.pids[SuiteService.SCHEDULER], signal.SIGKILL)
        assert (await recorder.restarts.get())[:2] == (SuiteService.SCHEDULER, -signal.SIGKILL)
        await wait_until_healthy(suite.scheduler)
    said = [line for service, line in recorder.lines if "cannot be started now" in line]
    assert len(said) == 3
    assert descriptors[-1] <= descriptors[0]


async def test_a_service_that_hangs_is_killed_and_comes_back(options: SuiteOptions) -> None:
    recorder = Recorder()
    patient = replace(options, patience=Patience(probe_s=0.5, probes=2))
    async with running_suite(patient, recorder) as suite:
        for service in (SuiteService.SCHEDULER, SuiteService.STATE_MANAGER):
            hung = suite.pids[service]
            os.kill(hung, signal.SIGSTOP)
            assert (await recorder.restarts.get())[:2] == (service, -signal.SIGKILL)
            assert recorder.silences.pop() == (service, hung)
            await wait_until_healthy(suite.addresses[service])
    assert recorder.silences == []


async def test_a_service_that_cannot_start_ends_the_start_with_its_own_words(
    options: SuiteOptions, notes: Path
) -> None:
    (notes / "break-state-manager").write_text("2")
    with pytest.raises(SuiteError, match=r"(?s)state-manager cannot start \(exit code 2\).*state-manager has no disk"):
        async with running_suite(options):
            pass
    assert read_record(options.data_dir) is None


async def test_a_service_that_dies_at_its_start_is_tried_three_times(options: SuiteOptions, notes: Path) -> None:
    (notes / "break-worker").write_text("1")
    with pytest.raises(SuiteError, match="worker cannot start"):
        async with running_suite(options):
            pass
    log = (options.data_dir / "logs" / "worker.log").read_text()
    assert log.count("worker has no disk") == 3


async def test_a_second_suite_in_the_same_directory_is_refused(options: SuiteOptions) -> None:
    async with running_suite(options):
        with pytest.raises(SuiteError, match=f"already runs in .* \\(process {os.getpid()}\\)"):
            async with running_suite(options):
                pass


async def test_the_blocks_own_error_comes_out_as_it_was_raised(options: SuiteOptions) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with running_suite(options):
            raise KeyError("mine")


async def test_children_die_with_a_killed_supervisor_and_the_next_one_waits_for_them(
    options: SuiteOptions, notes: Path
) -> None:
    # In a process of its own, because it is killed.
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nodeflow_sdk.cli", "up", "--port", "0", "--data-dir", str(options.data_dir)),
        stderr=asyncio.subprocess.PIPE,
    )
    assert supervisor.stderr is not None
    async for line in supervisor.stderr:
        if b"ready after" in line:
            break
    record = read_record(options.data_dir)
    assert record is not None
    supervisor.kill()
    await supervisor.wait()
    recorder = Recorder()
    async with running_suite(options, recorder) as suite:
        assert not set(record.pids.values()) & set(suite.pids.values())
        assert not any(is_running(pid) for pid in record.pids.values())
    assert len(recorder.waits) == 1


async def test_sigterm_stops_up_in_order_with_exit_0(options: SuiteOptions, notes: Path) -> None:
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "nodeflow_sdk.cli", "up", "--port", "0", "--data-dir", str(options.data_dir)),
        stderr=asyncio.subprocess.PIPE,
    )
    assert supervisor.stderr is not None
    async for line in supervisor.stderr:
        if b"ready after" in line:
            supervisor.terminate()
            break
    _, rest = await supervisor.communicate()
    assert supervisor.returncode == 0, rest.decode()
    assert (notes / "stopped").read_text().split() == ["worker", "scheduler", "worker-manager", "state-manager"]


@pytest.fixture
async def taken_port() -> AsyncIterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_is_named_with_its_service_and_holder(taken_port: int) -> None:
    with pytest.raises(SuiteError) as refused:
        choose_addresses(taken_port - 1)
    told = str(refused.value)
    assert f"port {taken_port}, wanted for the state-manager, is in use by" in told
    assert f"process {os.getpid()}" in told
    assert "--port 0" in told


def test_chosen_ports_are_free_and_distinct() -> None:
    addresses = choose_addresses(0)
    ports = {int(address.rpartition(":")[2]) for address in addresses.values()}
    assert len(ports) == len(SuiteService)
    assert all(is_free(port) for port in ports)


def test_ports_beyond_the_last_one_are_refused() -> None:
    with pytest.raises(SuiteError, match="do not exist"):
        choose_addresses(65_534)


async def test_a_service_that_is_being_started_again_is_stopped_too(
    options: SuiteOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, starting, proceed = asyncio.create_subprocess_exec, asyncio.Event(), asyncio.Event()

    async def begin_late(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
        starting.set()
        await proceed.wait()
        return await begin(*arguments, **options)

    async with asyncio.timeout(60):
        async with running_suite(options) as suite:
            monkeypatch.setattr(asyncio, "create_subprocess_exec", begin_late)
            os.kill(suite.pids[SuiteService.WORKER], signal.SIGKILL)
            await starting.wait()
            asyncio.get_running_loop().call_later(0.2, proceed.set)  # when the block has ended
        assert not any(map(is_running, suite.pids.values()))
