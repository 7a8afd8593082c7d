"""`response.headers`: what it shows, what it changes, and what it refuses to."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import pytest
from anel import Response
from conftest import Answer, Server, get
from hypothesis import given
from hypothesis import strategies as st

PROGRAM = """
    from anel import Application, Response

    app = Application()
    KEPT = Response("kept", headers={"X-A": "1"})
    count = 0

    def make(request):
        response = request.Response("text", headers=[("X-A", "1"), ("x-a", "2"), ("X-B", "3")])
        headers = response.headers
        exec(request.text)
        return response

    async def make_later(request):
        return make(request)

    def plain(request):
        return "plain"

    def constant(request):
        global count
        count += 1
        KEPT.headers["X-Count"] = str(count)
        return KEPT

    app.router.add_route("/make", make)
    app.router.add_route("/later", make_later)
    app.router.add_route("/plain", plain)
    app.router.add_route("/constant", constant)
"""


def fields(answer: Answer) -> list[tuple[str, str]]:
    """The fields that the server writes are left out."""
    own = ("Content-Length", "Date")
    return [(name, value) for name, value in answer.fields if name not in own]


def made(*headers: tuple[str, str]) -> Response:
    return Response("text", headers=headers)


TYPE = ("Content-Type", "text/plain; charset=utf-8")


@pytest.mark.parametrize("path", ["/make", "/later"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("pass", [TYPE, ("X-A", "1"), ("x-a", "2"), ("X-B", "3")]),
        ("headers['x-A'] = 'new'", [TYPE, ("X-B", "3"), ("x-A", "new")]),
        ("del headers['X-a']", [TYPE, ("X-B", "3")]),
        ("headers.add('X-B', '4')", [TYPE, ("X-A", "1"), ("x-a", "2"), ("X-B", "3"), ("X-B", "4")]),
        (
            "headers['content-type'] = 'text/html'",
            [("Content-Type", "text/html"), ("X-A", "1"), ("x-a", "2"), ("X-B", "3")],
        ),
        ("del headers['Content-Type']", [("X-A", "1"), ("x-a", "2"), ("X-B", "3")]),
        (
            "headers['Connection'] = 'close'",
            [("Connection", "close"), TYPE, ("X-A", "1"), ("x-a", "2"), ("X-B", "3")],
        ),
    ],
)
def test_a_change_is_sent(
    shared: Server, path: str, change: str, expected: list[tuple[str, str]]
) -> None:
    answer = shared.ask(get(path, method="POST", body=change.encode()))

    assert answer.text == "text"
    assert fields(answer) == expected


def test_a_change_concerns_that_response_only(shared: Server) -> None:
    with shared.client() as client:
        client.ask(get("/make", method="POST", body=b"headers['X-C'] = '4'"))

        answer = client.ask(get("/plain"))

    assert fields(answer) == [TYPE]


def test_a_response_that_is_kept_keeps_its_changes(shared: Server) -> None:
    with shared.client() as client:
        first, second = client.ask(get("/constant")), client.ask(get("/constant"))

    count = first.field("X-Count")
    assert count is not None
    assert fields(second) == [TYPE, ("X-A", "1"), ("X-Count", str(int(count) + 1))]


def test_a_response_that_closes_can_be_told_not_to(shared: Server) -> None:
    change = b"headers['Connection'] = 'close'; headers['connection'] = 'keep-alive'"
    with shared.client() as client:
        client.ask(get("/make", method="POST", body=change))

        assert client.ask(get("/plain")).text == "plain"


def test_names_ignore_case_and_lines_are_joined() -> None:
    headers = made(("Vary", "A"), ("VARY", "B"), ("X-A", "1")).headers

    assert headers["vary"] == headers.get("vArY") == "A, B"
    assert headers.getall("vary") == ["A", "B"]
    assert "x-a" in headers
    assert "X-B" not in headers


def test_the_lines_of_cookies_are_not_joined() -> None:
    jar: SimpleCookie = SimpleCookie()
    jar["a"], jar["b"] = "1", "2"
    headers = Response(cookies=jar).headers

    assert headers["Set-Cookie"] == "a=1"
    assert headers.getall("set-cookie") == ["a=1", "b=2"]


def test_cookies_are_kept_when_other_headers_change() -> None:
    jar: SimpleCookie = SimpleCookie()
    jar["a"], jar["b"] = "1", "2"
    headers = Response(headers={"X-A": "1"}, cookies=jar).headers

    headers["X-A"] = "2"
    headers.add("X-B", "3")
    del headers["X-A"]

    assert headers.items() == [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-B", "3")]


def test_it_is_a_mapping_of_lines() -> None:
    headers = made(("Vary", "A"), ("vary", "B"), ("X-A", "")).headers

    assert list(headers) == headers.keys() == ["Content-Type", "Vary", "X-A"]
    assert len(headers) == 3
    assert headers.items() == [TYPE, ("Vary", "A"), ("vary", "B"), ("X-A", "")]
    assert headers.values() == [TYPE[1], "A", "B", ""]
    assert dict(headers) == {"Content-Type": TYPE[1], "Vary": "A, B", "X-A": ""}
    assert repr(headers) == f"<ResponseHeaders {headers.items()!r}>"


def test_another_response_takes_all_of_it() -> None:
    headers = made(("Vary", "A"), ("Vary", "B"), ("Connection", "close")).headers

    assert Response("other", headers=headers).headers.items() == headers.items()


def test_a_missing_header_is_a_key_error_or_the_default() -> None:
    headers = Response().headers
    default = object()

    with pytest.raises(KeyError, match="X-A"):
        headers["X-A"]
    with pytest.raises(KeyError, match="X-A"):
        del headers["X-A"]
    with pytest.raises(KeyError, match="Content-Type"):
        del headers["Content-Type"]
    assert headers.get("X-A") is None
    assert headers.get("X-A", default) is default
    assert headers.getall("X-A") == []


@pytest.mark.parametrize("name", [1, None, b"X-A", "\ud800"])
def test_what_is_no_name_is_not_there(name: Any) -> None:
    headers = made(("X-A", "1")).headers

    assert name not in headers
    assert headers.get(name) is None
    with pytest.raises(KeyError):
        headers[name]


def test_setdefault_sets_what_is_missing() -> None:
    headers = made(("X-A", "1")).headers

    assert headers.setdefault("x-a", "2") == "1"
    assert headers.setdefault("X-B", "3") == "3"
    assert headers.items() == [TYPE, ("X-A", "1"), ("X-B", "3")]


@pytest.mark.parametrize("argument", [{"x-a": "2", "X-B": "3"}, [("x-a", "2"), ("X-B", "3")]])
def test_update_replaces_each(argument: Any) -> None:
    headers = made(("X-A", "1"), ("X-A", "1")).headers

    headers.update(argument)

    assert headers.items() == [TYPE, ("x-a", "2"), ("X-B", "3")]


def test_the_content_type_is_the_responses() -> None:
    response = made()

    response.headers["content-TYPE"] = "text/html"
    assert response.content_type == "text/html"

    response.headers.add("Content-Type", "text/css")
    assert response.headers.getall("Content-Type") == ["text/css"]

    del response.headers["Content-Type"]
    assert response.content_type is None


def test_a_content_length_that_is_right_changes_nothing() -> None:
    headers = made().headers

    headers["Content-Length"] = "4"
    headers["Date"] = "now"

    assert headers.items() == [TYPE]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("Content-Length", "5", "the body has 4 bytes"),
        ("content-length", "", "the body has 4 bytes"),
        ("Transfer-Encoding", "chunked", "frames the body itself"),
        ("X-A", "1\r\nX-B: 2", "control"),
        ("X-A", "ą", "non-Latin-1"),
        ("X A", "1", "not a token"),
        ("", "1", "not a token"),
        ("X-A\r\n", "1", "not a token"),
        ("Content-Type", "a\nb", "control"),
    ],
)
def test_a_refused_header_changes_nothing(name: str, value: str, words: str) -> None:
    response = made(("X-A", "1"), ("X-B", "2"))
    before = response.headers.items()

    with pytest.raises(ValueError, match=words):
        response.headers[name] = value
    with pytest.raises(ValueError, match=words):
        response.headers.add(name, value)
    with pytest.raises(ValueError, match=words):
        response.headers.update({name: value})

    assert response.headers.items() == before


@pytest.mark.parametrize("value", [1, None, b"1", ["1"]])
def test_a_value_that_is_no_text_is_refused(value: Any) -> None:
    headers = made(("X-A", "1")).headers

    with pytest.raises(TypeError):
        headers["X-A"] = value
    with pytest.raises(TypeError):
        headers.add("X-A", value)

    assert headers.items() == [TYPE, ("X-A", "1")]


def test_the_code_stays_read_only() -> None:
    with pytest.raises(AttributeError):
        made().code = 404  # type: ignore[misc]


def test_the_view_keeps_its_response() -> None:
    headers = made(("X-A", "1")).headers

    headers.add("X-A", "2")

    assert headers["X-A"] == "1, 2"


names = st.sampled_from(["X-A", "x-a", "X-B", "Vary", "X-AB"])
values = st.text(st.characters(min_codepoint=32, max_codepoint=126))


@given(st.lists(st.tuples(st.sampled_from(["set", "add", "del"]), names, values)))
def test_it_agrees_with_a_list_of_lines(steps: list[tuple[str, str, str]]) -> None:
    headers = Response().headers
    expected: list[tuple[str, str]] = []

    for step, name, value in steps:
        others = [line for line in expected if line[0].lower() != name.lower()]
        if step == "add":
            headers.add(name, value)
            expected.append((name, value))
        elif step == "set":
            headers[name] = value
            expected = [*others, (name, value)]
        elif len(others) < len(expected):
            del headers[name]
            expected = others

    assert headers.items() == expected
