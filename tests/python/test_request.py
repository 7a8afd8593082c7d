"""What a handler sees of a request: every attribute, while the handler runs and after it awaited.

Owns the reading side of the API. A program evaluates an expression over its request, so each test
says what it asks and what the answer is; generated requests go through a second route.
"""

from __future__ import annotations

import ast
import base64
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from conftest import Client, Server, get
from hypothesis import given, settings
from hypothesis import strategies as st

PROGRAM = """
    import asyncio, base64, gc, ipaddress, json, pickle, sys
    from anel import Application, Headers, Request, Response, Route, RouteNotFoundException

    app = Application()

    def evaluate(request):
        try:
            value = eval(request.headers["X-Ask"], {**globals(), "request": request})
        except Exception as error:
            value = f"{type(error).__name__}: {error}"
        return request.Response(text=repr(value))

    def raised(look, error):
        try:
            look()
        except error:
            return True

    def caught(look):
        try:
            look()
        except json.JSONDecodeError as error:
            same = pickle.loads(pickle.dumps(error))
            return same.msg, same.doc, same.pos, same.lineno, same.colno

    def body(request):
        return {"value": getattr(request, request.match_dict["attribute"])}

    async def later(request):
        await asyncio.sleep(0)
        return evaluate(request)

    async def last(request):
        # The connection's buffers are reused by the time the answer is made.
        await asyncio.sleep(0.01)
        return evaluate(request)

    def echo(request):
        return request.Response(json={
            "method": request.method,
            "path": request.path,
            "query_string": request.query_string,
            "query": request.query,
            "headers": request.headers,
            "body": None if request.body is None else base64.b64encode(request.body).decode(),
        })

    async def echo_later(request):
        await asyncio.sleep(0)
        return echo(request)

    def unmatched(request, error):
        if "X-Ask" in request.headers:
            return evaluate(request)
        return echo(request)

    def twice(request):
        return request.extra["count"] * 2

    def add(request):
        return lambda number: number + 1

    app.router.add_route("/body/{attribute}", body, "POST")
    app.router.add_route("/now", evaluate)
    app.router.add_route("/later", later)
    app.router.add_route("/last", last)
    app.router.add_route("/now/{one}/{two}", evaluate)
    app.router.add_route("/later/{one}/{two}", later)
    app.router.add_route("/last/{one}/{two}", last)
    app.router.add_route("/echo/later", echo_later)
    app.add_error_handler(RouteNotFoundException, unmatched)
    app.extend_request(twice, property=True)
    app.extend_request(lambda request: request.path.upper(), name="shout")
"""

Ask = Callable[..., Any]


@pytest.fixture(params=["now", "later", "last"])
def ask(shared: Server, request: pytest.FixtureRequest) -> Ask:
    """Evaluates an expression over a request, in a sync handler or behind an `await`."""

    def evaluate(expression: str, *fields: str, tail: str = "", **more: Any) -> Any:
        data = get(f"/{request.param}{tail}", f"X-Ask: {expression}", *fields, **more)
        answer = shared.ask(data)
        assert answer.status == 200
        return ast.literal_eval(answer.text)

    return evaluate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("request.method", "GET"),
        ("request.version", "1.1"),
        ("request.query_string", None),
        ("request.query", {}),
        ("request.match_dict", {}),
        ("request.body", None),
        ("request.text", None),
        ("request.json", None),
        ("request.mime_type", None),
        ("request.encoding", None),
        ("request.keep_alive", True),
        ("request.remote_addr", "127.0.0.1"),
        ("request.hostname", "a"),
        ("request.port", None),
        ("request.extra", {}),
        ("request.app is app", True),
        ("type(request) is Request", True),
        ("[r for r in app.router if r.pattern == request.path][0] is request.route", True),
    ],
)
def test_a_bare_request_has_every_attribute(ask: Ask, expression: str, value: Any) -> None:
    assert ask(expression) == value


@pytest.mark.parametrize(
    "name", ["path", "query", "headers", "match_dict", "body", "text", "json", "extra"]
)
def test_an_attribute_is_made_once(ask: Ask, name: str) -> None:
    expression = f"request.{name} is request.{name}"

    assert ask(expression, "Content-Type: application/json", body=b'{"a": [1, 2.5, null]}') is True


@pytest.mark.parametrize("name", ["method", "path", "headers", "body", "extra", "json", "unknown"])
def test_attributes_are_read_only(ask: Ask, name: str) -> None:
    assert "AttributeError" in ask(f"setattr(request, {name!r}, 1)")


