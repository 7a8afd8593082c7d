"""Middleware in its three forms, around handlers of each kind."""

from __future__ import annotations

import functools
import itertools
import json
from typing import Any

import pytest
from anel import Application, ConfigError
from conftest import IdleWorker, Serve, Server, get, run_until

# What passes is noted. The request that asks for the notes is not.
BEGIN = """
import asyncio
from anel import Application, HTTPException, Response

app = Application(log_request=False)
notes = []

def note(request, text):
    if request.path != "/notes":
        notes.append(text)
"""

FORMS = {
    "async": """
@app.middleware
async def middleware_{place}(request, call_next):
    note(request, "in {place}")
    response = await call_next(request)
    note(request, f"out {place} {{response.code}}")
    return response
""",
    "sync": """
@app.middleware
def middleware_{place}(request, call_next):
    note(request, "in {place}")
    response = call_next(request)
    if isinstance(response, Response):
        note(request, f"out {place} {{response.code}}")
    return response
""",
    "generator": """
@app.middleware
def middleware_{place}(request):
    note(request, "in {place}")
    response = yield
    note(request, f"out {place} {{response.code}}")
    return response
""",
}

HANDLERS = """
def sync(request):
    note(request, "handler")
    return "sync", 201

async def await_free(request):
    note(request, "handler")
    return "await_free", 201

async def awaits(request):
    await asyncio.sleep(0)
    note(request, "handler")
    return "awaits", 201

def hidden(request):
    return awaits(request)

def unexpected(request):
    raise ValueError("unexpected")

async def unexpected_async(request):
    await asyncio.sleep(0)
    raise ValueError("unexpected")

def expected(request):
    request.Response(text="made, and thrown away")
    raise HTTPException(418)

async def expected_async(request):
    await asyncio.sleep(0)
    request.Response(text="made, and thrown away")
    raise HTTPException(418)

def registered(request):
    raise KeyError("registered")

def unusable(request):
    return object()

def refused(request, error):
    return request.Response(text="refused", code=409)

app.add_error_handler(KeyError, refused)
for handler in (sync, await_free, awaits, hidden, unexpected, unexpected_async, expected,
                expected_async, registered, unusable):
    app.router.add_route("/" + handler.__name__, handler)
app.router.add_route("/post_only", sync, "POST")
app.router.add_constant("/constant", text="constant")

def report(request):
    taken = list(notes)
    notes.clear()
    return taken

app.router.add_route("/notes", report)
"""


def program(*forms: str) -> str:
    """A program with middleware of these forms, outermost first."""
    middleware = [FORMS[form].format(place=place) for place, form in enumerate(forms)]
    return "".join([BEGIN, *middleware, HANDLERS])


def notes(server: Server) -> list[str]:
    """What was noted since the last time."""
    found: list[str] = json.loads(server.ask(get("/notes")).body)
    return found


def way(forms: tuple[str, ...], code: int, *, is_async: bool, reaches: bool = True) -> list[str]:
    """The notes of a request that passes all middleware and is answered with this code."""
    going_in = [f"in {place}" for place in range(len(forms))]
    coming_out = []
    for place, form in reversed(list(enumerate(forms))):
        is_async |= form == "async"
        if not (form == "sync" and is_async):
            coming_out.append(f"out {place} {code}")
    return going_in + ["handler"] * reaches + coming_out


@pytest.mark.parametrize("forms", list(itertools.product(FORMS, repeat=2)), ids="-".join)
def test_every_form_surrounds_every_form_and_every_handler(
    serve: Serve, forms: tuple[str, ...]
) -> None:
    server = serve(program(*forms))

    for handler in ("sync", "await_free", "awaits", "hidden"):
        answer = server.ask(get(f"/{handler}"))

        assert (answer.status, answer.text) == (201, handler.replace("hidden", "awaits"))
        assert notes(server) == way(forms, 201, is_async=handler != "sync"), handler

    for path, code, is_async in (
        ("/expected", 418, False),
        ("/expected_async", 418, True),
        ("/registered", 409, False),
        ("/nowhere", 404, False),
        ("/post_only", 405, False),
    ):
        assert server.ask(get(path)).status == code
        assert notes(server) == way(forms, code, is_async=is_async, reaches=False), path

    for path in ("/unexpected", "/unexpected_async", "/unusable"):
        assert server.ask(get(path)).status == 500
        assert notes(server) == ["in 0", "in 1"], path


def test_requests_of_one_connection_are_answered_in_order(serve: Serve) -> None:
    server = serve(program("generator", "async", "sync"))
    paths = ["awaits", "sync", "await_free", "nowhere", "hidden", "sync"] * 4

    with server.client() as client:
        client.send(b"".join(get(f"/{path}") for path in paths))
        answers = [client.answer().text for _ in paths]

    told = {"nowhere": "Not Found", "hidden": "awaits"}
    assert answers == [told.get(path, path) for path in paths]


