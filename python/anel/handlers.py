"""Decides, once and at registration, how a handler has to be called.

Owns the three kinds of handlers. Knows callables and their code objects; calls none of them.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Literal

Kind = Literal["sync", "await_free", "awaits"]

# Every `await`, `async with`, `async for` and asynchronous comprehension compiles to at least one
# of these (CPython 3.11 to 3.14), and the body of a nested function is a code object of its own.
_SUSPENDING = frozenset({"GET_AWAITABLE", "GET_AITER", "GET_ANEXT"})


def classify(handler: Callable[..., Any]) -> Kind:
    """Tells how to call a handler.

    "sync": call it and take the result. "await_free": a coroutine function that cannot suspend, so
    its coroutine is driven to its end without a task. "awaits": everything else that returns a
    coroutine.
    """
    target: Any = handler
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.iscoroutinefunction(target):
        # A callable object: what is called is looked up in its class.
        call = inspect.getattr_static(type(target), "__call__", None)
        return "awaits" if inspect.iscoroutinefunction(call) else "sync"
    return "await_free" if target is handler and _cannot_suspend(target) else "awaits"


async def as_coroutine(awaitable: Awaitable[Any]) -> Any:
    """Makes a coroutine, which a task needs, of anything that can be awaited."""
    return await awaitable


def _cannot_suspend(function: Callable[..., Any]) -> bool:
    # A decorated function may await in its wrapper or in what it wraps; only plain ones are judged.
    if inspect.unwrap(function) is not function:
        return False
    code = getattr(function, "__code__", None)
    if code is None or not code.co_flags & inspect.CO_COROUTINE:
        return False
    return all(step.opname not in _SUSPENDING for step in dis.get_instructions(code))
