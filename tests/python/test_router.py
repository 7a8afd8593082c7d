"""Registration of routes: what is accepted, what is refused with the value in the message."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from anel import Response
from anel.exceptions import RouteError
from anel.handlers import classify
from anel.patterns import parse_pattern
from anel.routing import Router


def hello(request: Any) -> Any:
    return request.Response(text="hello")


@pytest.mark.parametrize(
    ("pattern", "segments"),
    [
        ("/", [("exact", "/")]),
        ("/{{a}}", [("exact", "/{a}")]),
        ("{a}", [("placeholder", "a")]),
        ("a/{a}", [("exact", "a/"), ("placeholder", "a")]),
        ("{a}/a", [("placeholder", "a"), ("exact", "/a")]),
        ("{a}/{{a}}", [("placeholder", "a"), ("exact", "/{a}")]),
        ("{a}/{b}", [("placeholder", "a"), ("exact", "/"), ("placeholder", "b")]),
        ("/tést-{a}", [("exact", "/tést-"), ("placeholder", "a")]),
    ],
)
def test_good_patterns_are_split(pattern: str, segments: list[tuple[str, str]]) -> None:
    assert parse_pattern(pattern).segments == segments


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{a", "unbalanced '{'"),
        ("{a}/{b", "unbalanced '{'"),
        ("/a}", "unbalanced '}'"),
        ("{a}a", "followed by '/' or the end"),
        ("{a}/{a}", "two placeholders are named 'a'"),
        ("/{}", "has no name"),
        ("/{a/b}", "has a '{' or '/'"),
        ("", "cannot be empty"),
        ("/\ud800", "not valid Unicode"),
        (b"/", "must be a str"),
        (None, "must be a str"),
    ],
)
def test_bad_patterns_are_refused_with_the_pattern_in_the_message(
    pattern: Any, message: str
) -> None:
    with pytest.raises(RouteError) as caught:
        Router().add_route(pattern, hello)

    assert message in str(caught.value)
    assert repr(pattern) in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_the_third_positional_argument_is_the_method() -> None:
    route = Router().add_route("/love", hello, "get")

    assert route.methods == {"GET"}
    assert route.describe() == "/love GET"


def test_several_methods_become_an_upper_case_set() -> None:
    route = Router().add_route("/love", hello, methods=["get", "Post"])

    assert route.methods == {"GET", "POST"}
    assert route.describe() == "/love GET POST"


def test_no_method_stands_for_every_method() -> None:
    router = Router()
    route = router.add_route("/", hello)

    assert route.methods == set()
    assert router.freeze() == [("/", None, hello, "sync", route, None, False, None)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "GET", "methods": ["POST"]}, "method='GET' or methods=['POST']"),
        ({"method": "GET POST"}, "'GET POST'"),
        ({"method": ""}, "''"),
        ({"method": 7}, "7"),
        ({"methods": "GET"}, "'GET'"),
        ({"methods": []}, "[]"),
        ({"methods": 7}, "7"),
        ({"methods": ["GET", None]}, "None"),
    ],
)
def test_bad_methods_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RouteError) as caught:
        Router().add_route("/", hello, **arguments)

    assert message in str(caught.value)


def test_a_handler_must_be_callable_and_not_a_generator() -> None:
    def generator(request: Any) -> Iterator[int]:
        yield 1

    async def async_generator(request: Any) -> AsyncIterator[int]:
        yield 1

    for handler, message in [
        ("nope", "must be callable, not 'nope'"),
        (generator, "must not be a generator"),
        (async_generator, "must not be a generator"),
    ]:
        with pytest.raises(RouteError, match=message):
            Router().add_route("/", handler)  # type: ignore[arg-type]


def test_routes_are_equal_by_pattern_and_methods() -> None:
    router = Router()
    one = router.add_route("/{a}/{b}", hello, "GET")
    same = router.add_route("/{a}/{b}", print, "get")
    other = router.add_route("/{a}/{b}", hello)

    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "/{a}/{b}"
    assert one.placeholder_cnt == 2
    assert repr(one).startswith("<Route /{a}/{b} GET at 0x")


def test_a_table_keeps_the_registration_order() -> None:
    router = Router()
    routes = [router.add_route(pattern, hello) for pattern in ("/{x}", "/about", "/{y}/z")]

    assert list(router) == routes
    assert [entry[0] for entry in router.freeze()] == ["/{x}", "/about", "/{y}/z"]
    assert len(router) == 3


def test_a_frozen_router_refuses_routes() -> None:
    router = Router()
    router.freeze()
    with pytest.raises(RouteError, match="'/late' comes too late"):
        router.add_route("/late", hello)

    router.thaw()

    assert router.add_route("/late", hello).pattern == "/late"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"text": "hi"}, (200, "text/plain; charset=utf-8", b"hi")),
        ({"text": ""}, (200, "text/plain; charset=utf-8", b"")),
        ({"body": b"\x00"}, (200, "application/octet-stream", b"\x00")),
        ({"json": [1]}, (200, "application/json; charset=utf-8", b"[1]")),
        ({}, (200, None, None)),
        ({"code": 204}, (204, None, None)),
        ({"mime_type": "text/html"}, (200, None, None)),
        ({"text": "<p>", "mime_type": "text/html"}, (200, "text/html; charset=utf-8", b"<p>")),
        ({"text": "a", "headers": {"Content-Type": "a/b"}}, (200, "a/b", b"a")),
        ({"headers": {"X-A": "é"}, "code": 404}, (404, None, None)),
    ],
)
def test_a_constant_is_made_at_registration(
    arguments: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    router = Router()

    route = router.add_constant("/", **arguments)

    assert isinstance(route.constant, Response)
    made = route.constant
    assert (made.code, made.content_type, made.body) == expected
    assert route.methods == {"GET", "HEAD"}
    assert router.freeze() == [("/", ["GET", "HEAD"], None, "constant", route, made, False, None)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "a", "body": b"b"}, "one of text, body and json"),
        ({"text": b"a"}, "b'a'"),
        ({"text": "\ud800"}, "surrogates not allowed"),
        ({"body": "a"}, "'a'"),
        ({"json": {1, 2}}, "set"),
        ({"code": 99}, "99"),
        ({"code": 100}, "100"),
        ({"code": True}, "True"),
        ({"code": 204, "text": "a"}, "204"),
        ({"code": 304, "text": "a"}, "b'a'"),
        ({"text": "", "mime_type": "text/plain\r\nX: y"}, "X: y"),
        ({"headers": {"X A": "b"}}, "X A"),
        ({"headers": {"X-A": "b\r\nX: y"}}, "X: y"),
        ({"headers": {"X-A": "\u20ac"}}, "€"),
        ({"headers": {"Content-Length": "7"}}, "Content-Length"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "chunked"),
        ({"method": "GET", "methods": ["GET"]}, "not both"),
        ({"name": ""}, "name must be a non-empty str, not ''"),
    ],
)
def test_a_bad_constant_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RouteError) as caught:
        Router().add_constant("/", **arguments)

    assert message in str(caught.value)


class Methods:
    async def awaiting(self, request: Any) -> Any:
        await request

    async def plain(self, request: Any) -> Any:
        return request

    async def __call__(self, request: Any) -> Any:
        return request


async def await_free(request: Any) -> Any:
    async def nested() -> None:
        await request

    return nested


async def awaits(request: Any) -> Any:
    await request


async def uses_async_with(request: Any) -> Any:
    async with request:
        pass


async def uses_async_for(request: Any) -> Any:
    async for _ in request:
        pass


async def uses_async_comprehension(request: Any) -> Any:
    return [one async for one in request]


@functools.wraps(await_free)
async def decorated(request: Any) -> Any:
    return request


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (hello, "sync"),
        (print, "sync"),
        (lambda request: request, "sync"),
        (functools.partial(hello), "sync"),
        (await_free, "await_free"),
        (Methods().plain, "await_free"),
        (awaits, "awaits"),
        (uses_async_with, "awaits"),
        (uses_async_for, "awaits"),
        (uses_async_comprehension, "awaits"),
        (Methods().awaiting, "awaits"),
        (Methods(), "awaits"),
        (decorated, "awaits"),
        (functools.partial(await_free), "awaits"),
        (functools.partial(functools.partial(awaits), 1), "awaits"),
    ],
)
def test_handlers_are_classified(handler: Any, kind: str) -> None:
    assert classify(handler) == kind
