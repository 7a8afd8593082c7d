"""Cookies: what `request.cookies` makes of a header, and what `set_cookie` sends."""

from __future__ import annotations

import datetime
import urllib.parse
from http.cookies import SimpleCookie
from typing import Any

import pytest
from anel import Response
from anel.cookies import parse_cookies
from conftest import Server, get
from hypothesis import given
from hypothesis import strategies as st

PROGRAM = """
    from anel import Application, Response

    app = Application()

    def look(request):
        return request.cookies

    async def look_later(request):
        return dict(request.cookies, same=request.cookies is request.cookies)

    def change(request):
        response = request.Response("changed")
        response.set_cookie("a", "ą; b", max_age=60, secure=True)
        response.set_cookie("b", "2", samesite="Strict", httponly=False)
        response.delete_cookie("c", "/x")
        return response

    app.router.add_route("/look", look)
    app.router.add_route("/later", look_later)
    app.router.add_route("/change", change)
"""

PARIS = datetime.timezone(datetime.timedelta(hours=2))


def lines(response: Response) -> list[str]:
    return response.headers.getall("Set-Cookie")


def set_and_read(value: str, **attributes: Any) -> str:
    """The line of a cookie named a."""
    response = Response()
    response.set_cookie("a", value, **attributes)
    (line,) = lines(response)
    return line


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a=1; b=2;c=3 ;  d = 4 ", {"a": "1", "b": "2", "c": "3", "d": "4"}),
        ("a=1; a=2", {"a": "2"}),
        ("a=b=c==", {"a": "b=c=="}),
        ("a=", {"a": ""}),
        ("=1", {"": "1"}),
        ("nameless", {"": "nameless"}),
        (";;; ; a=1;", {"a": "1"}),
        ('a="two words"; b="x', {"a": "two words", "b": '"x'}),
        (r'a="\"\\ \054\073\351"', {"a": '"\\ ,;é'}),
        (r"a=\054", {"a": r"\054"}),
        ('a="', {"a": '"'}),
        ('a=""', {"a": ""}),
        ("a=%C4%85%20+; b=%zz; c=%ff", {"a": "ą +", "b": "%zz", "c": "\ufffd"}),
        ("a%20b=1", {"a%20b": "1"}),
        ("a=\xc4\x85", {"a": "ą"}),
        ("a=\xe9", {"a": "\xe9"}),
        ("expires=1; Path=2; $Version=3", {"expires": "1", "Path": "2", "$Version": "3"}),
        ("bad,name=1; [x]=2", {"bad,name": "1", "[x]": "2"}),
    ],
)
def test_a_header_is_read_as_browsers_write_it(header: str, cookies: dict[str, str]) -> None:
    assert parse_cookies(header) == cookies


@given(st.text(st.characters(max_codepoint=255)))
def test_no_header_is_an_error(header: str) -> None:
    cookies = parse_cookies(header)

    assert len(cookies) <= header.count(";") + 1
    assert all(name == name.strip() and ";" not in name for name in cookies)


# No reserved word (Path, Expires, ...) can be spelled with these letters.
names = st.text(st.sampled_from("abcXYZ019!#$&'*+-.^_`|~"), min_size=1)


@given(
    st.dictionaries(names, st.text(st.characters(max_codepoint=255, exclude_characters="%\0\r\n")))
)
def test_what_simple_cookie_sends_comes_back(values: dict[str, str]) -> None:
    jar: SimpleCookie = SimpleCookie()
    for name, value in values.items():
        jar[name] = value

    header = jar.output(attrs=[], header="", sep=";")

    assert parse_cookies(header) == values


@given(names, st.text(st.characters(codec="utf-8")))
def test_what_set_cookie_sends_comes_back(name: str, value: str) -> None:
    response = Response()

    response.set_cookie(name, value)

    pair = lines(response)[0].split("; ")[0]
    assert parse_cookies(pair) == {name: value}
    assert urllib.parse.unquote(pair.partition("=")[2]) == value
    assert pair.isascii()
    assert not set(pair) & set('" ,\\')


@pytest.mark.parametrize("path", ["/look", "/later"])
def test_a_request_shows_its_cookies(shared: Server, path: str) -> None:
    with shared.client() as client:
        one = client.ask(get(path, "Cookie: a=1; b=%C4%85"))
        several = client.ask(get(path, "Cookie: a=1", "Cookie: a=2; c=3"))
        none = client.ask(get(path))

    more = b',"same":true' if path == "/later" else b""
    assert one.body == '{"a":"1","b":"ą"'.encode() + more + b"}"
    assert several.body == b'{"a":"2","c":"3"' + more + b"}"
    assert none.body == b"{" + more.lstrip(b",") + b"}"