def test_constant_routes_and_refused_requests_do_not_pass_middleware(serve: Serve) -> None:
    server = serve(program("generator"))

    assert server.ask(get("/constant")).text == "constant"
    assert server.exchange(b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert notes(server) == []


def test_an_automatic_answer_to_options_passes_middleware(serve: Serve) -> None:
    server = serve(program("generator"))

    answer = server.ask(get("/post_only", method="OPTIONS"))

    assert (answer.status, answer.field("Allow")) == (204, "OPTIONS, POST")
    assert notes(server) == ["in 0", "out 0 204"]


def test_a_chain_of_plain_functions_starts_no_task(serve: Serve) -> None:
    server = serve(
        program("sync", "generator")
        + """
def task(request):
    try:
        return repr(asyncio.current_task())
    except RuntimeError as error:
        return repr(error)

app.router.add_route("/task", task)
"""
    )

    assert server.ask(get("/task")).text == "None"


def served(serve: Serve, middleware: str) -> Server:
    """The handlers with this middleware alone."""
    return serve(BEGIN + middleware + HANDLERS)


@pytest.mark.parametrize(
    "middleware",
    [
        "async def short(request, call_next): return {'short': True}, 203",
        "def short(request, call_next): return {'short': True}, 203",
        "def short(request):\n    return ({'short': True}, 203)\n    yield",
    ],
)
def test_a_middleware_may_answer_without_the_handler(serve: Serve, middleware: str) -> None:
    server = served(serve, f"@app.middleware\n{middleware}\n")

    for path in ("/sync", "/awaits", "/nowhere"):
        answer = server.ask(get(path))
        assert (answer.status, json.loads(answer.body)) == (203, {"short": True})


@pytest.mark.parametrize(
    "middleware",
    [
        "async def replace(request, call_next):\n"
        "    return (await call_next(request)).body.decode() + '!', 202",
        "def replace(request):\n    response = yield\n    return response.body.decode() + '!', 202",
    ],
)
def test_a_middleware_may_replace_the_response_by_a_plain_value(
    serve: Serve, middleware: str
) -> None:
    server = served(serve, f"@app.middleware\n{middleware}\n")

    for handler in ("sync", "await_free", "awaits"):
        answer = server.ask(get(f"/{handler}"))
        assert (answer.status, answer.text) == (202, f"{handler}!")


def test_a_generator_that_returns_nothing_leaves_the_response(serve: Serve) -> None:
    server = served(serve, "@app.middleware\ndef time(request):\n    yield\n")

    assert server.ask(get("/sync")).text == "sync"
    assert server.ask(get("/awaits")).text == "awaits"


@pytest.mark.parametrize(
    "middleware",
    [
        "async def roll_back(request, call_next):\n"
        "    try:\n"
        "        return await call_next(request)\n"
        "    except ValueError as error:\n"
        "        return f'rolled back {error}'",
        "def roll_back(request):\n"
        "    try:\n"
        "        yield\n"
        "    except ValueError as error:\n"
        "        return f'rolled back {error}'",
    ],
)
def test_a_middleware_may_catch_what_nobody_expects(serve: Serve, middleware: str) -> None:
    catch_all = "\napp.add_error_handler(None, lambda request, error: ('last resort', 500))\n"
    server = served(serve, f"@app.middleware\n{middleware}\n{catch_all}")

    for path in ("/unexpected", "/unexpected_async"):
        assert server.ask(get(path)).text == "rolled back unexpected"
    assert server.ask(get("/nowhere")).text == "last resort"


def test_a_generator_that_swallows_an_exception_without_an_answer_has_not_caught_it(
    serve: Serve,
) -> None:
    server = served(
        serve,
        """
@app.middleware
def swallow(request):
    try:
        yield
    except ValueError:
        pass
""",
    )

    assert server.ask(get("/unexpected")).status == 500
    server.wait_for_line("ValueError: unexpected")


def test_an_expected_exception_of_a_middleware_is_a_response_to_those_around_it(
    serve: Serve,
) -> None:
    server = served(
        serve,
        FORMS["generator"].format(place=0)
        + """
@app.middleware
def forbid(request, call_next):
    if request.path == "/sync":
        raise HTTPException(403)
    return call_next(request)
""",
    )

    assert server.ask(get("/sync")).status == 403
    assert notes(server) == ["in 0", "out 0 403"]


def test_a_handler_may_be_called_again(serve: Serve) -> None:
    server = served(
        serve,
        """
tries = []

@app.middleware
async def retry(request, call_next):
    for attempt in range(3):
        response = await call_next(request)
        if response.code != 503:
            return response

def flaky(request):
    tries.append(1)
    return request.Response(text="at last", code=503 if len(tries) % 3 else 200)

async def flaky_async(request):
    await asyncio.sleep(0)
    return flaky(request)

app.router.add_route("/flaky", flaky)
app.router.add_route("/flaky_async", flaky_async)
""",
    )

    assert server.ask(get("/flaky")).text == "at last"
    assert server.ask(get("/flaky_async")).text == "at last"


def test_a_middleware_makes_responses_by_the_request_after_the_handler_did(serve: Serve) -> None:
    server = served(
        serve,
        """
@app.middleware
def wrap(request):
    response = yield
    return request.Response(text=f"wrapped {response.body.decode()}")

def own(request):
    return request.Response(text="own")

app.router.add_route("/own", own)
""",
    )

    assert server.ask(get("/own")).text == "wrapped own"


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (
            "def one(request, call_next):\n    return call_next(request).code",
            "make it an async def",
        ),
        ("def one(request):\n    yield\n    yield", "must yield once"),
        ("def one(request):\n    return None\n    yield", "neither yielded nor returned"),
        (
            "async def one(request, call_next):\n    await call_next(request)",
            "View did not return Response instance, but None",
        ),
    ],
)
def test_a_mistake_in_a_middleware_is_a_500_that_says_what_to_do(
    serve: Serve, body: str, line: str
) -> None:
    server = served(serve, f"@app.middleware\n{body}\n")

    assert server.ask(get("/awaits")).status == 500
    server.wait_for_line(line)


