"""Japronto's integration tests as behaviours: generated requests, one by one and in pipelines.

Each is sent to a sync and to an async handler, on a connection of its own and on one for all. What
the handler saw comes back as JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Client, Server, get
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PROGRAM = """
    import asyncio, base64
    from japronto import Application, RouteNotFoundException

    app = Application()

    class Raised(Exception):
        pass

    def dump(request, exception=None):
        if exception is None and "Raise" in request.headers:
            raise Raised(request.headers["Raise"])
        answer = {
            "method": request.method,
            "path": request.path,
            "query_string": request.query_string,
            "headers": {name: value for name, value in request.headers.items() if name[:2] == "X-"},
            "match_dict": request.match_dict,
            "route": request.route and request.route.pattern,
            "body": None if request.body is None else base64.b64encode(request.body).decode(),
        }
        if exception is not None:
            answer["exception"] = [type(exception).__name__, *map(str, exception.args)]
        return request.Response(json=answer, code=200 if exception is None else 500)

    async def dump_later(request):
        await asyncio.sleep(float(request.headers.get("Sleep", 0)))
        return dump(request)

    for prefix, handler in (("/dump", dump), ("/async/dump", dump_later)):
        app.router.add_route(prefix, handler)
        app.router.add_route(prefix + "/{one}/{two}", handler)
        app.router.add_route(prefix + "/{{literal}}/{one}/tail", handler)
    app.add_error_handler(None, dump)
    app.run()
