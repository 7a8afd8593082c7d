"""Attributes of requests that are written in Python.

Owns how they get onto the native request type: as functions and properties of that type, set when
`anel` is imported. A `__getattr__` would do the same with less code, but the interpreter
specialises no attribute of a type that has one. A value that is to be kept goes into
`request._memo`, a dict that belongs to one request and to the package; `request.extra` is the
user's.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from anel import _core


_logger = logging.getLogger("anel.error")


def install_attribute(name: str, attribute: Any) -> None:
    """Gives all requests an attribute: a property, or a function, which becomes a method.

    Raises TypeError when requests have one of that name already.
    """
    if hasattr(_core.Request, name):
        raise TypeError(f"requests have an attribute {name!r} already")
    setattr(_core.Request, name, attribute)


def check_callback(callback: Callable[[_core.Request], Any]) -> None:
    """Raises TypeError for what cannot be a done callback."""
    if not callable(callback):
        raise TypeError(f"a done callback must be callable, not {callback!r}")
    call = inspect.getattr_static(type(callback), "__call__", None)
    if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(call):
        raise TypeError(f"a done callback must not be async: {callback!r}")


def log_failure(event: str, request: _core.Request, exception: BaseException) -> None:
    """Logs what user code raised where its request can no longer be answered with it."""
    _logger.error("%s method=%s path=%s", event, request.method, request.path, exc_info=exception)
