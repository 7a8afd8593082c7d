"""The stacks of a process that is stuck.

Owns that they are written to stderr when the process is aborted (SIGABRT, which is what systemd's
watchdog sends, too): by a handler in C, which needs no GIL.
"""

from __future__ import annotations

import faulthandler
import io
import sys


def show_stacks_when_stuck() -> None:
    """Has this process write the stacks of all threads when it is found to be stuck."""
    # Whoever has enabled it before may have named a file of their own.
    if not faulthandler.is_enabled() and sys.stderr is not None:
        try:
            faulthandler.enable(all_threads=True)
        except (io.UnsupportedOperation, ValueError):
            # A stderr that is no file; the line of the master is all there is then.
            return