"""

# One test runs hundreds of requests in well under a second; a shared connection is on purpose.
requests = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

SIZES = [size * 1024 for size in (0, 1, 2, 4, 8)]

methods = st.text(
    st.sampled_from(
        "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    ),
    min_size=1,
    max_size=16,
).filter(lambda method: method not in ("CONNECT", "HEAD"))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=32)
params = texts.map(lambda text: text.replace("/", "-")).filter(bool)
query_strings = st.none() | texts.map(lambda text: quote(text, safe="=&"))
# What may stand in a value (RFC 9110 5.5), without the white space around it that is no part of it.
values = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=24
)
names = st.text(st.sampled_from("abcXYZ0123456789!#$%&'*+-.^_`|~"), min_size=1, max_size=12)
headers = st.dictionaries(
    names.map(lambda name: f"x-{name}".title()),
    values.map(str.strip),
    max_size=48,
)
bodies = st.none() | st.builds(
    lambda size, seed: (seed * (size // len(seed) + 1))[:size],
    st.sampled_from(SIZES),
    st.binary(min_size=1, max_size=64),
)
chunks = st.lists(
    st.builds(
        lambda size, seed: (seed * (size // len(seed) + 1))[:size],
        st.sampled_from([1, *SIZES[1:]]),
        st.binary(min_size=1, max_size=16),
    ),
    max_size=4,
)


@pytest.fixture(params=["/dump", "/async/dump"])
def prefix(request: pytest.FixtureRequest) -> str:
    """A sync or an async route."""
    return str(request.param)


@pytest.fixture(params=["new_connections", "one_connection"])
def send(japronto: Server, request: pytest.FixtureRequest) -> Iterator[Any]:
    """`send(data, status)` gives what the handler saw of the request."""
    with japronto.client() as kept:

        def on(client: Client, data: bytes, status: int) -> dict[str, Any]:
            answer = client.ask(data)
            assert answer.status == status, answer.text
            seen: dict[str, Any] = json.loads(answer.body)
            return seen

        def send(data: bytes, status: int = 200) -> dict[str, Any]:
            if request.param == "one_connection":
                return on(kept, data, status)
            with japronto.client() as client:
                return on(client, data, status)

        yield send


def decoded(body: str | None) -> bytes | None:
    return None if body is None else base64.b64decode(body)


def with_query(path: str, query_string: str | None) -> str:
    return path if query_string is None else f"{path}?{query_string}"


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@requests
@given(method=methods)
def test_method(send: Any, prefix: str, method: str) -> None:
    assert send(get(prefix, method=method))["method"] == method


@pytest.mark.parametrize("pattern", ["", "/{one}/{two}", "/{{literal}}/{one}/tail"])
def test_route(send: Any, prefix: str, pattern: str) -> None:
    path = prefix + pattern.replace("{{literal}}", "%7Bliteral%7D").format(one=1, two=2)

    assert send(get(path))["route"] == prefix + pattern


@requests
@given(one=params, two=params)
def test_match_dict(send: Any, prefix: str, one: str, two: str) -> None:
    seen = send(get(f"{prefix}/{quote(one, safe='')}/{quote(two, safe='')}"))

    assert seen["match_dict"] == {"one": one, "two": two}
    assert seen["path"] == f"{prefix}/{one}/{two}"


@requests
@given(query_string=query_strings)
def test_query_string(send: Any, prefix: str, query_string: str | None) -> None:
    assert send(get(with_query(prefix, query_string)))["query_string"] == query_string


@requests
@given(chosen=headers)
def test_headers(send: Any, prefix: str, chosen: dict[str, str]) -> None:
    fields = [f"{name.lower()}: {value}" for name, value in chosen.items()]

    assert send(get(prefix, *fields))["headers"] == chosen


@requests
@given(text=names)
def test_error_raised(send: Any, prefix: str, text: str) -> None:
    seen = send(get(prefix, f"Raise: {text}"), status=500)

    assert seen["exception"] == ["Raised", text]
    assert seen["route"] == prefix


@requests
@given(path=names)
def test_error_not_found(send: Any, path: str) -> None:
    seen = send(get(f"/nowhere/{quote(path)}"), status=500)

    assert seen["exception"] == ["RouteNotFoundException"]
    assert seen["route"] is None
    assert seen["match_dict"] == {}


@requests
@given(body=bodies)
def test_body(send: Any, prefix: str, body: bytes | None) -> None:
    assert decoded(send(get(prefix, method="POST", body=body))["body"]) == body


@requests
@given(parts=chunks)
def test_chunked(send: Any, prefix: str, parts: list[bytes]) -> None:
    data = get(prefix, "Transfer-Encoding: chunked", method="POST") + chunked(parts)

    assert decoded(send(data)["body"]) == b"".join(parts)


@st.composite
def whole_requests(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """A request of every part at once, and what a handler must see of it."""
    prefix = draw(st.sampled_from(["/dump", "/async/dump"]))
    matched = draw(st.none() | st.tuples(params, params))
    query_string, chosen = draw(query_strings), draw(headers)
    method = draw(methods)
    path = prefix if matched is None else "/".join([prefix, *(quote(p, safe="") for p in matched)])
    fields = [f"{name}: {value}" for name, value in chosen.items()]
    target = with_query(path, query_string)
    parts = draw(st.none() | chunks)
    body: bytes | None
    if parts is None:
        body = draw(bodies)
        data = get(target, *fields, method=method, body=body)
    else:
        body = b"".join(parts)
        data = get(target, *fields, "Transfer-Encoding: chunked", method=method) + chunked(parts)
    expected = {
        "method": method,
        "query_string": query_string,
        "headers": chosen,
        "match_dict": {} if matched is None else dict(zip(("one", "two"), matched, strict=True)),
        "body": None if body is None else base64.b64encode(body).decode(),
    }
    return data, expected


def is_as_expected(seen: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {name: seen[name] for name in expected} == expected


@requests
@given(request=whole_requests())
def test_all(send: Any, request: tuple[bytes, dict[str, Any]]) -> None:
    data, expected = request

    is_as_expected(send(data), expected)


@requests
@given(pipeline=st.lists(whole_requests(), min_size=2, max_size=8))
def test_pipeline(japronto: Server, pipeline: list[tuple[bytes, dict[str, Any]]]) -> None:
    with japronto.client() as client:
        client.send(b"".join(data for data, _ in pipeline))

        for _, expected in pipeline:
            is_as_expected(json.loads(client.answer().body), expected)


steps = st.sampled_from(["sync", "async", "error", "async_error", "not_found"])


@settings(requests, max_examples=15)
@given(pipeline=st.lists(st.tuples(steps, st.integers(0, 100)), min_size=2, max_size=5))
def test_async_pipeline(japronto: Server, pipeline: list[tuple[str, int]]) -> None:
    paths = {"sync": "/dump", "error": "/dump", "not_found": "/nowhere"}
    data = b""
    for number, (step, sleep_ms) in enumerate(pipeline):
        fields = ["Raise: yes"] if "error" in step else []
        path = paths.get(step, "/async/dump")
        data += get(f"{path}?{number}", f"Sleep: {sleep_ms / 1000}", *fields)

    with japronto.client() as client:
        client.send(data)
        answers = [client.answer() for _ in pipeline]

    expected_status = {"sync": 200, "async": 200}
    for number, ((step, _), answer) in enumerate(zip(pipeline, answers, strict=True)):
        assert answer.status == expected_status.get(step, 500)
        seen = json.loads(answer.body)
        assert seen["query_string"] == str(number)
        assert ("exception" in seen) == (step not in expected_status)
