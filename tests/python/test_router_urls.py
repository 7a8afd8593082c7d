"""Paths from names and parameters, and that each leads back to its route."""

from __future__ import annotations

import enum
import json
import math
import socket
import urllib.parse
import uuid
from typing import Any

import pytest
from anel import Application, Router, _core
from anel.exceptions import RouteError
from anel.patterns import TYPES, parse_pattern
from conftest import Server, get
from hypothesis import given, settings
from hypothesis import strategies as st

UUID = uuid.UUID("0123abcd-0000-4000-8000-89abcdef0123")

PATTERNS = {
    "text": "/t/{a}",
    "texts": "/tt/{a}/x-{b:str}/y",
    "int": "/i/{n:int}",
    "float": "/f/{x:float}",
    "uuid": "/u/{u:uuid}",
    "rest": "/r/{a}/{rest:path}",
    "all": "/all/{n:int}/{x:float}/{u:uuid}/{a}/{rest:path}",
    "literal": "/l%2F é;?#[]{{}}|/'(x):@",
    "root": "/{rest:path}",
}

PROGRAM = f"""
    import json
    from anel import Application

    app = Application()

    def show(request):
        return json.dumps([request.route.name, repr(sorted(request.match_dict.items()))])

    for name, pattern in {PATTERNS!r}.items():
        app.router.add_route(pattern, show, name=name)
"""


def answer(request: Any) -> str:
    return "answer"


def router_of(**patterns: str) -> Router:
    router = Router()
    for name, pattern in patterns.items():
        router.add_route(pattern, answer, name=name)
    return router


def is_dotted(text: str) -> bool:
    return any(segment in (".", "..") for segment in text.split("/"))


# Lone surrogates are no text that can be sent.
characters = st.characters(exclude_categories=["Cs"])
segments = st.text(st.one_of(characters.filter("/".__ne__), st.sampled_from("%+?#;&=.~ ")))
values = {
    "a": segments.filter(lambda text: text and not is_dotted(text)),
    "b": segments.filter(bool),
    "n": st.integers(),
    "x": st.floats(allow_nan=False, allow_infinity=False),
    "u": st.uuids(),
    "rest": st.text(st.one_of(characters, st.sampled_from("/%?#"))).filter(
        lambda text: text and not is_dotted(text)
    ),
}


@st.composite
def named_params(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(sorted(PATTERNS)))
    return name, {key: draw(values[key]) for key in parse_pattern(PATTERNS[name]).types}


@settings(max_examples=300, deadline=None)
@given(named_params())
def test_a_url_leads_to_its_route_with_its_parameters(
    shared: Server, drawn: tuple[str, dict[str, Any]]
) -> None:
    name, params = drawn

    url = router_of(**PATTERNS).url_for(name, **params)
    with shared.client() as client:
        found, matched = json.loads(client.ask(get(url)).text)

    assert urllib.parse.urlsplit(url).path == url
    if name != "root":
        assert (found, matched) == (name, repr(sorted(params.items())))
    elif found == name:
        # Another route may have been registered before this one.
        assert matched == repr(sorted(params.items()))


@pytest.mark.parametrize(
    ("name", "params", "url"),
    [
        ("text", {"a": "é "}, "/t/%C3%A9%20"),
        ("text", {"a": "~a-b.c_d!$&'()*+,;=:@"}, "/t/~a-b.c_d!$&'()*+,;=:@"),
        ("text", {"a": "100%?#"}, "/t/100%25%3F%23"),
        ("text", {"a": 7}, "/t/7"),
        ("text", {"a": UUID}, f"/t/{UUID}"),
        ("text", {"a": "..."}, "/t/..."),
        ("int", {"n": -7}, "/i/-7"),
        ("int", {"n": "007"}, "/i/007"),
        ("float", {"x": 1e22}, "/f/10000000000000000000000"),
        ("float", {"x": 1.5e-7}, "/f/0.00000015"),
        ("float", {"x": -0.0}, "/f/-0.0"),
        ("float", {"x": 3}, "/f/3"),
        ("uuid", {"u": str(UUID).upper()}, f"/u/{str(UUID).upper()}"),
        ("rest", {"a": "a", "rest": "b/ü/"}, "/r/a/b/%C3%BC/"),
        ("literal", {}, "/l%252F%20%C3%A9;%3F%23%5B%5D%7B%7D%7C/'(x):@"),
        (
            "text",
            {"a": "b", "q": "a b&c", "n": [1, 2], "é": "/"},
            "/t/b?q=a%20b%26c&n=1&n=2&%C3%A9=%2F",
        ),
        ("text", {"a": "b", "none": []}, "/t/b"),
    ],
)
def test_parameters_are_encoded(name: str, params: dict[str, Any], url: str) -> None:
    assert router_of(**PATTERNS).url_for(name, **params) == url


