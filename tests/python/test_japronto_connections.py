"""What Japronto documents of connections: refusals, pipelines, the reaper, and how a server ends.

One test per behaviour. Where Japronto's code did something else than it documents, the test shows
what is documented.
"""

from __future__ import annotations

import itertools
import signal
import socket

import pytest
from conftest import DEADLINE_S, Answer, Client, Serve, Server, get, wait_until

PROGRAM = """
    import asyncio
    from japronto import Application

    app = Application(reaper_settings={"check_interval": 1, "idle_timeout": 60})
    running = []

    def hello(request):
        return request.Response(text=request.path)

    async def sleep(request):
        running.append(request.path)
        await asyncio.sleep(float(request.match_dict["seconds"]))
        return request.Response(text=request.path)

    def count(request):
        return request.Response(text=str(len(running)))

    app.router.add_route("/", hello)
    app.router.add_route("/echo/{n}", hello)
    app.router.add_route("/sleep/{seconds}", sleep)
    def count_open(request):
        return request.Response(text=str(app.counters()["connections_open"]))

    def mark(request):
        print("mark", request.query_string, flush=True)
        return request.Response()

    app.router.add_route("/mark", mark)
    app.router.add_route("/running", count)
    app.router.add_route("/open", count_open)
    app.router.add_route("/body", lambda request: request.Response(body=request.body), "POST")
    app.run()
"""

# Refusals: the token is printed and is the body of a 400 in HTTP/1.0.


MARKS = itertools.count()


def forget_lines(server: Server) -> None:
    """Passes over everything that was printed so far."""
    number = next(MARKS)
    server.ask(get(f"/mark?{number}"))
    server.wait_for_line(f"^mark {number}$")
    server.lines.clear()


def refused(server: Server, data: bytes) -> Answer:
    """The answer to something that is no request, on a connection that it ends."""
    forget_lines(server)
    with server.client() as client:
        answer = client.ask(data)
        assert client.is_ended()
    return answer


def is_japrontos_refusal(server: Server, answer: Answer, token: str) -> None:
    assert (answer.version, answer.status, answer.reason) == ("HTTP/1.0", 400, "Bad Request")
    assert answer.field("Content-Type") == "text/plain; charset=utf-8"
    assert answer.text == token
    server.wait_for_line(f"^{token}$")


REQUEST_LINE = b"GET / HTTP/1.1"


@pytest.mark.parametrize("end", [b"\r\n", b"\r\n\r\n"], ids=["line", "head"])
@pytest.mark.parametrize("length", range(1, len(REQUEST_LINE)))
def test_a_truncated_request_line_is_malformed_headers(
    japronto: Server, length: int, end: bytes
) -> None:
    answer = refused(japronto, REQUEST_LINE[:length] + end)

    is_japrontos_refusal(japronto, answer, "malformed_headers")


@pytest.mark.parametrize("version", [b"HTTP 1.0", b"HTTP/2", b"HTTP/2.0", b"HTTP/0.9"])
def test_another_version_is_malformed_headers(japronto: Server, version: bytes) -> None:
    answer = refused(japronto, b"GET / " + version + b"\r\n\r\n")

    is_japrontos_refusal(japronto, answer, "malformed_headers")


def test_more_fields_than_are_taken_are_malformed_headers(japronto: Server) -> None:
    answer = refused(japronto, get("/", *[f"X-{n}: v" for n in range(101)]))

    is_japrontos_refusal(japronto, answer, "malformed_headers")


FIELD = b"X-Header: value"


@pytest.mark.parametrize("end", [b"\r\n", b"\r\n\r\n"], ids=["line", "head"])
@pytest.mark.parametrize("length", range(1, FIELD.index(b":") + 1))
def test_a_truncated_header_line_is_malformed_headers(
    japronto: Server, length: int, end: bytes
) -> None:
    answer = refused(japronto, REQUEST_LINE + b"\r\nHost: a\r\n" + FIELD[:length] + end)

    is_japrontos_refusal(japronto, answer, "malformed_headers")


@pytest.mark.parametrize("value", ["", "+5", "-5", "0x12", "12a", "asd", "4f"])
def test_a_bad_content_length_is_invalid_headers(japronto: Server, value: str) -> None:
    data = f"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: {value}\r\n\r\n"

    is_japrontos_refusal(japronto, refused(japronto, data.encode()), "invalid_headers")


@pytest.mark.parametrize("chunk", [b"x\r\n", b"1\r\nasd\r\n", b"-1\r\n"])
def test_a_bad_chunk_is_malformed_body(japronto: Server, chunk: bytes) -> None:
    data = get("/body", "Transfer-Encoding: chunked", method="POST") + chunk

    is_japrontos_refusal(japronto, refused(japronto, data), "malformed_body")


@pytest.mark.parametrize("length", range(1, len(REQUEST_LINE)))
def test_a_request_line_that_ends_early_is_incomplete(japronto: Server, length: int) -> None:
    forget_lines(japronto)

    japronto.exchange(REQUEST_LINE[:length])

    japronto.wait_for_line("^incomplete_headers$")


