"""Attributes of requests that are written in Python.

Owns how they get onto the native request type: as functions and properties of that type, set when
`anel` is imported. A `__getattr__` would do the same with less code, but the interpreter
specialises no attribute of a type that has one. A value that is to be kept goes into
`request._memo`, a dict that belongs to one request and to the package; `request.extra` is the
user's.
"""

from __future__ import annotations

from typing import Any

from anel import _core


def install_attribute(name: str, attribute: Any) -> None:
    """Gives all requests an attribute: a property, or a function, which becomes a method.

    Raises TypeError when requests have one of that name already.
    """
    if hasattr(_core.Request, name):
        raise TypeError(f"requests have an attribute {name!r} already")
    setattr(_core.Request, name, attribute)
