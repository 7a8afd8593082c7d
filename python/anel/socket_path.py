"""The path of a Unix socket: who may have it, and that it is gone at the end.

Owns the file in which a listening socket is found. One that nobody listens on any more is replaced,
any other stays. Knows nothing of what is said on the socket.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from anel.exceptions import ConfigError

# Longest path of a Unix socket, in bytes: `sun_path` has 108 with the NUL (unix(7)).
PATH_BYTES_MAX = 107

_MODE_MAX = 0o777


class SocketPath:
    """The file of a socket that is bound to it. Whoever has bound it removes it."""

    def __init__(self, listener: socket.socket, path: str, mode: int | None = None) -> None:
        """Binds the socket, which must not listen yet; OSError when the path is not to be had.

        Without a mode it is what the umask makes of it. Whoever is not allowed to connect is kept
        out from the beginning: nobody can before it listens.
        """
        _remove_stale(path)
        listener.bind(path)
        # The working directory may be another one at the end.
        self._path = os.path.abspath(path)
        found = os.lstat(path)
        self._identity = found.st_dev, found.st_ino
        if mode is not None:
            try:
                os.chmod(path, mode)
            except OSError:
                self.remove()
                raise

    def give_to(self, uid: int, gid: int) -> None:
        """Makes it somebody else's. OSError when that may not be."""
        os.lchown(self._path, uid, gid)

    def remove(self) -> None:
        """Removes it, unless it is somebody else's by now, or may not be."""
        # Whom the server became may not be allowed to; the next one removes it.
        with contextlib.suppress(OSError):
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == self._identity:
                os.unlink(self._path)


def mode(text: str) -> int:
    """The permissions that an octal number such as 660 stands for. Raises ConfigError."""
    try:
        number = int(text, 8)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number <= _MODE_MAX:
        raise ConfigError(f"must be an octal number from 0 to 777, not {text!r}")
    return number


def _remove_stale(path: str) -> None:
    """Removes a socket that nobody listens on any more; anything else stays, and is in the way."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        # A listener with a full queue must not make us wait. One of another type is one, too.
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
