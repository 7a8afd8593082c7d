"""The life of a process that a server forks, from its first instruction to its last.

Owns what of the parent is undone in the child, and how the child ends: never by returning into the
parent's frames, which hold what is the parent's to close. Knows nothing of the work.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from types import FrameType
from typing import NoReturn

from anel.telling import complain

# What is the parent's alone to act on, though it reaches all processes of a terminal or a group.
_LEFT_TO_PARENT = (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU)

# The signals that a parent of ours acts on.
PARENTS = (*_LEFT_TO_PARENT, signal.SIGTERM, signal.SIGCHLD)


def run_child(work: Callable[[], None], mask: Iterable[int]) -> NoReturn:
    """Works and ends the process. To be called right after the fork.

    `mask` are the signals that were blocked before the fork began.
    """
    code = 1
    try:
        # Theirs to run who registered them.
        atexit._clear()
        signal.set_wakeup_fd(-1)
        for number in PARENTS:
            signal.signal(number, signal.SIG_DFL)
        leave_signals_to_parent()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        work()
        code = 0
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException:
        traceback.print_exc()
    finally:
        _end(code)


def leave_signals_to_parent() -> None:
    """Does nothing on signals that are the parent's to act on."""
    for number in _LEFT_TO_PARENT:
        # Not ignored: programs that handlers start would inherit that.
        signal.signal(number, _nothing)


def ignore_signals_for_parent() -> None:
    """The same for the time until this process executes another program: no handler outlives it."""
    for number in _LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A signal for the parent has reached us, too."""


def _exit_code(error: SystemExit) -> int:
    """As the interpreter understands it."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    complain(str(error.code))
    return 1


def _end(code: int) -> NoReturn:
    """What the interpreter does at its end, in its order."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # Waits for threads, as it says there.
        atexit._run_exitfuncs()
        # It was registered before the fork.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        # Nobody reads what is left, which is no failure of ours.
        pass
    except BaseException:
        traceback.print_exc()
        code = code or 1
    finally:
        os._exit(code)
