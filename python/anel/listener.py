"""The listening socket.

Owns its options and the check of host and port. Knows nothing of workers: it hands out a socket.
"""

from __future__ import annotations

import socket

from anel.exceptions import ConfigError

# As many as the kernel allows (it caps this at net.core.somaxconn, 4096 by default since Linux
# 5.4).
BACKLOG = 4096


def open_listener(host: str, port: int) -> socket.socket:
    """Binds and listens; ConfigError for bad arguments, OSError when the kernel refuses.

    The empty host is every IPv4 address, as in `socket`.
    """
    if not isinstance(host, str):
        raise ConfigError(f"host must be a str, not {host!r}")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(f"port must be an int from 0 to 65535, not {port!r}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restarted server binds although old connections are in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it on Linux. A turn's answers leave in one send, so waiting for
        # more (Nagle's algorithm) only delays them.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def address(listener: socket.socket, host: str) -> str:
    """Where it listens, as it is written in a URL: the host as it was given, the port as bound."""
    bound_host, port = listener.getsockname()[:2]
    shown = host or bound_host
    return f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