def test_an_unknown_attribute_is_named(ask: Ask) -> None:
    assert ask("request.nothing").startswith("AttributeError")
    assert "nothing" in ask("request.nothing")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a%20b", "/a b"),
        ("/%c4%85", "/ą"),
        ("/%C4%85", "/ą"),
        ("/%c4%85%C4%85", "/ąą"),
        ("/%2f%2F", "///"),
        ("/%zz%4", "/%zz%4"),
        ("/%", "/%"),
        ("/+", "/+"),
        ("/%00", "/\0"),
        ("/%ff", "/\ufffd"),
        ("/a/../b//c", "/a/../b//c"),
        ("/%f0%9f%92%a9?%f0%9f%92%a9", "/💩"),
    ],
)
def test_a_path_is_percent_decoded_once(shared: Server, target: str, path: str) -> None:
    assert json.loads(shared.ask(get(target)).body)["path"] == path


@pytest.mark.parametrize(
    ("query", "query_string", "parsed"),
    [
        ("", None, {}),
        ("?", "", {}),
        ("?a=1", "a=1", {"a": "1"}),
        ("?a=1&a=2&b=3", "a=1&a=2&b=3", {"a": "2", "b": "3"}),
        ("?a=1%262", "a=1%262", {"a": "1&2"}),
        ("?a%3D=b", "a%3D=b", {"a=": "b"}),
        ("?a=%2B+%2b", "a=%2B+%2b", {"a": "+ +"}),
        ("?a=%2f%2F", "a=%2f%2F", {"a": "//"}),
        ("?a=%C4%85", "a=%C4%85", {"a": "ą"}),
        ("?a=?b", "a=?b", {"a": "?b"}),
        ("?a", "a", {}),
        ("?a=", "a=", {}),
    ],
)
def test_a_query_is_split_before_it_is_decoded(
    ask: Ask, query: str, query_string: str | None, parsed: dict[str, str]
) -> None:
    assert ask("request.query_string", tail=query) == query_string
    assert ask("dict(request.query)", tail=query) == parsed


def test_every_value_of_a_query_parameter_can_be_had(ask: Ask) -> None:
    assert ask("request.query.getall('a')", tail="?a=1&b=2&a=3") == ["1", "3"]
    assert ask("request.query.getall('c')", tail="?a=1&b=2&a=3") == []


def test_query_and_headers_serialise_as_json(ask: Ask) -> None:
    expression = "json.dumps([request.query, request.headers])"

    query, headers = json.loads(ask(expression, "X-A: é", tail="?q=%C3%A9&r=1"))

    assert query == {"q": "é", "r": "1"}
    assert headers == {"X-Ask": expression, "X-A": "é", "Host": "a"}


def test_a_header_is_found_in_any_case(ask: Ask) -> None:
    field = "x-LONG-naMe: Value"

    assert ask("request.headers['X-Long-Name']", field) == "Value"
    assert ask("request.headers['x-long-name']", field) == "Value"
    assert ask("request.headers['X-LONG-NAME']", field) == "Value"
    assert ask("request.headers.get('x-lONG-name')", field) == "Value"
    assert ask("'x-long-NAME' in request.headers", field) is True
    assert ask("request.headers.getall('x-long-NAME')", field) == ["Value"]
    assert ask("list(request.headers)", field) == ["X-Ask", "X-Long-Name", "Host"]


def test_an_absent_header_is_absent(ask: Ask) -> None:
    assert ask("request.headers['X-No']").startswith("KeyError: 'X-No'")
    assert ask("request.headers.get('X-No')") is None
    assert ask("request.headers.get('X-No', 'default')") == "default"
    assert ask("'X-No' in request.headers") is False
    assert ask("request.headers.getall('X-No')") == []
    assert ask("request.headers.get_all('X-No')") == []


@pytest.mark.parametrize("key", ["1", "None", "b'host'", "('Host',)"])
def test_a_header_name_that_is_no_str_is_not_found(ask: Ask, key: str) -> None:
    assert ask(f"{key} in request.headers") is False
    assert ask(f"request.headers.get({key})") is None


