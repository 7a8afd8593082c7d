"""What a service manager and its service tell each other: systemd's protocols, without its library.

Owns the sockets that were opened for us (`LISTEN_FDS`, sd_listen_fds(3)) and the datagrams that say
how we are (`NOTIFY_SOCKET`, sd_notify(3)). The variables are taken out of the environment, so that
programs which handlers start do not take them for theirs. Elsewhere nothing is found, and nothing
is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from anel.exceptions import ConfigError

# The first descriptor that is handed over (SD_LISTEN_FDS_START).
_FIRST = 3


def handed_over() -> tuple[int, ...]:
    """The descriptors of the sockets that were opened for this process; none elsewhere.

    Raises ConfigError for a variable that is no number.
    """
    pid, count = os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS")
    if pid is None or count is None:
        return ()
    if not pid.isdecimal() or not count.isdecimal():
        raise ConfigError(f"LISTEN_PID and LISTEN_FDS must be numbers, not {pid!r} and {count!r}")
    if int(pid) != os.getpid():
        # An ancestor's, who did not take them out.
        return ()
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return tuple(range(_FIRST, _FIRST + int(count)))


class Notifier:
    """Tells the service manager how we are, if there is one."""

    def __init__(self) -> None:
        """Takes the address out of the environment."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of an abstract address.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # How often it wants to hear that we are alive (WatchdogSec=), in seconds.
        self.beat_every_s = _watchdog_s() if self._address else None

    def ready(self) -> None:
        """We serve, for the first time or again."""
        self._send(f"READY=1\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        """We have begun to replace our workers; `ready` follows."""
        # The time tells it apart from older messages (Type=notify-reload).
        self._send(
            f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )

    def stopping(self) -> None:
        """We have begun to end."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """We come round."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # Serving goes on whether or not somebody listens.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.sendto(message.encode(), self._address)


def _watchdog_s() -> float | None:
    """Half of what is allowed (sd_watchdog_enabled(3)), so that one message may come late."""
    allowed, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
    if not allowed.isdecimal() or int(allowed) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(allowed) / 2e6
