"""Every limit, met on a live server with a tiny value, on both reactors.

Owns one test per declared limit at least, and the test that there is one. Each gives its limit
through the option, so that the options are seen to arrive where they matter.
"""

from __future__ import annotations

import contextlib
import json
import select
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from anel import _core
from anel.limits import LIMITS
from conftest import Client, Serve, Server, get, sending, wait_until

PROGRAM = """
import asyncio
from anel import Application, StreamingResponse

app = Application()
counts = {"held": 0, "cancelled": 0, "pieces": 0, "stubborn": 0}
gate = asyncio.Event()

@app.get("/")
def index(request):
    return "hello"

@app.post("/")
def length(request):
    return str(len(request.body))

@app.get("/kibibyte")
def kibibyte(request):
    return b"x" * 1024

@app.get("/large")
def large(request):
    return b"x" * 50_000_000

@app.get("/counts")
def counted(request):
    return {**counts, **app.counters()}

@app.get("/hold")
async def hold(request):
    counts["held"] += 1
    try:
        await gate.wait()
    except asyncio.CancelledError:
        counts["cancelled"] += 1
        raise
    return "held"

@app.get("/stubborn")
async def stubborn(request):
    while not gate.is_set():
        try:
            await gate.wait()
        except asyncio.CancelledError:
            counts["stubborn"] += 1
    return "late"

@app.get("/release")
async def release(request):
    gate.set()
    return "released"

@app.post("/upload", stream=True)
async def upload(request):
    return str(len(await request.read()))

@app.get("/pieces")
async def pieces(request):
    async def produce():
        while True:
            counts["pieces"] += 1
            yield b"x" * 1000
    return StreamingResponse(produce())
"""

EXERCISED: set[str] = set()

T = TypeVar("T", bound=Callable[..., None])


def exercises(*names: str) -> Callable[[T], T]:
    """Says which limits a test meets."""

    def note(test: T) -> T:
        EXERCISED.update(names)
        return test

    return note


@pytest.fixture
def limited(serve: Serve, reactor: str) -> Callable[..., Server]:
    """Starts the program with options."""

    def start(*options: str, **environment: str) -> Server:
        return serve(PROGRAM, "--reactor", reactor, *options, **environment)

    return start


def counts(server: Server) -> dict[str, int]:
    """What handlers and worker have counted."""
    found: dict[str, int] = json.loads(server.ask(get("/counts")).body)
    return found


def wait_for(server: Server, name: str, least: int) -> None:
    """Waits until so much was counted."""
    wait_until(lambda: counts(server)[name] >= least, f"{name} >= {least}")


def trickle(client: Client, byte: bytes, most: int = 1000) -> None:
    """Sends a byte every 20 ms, until something comes back or enough was sent."""
    for _ in range(most):
        if select.select([client.socket], [], [], 0.02)[0]:
            return
        with contextlib.suppress(ConnectionError):
            client.send(byte)


def post(body: bytes, *fields: str, target: str = "/") -> bytes:
    return get(target, *fields, method="POST", body=body)


def chunked(target: str, *lines: bytes) -> bytes:
    head = get(target, "Transfer-Encoding: chunked", method="POST")
    return head + b"".join(line + b"\r\n" for line in lines)


def refusal(server: Server, data: bytes) -> int:
    """The status of an answer behind which the connection ends."""
    with server.client() as client:
        answer = client.ask(data)
        assert answer.field("Connection") == "close"
        client.finish()
        assert client.is_ended()
        return answer.status


@exercises("head_bytes_max")
def test_a_head_that_is_too_large_is_answered_431(limited: Callable[..., Server]) -> None:
    server = limited("--limit-request-head", "1KiB")

    assert server.ask(get("/", "Cookie: " + "x" * 900)).status == 200
    assert refusal(server, get("/", "Cookie: " + "x" * 2000)) == 431


@exercises("target_bytes_max")
def test_a_target_that_is_too_long_is_answered_414(limited: Callable[..., Server]) -> None:
    server = limited("--limit-request-line", "100")

    assert server.ask(get("/?" + "x" * 98)).status == 200
    assert refusal(server, get("/?" + "x" * 99)) == 414


@exercises("fields_max")
def test_too_many_fields_are_answered_431(limited: Callable[..., Server]) -> None:
    server = limited("--limit-request-fields", "5")

    assert server.ask(get("/", *["A: b"] * 4)).status == 200
    assert refusal(server, get("/", *["A: b"] * 5)) == 431


@exercises("body_bytes_max")
def test_a_body_that_is_too_large_is_answered_413(limited: Callable[..., Server]) -> None:
    server = limited("--limit-body", "10")

    assert server.ask(post(b"x" * 10)).text == "10"
    assert refusal(server, post(b"x" * 11)) == 413
    assert refusal(server, chunked("/", b"8", b"x" * 8, b"3")) == 413


@exercises("stream_bytes_max")
def test_a_streamed_body_that_is_too_large_is_answered_413(
    limited: Callable[..., Server],
) -> None:
    server = limited("--limit-stream", "10")

    assert server.ask(post(b"x" * 10, target="/upload")).text == "10"
    assert refusal(server, post(b"x" * 11, target="/upload")) == 413


