"""What `Application.extend_request` adds to requests.

Owns the descriptor behind an added attribute. Requests of all applications have one type, so the
descriptor asks the application of the request at hand. A `__getattr__` on the type would do the
same with less code, but the interpreter specialises no attribute of a type that has one, and every
`request.Response` would pay for it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Container
from typing import Any

from anel import _core


class Extension:
    """An attribute that some applications gave to their requests."""

    def __init__(self, name: str, hidden: Any = None) -> None:
        """Takes the attribute's name, and the descriptor that other applications find there."""
        self._name = name
        self._hidden = hidden

    def __get__(self, request: _core.Request | None, owner: object = None) -> Any:
        """The property's value or the bound method, if the request's application has it."""
        if request is None:
            return self
        extensions = request.app._request_extensions
        if self._name not in extensions:
            if self._hidden is not None:
                return self._hidden.__get__(request, owner)
            raise AttributeError(
                f"'Request' object has no attribute {self._name!r}", name=self._name, obj=request
            )
        handler, is_property = extensions[self._name]
        return handler(request) if is_property else functools.partial(handler, request)


def install(name: str, *, replaceable: Container[str] = ()) -> bool:
    """Makes the attribute known to the request type; False when requests have one of that name.

    One that is `replaceable` is replaced, for the applications that extend their requests with it.
    """
    known = inspect.getattr_static(_core.Request, name, None)
    if isinstance(known, Extension):
        return known._hidden is None or name in replaceable
    if known is not None and name not in replaceable:
        return False
    setattr(_core.Request, name, Extension(name, known))
    return True
