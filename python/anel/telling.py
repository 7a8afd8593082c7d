"""What a server tells the people who run it, a line at a time.

Owns the rule that nobody is kept from serving, replacing or ending because a line cannot be
written: the reader may have closed the pipe, stopped reading, or filled the disk. Knows nothing of
what is told; what the library logs goes through `logging` instead.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from typing import TextIO

# A reader who is only slow gets every line; one who has stopped reading costs this much a line.
_PATIENCE_MS = 100


def say(line: str) -> None:
    """Tells whoever reads stdout how things go."""
    _write(sys.stdout, line)


def complain(line: str) -> None:
    """Tells whoever reads stderr what is wrong."""
    _write(sys.stderr, line)


def _write(stream: TextIO | None, line: str) -> None:
    # None: a process without standard streams.
    if stream is None or not _takes_more(stream):
        return
    try:
        # One write, so that the lines of several processes do not mix.
        print(f"{line}\n", end="", file=stream, flush=True)
    except BrokenPipeError:
        # The line is still in the buffer, and Python would fail on it when it exits.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
    except (OSError, ValueError):
        # A full disk, or a stream that was closed.
        return


def _takes_more(stream: TextIO) -> bool:
    """Whether a line can be written without waiting for a reader. A broken pipe takes anything."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
        return bool(poll.poll(_PATIENCE_MS))
    except (OSError, ValueError):
        # Nothing of the kernel's, as in a test that captures output.
        return True