@exercises("chunk_extension_bytes_max")
def test_a_chunk_extension_that_is_too_long_is_answered_400(
    limited: Callable[..., Server],
) -> None:
    server = limited("--limit-chunk-extension", "10")

    assert server.ask(chunked("/", b"1;a=b", b"x", b"0", b"")).text == "1"
    assert refusal(server, chunked("/", b"1;a=" + b"b" * 20, b"x", b"0", b"")) == 400


@exercises("trailer_bytes_max")
def test_a_trailer_section_that_is_too_large_is_answered_431(
    limited: Callable[..., Server],
) -> None:
    server = limited("--limit-trailers", "100")

    assert server.ask(chunked("/", b"1", b"x", b"0", b"A: b", b"")).text == "1"
    assert refusal(server, chunked("/", b"1", b"x", b"0", b"A: " + b"b" * 100, b"")) == 431


@exercises("pipeline_depth_max")
def test_so_many_requests_of_a_connection_are_in_progress(
    limited: Callable[..., Server],
) -> None:
    server = limited("--limit-pipeline", "2")

    with server.client() as client:
        client.send(get("/hold") * 5)
        wait_for(server, "pauses_total", 1)
        assert counts(server)["held"] == 2
        server.ask(get("/release"))
        assert [client.answer().text for _ in range(5)] == ["held"] * 5


@exercises("owed_bytes_max")
def test_who_does_not_read_is_not_answered_further(limited: Callable[..., Server]) -> None:
    server = limited("--limit-send-queue", "10KiB")
    total = 20_000

    with server.client(receive_buffer=4096) as client, sending(client, get("/kibibyte") * total):
        wait_for(server, "pauses_total", 1)
        state = counts(server)
        owed = state["requests_total"] * 1024 - state["bytes_sent_total"]
        assert state["requests_total"] < total
        assert owed < 10 * 1024 + 128 * 1200
        for _ in range(total):
            assert len(client.answer().body) == 1024


@exercises("stream_owed_bytes_max")
def test_the_producer_of_a_stream_waits_for_its_reader(limited: Callable[..., Server]) -> None:
    server = limited("--limit-stream-queue", "10KiB")

    with server.client(receive_buffer=4096) as client:
        client.send(get("/pieces"))

        def rests() -> bool:
            states = [counts(server)["pieces"] for _ in range(10)]
            return states[0] == states[-1] > 0

        wait_until(rests, "the producer rests")
        state = counts(server)
        # The queue was full, with the piece that filled it, when the kernel got it; so it is again.
        # What was sent includes the answers to the questions, which are small.
        assert state["pieces"] * 1000 - state["bytes_sent_total"] < 2 * (10 * 1024 + 1000)


@exercises("connections_max")
def test_further_connections_wait_until_one_has_closed(limited: Callable[..., Server]) -> None:
    server = limited("--limit-concurrency", "2")

    with server.client() as first, server.client() as second, server.client() as third:
        third.send(get())
        assert first.ask(get()).status == 200
        assert second.ask(get()).status == 200
        assert third.is_silent()
        assert json.loads(first.ask(get("/counts")).body)["connections_open"] == 2
        second.socket.close()
        assert third.answer().status == 200


@exercises("head_timeout_ms")
def test_a_head_has_a_total_time(limited: Callable[..., Server]) -> None:
    server = limited("--timeout-header", "300ms")

    with server.client() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: ")
        trickle(client, b"x")
        assert client.answer().status == 408
        assert client.is_ended()


@exercises("body_timeout_ms")
def test_a_body_has_to_go_on(limited: Callable[..., Server]) -> None:
    server = limited("--timeout-body", "300ms")

    with server.client() as client:
        client.send(get("/", "Content-Length: 10", method="POST") + b"12345")
        assert client.answer().status == 408


@exercises("body_bytes_per_s_min")
@pytest.mark.parametrize("target", ["/", "/upload"])
def test_a_body_has_to_keep_up(limited: Callable[..., Server], target: str) -> None:
    server = limited("--timeout-body", "300ms", "--limit-body-rate", "10000")

    with server.client() as client:
        client.send(get(target, "Content-Length: 1000", method="POST"))
        trickle(client, b"x")
        answer = client.answer()
        assert answer.status == 408
        assert answer.field("Connection") == "close"


def test_without_a_rate_a_body_may_trickle(limited: Callable[..., Server]) -> None:
    server = limited("--timeout-body", "2s", "--limit-body-rate", "off")
    began = time.monotonic()

    with server.client() as client:
        client.send(get("/", "Content-Length: 150", method="POST"))
        trickle(client, b"x", most=150)
        assert client.answer().text == "150"
    assert time.monotonic() - began > 2


@exercises("idle_timeout_ms")
def test_who_asks_for_nothing_is_left(limited: Callable[..., Server]) -> None:
    server = limited("--timeout-keep-alive", "300ms")

    with server.client() as client:
        assert client.ask(get()).status == 200
        assert client.is_ended()


