"""Listening addresses: `host:port`, which of them only this machine can reach, and why one cannot be had.

Owns the wording of bind failures. Must not know what is served.
"""

import errno
import ipaddress
import socket


def parse_address(address: str) -> tuple[str, int]:
    """Split `host:port` (IPv6 hosts in brackets); raises ValueError that says what would be right."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError("should be host:port, like 127.0.0.1:7420 or [::1]:7420")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"should have a port from 0 to 65535 after the colon, not {port!r}")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address; a name other than localhost is taken to be reachable."""
    host, _ = parse_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def with_port(address: str, port: int) -> str:
    """Return the address with another port."""
    return f"{address.rpartition(':')[0]}:{port}"


def why_not_free(address: str) -> str | None:
    """Say why an address cannot be listened on, or None if it seems free: gRPC only says that it cannot."""
    host, port = parse_address(address)
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
    except OSError as error:
        return _in_words(error)
    return None


def _in_words(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host name cannot be resolved ({error.strerror})"
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is in use"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
        case errno.EACCES:
            return "this user may not use the port"
        case _:
            return error.strerror or str(error)
