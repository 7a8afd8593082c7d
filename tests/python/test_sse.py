"""Server-sent events: their text, their pings, and what happens when a client leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from anel import Event, EventStream
from conftest import Client, Server, get, wait_until
from hypothesis import given
from hypothesis import strategies as st

PROGRAM = """
    import asyncio, contextvars
    from anel import Application, Event, EventStream

    app = Application()
    closed = []
    events = [Event({"n": 1}, "tick", "7", 50), "two\\nlines", {"a": "ą"}, [1], Event(None, id="8")]
    KEPT = EventStream(events)
    variable = contextvars.ContextVar("variable", default="unset")

    def sync(request):
        return EventStream(events, retry=3000, headers={"X-A": "1", "cache-control": "private"})

    async def give(name=None):
        try:
            for event in events:
                await asyncio.sleep(0)
                yield event
        finally:
            closed.append(name)

    def later(request):
        return EventStream(give(request.query_string), retry=3000)

    async def unpinged(request):
        return EventStream(give(), retry=3000, ping_s=None)

    async def wait(name):
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    def waiting(request):
        return EventStream(wait(request.query_string), ping_s=0.01)

    def unpinged_waiting(request):
        return EventStream(wait(request.query_string), ping_s=None)

    async def stubborn():
        try:
            yield "begun"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield "not yet"
            yield "and again"
        finally:
            closed.append("stubborn")

    def ignoring(request):
        return EventStream(stubborn())

    async def fail():
        yield "one"
        raise RuntimeError("source failed")

    def failing(request):
        return EventStream(fail())

    async def of_another_task():
        yield "one"
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task

    async def one_task():
        variable.set("set")
        task = asyncio.current_task()
        for _ in range(3):
            async with asyncio.timeout(10):
                yield f"{asyncio.current_task() is task} {variable.get()}"
                await asyncio.sleep(0)

    def wrong(request):
        return EventStream(iter([b"bytes"]))

    def endless():
        try:
            while True:
                yield "x" * 1000
        finally:
            closed.append("endless")

    def last(request):
        return EventStream([request.headers.get("Last-Event-ID", "none")])

    app.router.add_route("/sync", sync)
    app.router.add_route("/later", later)
    app.router.add_route("/unpinged", unpinged)
    app.router.add_route("/kept", lambda request: KEPT)
    app.router.add_route("/waiting", waiting)
    app.router.add_route("/unpinged_waiting", unpinged_waiting)
    app.router.add_route("/ignoring", ignoring)
    app.router.add_route("/failing", failing)
    app.router.add_route("/cancelled", lambda request: EventStream(of_another_task()))
    app.router.add_route(
        "/unpinged_cancelled", lambda request: EventStream(of_another_task(), ping_s=None)
    )
    app.router.add_route("/one_task", lambda request: EventStream(one_task()))
    app.router.add_route("/wrong", wrong)
    app.router.add_route("/endless", lambda request: EventStream(endless()))
    app.router.add_route("/last", last)
    app.router.add_route("/closed", lambda request: closed)
