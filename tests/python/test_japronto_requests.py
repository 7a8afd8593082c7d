"""What Japronto documents of routes, handlers, requests and responses, under its own name.

One test per behaviour. Where Japronto's code did something else than it documents, the test shows
what is documented.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from typing import Any

import pytest
from anel import RouteError
from anel.japronto import Application
from conftest import Answer, Server, get

PROGRAM = """
    import asyncio, functools
    from http.cookies import SimpleCookie
    from anel import Router
    from japronto import Application

    app = Application()
    router = app.router

    def see(request):
        '''What an expression over the request is.'''
        try:
            value = eval(request.headers["X-See"], {"request": request, "app": app})
        except Exception as error:
            value = "{}: {}".format(type(error).__name__, error)
        return request.Response(text=repr(value))

    async def see_later(request):
        await asyncio.sleep(0)
        return see(request)

    def respond(request):
        '''The response that the arguments make.'''
        return eval("request.Response({})".format(request.text))

    def named(name):
        def handler(request):
            return request.Response(text=name)
        return handler

    async def awaits(request):
        await asyncio.sleep(0)
        return request.Response(text="awaited")

    async def await_free(request):
        return request.Response(text="not awaited")

    async def with_greeting(greeting, request):
        await asyncio.sleep(0)
        return request.Response(text=greeting)

    def twice(request):
        request.Response(text="once")
        return request.Response(text="twice")

    class Callable:
        async def __call__(self, request):
            return await awaits(request)

    def decorated(function):
        @functools.wraps(function)
        def wrapper(request):
            return function(request)
        return wrapper

    router.add_route("/see", see)
    router.add_route("/see/later", see_later)
    router.add_route("/see/{one}/{two}", see)
    router.add_route("/respond", respond)
    router.add_route("/awaits", awaits)
    router.add_route("/await_free", await_free)
    router.add_route("/twice", twice)
    router.add_route("/partial", functools.partial(with_greeting, "partial"))
    router.add_route("/callable", Callable())
    router.add_route("/decorated", decorated(awaits))
    router.add_route("/method", named("get"), "GET")
    router.add_route("/methods", named("several"), methods=["post", "Delete"])
    router.add_route("/first/{any}", named("first"))
    router.add_route("/first/literal", named("never reached"))
    router.add_route("/literal/{{brace}}", named("braces"))
    router.add_route("/t\u00e9st", named("unicode"))
    class Views:
        def bound(self, request):
            return request.Response(text="bound")

        async def later(self, request):
            return await awaits(request)

        @classmethod
        def of_class(cls, request):
            return request.Response(text="of class")

        @staticmethod
        async def static(request):
            return await awaits(request)

    class Awaitable:
        def __init__(self, request):
            self.request = request

        def __await__(self):
            return awaits(self.request).__await__()

    def future(request):
        made = app.loop.create_future()
        app.loop.call_soon(made.set_result, request.Response(text="future"))
        return made

    def says_who_it_is(exception, text):
        def handler(request, error):
            return request.Response(text="{}: {}".format(type(error).__name__, text), code=500)
        app.add_error_handler(exception, handler)

    async def takes_nothing():
        await asyncio.sleep(0)

    says_who_it_is(TypeError, "cannot be called")

    router.add_route("/bound", Views().bound)
    router.add_route("/bound/later", Views().later)
    router.add_route("/of_class", Views.of_class)
    router.add_route("/static", Views.static)
    router.add_route("/lambda", lambda request: request.Response(text="lambda"))
    router.add_route("/returns/task", lambda request: asyncio.ensure_future(awaits(request)))
    router.add_route("/returns/coroutine", lambda request: awaits(request))
    router.add_route("/returns/future", future)
    router.add_route("/returns/awaitable", Awaitable)
    router.add_route("/takes/nothing", lambda: None)
    router.add_route("/takes/nothing/later", takes_nothing)

    # The table of Japronto's own tests of its matcher.
    table = Router()
    table.add_route("/", named("/"))
    table.add_route("/test", named("/test"), "GET")
    table.add_route("/hi/{there}", named("/hi/{there}"), methods=["POST", "DELETE"])
    table.add_route("/{oh}/{dear}", named("/{oh}/{dear}"), "PATCH")
    table.add_route("/lets", named("/lets"), "PATCH")
    router.include(table, "/table")

    router.add_route("/match", named("GET"), method="GET")
    router.add_route("/match", named("POST"), method="POST")
    app.run()