def test_a_middleware_that_yields_again_after_a_failure_is_told(serve: Serve) -> None:
    server = served(
        serve,
        """
@app.middleware
def again(request):
    try:
        yield
    except ValueError:
        yield
""",
    )

    assert server.ask(get("/unexpected")).status == 500
    server.wait_for_line("must yield once")


def test_a_client_that_goes_away_cancels_through_the_middleware(serve: Serve) -> None:
    server = served(
        serve,
        """
@app.middleware
def observe(request):
    try:
        yield
    finally:
        note(request, "left")

@app.middleware
async def observe_async(request, call_next):
    try:
        return await call_next(request)
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise

async def never(request):
    print("waiting", flush=True)
    await asyncio.sleep(3600)

app.router.add_route("/never", never)
""",
    )
    with server.client() as client:
        client.send(get("/never"))
        server.wait_for_line("waiting")
        client.reset()

    server.wait_for_line("cancelled")
    assert notes(server) == ["left"]


class CallableObject:
    async def __call__(self, request: Any, call_next: Any) -> Any: ...


async def with_prefix(prefix: str, request: Any, call_next: Any) -> Any: ...


@pytest.mark.parametrize("middleware", [CallableObject(), functools.partial(with_prefix, "a")])
def test_partials_and_callable_objects_are_taken_for_what_they_call(
    idle_worker: type[IdleWorker], middleware: Any
) -> None:
    app = Application()
    app.add_middleware(middleware)
    app.router.add_route("/", lambda request: "sync")

    worker = run_until(app, 15)

    assert worker.routes[0][3] == "awaits"
    assert worker.app._fallback[1] == "awaits"


@pytest.mark.usefixtures("idle_worker")
def test_without_middleware_handlers_are_called_directly() -> None:
    app = Application()

    def handler(request: Any) -> str:
        return "direct"

    app.router.add_route("/", handler)
    worker = run_until(app, 15)

    assert worker.routes[0][2] is handler
    assert worker.app._fallback is None


def no_next(request: Any) -> None: ...


async def async_generator(request: Any, call_next: Any) -> Any:
    yield


def generator_with_next(request: Any, call_next: Any) -> Any:
    yield


@pytest.mark.parametrize(
    ("middleware", "message"),
    [
        (5, "must be callable, not 5"),
        (no_next, "takes (request, call_next)"),
        (async_generator, "must not be async"),
        (generator_with_next, "takes (request)"),
    ],
)
def test_a_middleware_that_could_not_be_called_is_refused(middleware: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Application().middleware(middleware)

    assert message in str(caught.value)


@pytest.mark.usefixtures("idle_worker")
def test_a_middleware_cannot_be_added_while_serving() -> None:
    app = Application()
    raised = []

    @app.on_startup
    def add_late() -> None:
        try:
            app.add_middleware(lambda request, call_next: call_next(request))
        except ConfigError as error:
            raised.append(str(error))

    run_until(app, 15)

    assert len(raised) == 1
    assert "comes too late" in raised[0]


def test_a_middleware_decorates() -> None:
    def middleware(request: Any, call_next: Any) -> Any: ...

    assert Application().middleware(middleware) is middleware
