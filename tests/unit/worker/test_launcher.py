"""The launcher by itself, with an agent that the test plays."""

import json
import select
import signal
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nodeflow_worker.adapters.launcher_link import ENTRY

WAIT_S = 20.0


class Agent:
    """An agent, and its launcher, whose messages find little room unless they are read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            self.launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", str(ENTRY), str(other.fileno()), str(directory)],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def say(self, **message: object) -> None:
        with Path("/dev/null").open("r+b", buffering=0) as null:
            fds = array("i", [null.fileno()] * 3) if message["do"] == "start" else array("i")
            self.socket.sendmsg([json.dumps(message).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])

    def start(self, number: int, *argv: str) -> None:
        environment = {
            "PATH": "/usr/bin:/bin",
            "NODEFLOW_WORK_DIR": str(self.directory),
            "NODEFLOW_EXECUTION_ID": "e",
            "NODEFLOW_TASK_NUMBER": str(number),
            "NODEFLOW_ATTEMPT_NUMBER": "1",
        }
        self.say(
            do="start",
            number=number,
            root=str(self.directory),
            argv=argv,
            environment=environment,
            directory="",
            limits={},
        )

    def heard(self) -> dict[str, Any]:
        """Return the next message."""
        assert select.select([self.socket], [], [], WAIT_S)[0]
        told: dict[str, Any] = json.loads(self.socket.recv(65_536))
        return told


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "processes")
    agent.directory.mkdir()
    yield agent
    agent.socket.close()
    assert agent.launcher.wait(WAIT_S) == 0


def test_an_agent_that_stands_still_and_reads_nothing_does_not_hold_up_the_end_of_its_lease(agent: Agent) -> None:
    agent.start(1, "sleep", "60")
    agent.say(do="identify", number=1)
    sleeps = psutil.Process(agent.heard()["pid"])
    for number in range(2, 32):
        agent.start(number, "true")
    agent.say(do="until", at=time.monotonic() + 0.5)
    gone, _ = psutil.wait_procs([sleeps], timeout=WAIT_S)
    assert gone == [sleeps]
    ends = {told["number"]: told["code"] for told in (agent.heard() for _ in range(31))}
    assert ends.pop(1) == -signal.SIGKILL
    assert set(ends.values()) == {0}
