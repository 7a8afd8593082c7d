"""`request.body_view`: the body as it was received, readable for as long as somebody looks.

Owns the memoryview's contract: content, lifetime, and that views cannot stop the worker from
receiving.
"""

from __future__ import annotations

from conftest import Server, get

PROGRAM = """
import asyncio
from anel import Application

app = Application()
kept = []

def route(pattern):
    def register(handler):
        app.router.add_route(pattern, handler)
        return handler
    return register

@route("/shape")
def shape(request):
    view = request.body_view
    if view is None:
        return "None"
    same = view is request.body_view
    return f"{type(view).__name__} {view.readonly} {view.format} {same} {view == request.body}"

@route("/echo")
def echo(request):
    return request.Response(body=request.body_view[1:])

@route("/keep")
def keep(request):
    kept.append(request.body_view)
    return str(len(kept))

@route("/kept")
def show(request):
    return b"|".join(bytes(view) for view in kept)

@route("/drop")
def drop(request):
    kept.clear()
    return "dropped"

@route("/later")
async def later(request):
    await asyncio.sleep(0)
    first = bytes(request.body_view)
    view = request.body_view
    same = request.body == view == first
    return request.Response(body=bytes(view)) if same else "different"

@route("/behind")
def behind(request):
    request.body
    return request.Response(body=request.body_view)
"""


def post(target: str, body: bytes) -> bytes:
    return get(target, method="POST", body=body)


def test_it_is_a_read_only_memoryview_made_once(shared: Server) -> None:
    assert shared.ask(post("/shape", b"abc")).text == "memoryview True B True True"


def test_there_is_none_without_a_body(shared: Server) -> None:
    assert shared.ask(get("/shape")).text == "None"


def test_an_empty_body_has_an_empty_view(shared: Server) -> None:
    assert shared.ask(post("/shape", b"")).text == "memoryview True B True True"


def test_a_body_that_came_in_pieces_has_a_view(shared: Server) -> None:
    body = bytes(range(256)) * 4096

    assert shared.ask(post("/echo", body)).body == body[1:]


def test_a_body_behind_carried_bytes_has_a_view(shared: Server) -> None:
    request = post("/echo", b"xcarried")
    with shared.client() as client:
        client.send(request[:20])
        assert client.ask(request[20:] + post("/echo", b"xnext")).body == b"carried"
        assert client.answer().body == b"next"


def test_a_view_lives_beyond_its_request(shared: Server) -> None:
    with shared.client() as client:
        for number in range(3):
            client.ask(post("/keep", b"body %d" % number))
        for _ in range(200):
            client.ask(post("/echo", b"overwrites what is not held"))

        assert client.ask(get("/kept")).body == b"body 0|body 1|body 2"
        assert client.ask(get("/drop")).text == "dropped"


def test_a_suspended_handler_has_a_view(shared: Server) -> None:
    assert shared.ask(post("/later", b"small")).body == b"small"
    assert shared.ask(post("/later", b"x" * 100_000)).body == b"x" * 100_000


def test_a_view_behind_the_bytes_shows_the_same(shared: Server) -> None:
    assert shared.ask(post("/behind", b"abc")).body == b"abc"


def test_held_views_do_not_stop_the_worker_from_receiving(shared: Server) -> None:
    bodies = [b"%05d" % number for number in range(5_000)]
    with shared.client() as client:
        for body in bodies:
            client.ask(post("/keep", body))
        with shared.client() as other:
            assert other.ask(post("/echo", b"xstill")).body == b"still"

        assert client.ask(get("/kept")).body == b"|".join(bodies)
        client.ask(get("/drop"))
        for body in bodies:
            assert client.ask(post("/echo", b"x" + body)).body == body
        client.ask(get("/drop"))
