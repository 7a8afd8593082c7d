"""Runs a program that starts its own server, as `python program.py` would.

Owns what such a program finds (`__main__`, `sys.argv`, `sys.path`), and whether it came to serve.
Knows nothing of applications: one that serves says so.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from anel.loading import check_file


class _Script:
    """The program that is running."""

    has_served = False


# Of the process and not of a context: a program may call `run()` in any thread.
_running: _Script | None = None


def note_serving() -> None:
    """An application of this process is about to serve."""
    if _running is not None:
        _running.has_served = True


def has_served() -> bool:
    """Whether an application of the script came to serve."""
    return _running is not None and _running.has_served


def run_script(path: str, arguments: Sequence[str]) -> None:
    """Runs a file as `__main__` to its end.

    Raises LoadError when the file cannot be read. What the program raises passes through. The
    module stays `__main__`, as it does in an interpreter: threads of the program may outlive it.
    """
    global _running
    check_file(path)
    # As the interpreter does it: `argv` as given, `__file__` absolute, the file's folder in place
    # of the starting program's.
    location = os.path.abspath(path)
    loader = importlib.machinery.SourceFileLoader("__main__", location)
    module = ModuleType("__main__")
    module.__dict__.update(__file__=location, __loader__=loader)
    sys.modules["__main__"] = module
    sys.argv = [path, *arguments]
    sys.path[: 0 if sys.flags.safe_path else 1] = [os.path.dirname(location)]
    _running = _Script()
    code = loader.source_to_code(loader.get_data(location), location)
    exec(code, module.__dict__)