@exercises("send_timeout_ms")
def test_who_takes_nothing_is_left(limited: Callable[..., Server]) -> None:
    server = limited("--timeout-write", "300ms")

    with server.client(receive_buffer=4096) as client:
        client.send(get("/large"))
        wait_for(server, "deadlines_total", 1)
        # Its own connection is the only one then.
        wait_until(lambda: counts(server)["connections_open"] == 1, "the other is closed")


@exercises("send_bytes_per_s_min")
def test_who_takes_too_little_is_left(limited: Callable[..., Server]) -> None:
    server = limited("--timeout-write", "500ms", "--limit-send-rate", "4000000000")

    with server.client(receive_buffer=4096) as client:
        client.send(get("/large"))
        received = 0
        with contextlib.suppress(ConnectionError):
            while part := client.socket.recv(4096):
                received += len(part)
                # Others have a turn between two pieces: that is slow enough.
                server.ask(get())
        assert received < 50_000_000
    assert counts(server)["deadlines_total"] == 1


@exercises("handler_timeout_ms")
def test_a_handler_that_awaits_too_long_is_cancelled_and_answered_503(
    limited: Callable[..., Server],
) -> None:
    server = limited("--timeout-request", "300ms")

    with server.client() as client:
        answer = client.ask(get("/hold"))
        assert (answer.status, answer.text) == (503, "Service unavailable")
        assert client.ask(get()).status == 200, "the connection goes on"
    state = counts(server)
    assert (state["cancelled"], state["handlers_overdue_total"]) == (1, 1)
    server.wait_for_line(r"handler timeout method=GET path=/hold$")


def test_a_handler_that_ignores_its_cancellation_is_given_up(
    limited: Callable[..., Server],
) -> None:
    server = limited("--timeout-request", "300ms")

    with server.client() as client:
        client.send(get("/stubborn") + get("/"))
        answer = client.answer()
        assert (answer.status, answer.field("Connection")) == (503, "close")
        assert client.is_ended()
    assert counts(server)["stubborn"] >= 1
    assert server.ask(get("/release")).status == 200
    wait_for(server, "answers_dropped_total", 1)


def test_the_time_of_a_handler_does_not_run_while_it_waits_for_its_client(
    limited: Callable[..., Server],
) -> None:
    server = limited("--timeout-request", "300ms")

    with server.client() as client:
        client.send(get("/upload", "Content-Length: 50", method="POST"))
        trickle(client, b"x", most=50)
        assert client.answer().text == "50"
    assert counts(server)["handlers_overdue_total"] == 0


def test_a_handler_may_have_all_the_time(limited: Callable[..., Server]) -> None:
    server = limited("--timeout-request", "off", "--timeout-keep-alive", "200ms")

    with server.client() as idle, server.client() as client:
        client.send(get("/hold"))
        assert idle.is_ended(), "others have a deadline"
        server.ask(get("/release"))
        assert client.answer().text == "held"


@exercises("linger_bytes_max")
def test_so_much_is_thrown_away_behind_the_last_answer(limited: Callable[..., Server]) -> None:
    server = limited("--limit-linger", "1KiB", "--timeout-linger", "1h")

    with server.client() as client:
        assert client.ask(b"no request\r\n\r\n").status == 400
        assert client.is_ended(), "a FIN, not a reset"
        with sending(client, b"x" * 50_000_000):
            wait_until(lambda: counts(server)["connections_open"] == 1, "it is closed")


@exercises("linger_timeout_ms")
def test_throwing_away_has_a_time(limited: Callable[..., Server]) -> None:
    server = limited("--timeout-linger", "300ms")

    with server.client() as client:
        assert client.ask(b"no request\r\n\r\n").status == 400
        assert client.is_ended()
        wait_until(lambda: counts(server)["connections_open"] == 1, "it is closed")


def test_an_error_reaches_a_client_that_goes_on_sending(limited: Callable[..., Server]) -> None:
    server = limited()

    with server.client() as client:
        client.send(post(b"x" * 11).replace(b"Content-Length: 11", b"Content-Length: 99999999"))
        client.send(b"x" * 800_000)
        answer = client.answer()
        client.finish()
        assert answer.status == 413
        assert client.is_ended()


def test_what_follows_a_closing_request_is_not_read_for_ever(
    limited: Callable[..., Server],
) -> None:
    server = limited("--limit-linger", "100KiB")

    with server.client() as client:
        client.send(get("/hold", "Connection: close"))
        wait_for(server, "held", 1)
        with sending(client, b"x" * 20_000_000):
            wait_for(server, "bytes_received_total", 100 * 1024)
            # Only what was on its way when the receive was cancelled is taken beyond.
            assert counts(server)["bytes_received_total"] < 5_000_000
            server.ask(get("/release"))
            assert client.answer().text == "held"


def test_every_declared_limit_is_exercised() -> None:
    assert {limit.name for limit in LIMITS} == EXERCISED


def test_every_limit_of_the_core_is_declared_with_its_default() -> None:
    assert {limit.name: limit.default for limit in LIMITS} == _core.default_limits()
