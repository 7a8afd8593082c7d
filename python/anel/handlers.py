"""Decides, once and at registration, how a handler has to be called.

Owns the three kinds of handlers, which of them read a streamed body, and which placeholders they
take as arguments. Knows callables, their signatures and their code objects; calls none of them.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from types import CodeType
from typing import Any, Literal

from anel.exceptions import RouteError

Kind = Literal["sync", "await_free", "awaits"]

# Every `await`, `async with`, `async for` and asynchronous comprehension compiles to at least one
# of these (CPython 3.11 to 3.14), and the body of a nested function is a code object of its own.
_SUSPENDING = frozenset({"GET_AWAITABLE", "GET_AITER", "GET_ANEXT"})

# What a request has for reading a body that is still arriving.
_STREAM_READERS = frozenset({"stream", "save", "read"})
# Ways of loading a local variable (CPython 3.11 to 3.14). Those that do two things name two
# variables, and the second ends on top of the stack.
_LOADS = ("LOAD_FAST", "LOAD_DEREF", "STORE_FAST_LOAD_FAST")
_ATTRIBUTE_LOADS = frozenset({"LOAD_ATTR", "LOAD_METHOD"})

_KEYWORD_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


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


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether the handler is a coroutine function, or a decorated one that says so by `wraps`."""
    return any(code.co_flags & inspect.CO_COROUTINE for code, _ in _layers(handler))


def streams_body(handler: Callable[..., Any]) -> bool:
    """Whether a coroutine function's own code reads the request's body while it arrives.

    That is when it looks up `.stream`, `.save` or `.read` of its first parameter. What it passes
    the request to is not searched.
    """
    return any(
        code.co_flags & inspect.CO_COROUTINE and _reads_stream_of(code, skipped)
        for code, skipped in _layers(handler)
    )


def arguments(
    handler: Callable[..., Any], placeholders: Iterable[str], pattern: str
) -> tuple[str, ...]:
    """The placeholders that the handler takes as keyword arguments, behind the request.

    A parameter takes the placeholder of its name, `**kwargs` takes them all. A decorator's function
    that takes `*args` and `**kwargs` only passes on: what the function it wraps takes counts when
    `functools.wraps` tells, otherwise nothing does. Raises RouteError for a required parameter
    without a placeholder, and for a handler that does not take a request.
    """
    try:
        own = inspect.signature(handler, follow_wrapped=False).parameters
        wrapped = inspect.signature(handler).parameters
    except (TypeError, ValueError):
        # Built-in callables may have no signature. They get the request.
        return ()
    names = tuple(placeholders)
    first = next(iter(own.values()), None)
    if first is None or first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise RouteError(f"handler {handler!r} of {pattern!r} takes no request")
    further = [one for one in own.values() if one is not first]
    for parameter in further:
        if parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        if parameter.kind not in _KEYWORD_KINDS:
            raise RouteError(
                f"parameter {parameter.name!r} of handler {handler!r} of {pattern!r} is "
                "positional-only; placeholders are passed as keywords"
            )
        if parameter.name not in names:
            raise RouteError(
                f"parameter {parameter.name!r} of handler {handler!r} has no placeholder in "
                f"pattern {pattern!r}"
            )
    taken = _named(further)
    if _passes_keywords(own.values()):
        taken |= _named(list(wrapped.values())[1:])
        if _takes_all(wrapped.values()):
            taken |= set(names)
            if first.kind is first.POSITIONAL_OR_KEYWORD and first.name in taken:
                raise RouteError(
                    f"placeholder {first.name!r} of {pattern!r} has the name of the request in "
                    f"handler {handler!r}"
                )
    return tuple(name for name in names if name in taken)


def with_arguments(handler: Callable[..., Any], names: tuple[str, ...]) -> Callable[[Any], Any]:
    """A function of the request alone, which passes these placeholders' values on."""

    def call(request: Any) -> Any:
        values = request.match_dict
        return handler(request, **{name: values[name] for name in names})

    return call


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


def _layers(handler: Callable[..., Any]) -> Iterator[tuple[CodeType, int]]:
    """The code of a handler and of what it wraps, outermost first.

    Each comes with the number of parameters before the request: those that are bound already.
    """
    layer: Any = handler
    skipped = 0
    seen = set()
    while layer is not None and id(layer) not in seen:
        seen.add(id(layer))
        if isinstance(layer, functools.partial):
            skipped += len(layer.args)
            layer = layer.func
        elif inspect.ismethod(layer):
            skipped += 1
            layer = layer.__func__
        elif inspect.isfunction(layer):
            yield layer.__code__, skipped
            layer = getattr(layer, "__wrapped__", None)
        else:
            # A callable object. Built-in ones have a slot in the place of a function.
            call = inspect.getattr_static(type(layer), "__call__", None)
            layer = call if inspect.isfunction(call) else None
            skipped += 1


def _reads_stream_of(code: CodeType, skipped: int) -> bool:
    if skipped >= code.co_argcount:
        return False
    request = code.co_varnames[skipped]
    on_top = False
    for step in dis.get_instructions(code):
        if on_top and step.opname in _ATTRIBUTE_LOADS and step.argval in _STREAM_READERS:
            return True
        if step.opname == "EXTENDED_ARG":
            # A prefix of the next instruction.
            continue
        on_top = step.opname.startswith(_LOADS) and _second_of(step.argval) == request
    return False


def _second_of(loaded: str | tuple[str, str]) -> str:
    return loaded if isinstance(loaded, str) else loaded[1]


def _named(parameters: Iterable[inspect.Parameter]) -> set[str]:
    return {one.name for one in parameters if one.kind in _KEYWORD_KINDS}


def _passes_keywords(parameters: Iterable[inspect.Parameter]) -> bool:
    return any(one.kind is one.VAR_KEYWORD for one in parameters)


def _takes_all(parameters: Iterable[inspect.Parameter]) -> bool:
    """Whether any keyword is welcome, and not only passed on to something unknown."""
    kinds = {one.kind for one in parameters}
    parameter = inspect.Parameter
    return parameter.VAR_KEYWORD in kinds and parameter.VAR_POSITIONAL not in kinds
