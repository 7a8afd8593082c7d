"""Headers and cookies of a response: what is sent, what the server says itself, what is refused."""

from __future__ import annotations

import re
from http.cookies import SimpleCookie

import pytest
from conftest import Answer, Server, get
from hypothesis import given, settings
from hypothesis import strategies as st

PROGRAM = """
    from http.cookies import SimpleCookie
    from types import MappingProxyType
    from anel import Application, Response

    app = Application()

    def make(request):
        return eval(request.text, {**globals(), "request": request})

    def why(request):
        try:
            make(request)
        except Exception as error:
            return Response(text=f"{type(error).__name__}: {error}")
        return "made"

    def cookie():
        jar = SimpleCookie()
        jar["plain"] = "1"
        jar["other"] = "two words; and more"
        jar["other"]["path"] = "/x"
        jar["other"]["max-age"] = 60
        jar["other"]["httponly"] = True
        return jar

    def forged(attribute):
        jar = SimpleCookie()
        jar["a"] = "b"
        jar["a"][attribute] = "x\\r\\nSet-Cookie: evil=1"
        return jar

    app.router.add_route("/make", make)
    app.router.add_route("/why", why)
"""

OWN = ("Content-Length", "Content-Type", "Date")
RESPONSES = ["Response", "request.Response"]


def make(shared: Server, expression: str, path: str = "/make") -> Answer:
    return shared.ask(get(path, method="POST", body=expression.encode()))


def why(shared: Server, expression: str) -> str:
    return make(shared, expression, "/why").text


def others(answer: Answer) -> list[tuple[str, str]]:
    """The fields that every response has are left out."""
    return [(name, value) for name, value in answer.fields if name not in OWN]


@pytest.mark.parametrize(
    "headers",
    [
        "{'X-B': '2', 'x-a': '1'}",
        "[('X-B', '2'), ('x-a', '1')]",
        "MappingProxyType({'X-B': '2', 'x-a': '1'})",
        "iter([('X-B', '2'), ('x-a', '1')])",
        "{'X-B': '2', 'x-a': '1'}.items()",
    ],
)
def test_headers_keep_their_order_and_case(shared: Server, headers: str) -> None:
    for response in RESPONSES:
        answer = make(shared, f"{response}('x', headers={headers})")

        assert others(answer) == [("X-B", "2"), ("x-a", "1")]


def test_pairs_may_repeat_a_name(shared: Server) -> None:
    answer = make(shared, "Response(headers=[('Vary', 'A'), ('Vary', 'B')])")

    assert others(answer) == [("Vary", "A"), ("Vary", "B")]


def test_the_headers_of_a_request_can_be_sent_back(shared: Server) -> None:
    expression = "Response(headers={'X-' + name: v for name, v in request.headers.items()})"

    assert ("X-Host", "a") in others(make(shared, expression))


def test_the_order_of_the_fields_is_japrontos(shared: Server) -> None:
    expression = b"request.Response('x', headers={'X-A': '1'}, cookies=cookie())"
    answer = shared.ask(get("/make", "Connection: close", method="POST", body=expression))

    names = [name for name, _ in answer.fields if name != "Date"]
    assert names == ["Content-Length", "Connection", "Content-Type", "X-A", *["Set-Cookie"] * 2]


def test_values_are_sent_as_latin_1(shared: Server) -> None:
    answer = make(shared, "Response(headers={'X-A': 'caf\xe9\\t\xff', 'X-B': ''})")

    assert others(answer) == [("X-A", "caf\xe9\t\xff"), ("X-B", "")]


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "a\n", "\0", "é", "a\x7f", "(a)"])
def test_a_name_that_is_no_token_is_refused_where_it_is_made(shared: Server, name: str) -> None:
    for response in RESPONSES:
        raised = why(shared, f"{response}(headers={{{name!r}: 'v'}})")

        assert raised.startswith("ValueError: header name is not a token")
        assert name.replace("\r", "\\r").replace("\n", "\\n") in raised or name in "\0\x7fa\x7f"


@pytest.mark.parametrize("name", ["X-A", "Content-Type", "Content-Length", "Connection", "Date"])
@pytest.mark.parametrize(
    "value", ["v\r\nX: y", "v\n", "v\r", "\0", "v\x7f", "v\x1b", "\u0105", "\u20ac", "\ud800"]
)
def test_a_value_that_could_forge_a_line_is_refused_where_it_is_made(
    shared: Server, name: str, value: str
) -> None:
    for response in RESPONSES:
        raised = why(shared, f"{response}('x', headers={{{name!r}: {value!a}}})")

        if value == "\ud800":
            assert raised.startswith("TypeError: headers must be pairs")
            assert "\\ud800" in raised
        else:
            assert raised.startswith("ValueError: header value holds")
        if value.startswith("v\r\n"):
            assert "v\\r\\nX: y" in raised


def test_the_servers_own_fields_are_sent_once(shared: Server) -> None:
    headers = "{'Date': 'yesterday', 'content-LENGTH': '1', 'Connection': 'keep-alive'}"
    answer = make(shared, f"request.Response('x', headers={headers})")

    assert answer.field("Content-Length") == "1"
    assert answer.field("Date") not in (None, "yesterday")
    assert answer.field("Connection") is None


