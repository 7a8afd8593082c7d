"""Decorators, options, names and sub-routers: how routes get into a table."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from anel.exceptions import RouteError
from anel.routing import Route, Router


def hello(request: Any) -> Any:
    return request.Response(text="hello")


def other(request: Any) -> Any:
    return request.Response(text="other")


async def upload(request: Any) -> Any:
    return await request.read()


def patterns(router: Router) -> list[str]:
    return [route.pattern for route in router]


def names(router: Router) -> list[str | None]:
    return [route.name for route in router]


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "head", "options"])
def test_a_decorator_registers_for_its_method_and_returns_the_handler(method: str) -> None:
    router = Router()

    decorated = getattr(router, method)("/x", name="x", stream=False, body_bytes_max=7)(hello)

    (route,) = router
    assert decorated is hello
    assert route.handler is hello
    assert route.methods == {method.upper()}
    assert (route.name, route.stream, route.body_bytes_max) == ("x", False, 7)


def test_route_registers_for_one_method_several_or_all() -> None:
    router = Router()

    assert router.route("/one", "get")(hello) is hello
    assert router.route("/two", methods=["get", "put"])(hello) is hello
    assert router.route("/all", name="all")(hello) is hello

    assert [route.describe() for route in router] == ["/one GET", "/two GET PUT", "/all"]


def test_a_decorator_refuses_what_add_route_refuses() -> None:
    with pytest.raises(RouteError, match="must be callable, not 7"):
        Router().get("/")(7)  # type: ignore[type-var]
    with pytest.raises(RouteError, match="cannot be empty"):
        Router().get("")(hello)
    with pytest.raises(RouteError, match=r"parameter 'key' of handler .* '/'"):
        Router().get("/")(lambda request, key: None)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/{id:number}", "unknown type 'number' .*there are str, int, float, uuid, path"),
        ("/{id:}", "unknown type ''"),
        ("/{id:int:str}", "unknown type 'int:str'"),
        ("/{:int}", "has no name"),
        ("/{a:path}/b", r"'\{a:path\}' must be the end of pattern '/\{a:path\}/b'"),
        ("/{a:int}b", "followed by '/' or the end"),
        ("/{a:int}/{a}", "two placeholders are named 'a'"),
    ],
)
def test_a_bad_type_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(RouteError, match=message):
        Router().add_route(pattern, hello)


def test_a_route_knows_the_types_of_its_placeholders() -> None:
    route = Router().add_route("/{a}/{b:str}/{c:int}/{d:path}", hello)

    assert route.types == {"a": "str", "b": "str", "c": "int", "d": "path"}
    assert route.placeholder_cnt == 4
    assert route.segments[:2] == [("exact", "/"), ("placeholder", "a")]


def test_the_options_are_the_last_places_of_the_table_entry() -> None:
    router = Router()
    router.add_route("/seen", upload)
    router.add_route("/said", upload, stream=False, body_bytes_max=1 << 40)
    router.add_route("/told", hello)

    assert [entry[6:] for entry in router.freeze()] == [
        (True, None),
        (False, 1 << 40),
        (False, None),
    ]


async def silent(request: Any) -> Any:
    return request


def test_a_coroutine_function_streams_when_told_to() -> None:
    assert not Router().add_route("/", silent).stream
    assert Router().add_route("/", silent, stream=True).stream


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stream": True}, "stream=True needs a coroutine function, not <function hello"),
        ({"stream": "yes"}, "stream must be True, False or None, not 'yes'"),
        ({"body_bytes_max": -1}, "body_bytes_max must be a number of bytes, not -1"),
        ({"body_bytes_max": 1 << 64}, "body_bytes_max must be a number of bytes"),
        ({"body_bytes_max": True}, "not True"),
        ({"body_bytes_max": 1.5}, "not 1.5"),
        ({"name": ""}, "name must be a non-empty str, not ''"),
        ({"name": 7}, "name must be a non-empty str, not 7"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any], message: str) -> None:
    router = Router()

    with pytest.raises(RouteError, match=message):
        router.add_route("/", hello, **options)

    assert len(router) == 0


def test_a_handler_of_the_request_alone_is_called_as_it_is() -> None:
    assert Router().add_route("/{id}", hello).target is hello


class Called:
    def __call__(self, request: Any) -> Any:
        return request


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (hello, "hello"),
        (functools.partial(functools.partial(hello)), "hello"),
        (lambda request: request, None),
        (Called(), None),
    ],
)
def test_a_route_is_named_like_its_handler(handler: Any, name: str | None) -> None:
    assert Router().add_route("/", handler).name == name


def test_a_constant_has_the_name_that_it_is_given() -> None:
    router = Router()

    assert router.add_constant("/a", text="a").name is None
    assert router.add_constant("/b", text="b", name="b").url_for() == "/b"
    assert router.url_for("b") == "/b"


def test_a_given_name_belongs_to_one_pattern() -> None:
    router = Router()
    router.add_route("/a", hello, "GET", name="a")
    router.add_route("/a", other, "POST", name="a")

    with pytest.raises(RouteError, match="two routes are named 'a': '/a' and '/b'"):
        router.add_route("/b", hello, name="a")

    assert patterns(router) == ["/a", "/a"]
    assert router.url_for("a") == "/a"


def test_a_name_of_handlers_is_ambiguous_only_when_it_is_asked_for() -> None:
    router = Router()
    router.add_route("/a", hello, "GET")
    router.add_route("/a", hello, "POST")
    assert router.url_for("hello") == "/a"

    router.add_route("/b", hello)

    with pytest.raises(RouteError, match="several routes are named 'hello': /a, /b; give them"):
        router.url_for("hello")


def test_a_given_name_comes_before_that_of_a_handler() -> None:
    router = Router()
    router.add_route("/a", hello)
    router.add_route("/b", other, name="hello")

    assert router.url_for("hello") == "/b"


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(RouteError, match="no route is named 'x'; there are: none"):
        Router().url_for("x")


def test_included_routes_stand_where_they_were_included() -> None:
    app, api = Router(), Router()
    api.add_route("/a", hello, "GET")
    api.add_route("/{x:int}", other, stream=False, body_bytes_max=5)
    api.add_constant("/c", text="c", name="c")

    app.add_route("/first", hello)
    app.include(api, prefix="/api")
    app.add_route("/last", hello)

    assert patterns(app) == ["/first", "/api/a", "/api/{x:int}", "/api/c", "/last"]
    _, first, second, constant, _ = app
    assert (first.handler, first.methods) == (hello, {"GET"})
    assert (second.stream, second.body_bytes_max) == (False, 5)
    assert constant.constant is next(route for route in api if route.name == "c").constant
    assert len(app.freeze()) == 5


def test_routers_are_included_in_routers() -> None:
    app, api, users = Router(), Router(prefix="/v{version:int}"), Router(prefix="/users")
    users.add_route("", hello, name="list")
    users.add_route("/{id}", other)
    api.include(users, name="users")
    app.include(api, "/{tenant}", name="api")

    assert patterns(api) == ["/v{version:int}/users", "/v{version:int}/users/{id}"]
    assert patterns(app) == [
        "/{tenant}/v{version:int}/users",
        "/{tenant}/v{version:int}/users/{id}",
    ]
    assert names(app) == ["api.users.list", "api.users.other"]
    assert app.url_for("api.users.other", tenant="t", version=1, id=2) == "/t/v1/users/2"


def test_an_included_handler_gets_placeholders_of_the_prefix() -> None:
    app, api = Router(), Router()
    api.add_route("/{key}", lambda request, key, tenant=None: (key, tenant))
    app.include(api, "/{tenant}")

    class Request:
        def __init__(self) -> None:
            self.match_dict = {"tenant": "t", "key": "7"}

    (route,) = app
    assert route.target is not None
    assert route.target(Request()) == ("7", "t")


def test_without_a_prefix_and_a_name_routes_stay_what_they_are() -> None:
    app, api = Router(), Router()
    api.add_route("{a}/b", hello)

    app.include(api)

    assert list(app) == list(api)
    assert names(app) == ["hello"]


def test_a_router_may_be_included_twice_under_other_names() -> None:
    app, api = Router(), Router()
    api.add_route("/x", hello, name="x")
    app.include(api, "/one", name="one")
    app.include(api, "/two", name="two")

    assert (app.url_for("one.x"), app.url_for("two.x")) == ("/one/x", "/two/x")
    with pytest.raises(RouteError, match=r"two routes are named 'one.x': '/one/x' and '/three/x'"):
        app.include(api, "/three", name="one")


def test_an_included_router_takes_no_more_routes() -> None:
    app, api, late = Router(), Router(), Router()
    app.include(api)
    late.add_route("/late", hello)

    for add in (
        lambda: api.add_route("/late", hello),
        lambda: api.add_constant("/late", text="late"),
        lambda: api.include(late),
    ):
        with pytest.raises(RouteError, match="'/late' comes too late: its router was included"):
            add()


def test_a_frozen_router_includes_nothing() -> None:
    app, api = Router(), Router()
    api.add_route("/x", hello)
    app.freeze()

    with pytest.raises(RouteError, match="'/x' comes too late: the server is already running"):
        app.include(api)

    assert api.add_route("/y", hello).pattern == "/y"


@pytest.mark.parametrize("prefix", ["api", "/", "/api/", "//", "/{a", "/{a}b", "/{p:path}/x", 7])
def test_a_bad_prefix_is_refused(prefix: Any) -> None:
    for include in (
        lambda: Router(prefix=prefix),
        lambda: Router().include(Router(), prefix),
    ):
        with pytest.raises(RouteError) as caught:
            include()
        assert repr(prefix) in str(caught.value)


@pytest.mark.parametrize(
    ("prefix", "pattern", "message"),
    [
        ("/{a}", "/{a}", "two placeholders are named 'a'"),
        ("/{p:path}", "/x", "must be the end of pattern"),
        ("/a", "{b}", r"pattern '\{b\}' must begin with '/' to follow prefix '/a'"),
    ],
)
def test_a_pattern_that_does_not_fit_its_prefix_is_refused(
    prefix: str, pattern: str, message: str
) -> None:
    app, api = Router(), Router()
    api.add_route("/fine", hello)
    api.add_route(pattern, hello)

    with pytest.raises(RouteError, match=message):
        app.include(api, prefix)
    with pytest.raises(RouteError, match=message):
        Router(prefix=prefix).add_route(pattern, hello)

    assert len(app) == 0
    assert api.add_route("/more", hello).pattern == "/more"


def test_only_other_routers_are_included() -> None:
    router = Router()

    with pytest.raises(RouteError, match="cannot include itself"):
        router.include(router)
    with pytest.raises(RouteError, match="only a Router can be included, not 7"):
        router.include(7)  # type: ignore[arg-type]
    with pytest.raises(RouteError, match="name must be a non-empty str, not ''"):
        router.include(Router(), name="")


def test_a_route_within_a_prefix_is_still_equal_by_pattern_and_methods() -> None:
    app, api = Router(), Router()
    api.add_route("/x", hello, "GET")
    app.include(api, "/api")

    assert list(app) == [Route("/api/x", other, {"GET"})]
