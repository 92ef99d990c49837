"""Ports of a suite: chosen once, found free, or reported with who holds them.

Owns the choice and the wording. Must not know what is served on a port, beyond its name.
"""

import random
import socket
from collections.abc import Mapping
from typing import Final

import psutil

from nodeflow_sdk.suite.errors import SuiteError
from nodeflow_sdk.suite.services import HOST, PORT_ORDER, SuiteService

# Below the range from which systems take ports of outgoing connections: a restarted service must find its own port
# free, and a client that dials a dead one must not meet itself.
_FREE_PORTS: Final = range(10_000, 30_000)
_TRIES: Final = 200


def choose_addresses(port: int) -> dict[SuiteService, str]:
    """Return an address for each service: from `port` on, or free ones for 0. Raises SuiteError if one is in use."""
    ports = _free_ports(len(PORT_ORDER)) if port == 0 else list(range(port, port + len(PORT_ORDER)))
    chosen = dict(zip(PORT_ORDER, ports, strict=True))
    if ports[-1] > 65_535:
        raise SuiteError(f"ports {port} to {ports[-1]} do not exist; choose a --port up to {65_536 - len(PORT_ORDER)}")
    if port != 0:
        _refuse_taken(chosen)
    return {service: f"{HOST}:{number}" for service, number in chosen.items()}


def is_free(port: int) -> bool:
    """Whether the port can be listened on now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(_FREE_PORTS, _TRIES):
        if len(found) < count and is_free(port):
            found.append(port)
    if len(found) < count:
        raise SuiteError("no free ports found between 10000 and 29999; name one with --port")
    return found


def _refuse_taken(chosen: Mapping[SuiteService, int]) -> None:
    for service, port in chosen.items():
        if not is_free(port):
            raise SuiteError(
                f"port {port}, wanted for the {service}, is in use by {_holder(port)}; stop that process, "
                f"or start on other ports: --port {port + 100}, or --port 0 for free ones"
            )


def _holder(port: int) -> str:
    """Say who listens on a port, as far as this user may know."""
    try:
        listeners = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        pids = [each.pid for each in listeners if each.laddr and each.laddr.port == port and each.pid]
        if not pids:
            return "another process"
        command = " ".join(psutil.Process(pids[0]).cmdline())
    except psutil.Error:
        return "another process"
    if "nodeflow" in command:
        return f"another Node Flow suite, process {pids[0]} ({_shorten(command)})"
    return f"process {pids[0]} ({_shorten(command)})"


def _shorten(command: str) -> str:
    return command if len(command) <= 80 else f"{command[:79]}…"
