"""How a failure ends the process: one readable line, or the traceback of the user's own code.

Owns exit codes and what is shown on stderr. Knows no exception of ours: whoever catches one decides
which of the two forms it deserves.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import traceback
from typing import NoReturn

from anel.telling import complain

# Exit codes, shared with the command line.
EXIT_SETUP = 3
EXIT_BIND = 4

# Where frames come from that the user did not write and cannot change.
_NOT_THE_USERS = (
    "<frozen importlib",
    os.path.dirname(__file__) + os.sep,
    os.path.dirname(importlib.__file__) + os.sep,
    os.path.dirname(asyncio.__file__) + os.sep,
    str(contextlib.__file__),
)


def leave(code: int, reason: str) -> NoReturn:
    """Ends the process with one line."""
    complain(f"anel: {reason}")
    raise SystemExit(code)


def leave_with_traceback(code: int, error: BaseException) -> NoReturn:
    """Ends the process with a traceback that shows the user's frames alone."""
    shown = traceback.TracebackException.from_exception(error)
    _keep_users_frames(shown)
    complain("".join(shown.format()).rstrip("\n"))
    raise SystemExit(code)


def _keep_users_frames(shown: traceback.TracebackException) -> None:
    kept = [frame for frame in shown.stack if not frame.filename.startswith(_NOT_THE_USERS)]
    shown.stack = traceback.StackSummary.from_list(kept)
    chained = [shown.__cause__, shown.__context__, *(shown.exceptions or ())]
    for other in chained:
        if other is not None:
            _keep_users_frames(other)