"""

TEXT = (
    'event: tick\nid: 7\nretry: 50\ndata: {"n":1}\n\n'
    "data: two\ndata: lines\n\n"
    'data: {"a":"ą"}\n\n'
    "data: [1]\n\n"
    "id: 8\n\n"
)


def read(text: str) -> list[tuple[str, str, str]]:
    """Events (type, data, last id) as WHATWG HTML 9.2.6 reads them, line by line."""
    dispatched = []
    data, kind, last_id = "", "", ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        if not line:
            if data:
                dispatched.append((kind or "message", data.removesuffix("\n"), last_id))
            data, kind = "", ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return dispatched


def closed(shared: Server) -> list[str]:
    found: list[str] = json.loads(shared.ask(get("/closed")).text)
    return found


def next_event(client: Client) -> bytes:
    """Reads up to a blank line, chunk frames included."""
    found = b""
    while not found.endswith(b"\n\n"):
        found += client.next_bytes(1)
    return found


@pytest.mark.parametrize("path", ["/sync", "/later", "/unpinged"])
def test_events_are_sent(shared: Server, path: str) -> None:
    answer = shared.ask(get(path))

    assert answer.status == 200
    assert answer.field("Content-Type") == "text/event-stream"
    assert answer.field("X-Accel-Buffering") == "no"
    assert answer.field("Content-Length") is None
    assert answer.text == "retry: 3000\n\n" + TEXT


def test_events_are_not_kept_unless_headers_say_otherwise(shared: Server) -> None:
    assert shared.ask(get("/later")).field("Cache-Control") == "no-store"
    assert shared.ask(get("/sync")).field("cache-control") == "private"
    assert shared.ask(get("/sync")).field("X-A") == "1"


def test_a_stream_of_a_list_can_be_kept(shared: Server) -> None:
    with shared.client() as client:
        assert [client.ask(get("/kept")).text for _ in range(2)] == [TEXT, TEXT]


def test_an_http_1_0_client_gets_events_until_the_end(shared: Server) -> None:
    answer = shared.exchange(get("/later", version="1.0"))

    assert answer.partition(b"\r\n\r\n")[2].decode() == "retry: 3000\n\n" + TEXT


def test_head_has_no_events(shared: Server) -> None:
    with shared.client() as client:
        head = client.ask(get("/later", method="HEAD"), "HEAD")

        assert head.field("Content-Type") == "text/event-stream"
        assert client.ask(get("/last")).text == "data: none\n\n"


def test_a_client_says_what_it_had(shared: Server) -> None:
    assert shared.ask(get("/last", "Last-Event-ID: 7")).text == "data: 7\n\n"


def test_a_quiet_source_is_pinged(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waiting"))

        received = [next_event(client) for _ in range(4)]

    assert received[0].endswith(b"data: begun\n\n")
    assert all(ping.endswith(b"\r\n:\n\n") for ping in received[1:])


def test_a_ping_notices_a_client_that_left(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waiting?left"))
        next_event(client)

    wait_until(lambda: "left" in closed(shared))


def test_a_reset_is_noticed_without_pings(shared: Server) -> None:
    client = shared.client()
    client.send(get("/unpinged_waiting?reset"))
    next_event(client)

    client.reset()

    wait_until(lambda: "reset" in closed(shared))


def test_a_source_that_ignores_its_end_is_left_alone(shared: Server) -> None:
    client = shared.client()
    client.send(get("/ignoring"))
    next_event(client)

    client.reset()

    wait_until(lambda: "stubborn" in closed(shared))


def test_a_source_that_ends_is_closed_once(shared: Server) -> None:
    shared.ask(get("/later?ended"))

    assert closed(shared).count("ended") == 1


def test_a_sync_source_ends_when_the_client_leaves(shared: Server) -> None:
    with shared.client(receive_buffer=4096) as client:
        client.send(get("/endless"))
        client.next_bytes(10_000)

    wait_until(lambda: "endless" in closed(shared))


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/failing", "RuntimeError: source failed"),
        ("/cancelled", "CancelledError"),
        ("/unpinged_cancelled", "CancelledError"),
        ("/wrong", "TypeError: an event must be an anel.Event, str, dict or list, not b'bytes'"),
    ],
)
def test_a_source_that_fails_ends_the_connection(shared: Server, path: str, error: str) -> None:
    with shared.client() as client:
        client.send(get(path))
        received = client.rest()

    assert not received.endswith(b"0\r\n\r\n")
    shared.wait_for_line(error)


def test_an_event_without_text_is_an_event() -> None:
    # WHATWG HTML 9.2.6: the data buffer has a line end then, so it is not empty.
    assert read(Event("").encode().decode()) == [("message", "", "")]
    assert read(Event(None).encode().decode()) == []


def test_a_source_runs_in_one_task(shared: Server) -> None:
    assert shared.ask(get("/one_task")).text == "data: True set\n\n" * 3


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(text)
def test_any_text_comes_back_but_for_the_kind_of_line_end(data: str) -> None:
    sent = Event(f"x{data}").encode().decode()

    normal = data.replace("\r\n", "\n").replace("\r", "\n")
    # The x keeps the event from being empty: such a one calls nobody (WHATWG HTML 9.2.6).
    assert read(sent) == [("message", f"x{normal}", "")]


one_line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"))


@given(one_line, one_line)
def test_any_name_and_id_come_back(name: str, last_id: str) -> None:
    sent = Event("x", event=name, id=last_id).encode().decode()

    assert read(sent) == [(name or "message", "x", last_id)]


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists))
def test_any_json_comes_back(value: Any) -> None:
    ((_, data, _),) = read(Event({"value": value}).encode().decode())

    assert json.loads(data) == {"value": value}


@pytest.mark.parametrize(
    ("event", "sent"),
    [
        (Event(""), b"data: \n\n"),
        (Event(" a"), b"data:  a\n\n"),
        (Event("a\r\nb\rc\nd\n"), b"data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
        (Event("a\x0bb\u2028c"), "data: a\x0bb\u2028c\n\n".encode()),
        (Event(None, retry=0), b"retry: 0\n\n"),
        (Event(5), b"data: 5\n\n"),
        (Event("x", event="", id=""), b"event: \nid: \ndata: x\n\n"),
    ],
)
def test_an_event_is_these_bytes(event: Event, sent: bytes) -> None:
    assert event.encode() == sent


@pytest.mark.parametrize("character", ["\r", "\n", "\0"])
@pytest.mark.parametrize("name", ["event", "id"])
def test_a_name_or_id_of_several_lines_is_refused(name: str, character: str) -> None:
    arguments: dict[str, Any] = {name: f"a{character}b"}

    with pytest.raises(ValueError, match=f"{name} must be one line without NUL"):
        Event("x", **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"data": b"x"}, TypeError, "data must be a str or a JSON value"),
        ({"event": 1}, TypeError, "event must be str"),
        ({"id": 1}, TypeError, "id must be str"),
        ({"retry": "1"}, TypeError, "retry must be milliseconds"),
        ({"retry": True}, TypeError, "retry must be milliseconds"),
        ({"retry": -1}, ValueError, "retry must not be negative"),
    ],
)
def test_a_wrong_event_is_refused(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Event(**{"data": "x", **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"source": "text"}, TypeError, "source must be an iterable"),
        ({"source": {"a": 1}}, TypeError, "source must be an iterable"),
        ({"source": None}, TypeError, "source must be an iterable"),
        ({"retry": 1.5}, TypeError, "retry must be milliseconds"),
        ({"retry": -1}, ValueError, "retry must not be negative"),
        ({"ping_s": 0}, ValueError, "ping_s must be above 0"),
        ({"ping_s": float("nan")}, ValueError, "ping_s must be above 0"),
        ({"ping_s": "1"}, TypeError, "ping_s must be seconds"),
        ({"headers": {"X": "\n"}}, ValueError, "control"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, ValueError, "frames the body"),
    ],
)
def test_a_wrong_stream_is_refused_when_it_is_made(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        EventStream(**{"source": [], **arguments})