def test_repeated_headers_are_joined_and_can_be_had_one_by_one(ask: Ask) -> None:
    fields = ["X-A: 1", "Cookie: a=1", "x-a: 2", "cookie: b=2", "X-B: 3"]

    assert ask("request.headers['X-A']", *fields) == "1, 2"
    assert ask("request.headers.getall('x-a')", *fields) == ["1", "2"]
    assert ask("request.headers.get_all('X-A')", *fields) == ["1", "2"]
    assert ask("request.headers['Cookie']", *fields) == "a=1; b=2"
    assert ask("request.headers.getall('Cookie')", *fields) == ["a=1", "b=2"]
    assert ask("request.headers.getall('X-B')", *fields) == ["3"]


def test_headers_are_a_mapping_that_copies(ask: Ask) -> None:
    assert ask("dict(request.headers)['Host']") == "a"
    assert ask("dict(**request.headers)['Host']") == "a"
    assert ask("{**request.headers}['Host']") == "a"
    assert ask("isinstance(request.headers, dict)") is True
    assert ask("len(request.headers)") == 2
    assert ask("list(request.headers.items())[1]") == ("Host", "a")
    assert ask("request.headers == dict(request.headers)") is True
    assert ask("repr(request.headers) == repr(dict(request.headers))") is True


def test_header_values_are_latin_1(ask: Ask) -> None:
    assert ask("request.headers['X-A']", "X-A: caf\xe9 \xa0\xff") == "caf\xe9 \xa0\xff"


@pytest.mark.parametrize(
    ("host", "hostname", "port"),
    [
        ("example.com", "example.com", None),
        ("example.com:8080", "example.com", 8080),
        ("example.com:", "example.com", None),
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("xn--bcher-kva.example:1", "bücher.example", 1),
        ("XN--BCHER-KVA.example", "bücher.example", None),
        ("", None, None),
    ],
)
def test_hostname_and_port_are_the_two_parts_of_host(
    ask: Ask, host: str, hostname: str | None, port: int | None
) -> None:
    assert ask("(request.hostname, request.port)", f"Host: {host}") == (hostname, port)


@pytest.mark.parametrize(("host", "port"), [("[::1]", None), ("[::1]:8080", 8080)])
def test_an_ipv6_host_is_not_cut_at_its_colons(ask: Ask, host: str, port: int | None) -> None:
    assert ask("request.port", f"Host: {host}") == port
    hostname = ask("request.hostname", f"Host: {host}")
    assert hostname == "::1"


def test_without_a_host_there_is_no_hostname(ask: Ask) -> None:
    assert ask("(request.hostname, request.port)", version="1.0") == (None, None)


@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        ("1.1", [], True),
        ("1.1", ["Connection: close"], False),
        ("1.1", ["Connection: Close"], False),
        ("1.0", [], False),
        ("1.0", ["Connection: keep-alive"], True),
        ("1.0", ["Connection: Keep-Alive"], True),
    ],
)
def test_keep_alive_is_what_the_connection_does(
    ask: Ask, version: str, fields: list[str], keep_alive: bool
) -> None:
    expression = "(request.version, request.keep_alive)"

    assert ask(expression, *fields, version=version) == (version, keep_alive)


def test_no_body_an_empty_body_and_a_body_differ(ask: Ask) -> None:
    assert ask("(request.body, request.text)", body=None) == (None, None)
    assert ask("(request.body, request.text)", body=b"") == (b"", "")
    assert ask("(request.body, request.text)", body=b"\xc4\x85") == (b"\xc4\x85", "ą")


def test_a_body_is_decoded_in_its_charset(ask: Ask) -> None:
    field = 'Content-Type: Text/HTML; a="b"; Charset="iso-8859-2"'

    assert ask("request.text", field, body=b"\xb1") == "ą"
    assert ask("(request.mime_type, request.encoding)", field) == ("text/html", "iso-8859-2")


@pytest.mark.parametrize(
    ("content_type", "mime_type", "encoding"),
    [
        ("text/plain", "text/plain", None),
        ("text/plain;charset=utf-8", "text/plain", "utf-8"),
        ("text/plain; charset=", "text/plain", None),
        ("application/json ; x=y", "application/json", None),
    ],
)
def test_the_media_type_and_its_charset_are_apart(
    ask: Ask, content_type: str, mime_type: str, encoding: str | None
) -> None:
    found = ask("(request.mime_type, request.encoding)", f"Content-Type: {content_type}")

    assert found == (mime_type, encoding)


