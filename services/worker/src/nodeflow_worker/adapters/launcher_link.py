"""The agent's end of the launcher: its process, and the socket to it.

Owns the packets and their queue. Must not know attempts: it carries numbers.
"""

import array
import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from nodeflow_worker import launcher

PACKET_BYTES: Final = 60_000
"""Longer messages travel in a file of their own, beside a packet."""
RETRY_S: Final = 0.05

ENTRY: Final = Path(launcher.__file__).with_name("__main__.py")


class LauncherLink:
    """One launcher process. `tell` gets its messages, `on_lost` is called once when it is gone."""

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        tell: Callable[[dict[str, Any]], None],  # Any: JSON
        on_lost: Callable[[], None],
    ) -> None:
        self._tell = tell
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._lost = False
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(ENTRY), str(other.fileno()), str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=2,
                env=dict(environment),
                pass_fds=[other.fileno()],
                start_new_session=True,
            )
        except OSError:
            self._socket.close()
            raise
        finally:
            other.close()
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._read)

    def send(self, message: Mapping[str, object], fds: Sequence[int] = ()) -> None:
        """Send a message, and close the fds that go with it. One after the loss of the launcher goes nowhere."""
        data, passed = json.dumps(message).encode("utf-8", "surrogatepass"), list(fds)
        if len(data) > PACKET_BYTES:
            passed.append(memory_file(data))
            data = b"{}"
        if self._lost:
            _close(passed)
            return
        self._unsent.append((data, passed))
        if len(self._unsent) == 1:
            self._send_more()

    def _send_more(self) -> None:
        while self._unsent:
            data, fds = self._unsent[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                self._socket.sendmsg([data], rights)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._send_more)
                return
            except ConnectionError:
                break  # its end will be seen by the reader
            except OSError:  # of no room in the kernel: this user has too many descriptors on their way, for one
                self._loop.remove_writer(self._socket)
                self._loop.call_later(RETRY_S, self._retry)
                return
            self._unsent.popleft()
            _close(fds)
        self._loop.remove_writer(self._socket)

    def _retry(self) -> None:
        if not self._lost:
            self._send_more()

    def _read(self) -> None:
        for _ in range(64):  # then others have their turn
            try:
                data = self._socket.recv(PACKET_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self._lose()
                return
            self._tell(json.loads(data))

    def _lose(self) -> None:
        self._lost = True
        self._disconnect()
        self._popen.kill()
        self._popen.wait()
        self._on_lost()

    def _disconnect(self) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        while self._unsent:
            _close(self._unsent.popleft()[1])

    async def close(self) -> None:
        """Have the launcher end everything and exit, and wait for it."""
        if self._lost:
            return
        self._lost = True
        self._disconnect()
        await asyncio.to_thread(self._popen.wait)


def memory_file(data: bytes) -> int:
    """Return an open file that has the data, and no name."""
    fd = os.memfd_create("nodeflow-process")
    with open(fd, "wb", closefd=False) as file:  # it has no path
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
