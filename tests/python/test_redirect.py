"""Redirects: what is sent, what is encoded, what is refused."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from anel import redirect
from anel.redirection import _encoded
from conftest import Server, get
from hypothesis import given
from hypothesis import strategies as st

PROGRAM = """
    from anel import Application, redirect

    app = Application()
    app.get("/moved")(lambda request: redirect(request.query["to"], 308, {"X-Why": "moved"}))
    app.get("/found")(lambda request: redirect("/moved"))
"""


def test_a_redirect_is_sent_with_its_location_and_no_body(shared: Server) -> None:
    answer = shared.ask(get("/moved?to=/a%20b"))

    assert (answer.status, answer.body) == (308, b"")
    assert answer.field("Location") == "/a%20b"
    assert answer.field("X-Why") == "moved"
    assert shared.ask(get("/found")).status == 302


@pytest.mark.parametrize(
    ("given_location", "location"),
    [
        ("/plain", "/plain"),
        ("relative?a=b&c=d#e", "relative?a=b&c=d#e"),
        ("https://user@example.com:80/a", "https://user@example.com:80/a"),
        ("/with space", "/with%20space"),
        ("/caf\u00e9?\u00e9=\u20ac", "/caf%C3%A9?%C3%A9=%E2%82%AC"),
        ("/already%20encoded", "/already%20encoded"),
        ("/100%", "/100%25"),
        ("/%zz", "/%25zz"),
        ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("//b\u00fccher.example:8080/\u00fc", "//xn--bcher-kva.example:8080/%C3%BC"),
        ("https://\u00fc@b\u00fccher.example", "https://%C3%BC@xn--bcher-kva.example"),
        ("http://[::1]:80/", "http://[::1]:80/"),
    ],
)
def test_what_a_url_cannot_hold_is_encoded(given_location: str, location: str) -> None:
    assert _encoded(given_location) == location


@given(
    st.text(st.characters(min_codepoint=33, codec="utf-8", exclude_characters="\x7f"), min_size=1)
)
def test_every_location_of_visible_characters_becomes_visible_ascii(text: str) -> None:
    location = _encoded("/" + text.lstrip("/"))

    assert location.isascii()
    assert location.isprintable()
    assert " " not in location
    # Encoding again changes nothing, so a redirect may pass on what it was given.
    assert _encoded(location) == location
    assert urlsplit(location).netloc == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "non-empty"),
        ((None,), "None"),
        ((b"/",), "b'/'"),
        (("/a\r\nSet-Cookie: a=b",), "control characters"),
        (("/a\x00",), "control characters"),
        (("/\ud800",), "valid Unicode"),
        (("//\u00fc..example/",), "no domain name"),
        (("/", 200), "200"),
        (("/", 304), "304"),
        (("/", 302, {"location": "/b"}), "twice"),
        (("/", 302, {"X-A": "a\r\nb"}), "control"),
    ],
)
def test_what_cannot_be_sent_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        redirect(*arguments)
