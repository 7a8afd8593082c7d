"""Runs the program of this process once more, in a new interpreter that keeps its number.

Owns whether a program can be run again, and how: as it was started, with the same arguments,
environment, folder and standard streams. What it does once it gets there is decided by the post
that it finds (`post.py`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from anel.child import ignore_signals_for_parent
from anel.exceptions import ConfigError
from anel.failures import EXIT_SETUP, leave
from anel.post import WorkerPost, current

# The folder in which the program was started, before it went anywhere else; "" if it has gone.
START = ""
with contextlib.suppress(OSError):
    START = os.getcwd()


def check() -> None:
    """Raises ConfigError for a program that nobody can run again."""
    is_interactive = hasattr(sys, "ps1") or sys.flags.interactive or sys.flags.inspect
    # What was piped in is gone.
    has_source = source() is not None or sys.argv[:1] == ["-c"]
    if is_interactive or not has_source or not sys.executable:
        raise ConfigError(
            "reload runs the program again, so it needs one: a file, not an interactive session"
        )


def source() -> str | None:
    """The file of the program; None where there is none, as with `python -c`."""
    file: str | None = getattr(sys.modules.get("__main__"), "__file__", None)
    return None if file is None or file.startswith("<") else file


def run_again() -> NoReturn:
    """Has this process, a worker, be a new interpreter that runs the program at the same post."""
    post = current()
    assert isinstance(post, WorkerPost)
    environment = {**os.environ, **post.hand_over()}
    # Without it Ctrl-C would end the worker in the middle of its imports.
    ignore_signals_for_parent()
    try:
        if START:
            os.chdir(START)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
    except OSError as error:
        leave(EXIT_SETUP, f"cannot run {sys.executable} again: {error.strerror}")
