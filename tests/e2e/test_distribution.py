"""Three distributions in an empty environment are enough to start a scheduler.

Needs a package index that pip knows: without one, nothing can be installed, and the tests say so and are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = ["./gen", "./shared", "./services/scheduler"]
SERVICE = "nodeflow.scheduler.v1.SchedulerService"
NOWHERE = "127.0.0.1:1"
ANSWER_S = 20.0

pytestmark = pytest.mark.timeout(400)


def environment(**settings: str) -> dict[str, str]:
    """This process's, without what would let Python find packages elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **settings}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the three distributions and what they ask for, and nothing else."""
    directory = tmp_path_factory.mktemp("distribution")
    subprocess.run([sys.executable, "-m", "venv", str(directory / "venv")], check=True, env=environment())
    python = directory / "venv" / "bin" / "python"
    pip = [str(python), "-m", "pip"]
    reach = subprocess.run(
        [*pip, "download", "--quiet", "--no-deps", "--dest", str(directory), "hatchling"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    if reach.returncode:
        pytest.skip(f"pip reaches no package index: {(reach.stderr.strip() or 'no message').splitlines()[-1]}")
    installed = subprocess.run(
        [*pip, "install", "--quiet", "--constraint", "constraints.txt", *DISTRIBUTIONS],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(),
    )
    assert installed.returncode == 0, installed.stderr
    return python


@contextmanager
def serving(python: Path, module: str, directory: Path, **settings: str) -> Iterator[str]:
    """A service as a process, from when it listens; gives its address."""
    own = environment(**{f"{module.upper()}_{name}": value for name, value in settings.items()})
    command = [str(python), "-m", module]
    with subprocess.Popen(command, cwd=directory, env=own, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said: list[str] = []
            for line in process.stderr:
                said.append(line)
                if line.startswith("{") and json.loads(line)["event"] == "listening":
                    break
            else:
                pytest.fail(f"{module} ended with {process.wait()}: {''.join(said)}")
            yield str(json.loads(said[-1])["address"])
        finally:
            process.terminate()
            process.communicate(timeout=ANSWER_S)


@contextmanager
def scheduler(python: Path, directory: Path, state_manager: str) -> Iterator[grpc.Channel]:
    settings = {
        "BIND": "127.0.0.1:0",
        "LOG_FORMAT": "json",
        "STATE_MANAGER": state_manager,
        "WORKER_MANAGERS": NOWHERE,
        "DRAIN_TIMEOUT_S": "1",
    }
    with (
        serving(python, "nodeflow_scheduler", directory, **settings) as address,
        grpc.insecure_channel(address) as channel,
    ):
        grpc.channel_ready_future(channel).result(timeout=ANSWER_S)
        yield channel


def test_nothing_else_of_ours_is_installed(python: Path) -> None:
    listing = [str(python), "-m", "pip", "list", "--format", "json"]
    found = json.loads(subprocess.run(listing, check=True, capture_output=True, env=environment()).stdout)
    ours = {each["name"] for each in found if each["name"].startswith("nodeflow")}
    assert ours == {"nodeflow-protos", "nodeflow-shared", "nodeflow-scheduler"}
    subprocess.run([str(python), "-m", "pip", "check"], check=True, env=environment())


def test_it_starts_and_says_that_it_cannot_serve_yet(python: Path, tmp_path: Path) -> None:
    with scheduler(python, tmp_path, NOWHERE) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # its stub file names no methods
        for name in ("", SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=ANSWER_S)
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        (response,) = reflection.ServerReflectionInfo(iter([request]), timeout=ANSWER_S)
        assert SERVICE in {each.name for each in response.list_services_response.service}


def test_it_serves_once_a_state_manager_gives_it_shards(python: Path, tmp_path: Path) -> None:
    store = {"BIND": "127.0.0.1:0", "LOG_FORMAT": "json", "DATA_DIR": str(tmp_path / "data")}
    with (
        serving(Path(sys.executable), "nodeflow_state_manager", ROOT, **store) as address,
        scheduler(python, tmp_path, address) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)  # its stub file names no methods
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=ANSWER_S)
        assert any(each.status == health_pb2.HealthCheckResponse.SERVING for each in watch)
        watch.cancel()
