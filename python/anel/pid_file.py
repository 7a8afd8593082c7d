"""The file that tells which process the server is.

Owns its content and the rule that two servers do not share one. It is written once the server
listens and removed when it ends.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from anel.exceptions import SetupError


@contextlib.contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """Meanwhile the file has this process's number in it. None writes nothing.

    Raises SetupError when it cannot be written, or names another process that is alive.
    """
    if path is None:
        yield
        return
    # The working directory may be another one at the end.
    path = os.path.abspath(path)
    pid = os.getpid()
    other = _read(path)
    if other not in (None, pid) and _is_alive(other):
        raise SetupError(None, f"{path} names process {other}, which is running")
    new = f"{path}.{pid}"
    try:
        with open(new, "w", encoding="ascii") as file:
            file.write(f"{pid}\n")
        # At once: who reads it finds a whole number or the old file.
        os.replace(new, path)
    except OSError as error:
        raise SetupError(error.errno, f"cannot write the pid file {path}") from None
    try:
        yield
    finally:
        # A worker that was forked meanwhile leaves it alone, as does who may not remove it any
        # more; the number in it is nobody's then.
        if os.getpid() == pid and _read(path) == pid:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _read(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None


def _is_alive(pid: int | None) -> bool:
    if pid is None or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
