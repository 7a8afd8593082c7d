"""Routing as a client sees it: typed placeholders, methods, arguments, sub-routers."""

from __future__ import annotations

import pytest
from conftest import Answer, Serve, Server, get

UUID = "0123abCD-0000-4000-8000-89aBcDeF0123"

PROGRAM = """
    import functools

    from anel import Application, MethodNotAllowed, Router, RouteNotFoundException

    app = Application()
    router = app.router

    def show(request):
        values = ", ".join(f"{name}={value!r}" for name, value in request.match_dict.items())
        return f"{request.route.pattern} {values}"

    for pattern in (
        "/typed/{value:int}", "/typed/{value:float}", "/typed/{value:uuid}", "/typed/{value:str}",
        "/files/{name}/{rest:path}", "/only/{n:int}/x",
    ):
        router.add_route(pattern, show)

    @router.get("/thing")
    def read_thing(request):
        return request.Response(text=f"read by {request.method}", headers={"X-Thing": "1"})

    @router.put("/thing")
    def write_thing(request):
        return "written"

    @router.delete("/{any}")
    async def delete_any(request, any):
        return f"deleted {any}"

    router.add_route("/head", lambda request: "by GET", "GET")
    router.add_route("/head", lambda request: request.Response(headers={"X-Own": "head"}), "HEAD")
    router.add_route("/head", lambda request: "own options", "OPTIONS")
    router.add_route("/all", lambda request: request.method)
    router.add_route("/posted", lambda request: "posted", methods=["POST"])
    router.add_constant("/constant", text="constant", method="GET", headers={"X-A": "b"})
    router.add_constant("/constants/{n:int}/{rest:path}", text="typed constant")
    router.add_constant("/bye", text="bye", headers={"Connection": "close"})

    @router.get("/sync/{a}/{n:int}")
    def sync_arguments(request, n, a):
        return f"{a!r} {n!r}"

    @router.get("/await_free/{a}/{n:int}")
    async def await_free_arguments(request, *, n, missing="default"):
        return f"{n!r} {missing}"

    @router.get("/awaits/{a}/{n:int}")
    async def awaits_arguments(request, **values):
        import asyncio
        await asyncio.sleep(0)
        return repr(values)

    def twice(handler):
        @functools.wraps(handler)
        def wrapper(request, *args, **kwargs):
            return handler(request, *args, factor=2, **kwargs)
        return wrapper

    @router.get("/wrapped/{n:int}")
    @twice
    def wrapped_arguments(request, n, factor):
        return str(n * factor)

    def passing(handler):
        def wrapper(*args, **kwargs):
            return handler(*args, **kwargs)
        return wrapper

    @router.get("/passed/{n:int}")
    @passing
    def passed_nothing(request):
        return repr(request.match_dict)

    api = Router(prefix="/v{version:int}")

    @api.get("")
    def index(request, version):
        return f"api {version}"

    @api.get("/users/{id:int}", name="user")
    def user(request, version, id):
        return request.url_for("tenant.user", **{**request.match_dict, "id": id + 1, "q": "a b"})

    router.include(api, "/{tenant}", name="tenant")
    router.add_route("/{tenant}/v{version:int}", lambda request: "later")

    def miss(request, exception):
        if isinstance(exception, MethodNotAllowed) and request.path == "/posted":
            return request.Response(text=repr(exception.allowed) + str(exception), code=499)
        return app.default_error_handler(request, exception)

    app.add_error_handler(RouteNotFoundException, miss)
"""


def ask(server: Server, path: str, method: str = "GET") -> Answer:
    return server.ask(get(path, method=method), method)


def allowed(answer: Answer) -> str | None:
    return answer.field("Allow")


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        ("7", "int", "7"),
        ("-007", "int", "-7"),
        ("9" * 640, "int", "9" * 640),
        ("9" * 641, "str", None),
        ("9" * 5000, "str", None),
        ("1.50", "float", "1.5"),
        ("-0.0", "float", "-0.0"),
        ("9" * 400 + ".0", "str", None),
        (UUID, "uuid", f"UUID('{UUID.lower()}')"),
        ("nan", "str", "'nan'"),
        ("1e5", "str", "'1e5'"),
        ("%37", "int", "7"),
        ("%D9%A3", "str", "'٣'"),
    ],
)
def test_a_value_goes_to_the_first_type_that_it_fits(
    shared: Server, value: str, kind: str, shown: str | None
) -> None:
    answer = ask(shared, f"/typed/{value}")

    expected = f"{value!r}" if shown is None else shown
    assert answer.text == f"/typed/{{value:{kind}}} value={expected}"


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/files/a/b", "name='a', rest='b'"),
        ("/files/a/b/c/", "name='a', rest='b/c/'"),
        ("/files/a//", "name='a', rest='/'"),
        ("/files/a/b%2Fc%20%C3%A9", "name='a', rest='b/c é'"),
    ],
)
def test_a_path_placeholder_takes_the_rest(shared: Server, path: str, values: str) -> None:
    assert ask(shared, path).text == f"/files/{{name}}/{{rest:path}} {values}"