def test_a_response_sends_what_was_set(shared: Server) -> None:
    answer = shared.ask(get("/change"))

    assert [value for name, value in answer.fields if name == "Set-Cookie"] == [
        "a=%C4%85%3B%20b; HttpOnly; Max-Age=60; Path=/; SameSite=Lax; Secure",
        "b=2; Path=/; SameSite=Strict",
        "c=; expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; Max-Age=0; Path=/x; SameSite=Lax",
    ]


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        ({}, "a=1; HttpOnly; Path=/; SameSite=Lax"),
        ({"httponly": False, "samesite": None, "path": None}, "a=1"),
        ({"max_age": 0}, "a=1; HttpOnly; Max-Age=0; Path=/; SameSite=Lax"),
        ({"max_age": -1}, "a=1; HttpOnly; Max-Age=-1; Path=/; SameSite=Lax"),
        (
            {"max_age": datetime.timedelta(days=1, seconds=0.5)},
            "a=1; HttpOnly; Max-Age=86400; Path=/; SameSite=Lax",
        ),
        (
            {"expires": datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=PARIS)},
            "a=1; expires=Wed, 02 Jan 2030 01:04:05 GMT; HttpOnly; Path=/; SameSite=Lax",
        ),
        ({"domain": "example.org"}, "a=1; Domain=example.org; HttpOnly; Path=/; SameSite=Lax"),
        ({"path": "/a b,c"}, "a=1; HttpOnly; Path=/a b,c; SameSite=Lax"),
        (
            {"samesite": "None", "secure": True},
            "a=1; HttpOnly; Path=/; SameSite=None; Secure",
        ),
        (
            {"partitioned": True, "secure": True},
            "a=1; HttpOnly; Path=/; SameSite=Lax; Secure; Partitioned",
        ),
    ],
)
def test_each_attribute_is_said(attributes: dict[str, Any], line: str) -> None:
    assert set_and_read("1", **attributes) == line


@pytest.mark.parametrize("value", ["a=b", "/x/y==", "{}[]()<>?:@!", "eyJ0eXAiOiJKV1Qi.abc-_"])
def test_what_a_cookie_may_hold_is_sent_as_it_is(value: str) -> None:
    assert set_and_read(value).startswith(f"a={value};")


@pytest.mark.parametrize(
    "name", ["", "a b", "a;b", "a=b", "a\r\nX: 1", "ą", "path", "Expires", "a,"]
)
def test_a_name_that_cannot_be_sent_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cookie "):
        Response().set_cookie(name, "1")


@pytest.mark.parametrize(
    "attributes",
    [
        {"path": "/;x"},
        {"path": "/\r\nX: 1"},
        {"path": "/ą"},
        {"domain": "a; secure"},
        {"domain": "a\0"},
        {"expires": datetime.datetime(2030, 1, 1)},
        {"expires": 60},
        {"samesite": "lax"},
        {"samesite": "None"},
        {"partitioned": True},
    ],
)
def test_an_attribute_that_cannot_be_sent_is_refused(attributes: dict[str, Any]) -> None:
    response = Response()

    with pytest.raises(ValueError, match=next(iter(attributes))):
        response.set_cookie("a", "1", **attributes)

    assert lines(response) == []


@pytest.mark.parametrize("value", [None, 1, b"1"])
def test_a_value_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="value of cookie 'a' must be a str"):
        Response().set_cookie("a", value)


@pytest.mark.parametrize("max_age", [1.5, "60", True])
def test_an_age_that_is_no_number_of_seconds_is_refused(max_age: Any) -> None:
    with pytest.raises(TypeError, match="max_age must be seconds"):
        Response().set_cookie("a", "1", max_age=max_age)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("__Secure-a", {}),
        ("__Host-a", {}),
        ("__host-a", {"secure": True, "path": "/x"}),
        ("__Host-a", {"secure": True, "path": None}),
        ("__Host-a", {"secure": True, "domain": "a"}),
    ],
)
def test_a_prefix_without_what_it_promises_is_refused(
    name: str, attributes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="this prefix needs"):
        Response().set_cookie(name, "1", **attributes)


@pytest.mark.parametrize("name", ["__Secure-a", "__Host-a", "a"])
def test_any_cookie_that_can_be_set_can_be_deleted(name: str) -> None:
    response = Response()
    response.set_cookie(name, "1", secure=True)

    response.delete_cookie(name)

    (line,) = lines(response)
    assert line.startswith(f"{name}=; expires=Thu, 01 Jan 1970 00:00:00 GMT;")
    assert line.endswith("Secure") is (name != "a")


def test_a_partitioned_cookie_is_deleted_in_its_partition() -> None:
    response = Response()
    response.set_cookie("a", "of all sites", secure=True)
    response.set_cookie("a", "of this site", secure=True, partitioned=True)

    response.delete_cookie("a", partitioned=True)

    kept, deleted = lines(response)
    assert kept.startswith("a=of%20all%20sites;")
    assert deleted.startswith("a=; expires=Thu, 01 Jan 1970 00:00:00 GMT;")
    assert deleted.endswith("Secure; Partitioned")


def test_setting_a_cookie_again_replaces_it() -> None:
    response = Response(headers={"X-A": "1"})
    response.set_cookie("a", "1")
    response.set_cookie("a", "x", path="/x")
    response.set_cookie("a", "y", domain="Y.org")

    response.set_cookie("a", "2", httponly=False)
    response.set_cookie("a", "z", domain="y.ORG")

    assert [line.split(";")[0] for line in lines(response)] == ["a=x", "a=2", "a=z"]
    assert response.headers["X-A"] == "1"


def test_cookies_of_the_constructor_are_kept() -> None:
    jar: SimpleCookie = SimpleCookie()
    jar["other"] = "1"
    response = Response(cookies=jar)

    response.set_cookie("a", "1")

    assert [line.split(";")[0] for line in lines(response)] == ["other=1", "a=1"]