MISTAKES = [
    ("json", None, b"{", "the body is no JSON: Expecting property name"),
    ("json", None, b"", "the body is no JSON: Expecting value"),
    ("json", None, b"[" * 100_000, "the body is no JSON: Nested too deeply"),
    ("json", None, b"1" * 10_000, "the body is no JSON: A number has too many digits"),
    ("json", None, b"\xff", "the body is not utf-8: invalid start byte at byte 0"),
    ("text", None, b"a\xff", "the body is not utf-8: invalid start byte at byte 1"),
    ("text", "utf-16", b"abc", "the body is not utf-16: truncated data at byte 2"),
    ("text", "klingon", b"a", "the charset of the body is not known: klingon"),
    ("text", "hex", b"61", "the charset of the body is not known: hex"),
]


@pytest.mark.parametrize(("attribute", "charset", "body", "detail"), MISTAKES)
def test_a_mistake_in_a_body_is_the_clients(
    shared: Server, attribute: str, charset: str | None, body: bytes, detail: str
) -> None:
    fields = [f"Content-Type: text/plain; charset={charset}"] if charset else []

    answer = shared.ask(get(f"/body/{attribute}", *fields, method="POST", body=body))

    assert (answer.status, answer.text[: len(detail)]) == (400, detail)


@pytest.mark.parametrize(
    ("attribute", "error", "field", "body"),
    [
        ("json", "json.JSONDecodeError", "A: b", b'{"a": }'),
        ("text", "UnicodeDecodeError", "A: b", b"\xff"),
        ("text", "LookupError", "Content-Type: text/plain; charset=klingon", b"a"),
    ],
)
def test_a_mistake_in_a_body_is_the_standard_librarys_error(
    ask: Ask, attribute: str, error: str, field: str, body: bytes
) -> None:
    assert ask(f"raised(lambda: request.{attribute}, {error})", field, body=body) is True


def test_what_a_mistake_in_json_is_can_be_asked(ask: Ask) -> None:
    found = ask("caught(lambda: request.json)", body=b'{"a": }')

    assert found == ("Expecting value", '{"a": }', 6, 1, 7)


@pytest.mark.parametrize("charset", ["punycode", "idna"])
def test_a_codec_of_quadratic_time_is_no_charset(shared: Server, charset: str) -> None:
    # Decoding this took minutes, in which nobody else was served.
    body = b"a-" + b"a" * 3_000_000

    answer = shared.ask(
        get("/body/text", f"Content-Type: a/b; charset={charset}", method="POST", body=body)
    )

    assert answer.text == f"the charset of the body is not known: {charset}"


def test_names_of_charsets_are_not_remembered(ask: Ask) -> None:
    known = ask("len(__import__('encodings')._cache)")

    for n in range(20):
        ask("request.text", f"Content-Type: a/b; charset=utf{'-' * n}8", body=b"a")
        assert ask("request.text", f"Content-Type: a/b; charset=no{n}", body=b"a").startswith(
            "CharsetError"
        )

    assert ask("len(__import__('encodings')._cache)") <= known + 1


def test_json_of_a_body_is_its_value(ask: Ask) -> None:
    assert ask("request.json", body=b' {"a": [1, 2.5, null, "\\u0105"]} ') == {
        "a": [1, 2.5, None, "ą"]
    }


def test_placeholders_are_matched_on_the_decoded_path(ask: Ask) -> None:
    assert ask("request.match_dict", tail="/x%c4%85/a+b%20") == {"one": "xą", "two": "a+b "}
    assert ask("request.route.pattern", tail="/1/2").endswith("/{one}/{two}")


def test_an_unmatched_request_has_no_route(shared: Server) -> None:
    answer = shared.ask(get("/nowhere", "X-Ask: (request.route, request.match_dict)"))

    assert answer.text == "(None, {})"


def test_extensions_are_attributes_of_every_request(ask: Ask) -> None:
    assert ask("request.extra.update(count=21) or request.twice") == 42
    assert ask("request.shout() == request.path.upper()") is True


def test_extra_belongs_to_one_request(shared: Server) -> None:
    with shared.client() as client:
        for _ in range(3):
            ask_extra = get("/now", "X-Ask: (dict(request.extra), request.extra.update(a=1))")
            assert client.ask(ask_extra).text == "({}, None)"


def test_a_request_cannot_be_made_by_hand(ask: Ask) -> None:
    assert ask("Request()").startswith("TypeError")
    assert ask("Headers()").startswith("TypeError")


def test_the_printed_form_names_method_and_path(ask: Ask) -> None:
    assert ask("repr(request)").startswith("<Request GET /")


TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
methods = st.text(TOKEN, min_size=1, max_size=64)
paths = st.text(st.characters(exclude_categories=["Cs"]), max_size=64)
names = st.text(TOKEN, min_size=1, max_size=24).map(lambda name: f"X-{name}")
values = st.text(
    st.characters(max_codepoint=0xFF, exclude_categories=["Cc"], include_characters="\t"),
    max_size=64,
).map(lambda value: value.strip(" \t"))
# As urllib: a parameter without a value is left out.
queries = st.none() | st.lists(
    st.tuples(paths, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=32)),
    max_size=12,
)
sizes = st.sampled_from([0, 1, 1024, 2048, 4096, 8192]).flatmap(lambda size: st.integers(0, size))
bodies = st.none() | sizes.flatmap(lambda size: st.binary(min_size=size, max_size=size))


def render(
    draw: dict[str, Any], escape: Callable[[str], str] = lambda text: quote(text, safe="")
) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a generated request and what the echo has to say about it."""
    query = None if draw["query"] is None else urlencode(draw["query"])
    target = "/" + escape(draw["path"]) + ("" if query is None else f"?{query}")
    headers = {"Host": "a"}
    lines = [f"{draw['method']} {target} HTTP/1.1", "Host: a"]
    for name, value in draw["headers"]:
        lines.append(f"{name}: {value}")
        name = name.title()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    body = draw["body"]
    if body is not None:
        if draw["chunks"]:
            lines.append("Transfer-Encoding: chunked")
            headers["Transfer-Encoding"] = "chunked"
        else:
            lines.append(f"Content-Length: {len(body)}")
            headers["Content-Length"] = str(len(body))
    data = "\r\n".join([*lines, "", ""]).encode("latin-1")
    if body is not None:
        data += chunked(body, draw["chunks"]) if draw["chunks"] else body
    expected = {
        "method": draw["method"],
        "path": "/" + draw["path"],
        "query_string": query,
        "query": dict(draw["query"] or []),
        "headers": headers,
        "body": None if body is None else base64.b64encode(body).decode(),
    }
    return data, expected


def lower_hex(quoted: str) -> str:
    return re.sub("%..", lambda escape: escape[0].lower(), quoted)


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


requests = st.fixed_dictionaries(
    {
        "method": methods,
        "path": paths,
        "query": queries,
        "headers": st.lists(st.tuples(names, values), max_size=48),
        "body": bodies,
        "chunks": st.just(0) | st.integers(1, 3000),
    }
)


@pytest.fixture(scope="module")
def client(shared: Server) -> Any:
    """One connection for all generated requests."""
    with shared.client() as client:
        yield client


@settings(max_examples=150, deadline=None)
@given(draw=requests)
def test_any_request_comes_back_as_it_was_sent(client: Client, draw: dict[str, Any]) -> None:
    data, expected = render(draw)

    answer = client.ask(data, "HEAD" if draw["method"] == "HEAD" else "GET")

    assert answer.status == 200
    assert draw["method"] == "HEAD" or json.loads(answer.body) == expected


@settings(max_examples=40, deadline=None)
@given(draws=st.lists(requests, min_size=2, max_size=8))
def test_any_pipeline_of_requests_is_answered_in_order(
    client: Client, draws: list[dict[str, Any]]
) -> None:
    rendered = [render({**draw, "method": f"X{draw['method'][:63]}"}) for draw in draws]

    client.send(b"".join(data for data, _ in rendered))

    for _, expected in rendered:
        assert json.loads(client.answer().body) == expected


@settings(max_examples=60, deadline=None)
@given(draw=requests)
def test_a_request_is_the_same_after_an_await(client: Client, draw: dict[str, Any]) -> None:
    draw = {**draw, "method": f"X{draw['method'][:63]}", "path": "echo/later"}
    data, expected = render(draw, escape=str)

    assert json.loads(client.ask(data).body) == expected


@settings(max_examples=60, deadline=None)
@given(one=paths.filter(bool), two=paths.filter(bool), later=st.booleans())
def test_any_text_without_a_slash_fits_a_placeholder(
    client: Client, one: str, two: str, later: bool
) -> None:
    one, two = one.replace("/", "-"), two.replace("/", "-")
    kind = "later" if later else "now"
    target = f"/{kind}/{quote(one, safe='')}/{lower_hex(quote(two, safe=''))}"

    answer = client.ask(get(target, "X-Ask: request.match_dict"))

    assert ast.literal_eval(answer.text) == {"one": one, "two": two}