@pytest.mark.parametrize("path", ["/files/a/", "/files/a", "/only/x/x", "/only/1.0/x"])
def test_a_path_without_a_fitting_route_is_not_found(shared: Server, path: str) -> None:
    answer = ask(shared, path)

    assert (answer.status, answer.text) == (404, "Not Found")
    assert allowed(answer) is None


def test_a_method_that_no_route_takes_is_not_allowed(shared: Server) -> None:
    answer = ask(shared, "/thing", "POST")

    assert (answer.status, answer.reason) == (405, "Method Not Allowed")
    assert answer.text == "Method Not Allowed"
    assert allowed(answer) == "DELETE, GET, HEAD, OPTIONS, PUT"


def test_a_path_without_get_does_not_allow_head(shared: Server) -> None:
    answer = ask(shared, "/gone", "HEAD")

    assert answer.status == 405
    assert allowed(answer) == "DELETE, OPTIONS"


def test_an_error_handler_sees_which_methods_are_allowed(shared: Server) -> None:
    answer = ask(shared, "/posted", "PATCH")

    assert answer.status == 499
    methods = ["DELETE", "OPTIONS", "POST"]
    assert answer.text == f"{methods}the path takes {', '.join(methods)}"


def test_head_is_answered_by_the_route_for_get(shared: Server) -> None:
    with shared.client() as client:
        answer = client.ask(get("/thing", method="HEAD"), "HEAD")

        assert answer.status == 200
        assert answer.field("X-Thing") == "1"
        assert answer.field("Content-Length") == str(len("read by HEAD"))
        assert client.ask(get("/thing")).text == "read by GET"


def test_a_later_route_for_head_or_options_wins(shared: Server) -> None:
    assert ask(shared, "/head", "HEAD").field("X-Own") == "head"
    assert ask(shared, "/head", "OPTIONS").text == "own options"
    assert ask(shared, "/head").text == "by GET"


def test_options_is_answered_with_the_methods_of_the_path(shared: Server) -> None:
    answer = ask(shared, "/thing", "OPTIONS")

    assert (answer.status, answer.body) == (204, b"")
    assert answer.field("Content-Length") is None
    assert allowed(answer) == "DELETE, GET, HEAD, OPTIONS, PUT"


def test_options_of_an_unknown_path_is_not_found(shared: Server) -> None:
    assert ask(shared, "/not/there", "OPTIONS").status == 404


def test_options_of_the_server_lists_the_methods_of_all_routes(shared: Server) -> None:
    answer = ask(shared, "*", "OPTIONS")

    assert answer.status == 204
    assert allowed(answer) == "DELETE, GET, HEAD, OPTIONS, POST, PUT"


@pytest.mark.parametrize("method", ["OPTIONS", "PATCH", "BREW"])
def test_a_route_for_all_methods_takes_them_all(shared: Server, method: str) -> None:
    assert ask(shared, "/all", method).text == method


def test_a_constant_answers_head_without_a_route_for_it(shared: Server) -> None:
    with shared.client() as client:
        head = client.ask(get("/constant", method="HEAD"), "HEAD")
        body = client.ask(get("/constant"))

    assert (head.status, head.field("X-A"), head.field("Content-Length")) == (200, "b", "8")
    assert body.text == "constant"
    assert body.field("X-A") == "b"


def test_a_constant_may_be_behind_typed_placeholders(shared: Server) -> None:
    assert ask(shared, "/constants/1/a/b").text == "typed constant"
    assert ask(shared, "/constants/x/a/b").status == 404


def test_a_constant_may_end_its_connection(shared: Server) -> None:
    with shared.client() as client:
        answer = client.ask(get("/bye"))

        assert answer.field("Connection") == "close"
        assert client.is_ended()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/sync/x/7", "'x' 7"),
        ("/await_free/x/7", "7 default"),
        ("/awaits/x/7", "{'a': 'x', 'n': 7}"),
        ("/wrapped/21", "42"),
        ("/passed/7", "{'n': 7}"),
    ],
)
def test_a_handler_gets_placeholders_as_arguments(shared: Server, path: str, text: str) -> None:
    answer = ask(shared, path)

    assert (answer.status, answer.text) == (200, text)


def test_an_included_route_knows_its_prefixes_and_makes_urls(shared: Server) -> None:
    url = ask(shared, "/acme/v2/users/41").text

    assert url == "/acme/v2/users/42?q=a%20b"
    assert ask(shared, url).text == "/acme/v2/users/43?q=a%20b"


def test_an_included_route_keeps_its_place_in_the_order(shared: Server) -> None:
    assert ask(shared, "/acme/v2").text == "api 2"
    assert ask(shared, "/acme/v2", "POST").text == "later"


def test_without_automatic_methods_a_method_matches_or_is_not_found(serve: Serve) -> None:
    server = serve("""
        from anel import Application

        class Plain(Application):
            _automatic_methods = False

            def default_error_handler(self, request, exception):
                return request.Response(text=type(exception).__name__, code=404)

        app = Plain()
        app.router.add_route("/", lambda request: "got", "GET")
    """)

    assert ask(server, "/").text == "got"
    for method in ("POST", "OPTIONS"):
        answer = ask(server, "/", method)
        assert (answer.status, answer.text) == (404, "RouteNotFoundException")
        assert allowed(answer) is None
    assert ask(server, "/", "HEAD").status == 404
    assert ask(server, "*", "OPTIONS").status == 404
