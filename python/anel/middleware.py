"""Middleware: functions around every handler, composed once when a worker starts.

Owns the three forms of middleware and how each wraps a handler of each kind. The first registered
is the outermost. Between two layers there is always a `Response`: plain values are converted, and
exceptions that the application expects are answered, on the way out of each layer. A chain without
a coroutine function stays a plain function, so it costs no task. Knows nothing of routes.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal, NoReturn, TypeAlias

from anel._core import Request, Response, as_response
from anel.exceptions import ConfigError
from anel.handlers import Kind

Form = Literal["async", "sync", "generator"]
Layer: TypeAlias = Callable[[Request], Any]


class Chain:
    """An application's middleware, in the order of registration."""

    def __init__(self, answer_expected: Callable[[Request, Exception], Response]) -> None:
        """Starts without middleware.

        `answer_expected` makes a response of an exception, or raises it when it is not expected.
        """
        self._answer_expected = answer_expected
        self._functions: list[tuple[Callable[..., Any], Form]] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._functions)

    def add(self, function: Callable[..., Any]) -> None:
        """Registers a middleware, or raises ConfigError when it could not be called."""
        form = _form(function)
        expected = ["request"] if form == "generator" else ["request", "call_next"]
        try:
            inspect.signature(function).bind(*expected)
        except (TypeError, ValueError):
            takes = ", ".join(expected)
            raise ConfigError(f"a middleware of this form takes ({takes}): {function!r}") from None
        self._functions.append((function, form))

    def around(self, handler: Layer, kind: Kind) -> tuple[Layer, Kind]:
        """The handler within all layers, and how that has to be called."""
        layer = handler
        for function, form in reversed(self._functions):
            layer, kind = self._wrapped(function, form, layer, kind)
        return layer, kind

    def _wrapped(
        self, function: Callable[..., Any], form: Form, layer: Layer, kind: Kind
    ) -> tuple[Layer, Kind]:
        inner = self._settled(layer) if kind == "sync" else self._settled_async(layer)
        if form == "async":
            call_next = _awaiting(inner) if kind == "sync" else inner
            return _with_next(function, call_next, is_async=True), "awaits"
        if form == "generator":
            make = _generator_layer if kind == "sync" else _async_generator_layer
            return make(function, inner), kind
        if kind == "sync":
            return _with_next(function, inner, is_async=False), "sync"
        # What it returns may be the pending response, or a response of its own.
        postponed = functools.partial(_postponed, inner)
        return _with_next(function, postponed, is_async=False), "sync"

    def _settled(self, layer: Layer) -> Layer:
        """A plain function that returns a response, or a pending one of a hidden coroutine."""
        answer_expected = self._answer_expected

        def settled(request: Request) -> Any:
            try:
                result = layer(request)
                if hasattr(result, "__await__"):
                    return PendingResponse(functools.partial(finish, request, result))
                return as_response(request, result)
            except Exception as error:
                return answer_expected(request, error)

        async def finish(request: Request, result: Awaitable[Any]) -> Response:
            try:
                return as_response(request, await result)
            except Exception as error:
                return answer_expected(request, error)

        return settled

    def _settled_async(self, layer: Layer) -> Layer:
        """A coroutine function that returns a response."""
        answer_expected = self._answer_expected

        async def settled(request: Request) -> Response:
            try:
                return as_response(request, await layer(request))
            except Exception as error:
                return answer_expected(request, error)

        return settled


class PendingResponse:
    """What `call_next` gives a plain function when the handler behind it is async.

    It can be returned, and it can be awaited. It is no response yet, and says so when it is used as
    one. The handler runs when the server awaits what was returned.
    """

    __slots__ = ("_begin",)

    def __init__(self, begin: Callable[[], Awaitable[Response]]) -> None:
        """Takes what starts the wait."""
        self._begin = begin

    def __await__(self) -> Generator[Any, Any, Response]:
        """Waits for the response."""
        return self._begin().__await__()

    def __getattr__(self, name: str) -> NoReturn:
        """Raises: there is nothing to be read yet."""
        raise AttributeError(
            f"there is no response yet, so no {name!r}: the handler is async and this middleware is"
            " a plain function; make it an async def, or a generator (response = yield)",
            name=name,
            obj=self,
        )


def _form(function: Callable[..., Any]) -> Form:
    if not callable(function):
        raise ConfigError(f"a middleware must be callable, not {function!r}")
    target: Any = function
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target):
        # A callable object: what is called is looked up in its class.
        target = inspect.getattr_static(type(target), "__call__", target)
    if inspect.isasyncgenfunction(target):
        raise ConfigError(f"a middleware that yields must not be async: {function!r}")
    if inspect.isgeneratorfunction(target):
        return "generator"
    return "async" if inspect.iscoroutinefunction(target) else "sync"


def _with_next(function: Callable[..., Any], call_next: Layer, *, is_async: bool) -> Layer:
    if not is_async:
        return lambda request: function(request, call_next)

    async def layer(request: Request) -> Any:
        return await function(request, call_next)

    return layer


def _awaiting(inner: Layer) -> Layer:
    """Makes a plain function awaitable."""

    async def call_next(request: Request) -> Any:
        result = inner(request)
        return await result if type(result) is PendingResponse else result

    return call_next


def _postponed(inner: Layer, request: Request) -> PendingResponse:
    return PendingResponse(functools.partial(inner, request))


def _generator_layer(function: Callable[..., Any], call_next: Layer) -> Layer:
    def layer(request: Request) -> Any:
        steps = function(request)
        is_over, value = _begun(steps, function)
        if is_over:
            return value
        try:
            response = call_next(request)
        except BaseException as error:
            return _failed(steps, error)
        if type(response) is PendingResponse:
            return _resumed_later(steps, response)
        return _resumed(steps, response)

    return layer


def _async_generator_layer(function: Callable[..., Any], call_next: Layer) -> Layer:
    async def layer(request: Request) -> Any:
        steps = function(request)
        is_over, value = _begun(steps, function)
        return value if is_over else await _resumed_later(steps, call_next(request))

    return layer


async def _resumed_later(steps: Generator[None, Response, Any], pending: Awaitable[Any]) -> Any:
    try:
        response = await pending
    except BaseException as error:
        return _failed(steps, error)
    return _resumed(steps, response)


def _begun(steps: Generator[None, Response, Any], function: Callable[..., Any]) -> tuple[bool, Any]:
    """Runs to the yield. `(True, value)` when it answers without the handler."""
    try:
        next(steps)
    except StopIteration as stop:
        if stop.value is None:
            raise RuntimeError(f"middleware {function!r} neither yielded nor returned") from None
        return True, stop.value
    return False, None


def _resumed(steps: Generator[None, Response, Any], response: Response) -> Any:
    """Hands the response over; one that returns nothing leaves it as it is."""
    try:
        steps.send(response)
    except StopIteration as stop:
        return response if stop.value is None else stop.value
    raise _yielded_again(steps)


def _failed(steps: Generator[None, Response, Any], error: BaseException) -> Any:
    """Raises the error at the yield; one that catches it and has no answer does not count."""
    try:
        steps.throw(error)
    except StopIteration as stop:
        answer = stop.value
    else:
        raise _yielded_again(steps)
    if answer is None:
        raise error
    return answer


def _yielded_again(steps: Generator[None, Response, Any]) -> RuntimeError:
    steps.close()
    return RuntimeError(f"a middleware must yield once: {steps!r}")