@pytest.mark.parametrize("name", ["Content-Type", "content-type"])
def test_a_content_type_among_the_headers_replaces_the_own_one(shared: Server, name: str) -> None:
    for response in RESPONSES:
        answer = make(shared, f"{response}('x', headers={{{name!r}: 'text/x; a=b'}})")

        assert answer.field("Content-Type") == "text/x; a=b"


@pytest.mark.parametrize("value", ["2", "-1", "", "1, 1", "0x1"])
def test_a_content_length_that_is_not_the_bodys_is_refused(shared: Server, value: str) -> None:
    raised = why(shared, f"Response('x', headers={{'Content-Length': {value!r}}})")

    assert raised == f'ValueError: header "Content-Length": "{value}": the body has 1 bytes'


@pytest.mark.parametrize("value", ["chunked", "identity", "gzip"])
def test_a_transfer_encoding_is_refused(shared: Server, value: str) -> None:
    raised = why(shared, f"Response('x', headers={{'Transfer-Encoding': {value!r}}})")

    assert raised.startswith(f'ValueError: header "Transfer-Encoding": "{value}"')


@pytest.mark.parametrize("value", ["close", "Close", " close ", "keep-alive, close", ",close,"])
def test_connection_close_among_the_headers_closes(shared: Server, value: str) -> None:
    with shared.client() as client:
        body = f"request.Response('x', headers={{'Connection': {value!r}}})".encode()
        answer = client.ask(get("/make", method="POST", body=body))

        assert answer.field("Connection") == "close"
        assert client.is_ended()


def test_other_connection_options_are_sent_as_they_are(shared: Server) -> None:
    answer = make(shared, "Response(headers={'Connection': 'Upgrade', 'Upgrade': 'x'})")

    assert others(answer) == [("Connection", "Upgrade"), ("Upgrade", "x")]


def test_a_close_among_other_connection_options_closes(shared: Server) -> None:
    with shared.client() as client:
        body = b"request.Response('x', headers={'Connection': 'X-Hop, Close', 'X-Hop': '1'})"
        answer = client.ask(get("/make", method="POST", body=body))

        connection = [value for name, value in answer.fields if name == "Connection"]
        assert connection == ["close", "X-Hop"]
        assert client.is_ended()


def test_a_keep_alive_among_the_headers_is_the_servers_to_say(shared: Server) -> None:
    answer = make(shared, "Response(headers={'Connection': 'keep-alive, X-Hop'})")

    assert others(answer) == [("Connection", "X-Hop")]


@pytest.mark.parametrize("attribute", ["path", "domain", "samesite"])
def test_an_attribute_of_a_morsel_cannot_forge_a_cookie(shared: Server, attribute: str) -> None:
    for response in RESPONSES:
        raised = why(shared, f"{response}('x', cookies=forged({attribute!r}))")

        # Newer Pythons refuse it when it is set.
        assert re.match("(ValueError: cookies: header value|CookieError)", raised), raised


def test_each_morsel_is_a_set_cookie_line(shared: Server) -> None:
    for response in RESPONSES:
        answer = make(shared, f"{response}('x', cookies=cookie())")

        lines = [value for name, value in answer.fields if name == "Set-Cookie"]
        assert lines == [
            'other="two words\\073 and more"; HttpOnly; Max-Age=60; Path=/x',
            "plain=1",
        ]
        jar: SimpleCookie = SimpleCookie("; ".join(lines))
        assert jar["other"].value == "two words; and more"


def test_no_cookies_are_no_lines(shared: Server) -> None:
    assert others(make(shared, "Response('x', cookies=SimpleCookie())")) == []


@pytest.mark.parametrize("cookies", ["{'a': 'b'}", "'a=b'", "7", "'Set-Cookie: a=b\\nX: y'"])
def test_cookies_that_are_none_are_refused_with_their_value(shared: Server, cookies: str) -> None:
    for response in RESPONSES:
        assert why(shared, f"{response}('x', cookies={cookies})").startswith("ValueError: cookies:")


@pytest.mark.parametrize("count", [1, 8, 64, 1024])
def test_sixty_four_kilobytes_of_headers_are_sent(shared: Server, count: int) -> None:
    size = 65536 // count
    answer = make(shared, f"request.Response('x', headers=[('X', 'y' * {size})] * {count})")

    assert others(answer) == [("X", "y" * size)] * count
    assert answer.text == "x"


def test_large_headers_of_many_pipelined_responses_are_sent(shared: Server) -> None:
    body = b"request.Response('x', headers={'X': 'y' * 5000}, cookies=cookie())"
    with shared.client() as client:
        client.send(get("/make", method="POST", body=body) * 64)

        for _ in range(64):
            answer = client.answer()
            assert answer.field("X") == "y" * 5000
            assert answer.text == "x"


TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@settings(max_examples=100, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(
            st.text(TOKEN, min_size=1, max_size=16).map(lambda name: f"X{name}"),
            st.text(st.characters(max_codepoint=0xFF, exclude_categories=["Cc"]), max_size=64).map(
                lambda value: value.strip(" ")
            ),
        ),
        max_size=48,
    )
)
def test_any_headers_arrive_as_they_were_given(
    shared: Server, pairs: list[tuple[str, str]]
) -> None:
    answer = make(shared, f"request.Response('x', headers={pairs!r})")

    assert others(answer) == pairs
