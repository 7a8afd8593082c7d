"""Programs written for Japronto, run unchanged: its tutorial, chapter by chapter.

Owns what their clients get to see. The programs are in `japronto/programs/`.
"""

from __future__ import annotations

import json
import pathlib

import pytest
from conftest import Serve, Server, get

PROGRAMS = pathlib.Path(__file__).parent / "japronto" / "programs"


@pytest.fixture
def run(serve_japronto: Serve, reactor: str) -> Serve:
    """`run(name, *arguments)` runs one of the programs, on each reactor."""

    def start(name: str, *arguments: str) -> Server:
        return serve_japronto(PROGRAMS / f"{name}.py", *arguments, reactor=reactor)

    return start


def test_1_hello(run: Serve) -> None:
    server = run("hello")

    answer = server.ask(get("/"))

    assert (answer.status, answer.text) == (200, "Hello world!")
    assert answer.field("Content-Type") == "text/plain; charset=utf-8"
    server.wait_for_line(r"^127\.0\.0\.1 GET /$")
    assert server.ask(get("/else")).text == "Not Found"
    assert server.stop() == 0


def test_2_mixing_sync_and_async(run: Serve) -> None:
    server = run("mixing")

    with server.client() as client:
        client.send(get("/async") + get("/sync") + get("/async"))
        texts = [client.answer().text for _ in range(3)]

    assert texts == ["I waited.", "I did not wait.", "I waited."]
    server.wait_for_line("3 of 3 rests")


def test_3_router(run: Serve) -> None:
    server = run("router")

    for method in ("GET", "POST", "BREW"):
        assert server.ask(get("/", method=method)).text == f"{method} is fine for /"
    assert server.ask(get("/love")).text == "Got some love"
    assert server.ask(get("/methods", method="POST")).text == "POST"
    assert server.ask(get("/methods", method="DELETE")).text == "DELETE"
    assert server.ask(get("/params/1/zwei")).text == "{'p1': '1', 'p2': 'zwei'}"
    refused = [
        ("/love", "POST"),
        ("/love", "HEAD"),
        ("/methods", "GET"),
        ("/methods", "OPTIONS"),
        ("/love/", "GET"),
        ("/params/1", "GET"),
        ("/params/1/2/3", "GET"),
    ]
    for target, method in refused:
        assert server.ask(get(target, method=method), method).status == 404, (target, method)


def test_4_request_basic(run: Serve) -> None:
    answer = run("request").ask(get("/basic?a=b%26c&d=e", "user-agent: me", version="1.0"))

    assert answer.text.splitlines() == [
        "method: GET",
        "path: /basic",
        "version: 1.0",
        "query string: a=b%26c&d=e",
        "query: {'a': 'b&c', 'd': 'e'}",
        "User-Agent=me",
    ]


def test_4_request_body(run: Serve) -> None:
    server = run("request")
    latin = ("Content-Type: application/json; charset=latin-1",)

    answer = server.ask(get("/body", *latin, method="POST", body=b'{"a": "\xe9"}'))

    assert answer.text.splitlines() == [
        "type: application/json",
        "encoding: latin-1",
        'body: b\'{"a": "\\xe9"}\'',
        'text: {"a": "\u00e9"}',
        "json: {'a': '\u00e9'}",
    ]
    assert "no json" in server.ask(get("/body", method="POST", body=b"{")).text
    assert "body: None\njson: None\n" in server.ask(get("/body")).text


def test_4_request_misc(run: Serve) -> None:
    server = run("request")

    answer = server.ask(get("/misc/jane", "Host: example.com:81", "User-Agent: me"))

    assert answer.text.splitlines() == [
        "match: {'name': 'jane'}",
        "host: example.com",
        "port: 81",
        "from: 127.0.0.1",
        "route: /misc/{name}",
        "keep alive: True",
        "agent: me",
    ]
    bare = server.ask(get("/misc", version="1.0")).text.splitlines()
    assert bare[:3] == ["match: {}", "host: None", "port: None"]
    assert bare[-2:] == ["keep alive: False", "agent: nobody"]


def test_5_response(run: Serve) -> None:
    server = run("response")

    def typed(target: str) -> tuple[str | None, bytes]:
        answer = server.ask(get(target))
        return answer.field("Content-Type"), answer.body

    assert typed("/text") == ("text/plain; charset=utf-8", b"Hello world!")
    polish = "Jutro p\u00f3jd\u0119".encode("iso-8859-2")
    assert typed("/encoding") == ("text/plain; charset=iso-8859-2", polish)
    assert typed("/mime")[0] == "image/svg+xml"
    assert typed("/body") == ("application/octet-stream", b"\xde\xad\xbe\xef")
    content_type, document = typed("/json")
    assert content_type == "application/json; charset=utf-8"
    assert json.loads(document) == {"hello": "world", "numbers": [1, 2, 3]}


def test_5_response_code_headers_and_cookies(run: Serve) -> None:
    server = run("response")

    codes = {server.ask(get("/code")).status for _ in range(40)}
    headers = server.ask(get("/headers"))
    cookies = server.ask(get("/cookies"))

    assert codes <= {200, 201, 400, 404, 500}
    assert len(codes) > 1
    assert headers.field("X-Header") == "Value"
    assert headers.field("Refresh") == "5; url=https://example.com/"
    lines = {value for name, value in cookies.fields if name == "Set-Cookie"}
    assert lines == {
        "hello=world; Domain=localhost; Max-Age=3600; Path=/",
        r'city="S\343o Paulo"',
    }


def test_6_exceptions(run: Serve) -> None:
    server = run("exceptions")

    answers = {
        target: (answer.status, answer.text)
        for target in ("/cat", "/dog", "/unhandled", "/unhandled_async", "/lost")
        for answer in [server.ask(get(target))]
    }

    assert answers == {
        "/cat": (200, "Just a kitty, meow"),
        "/dog": (200, "Just a doggie, woof"),
        "/unhandled": (500, "Internal Server Error"),
        "/unhandled_async": (500, "Internal Server Error"),
        "/lost": (404, "Are you lost, pal?"),
    }
    server.wait_for_line("ZeroDivisionError: division by zero")


def test_7_extending(run: Serve) -> None:
    server = run("extending")

    api = server.ask(get("/", "Host: api.example.com", "User-Agent: curl"))
    other = server.ask(get("/", "Host: example.com"))
    method = server.ask(get("/method", "Host: api.example.com"))

    assert api.text == "Hello lruc"
    assert other.text == "Hello stranger"
    assert method.text == "True"


def test_8_templates(run: Serve) -> None:
    server = run("template")

    def page(target: str) -> tuple[str | None, str]:
        answer = server.ask(get(target))
        return answer.field("Content-Type"), answer.text

    html = "text/html; charset=utf-8"
    assert page("/file") == (html, "<h1>From a file</h1>\n")
    assert page("/literal") == (html, "<h1>A literal</h1>")
    assert page("/rendered?b=1&a=2") == (
        html,
        "<h1>A template</h1><ul><li>a</li><li>b</li></ul>",
    )