def test_a_url_is_never_one_of_another_host() -> None:
    url = router_of(rest="/{rest:path}").url_for("rest", rest="/evil.example/x")

    assert url == "/%2Fevil.example/x"


class Colour(str, enum.Enum):  # noqa: UP042  Its `__str__` gives the name.
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


def test_members_of_enumerations_are_their_values() -> None:
    router = router_of(**PATTERNS)

    assert router.url_for("text", a=Colour.RED) == "/t/red"
    assert router.url_for("int", n=Number.ONE) == "/i/1"


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("all", {"n": 1, "a": "b"}, "needs 'x', 'u', 'rest' for '/all/"),
        ("text", {"b": "c"}, "needs 'a' for '/t/{a}'"),
        ("text", {"a": ""}, "a='' is no str"),
        ("text", {"a": "b/c"}, "a='b/c' is no str"),
        ("text", {"a": None}, "a=None is no str"),
        ("text", {"a": True}, "a=True is no str"),
        ("text", {"a": b"b"}, "a=b'b' is no str"),
        ("text", {"a": "\ud800"}, "not valid Unicode"),
        ("text", {"a": ".."}, "dot segments"),
        ("rest", {"a": "a", "rest": "b/../c"}, "dot segments"),
        ("rest", {"a": "a", "rest": ""}, "rest='' is no path"),
        ("int", {"n": "seven"}, "n='seven' is no int"),
        ("int", {"n": 1.0}, "n=1.0 is no int"),
        ("int", {"n": "٣"}, "is no int"),
        ("int", {"n": "7\n"}, "is no int"),
        ("int", {"n": 10**640}, "is no int"),
        ("int", {"n": 10**9000}, "n=<int too long to be shown> is no int"),
        ("text", {"a": "b", "q": 10**9000}, "q=<int too long to be shown> cannot be in the query"),
        ("float", {"x": math.inf}, "x=inf is no float"),
        ("float", {"x": math.nan}, "x=nan is no float"),
        ("float", {"x": "1e5"}, "x='1e5' is no float"),
        ("float", {"x": 10**400}, "is no float"),
        ("uuid", {"u": UUID.hex}, "is no uuid"),
        ("text", {"a": "b", "q": None}, "q=None cannot be in the query"),
        ("text", {"a": "b", "q": [{}]}, "q={} cannot be in the query"),
        ("text", {"a": "b", "q": "\ud800"}, "not valid Unicode"),
        ("nothing", {}, "no route is named 'nothing'; there are: all, float, int, literal"),
    ],
)
def test_what_does_not_fit_is_named(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(RouteError) as caught:
        router_of(**PATTERNS).url_for(name, **params)

    assert message in str(caught.value)


def test_a_pattern_that_no_path_has_makes_no_url() -> None:
    router = router_of(relative="a/{b}", rest="{rest:path}")

    with pytest.raises(RouteError, match="'a/x' does not begin with '/'"):
        router.url_for("relative", b="x")
    assert router.url_for("rest", rest="/x/y") == "/x/y"


def test_a_placeholder_may_be_called_name_or_self() -> None:
    router = router_of(odd="/{name}/{self}/{a-b}")

    assert router.url_for("odd", **{"name": 1, "self": 2, "a-b": 3}) == "/1/2/3"


def test_a_route_makes_its_own_url() -> None:
    route = Router().add_route("/user/{id:int}", answer)

    assert route.name == "answer"
    assert route.url_for(id=7, page=2) == "/user/7?page=2"


patterns = st.lists(
    st.sampled_from(["{", "}", "/", ":", "a", "b", "{{", "}}", "é", "{a}", "{b:int}", *TYPES]),
    max_size=8,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(patterns, st.builds("{}{{p:{}}}{}".format, patterns, patterns, patterns)))
def test_python_and_the_table_read_the_same_patterns(pattern: str) -> None:
    with socket.socket() as listener:
        entry = (pattern, None, answer, "sync", None, None, False, None)
        table_reads, python_reads = True, True
        try:
            worker = _core.Worker(
                Application(),
                [listener.fileno()],
                [entry],  # type: ignore[list-item]  # The table keeps the route as it is.
                reactor="epoll",
            )
            worker.stop()
        except RouteError:
            table_reads = False
        try:
            parse_pattern(pattern)
        except RouteError:
            python_reads = False

    assert table_reads == python_reads
