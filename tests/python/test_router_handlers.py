"""What registration sees in a handler: whether it streams its body, which arguments it takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from anel.exceptions import RouteError
from anel.handlers import arguments, is_async, streams_body, with_arguments


async def streams(request: Any) -> Any:
    async for _ in request.stream():
        pass


async def saves(request: Any) -> Any:
    await request.save("file")


async def reads(request: Any) -> Any:
    return await request.read()


async def reads_in_an_expression(request: Any, other: Any = None) -> Any:
    other = request
    return f"{other}{(other, await request.read())}"


async def reads_in_a_comprehension(request: Any) -> Any:
    return [len(piece) async for piece in request.stream()]


async def reads_a_captured_request(request: Any) -> Any:
    def nested() -> Any:
        return request.path

    return nested(), await request.read()


async def reads_only_in_a_nested_function(request: Any) -> Any:
    async def nested() -> Any:
        return await request.read()

    return nested


async def reads_something_else(request: Any) -> Any:
    return request.path.read, request.app.stream, request.saved


async def reads_another_parameter(request: Any, other: Any = None) -> Any:
    return other.read


def from_source(body: str) -> Callable[..., Any]:
    scope: dict[str, Any] = {}
    exec(f"async def made(request):\n    {body}", scope)
    made: Callable[..., Any] = scope["made"]
    return made


# The name of the attribute does not fit into one byte of an instruction.
reads_after_many_names = from_source(
    "".join(f"request.name_{number}; " for number in range(300)) + "await request.read()"
)
# On one line, a store and the load behind it are one instruction.
reads_behind_a_store = from_source("copied = request.path; return await request.read()")


async def loads_an_empty_constant(request: Any) -> Any:
    return (), request.body


def sync_reads(request: Any) -> Any:
    return request.read()


def wraps_async(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    async def wrapper(request: Any, *args: Any, **kwargs: Any) -> Any:
        return await handler(request, *args, **kwargs)

    return wrapper


def wraps_sync(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **kwargs)

    return wrapper


def hides(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(*args: Any) -> Any:
        return await handler(*args)

    return wrapper


class Handlers:
    async def method(self, request: Any) -> Any:
        await request.read()

    async def reads_self(self, request: Any) -> Any:
        await self.read()

    @wraps_async
    async def wrapped(self, request: Any) -> Any:
        await request.read()

    @classmethod
    async def of_class(cls, request: Any) -> Any:
        await request.read()

    @staticmethod
    async def static(request: Any) -> Any:
        await request.read()

    async def __call__(self, request: Any) -> Any:
        await request.stream()

    async def read(self) -> Any:
        return self


async def takes_more(first: Any, request: Any) -> Any:
    await request.read()


def circular(request: Any) -> Any:
    return request


circular.__wrapped__ = circular  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "handler",
    [
        streams,
        saves,
        reads,
        reads_in_an_expression,
        reads_in_a_comprehension,
        reads_a_captured_request,
        reads_behind_a_store,
        reads_after_many_names,
        Handlers().method,
        Handlers().wrapped,
        Handlers.of_class,
        Handlers.static,
        Handlers(),
        functools.partial(reads),
        functools.partial(takes_more, 1),
        functools.partial(Handlers.method, Handlers()),
        functools.partial(functools.partial(takes_more), 1),
        wraps_async(reads),
        wraps_sync(reads),
        wraps_sync(wraps_async(reads)),
    ],
)
def test_a_handler_that_reads_its_body_streams_it(handler: Callable[..., Any]) -> None:
    assert streams_body(handler)


@pytest.mark.parametrize(
    "handler",
    [
        reads_only_in_a_nested_function,
        reads_something_else,
        reads_another_parameter,
        loads_an_empty_constant,
        sync_reads,
        wraps_sync(sync_reads),
        Handlers().reads_self,
        Handlers,
        functools.partial(takes_more),
        functools.partial(takes_more, 1, 2),
        hides(reads),
        circular,
        print,
        len,
        "text".join,
        object(),
    ],
)
def test_other_handlers_do_not_stream_their_bodies(handler: Callable[..., Any]) -> None:
    assert not streams_body(handler)


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (reads, True),
        (Handlers(), True),
        (wraps_sync(reads), True),
        (functools.partial(reads), True),
        (sync_reads, False),
        (wraps_sync(sync_reads), False),
        (print, False),
    ],
)
def test_a_handler_that_is_async_below_its_decorators_is_async(
    handler: Callable[..., Any], expected: bool
) -> None:
    assert is_async(handler) is expected


def one(request: Any) -> Any: ...


def two(request: Any, id: Any) -> Any: ...


def both(request: Any, *, id: Any, name: Any) -> Any: ...


def optional(request: Any, id: Any = None, page: Any = 1) -> Any: ...


def everything(request: Any, **values: Any) -> Any: ...


def passes_on(*args: Any, **kwargs: Any) -> Any: ...


def passes_more_on(request: Any, *args: Any, **kwargs: Any) -> Any: ...


def names_and_passes(request: Any, id: Any, *args: Any, **kwargs: Any) -> Any: ...


def injects(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(request: Any, **kwargs: Any) -> Any:
        return handler(request, page=1, **kwargs)

    return wrapper


def narrows(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(request: Any) -> Any:
        return handler(request, 1)

    return wrapper


def positional_only(request: Any, /, id: Any) -> Any: ...


def no_request() -> Any: ...


def keyword_request(*, request: Any) -> Any: ...


class Called:
    def __call__(self, request: Any, id: Any) -> Any: ...

    def method(self, request: Any, name: Any) -> Any: ...


@pytest.mark.parametrize(
    ("handler", "names"),
    [
        (one, ()),
        (no_request, ()),
        (keyword_request, ()),
        (two, ("id",)),
        (both, ("id", "name")),
        (optional, ("id",)),
        (everything, ("id", "name")),
        (passes_on, ()),
        (passes_more_on, ()),
        (names_and_passes, ("id",)),
        (wraps_sync(one), ()),
        (wraps_sync(two), ("id",)),
        (wraps_async(both), ("id", "name")),
        (wraps_sync(everything), ("id", "name")),
        (injects(optional), ("id",)),
        (narrows(two), ()),
        (positional_only, ("id",)),
        (Called(), ("id",)),
        (Called().method, ("name",)),
        (functools.partial(two, id=3), ("id",)),
        (functools.partial(both, name=3), ("id", "name")),
        (str, ()),
        (len, ()),
        (lambda request, name: None, ("name",)),
    ],
)
def test_a_handler_takes_the_placeholders_that_it_names(
    handler: Callable[..., Any], names: tuple[str, ...]
) -> None:
    assert arguments(handler, ["id", "name"], "/{id}/{name}") == names


def positional_id(request: Any, id: Any, /) -> Any: ...


def wants_more(request: Any, id: Any, user: Any) -> Any: ...


@pytest.mark.parametrize(
    ("handler", "messages"),
    [
        (wants_more, ["'user'", "wants_more", "'/{id}'", "has no placeholder"]),
        (functools.partial(wants_more, id=1), ["'user'", "has no placeholder"]),
        (positional_id, ["'id'", "positional-only"]),
    ],
)
def test_an_argument_that_cannot_be_given_is_refused(
    handler: Callable[..., Any], messages: list[str]
) -> None:
    with pytest.raises(RouteError) as caught:
        arguments(handler, ["id"], "/{id}")

    for message in messages:
        assert message in str(caught.value)


def test_a_placeholder_named_like_the_request_is_refused_where_all_are_taken() -> None:
    with pytest.raises(RouteError, match=r"placeholder 'request' .* name of the request"):
        arguments(everything, ["request"], "/{request}")

    assert arguments(one, ["request"], "/{request}") == ()


def test_the_values_are_passed_as_keywords() -> None:
    class Request:
        def __init__(self) -> None:
            self.match_dict = {"id": 7, "name": "a", "other": None}

    def handler(request: Any, name: Any, id: Any) -> Any:
        return type(request), id, name

    assert with_arguments(handler, ("id", "name"))(Request()) == (Request, 7, "a")