"""

See = Callable[..., Any]


@pytest.fixture(params=["/see", "/see/later"])
def see(japronto: Server, request: pytest.FixtureRequest) -> See:
    """`see("request.method", *fields, target=..., ...)`, from a sync and from an async handler."""

    def ask(
        expression: str,
        *fields: str,
        query: str = "",
        method: str = "GET",
        body: bytes | None = None,
        version: str = "1.1",
    ) -> Any:
        target = request.param + query
        asked = (f"X-See: {expression}", *fields)
        data = get(target, *asked, method=method, body=body, version=version)
        return ast.literal_eval(japronto.ask(data, method).text)

    return ask


@pytest.fixture
def respond(japronto: Server) -> Callable[[str], Answer]:
    """`respond("text='a'")` is the answer that these arguments make."""
    return lambda arguments: japronto.ask(get("/respond", method="POST", body=arguments.encode()))


# Routes (patterns, methods and their order).


def test_a_placeholder_takes_one_segment(japronto: Server) -> None:
    matched = japronto.ask(get("/see/a/b", "X-See: request.match_dict")).text

    assert ast.literal_eval(matched) == {"one": "a", "two": "b"}
    assert japronto.ask(get("/see/a/b/c")).status == 404
    assert japronto.ask(get("/see/a/")).status == 404


def test_a_captured_value_is_percent_decoded_text(japronto: Server) -> None:
    matched = japronto.ask(get("/see/%C5%BC%c3%B3/%20", "X-See: request.match_dict")).text

    assert ast.literal_eval(matched) == {"one": "\u017c\u00f3", "two": " "}


def test_the_first_registered_route_wins(japronto: Server) -> None:
    assert japronto.ask(get("/first/literal")).text == "first"


def test_the_third_argument_of_add_route_is_the_method(japronto: Server) -> None:
    assert japronto.ask(get("/method")).text == "get"
    assert japronto.ask(get("/method", method="POST")).status == 404


def test_methods_are_taken_in_any_case(japronto: Server) -> None:
    assert japronto.ask(get("/methods", method="POST")).text == "several"
    assert japronto.ask(get("/methods", method="DELETE")).text == "several"
    assert japronto.ask(get("/methods")).status == 404


def test_another_method_falls_through_to_a_later_route(japronto: Server) -> None:
    assert japronto.ask(get("/match", method="POST")).text == "POST"
    assert japronto.ask(get("/match")).text == "GET"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "ET", "GETS"])
def test_no_method_is_answered_but_those_registered(japronto: Server, method: str) -> None:
    answer = japronto.ask(get("/method", method=method), method)

    assert answer.status == 404
    assert answer.field("Allow") is None


@pytest.mark.parametrize(
    ("method", "path", "pattern"),
    [
        ("GET", "/", "/"),
        ("POST", "/", "/"),
        ("GET", "/test", "/test"),
        ("DELETE", "/hi/jane", "/hi/{there}"),
        ("PATCH", "/lets/go", "/{oh}/{dear}"),
        ("PATCH", "/lets", "/lets"),
    ],
)
def test_a_request_of_japrontos_table_matches(
    japronto: Server, method: str, path: str, pattern: str
) -> None:
    assert japronto.ask(get(f"/table{path}", method=method)).text == pattern


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/test"),
        ("GET", "/test/"),
        ("GET", "/hi/jane"),
        ("POST", "/hi/jane/"),
        ("POST", "/hi/"),
        ("GET", "/abc"),
        ("PATCH", "//dance"),
    ],
)
def test_a_request_beside_japrontos_table_is_not_found(
    japronto: Server, method: str, path: str
) -> None:
    assert japronto.ask(get(f"/table{path}", method=method)).status == 404


def test_a_trailing_slash_is_part_of_the_path(japronto: Server) -> None:
    assert japronto.ask(get("/method/")).status == 404


def test_doubled_braces_are_literal(japronto: Server) -> None:
    assert japronto.ask(get("/literal/%7Bbrace%7D")).text == "braces"


def test_a_pattern_may_be_any_unicode(japronto: Server) -> None:
    assert japronto.ask(get("/t%C3%A9st")).text == "unicode"


def test_the_query_is_not_matched(japronto: Server) -> None:
    assert japronto.ask(get("/method?/other")).text == "get"


def test_add_route_returns_the_route() -> None:
    def handler(request: Any) -> None: ...

    route = Application().router.add_route("/a/{b}", handler, methods=["get", "POST"])

    assert route.pattern == "/a/{b}"
    assert route.handler is handler
    assert route.methods == {"GET", "POST"}
    assert route.segments == [("exact", "/a/"), ("placeholder", "b")]
    assert route.placeholder_cnt == 1
    assert "/a/{b}" in route.describe()
    assert "/a/{b}" in repr(route)
    assert "POST" in repr(route)


@pytest.mark.parametrize("pattern", ["/{a", "/a}", "/{a}b", "/{a}/{a}"])
def test_a_bad_pattern_is_a_value_error(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern") as caught:
        Application().router.add_route(pattern, print)

    assert isinstance(caught.value, RouteError)


def test_method_and_methods_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        Application().router.add_route("/", print, "GET", ["POST"])


# Handlers.


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/awaits", "awaited"),
        ("/await_free", "not awaited"),
        ("/partial", "partial"),
        ("/callable", "awaited"),
        ("/decorated", "awaited"),
        ("/bound", "bound"),
        ("/bound/later", "awaited"),
        ("/of_class", "of class"),
        ("/static", "awaited"),
        ("/lambda", "lambda"),
        ("/returns/task", "awaited"),
        ("/returns/coroutine", "awaited"),
        ("/returns/future", "future"),
        ("/returns/awaitable", "awaited"),
    ],
)
def test_every_kind_of_handler_is_called(japronto: Server, path: str, text: str) -> None:
    assert japronto.ask(get(path)).text == text


@pytest.mark.parametrize("path", ["/takes/nothing", "/takes/nothing/later"])
def test_a_handler_that_cannot_be_called_is_a_type_error(japronto: Server, path: str) -> None:
    answer = japronto.ask(get(path))

    assert (answer.status, answer.text) == (500, "TypeError: cannot be called")


# Requests.


@pytest.mark.parametrize("method", ["GET", "POST", "lower", "BREW", "!#$%&'*+-.^_`|~09"])
def test_method_is_as_it_was_sent(see: See, method: str) -> None:
    assert see("request.method", method=method) == method


def test_path_is_decoded_and_has_no_query(japronto: Server) -> None:
    path = japronto.ask(get("/see/%C3%A9/b?q", "X-See: request.path")).text

    assert ast.literal_eval(path) == "/see/\u00e9/b"


@pytest.mark.parametrize(("query", "value"), [("", None), ("?", ""), ("?a=b&c", "a=b&c")])
def test_query_string_is_none_or_what_follows_the_mark(
    see: See, query: str, value: str | None
) -> None:
    assert see("request.query_string", query=query) == value


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("", {}),
        ("?a=1&b=2", {"a": "1", "b": "2"}),
        ("?a=1&a=2", {"a": "2"}),
        ("?a=&b=2", {"b": "2"}),
        ("?a=1%262", {"a": "1&2"}),
        ("?a=x+y%2B", {"a": "x y+"}),
        ("?%c3%a9=%C3%A9", {"\u00e9": "\u00e9"}),
    ],
)
def test_query_is_a_dict_of_the_last_values(see: See, query: str, value: dict[str, str]) -> None:
    assert see("dict(request.query)", query=query) == value
    assert see("request.query", query=query) == value


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_version_is_text(see: See, version: str) -> None:
    assert see("request.version", version=version) == version


def test_headers_are_a_dict_of_title_case_names(see: See) -> None:
    headers = see("dict(request.headers)", "x-one: 1", "X-TWO: t\u00fcwo", version="1.0")

    assert headers["X-One"] == "1"
    assert headers["X-Two"] == "t\u00fcwo"
    assert see("isinstance(request.headers, dict)") is True


@pytest.mark.parametrize("name", ["x-two", "X-2TWO", "x_two", "x-o'clock", "X~aB", "x--a"])
def test_a_header_name_is_that_of_str_title(see: See, name: str) -> None:
    assert see("list(request.headers)", f"{name}: value", version="1.0")[-1] == name.title()


def test_match_dict_is_empty_without_placeholders(see: See) -> None:
    assert see("request.match_dict") == {}


@pytest.mark.parametrize("body", [None, b"", b"\x00\xff"])
def test_body_is_none_or_bytes(see: See, body: bytes | None) -> None:
    assert see("request.body", method="POST", body=body) == body


def test_text_is_the_body_in_its_encoding(see: See) -> None:
    assert see("request.text") is None
    assert see("request.text", method="POST", body="\u00e9".encode()) == "\u00e9"
    latin = "Content-Type: text/plain; charset=latin-1"
    assert see("request.text", latin, method="POST", body=b"\xe9") == "\u00e9"


def test_json_is_the_bodys_value(see: See) -> None:
    assert see("request.json") is None
    assert see("request.json", method="POST", body=b'{"a": [1, null]}') == {"a": [1, None]}
    assert see("request.json", method="POST", body=b"{").startswith("JSONError")


def test_mime_type_and_encoding_are_those_of_content_type(see: See) -> None:
    field = "Content-Type: text/css; charset=utf-16"

    assert see("(request.mime_type, request.encoding)", field) == ("text/css", "utf-16")
    assert see("(request.mime_type, request.encoding)") == (None, None)


@pytest.mark.parametrize(
    ("version", "fields", "keep_alive"),
    [
        ("1.1", [], True),
        ("1.1", ["Connection: close"], False),
        ("1.0", [], False),
        ("1.0", ["Connection: keep-alive"], True),
        ("1.0", ["Connection: Keep-Alive"], True),
    ],
)
def test_keep_alive_is_decided_by_version_and_connection(
    see: See, version: str, fields: list[str], keep_alive: bool
) -> None:
    assert see("request.keep_alive", *fields, version=version) is keep_alive


def test_route_is_the_one_that_matched(see: See) -> None:
    assert see("request.route.pattern").startswith("/see")


@pytest.mark.parametrize(
    ("host", "hostname", "port"),
    [
        ("example.com", "example.com", None),
        ("example.com:8080", "example.com", 8080),
        ("xn--bcher-kva.example", "b\u00fccher.example", None),
        ("[::1]:80", "::1", 80),
    ],
)
def test_hostname_and_port_are_those_of_host(
    see: See, host: str, hostname: str, port: int | None
) -> None:
    assert see("(request.hostname, request.port)", f"Host: {host}") == (hostname, port)


def test_without_host_there_is_no_hostname(see: See) -> None:
    assert see("(request.hostname, request.port)", version="1.0") == (None, None)


def test_remote_addr_is_the_clients_address(see: See) -> None:
    assert see("request.remote_addr") == "127.0.0.1"


def test_app_is_the_application(see: See) -> None:
    assert see("request.app is app") is True


def test_extra_is_a_dict_of_the_request(see: See) -> None:
    assert see("request.extra.setdefault('a', 1), dict(request.extra)['a']") == (1, 1)


def test_response_can_be_called_once(japronto: Server) -> None:
    assert japronto.ask(get("/twice")).status == 500
    japronto.wait_for_line("RuntimeError: request.Response can only be called once")


# Responses.


def test_hello_is_ninety_two_bytes_beside_the_date(japronto: Server) -> None:
    raw = japronto.exchange(get("/respond", method="POST", body=b"text='Hello world!'"))

    lines = [line for line in raw.split(b"\r\n") if not line.startswith(b"Date: ")]
    without_date = b"\r\n".join(lines)
    assert len(without_date) == 92
    assert without_date == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\nHello world!"
    )


Respond = Callable[[str], Answer]


def test_arguments_come_in_japrontos_order(respond: Respond) -> None:
    answer = respond("'text', 201, None, None, 'text/css', 'utf-8', {'X-A': 'b'}, None")

    assert (answer.status, answer.text) == (201, "text")
    assert answer.field("Content-Type") == "text/css; charset=utf-8"
    assert answer.field("X-A") == "b"


@pytest.mark.parametrize(
    ("arguments", "content_type", "body"),
    [
        ("text='\u00e9'", "text/plain; charset=utf-8", "\u00e9".encode()),
        ("text='\u00e9', encoding='latin-1'", "text/plain; charset=latin-1", b"\xe9"),
        ("body=b'\\xff'", "application/octet-stream", b"\xff"),
        ("text='a', mime_type='text/html'", "text/html; charset=utf-8", b"a"),
        ("text='a', mime_type='image/svg+xml'", "image/svg+xml", b"a"),
        ("text='', code=200", "text/plain; charset=utf-8", b""),
        ("", None, b""),
        ("body=None, json=None", None, b""),
    ],
)
def test_each_body_has_its_content_type(
    respond: Respond, arguments: str, content_type: str | None, body: bytes
) -> None:
    answer = respond(arguments)

    assert (answer.field("Content-Type"), answer.body) == (content_type, body)
    assert answer.field("Content-Length") == str(len(body))


def test_json_is_sent_as_json(respond: Respond) -> None:
    answer = respond("json={'a': [1, None, '\u00e9']}")

    assert answer.field("Content-Type") == "application/json; charset=utf-8"
    assert json.loads(answer.body) == {"a": [1, None, "\u00e9"]}


@pytest.mark.parametrize("code", [200, 206, 300, 307, 308, 400, 417, 418, 428, 429, 500, 505, 511])
def test_every_status_can_be_sent(respond: Respond, code: int) -> None:
    assert respond(f"text='a', code={code}").status == code


def test_headers_follow_the_servers_own(respond: Respond) -> None:
    answer = respond("text='a', headers={'X-One': '1', 'Refresh': '5'}")

    names = [name for name, _ in answer.fields if name != "Date"]
    assert names == ["Content-Length", "Content-Type", "X-One", "Refresh"]


def test_cookies_follow_the_headers(respond: Respond) -> None:
    answer = respond(
        "headers={'X-A': 'b'}, cookies=__import__('http.cookies').cookies.SimpleCookie('a=1; c=2')"
    )

    found = [(name, value) for name, value in answer.fields if name in ("X-A", "Set-Cookie")]
    assert found == [("X-A", "b"), ("Set-Cookie", "a=1"), ("Set-Cookie", "c=2")]


@pytest.mark.parametrize(
    "arguments",
    [
        "text='a', body=b'b'",
        "code=99",
        "text=5",
        "headers={'X-A': 'b\\r\\nSet-Cookie: c=d'}",
        "headers=5",
    ],
)
def test_what_cannot_be_sent_is_a_500_and_not_a_hang(respond: Respond, arguments: str) -> None:
    assert respond(arguments).status == 500


def test_two_kilobytes_of_headers_do_not_crash(respond: Respond) -> None:
    answer = respond("headers={'X-%d' % n: 'v' * 100 for n in range(20)}")

    assert answer.field("X-19") == "v" * 100


@pytest.mark.parametrize(
    ("version", "connection", "answered"),
    [
        ("1.1", None, None),
        ("1.1", "close", "close"),
        ("1.0", None, None),
        ("1.0", "keep-alive", "keep-alive"),
    ],
)
def test_connection_is_said_where_it_is_not_the_versions_default(
    japronto: Server, version: str, connection: str | None, answered: str | None
) -> None:
    fields = [] if connection is None else [f"Connection: {connection}"]

    with japronto.client() as client:
        answer = client.ask(get("/method", *fields, version=version))

        assert answer.field("Connection") == answered
        if answered == "close" or (version, connection) == ("1.0", None):
            assert client.is_ended()
        else:
            assert client.ask(get("/method")).text == "get"