@pytest.mark.parametrize(
    ("data", "token"),
    [
        (b"GET / HTT", "incomplete_headers"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX-He", "incomplete_headers"),
        (get("/body", "Content-Length: 5", method="POST") + b"four", "incomplete_body"),
        (get("/body", "Transfer-Encoding: chunked", method="POST") + b"5\r\nfo", "incomplete_body"),
    ],
)
def test_a_request_that_ends_early_is_incomplete(japronto: Server, data: bytes, token: str) -> None:
    forget_lines(japronto)

    japronto.exchange(data)

    japronto.wait_for_line(f"^{token}$")


@pytest.mark.parametrize(
    "data", [get(version="1.0"), get("/", "Connection: close")], ids=["1.0", "close"]
)
def test_data_behind_the_last_request_does_not_hurt_its_answer(
    japronto: Server, data: bytes
) -> None:
    with japronto.client() as client:
        assert client.ask(data + b"excessive data").text == "/"
        assert client.is_ended()


# Bodies, in the two framings.


def test_a_body_of_a_given_length_is_whole(japronto: Server) -> None:
    body = bytes(range(256)) * 64

    assert japronto.ask(get("/body", method="POST", body=body)).body == body


def test_chunks_are_joined_and_trailers_dropped(japronto: Server) -> None:
    chunks = b"4;name=value\r\nWiki\r\n0005\r\npedia\r\n0\r\nX-Trailer: yes\r\n\r\n"
    data = get("/body", "Transfer-Encoding: chunked", method="POST") + chunks

    with japronto.client() as client:
        assert client.ask(data).text == "Wikipedia"
        assert client.ask(get()).text == "/"


def test_an_empty_line_before_a_request_is_passed_over(japronto: Server) -> None:
    assert japronto.ask(b"\r\n" + get()).text == "/"


# Pipelines.


def test_responses_come_in_the_order_of_requests(japronto: Server) -> None:
    paths = ["/sleep/0.05", "/echo/1", "/sleep/0.01", "/nowhere", "/sleep/0.03", "/echo/2"]

    with japronto.client() as client:
        client.send(b"".join(map(get, paths)))
        texts = [client.answer().text for _ in paths]

    assert texts == [path.replace("/nowhere", "Not Found") for path in paths]


def test_async_requests_of_one_connection_run_together(japronto: Server) -> None:
    before = int(japronto.ask(get("/running")).text)

    with japronto.client() as client:
        client.send(get("/sleep/0.2") * 5)
        wait_until(lambda: int(japronto.ask(get("/running")).text) == before + 5, "all run")
        assert client.is_silent()
        assert [client.answer().text for _ in range(5)] == ["/sleep/0.2"] * 5


def test_a_sync_handler_runs_before_an_earlier_async_one_has_ended(japronto: Server) -> None:
    with japronto.client() as client:
        client.send(get("/sleep/0.01") + get("/running"))
        client.answer()
        seen = int(client.answer().text)

    # The earlier one is among those that were running, and its answer was not there yet.
    assert seen >= 1


def test_a_hundred_async_requests_in_one_pipeline_do_not_kill_the_worker(japronto: Server) -> None:
    with japronto.client() as client:
        client.send(get("/sleep/0.001") * 100)
        assert [client.answer().status for _ in range(100)] == [200] * 100


def test_answers_before_a_refused_request_are_sent(japronto: Server) -> None:
    with japronto.client() as client:
        client.send(get("/echo/1") + get("/echo/2") + b"nonsense\r\n\r\n")

        assert [client.answer().text for _ in range(3)] == [
            "/echo/1",
            "/echo/2",
            "malformed_headers",
        ]
        assert client.is_ended()


# The reaper.


@pytest.mark.parametrize("asks", [False, True], ids=["silent", "one_request"])
def test_an_idle_connection_is_reaped(serve_japronto: Serve, asks: bool) -> None:
    server = serve_japronto(PROGRAM.replace('"idle_timeout": 60', '"idle_timeout": 1'))

    with server.client() as client:
        if asks:
            assert client.ask(get()).status == 200
        # A read that is not woken by the reaper would fail by its own deadline.
        assert client.is_ended()


def test_a_connection_that_is_answered_late_is_not_reaped(serve_japronto: Serve) -> None:
    server = serve_japronto(PROGRAM.replace('"idle_timeout": 60', '"idle_timeout": 0.2'))

    assert server.ask(get("/sleep/0.6")).text == "/sleep/0.6"


def test_a_request_that_arrives_late_is_not_reaped(serve_japronto: Serve) -> None:
    server = serve_japronto(PROGRAM.replace('"idle_timeout": 60', '"idle_timeout": 0.3'))

    with server.client() as arriving, server.client() as idle:
        arriving.send(get("/body", method="POST", body=b"body")[:-2])
        # The other one is reaped meanwhile.
        assert idle.is_ended()
        arriving.send(b"dy")

        assert arriving.answer().text == "body"


def test_a_response_that_is_read_late_is_not_reaped(serve_japronto: Serve) -> None:
    server = serve_japronto(
        PROGRAM.replace('"idle_timeout": 60', '"idle_timeout": 0.3').replace(
            "text=request.path", 'text=request.path * (request.path == "/" or 4_000_000)'
        )
    )

    with server.client(receive_buffer=4096) as late, server.client() as idle:
        late.send(get("/echo/1"))
        assert idle.is_ended()

        assert len(late.answer().body) == 4_000_000 * len("/echo/1")
        assert late.is_ended()


# The end.


@pytest.fixture
def ending(serve_japronto: Serve, reactor: str) -> Server:
    """A server that a test ends."""
    return serve_japronto(PROGRAM, reactor=reactor)


def last_line(server: Server) -> str:
    """What was printed at last, once the server has ended well."""
    assert server.stop() == 0
    return server.lines[-1]


def test_a_drain_without_connections_says_nothing(ending: Server) -> None:
    assert last_line(ending) == "Termination request received"


@pytest.mark.parametrize("count", range(1, 5))
def test_idle_connections_are_closed_immediately(ending: Server, count: int) -> None:
    clients = [ending.client() for _ in range(count)]
    for client in clients:
        assert client.ask(get()).status == 200

    assert last_line(ending) == f"{count} idle connections closed immediately"
    for client in clients:
        with client:
            assert client.is_ended()


@pytest.mark.parametrize("count", range(1, 5))
def test_connections_that_were_just_opened_are_idle(ending: Server, count: int) -> None:
    clients = [ending.client() for _ in range(count)]

    assert last_line(ending) == f"{count} idle connections closed immediately"
    for client in clients:
        with client:
            assert client.is_ended()


@pytest.mark.parametrize("count", range(1, 5))
def test_requests_that_were_just_sent_are_answered(ending: Server, count: int) -> None:
    clients = [ending.client() for _ in range(count)]
    for client in clients:
        client.send(get())

    assert last_line(ending) == f"{count} idle connections closed immediately"
    for client in clients:
        with client:
            assert client.answer().status == 200


@pytest.mark.parametrize("count", range(1, 5))
def test_connections_that_were_just_closed_are_none(ending: Server, count: int) -> None:
    for _ in range(count):
        ending.client().socket.close()

    assert last_line(ending) == "Termination request received"


def test_a_handler_that_was_just_called_for_is_waited_for(ending: Server) -> None:
    with ending.client() as client:
        client.send(get("/sleep/0.3"))
        ending.process.send_signal(signal.SIGTERM)

        assert client.answer().text == "/sleep/0.3"
    assert ending.wait() == 0
    assert "1 connections busy, read-end closed" in ending.lines


@pytest.mark.parametrize("count", range(1, 5))
def test_closed_connections_are_not_counted(ending: Server, count: int) -> None:
    for _ in range(count):
        assert ending.ask(get("/", "Connection: close")).status == 200

    with ending.client() as client:
        wait_until(lambda: client.ask(get("/open")).text == "1", "only this one is open")

        assert last_line(ending) == "1 idle connections closed immediately"


def busy(server: Server, seconds: float, count: int) -> list[Client]:
    """Connections that each wait for an answer."""
    clients = [server.client() for _ in range(count)]
    for client in clients:
        client.send(get(f"/sleep/{seconds}"))
    wait_until(lambda: int(server.ask(get("/running")).text) == count, "all wait")
    return clients


def test_a_request_that_ends_in_time_is_answered(ending: Server) -> None:
    clients = busy(ending, 1, 4)

    ending.process.send_signal(signal.SIGTERM)
    statuses = [client.answer().status for client in clients]

    assert statuses == [200] * 4
    assert ending.wait() == 0
    assert "4 connections busy, read-end closed" in ending.lines
    assert not [line for line in ending.lines if line.startswith("Forcefully")]
    for client in clients:
        client.socket.close()


def test_a_request_that_does_not_end_is_killed_and_answered_with_503(ending: Server) -> None:
    clients = busy(ending, 10, 2)

    ending.process.send_signal(signal.SIGTERM)
    answers = [client.answer() for client in clients]

    assert [(answer.status, answer.text) for answer in answers] == [
        (503, "Service unavailable")
    ] * 2
    assert last_line(ending) == "Forcefully killing 2 connections"
    for client in clients:
        client.socket.close()


def test_a_connection_during_a_drain_is_refused(ending: Server) -> None:
    (client,) = busy(ending, 2, 1)

    ending.process.send_signal(signal.SIGTERM)

    def is_refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", ending.port), timeout=DEADLINE_S).close()
        except (ConnectionRefusedError, ConnectionResetError):
            return True
        return False

    wait_until(is_refused, "refused")
    assert client.answer().status == 200
    assert ending.wait() == 0
    client.socket.close()
