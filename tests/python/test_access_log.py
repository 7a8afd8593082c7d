"""The access log of a live server: every field of a line, who cannot forge one, and what is lost.

Owns the lines as programs read them. When an exchange is told, and how much of its answer has left
by then, is the simulation's (`tests/rust/sim/records.rs`).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from anel.access_log import LogPath, Share
from anel.exceptions import ConfigError
from conftest import (
    DEADLINE_S,
    Client,
    Serve,
    Server,
    as_japronto,
    get,
    sending,
    start_server,
    wait_until,
)

PROGRAM = """
    import asyncio
    from anel import Application

    app = Application()

    def hello(request):
        return request.Response(text="Hello world!")

    async def late(request):
        await asyncio.sleep(float(request.query.get("s", "0")))
        return request.Response(text="late")

    async def never(request):
        print("waiting", flush=True)
        await asyncio.Event().wait()

    def stream(request):
        return request.Response(stream=[b"ab", b"cde"])

    def broken(request):
        def pieces():
            yield b"ab"
            raise ValueError("no more")
        return request.Response(stream=pieces())

    def large(request):
        return request.Response(body=b"x" * 30_000_000)

    def counters(request):
        return request.Response(json=app.counters())

    app.router.add_route("/", hello)
    app.router.add_route("/late", late)
    app.router.add_route("/never", never)
    app.router.add_route("/stream", stream)
    app.router.add_route("/broken", broken)
    app.router.add_route("/large", large)
    app.router.add_route("/counters", counters)
    app.router.add_route("/fails", lambda request: 1 / 0)
    app.router.add_constant("/constant", text="constant")
    app.router.add_route("/post", lambda request: request.text, method="POST")
"""

# The combined log format of nginx and Apache, and what is behind it.
COMBINED = re.compile(
    r'(?P<remote>\S+) - - \[(?P<time>[^]]+)\] "(?P<request>[^"]*)" (?P<status>\d{3}) (?P<bytes>\d+)'
    r' "(?P<referer>[^"]*)" "(?P<agent>[^"]*)" (?P<duration>\d+\.\d{6}) (?P<error>\S+)'
)

KEYS = [
    "time",
    "remote_addr",
    "method",
    "target",
    "protocol",
    "status",
    "bytes",
    "duration",
    "referer",
    "user_agent",
    "error",
]


class Log:
    """A server that logs to a file, and the file."""

    def __init__(self, server: Server, path: pathlib.Path) -> None:
        self.server = server
        self.path = path

    def lines(self, count: int) -> list[str]:
        """All lines, as soon as there are so many; each of them is whole."""
        wait_until(lambda: len(self._read()) >= count, f"{count} lines")
        lines = self._read()
        assert len(lines) == count, lines
        return lines

    def last(self, count: int = 1) -> dict[str, Any]:
        """The last of so many JSON lines."""
        found: dict[str, Any] = json.loads(self.lines(count)[-1])
        return found

    def _read(self) -> list[str]:
        return read(self.path)


def read(path: pathlib.Path) -> list[str]:
    """The lines of a file; a last one without its end is none."""
    text = path.read_bytes().decode("ascii") if path.exists() else ""
    return text.split("\n")[:-1]


@pytest.fixture
def log(serve: Serve, tmp_path: pathlib.Path, reactor: str) -> Log:
    """A server on each reactor, which logs JSON."""
    path = tmp_path / "access.log"
    options = ["--access-log", str(path), "--access-log-format", "json", "--reactor", reactor]
    return Log(serve(PROGRAM, *options), path)


@pytest.fixture
def text_log(serve: Serve, tmp_path: pathlib.Path) -> Log:
    """A server that logs text."""
    path = tmp_path / "access.log"
    return Log(serve(PROGRAM, "--access-log", str(path)), path)


def test_a_line_of_text_is_the_combined_format_with_duration_and_error(text_log: Log) -> None:
    fields = ["Referer: http://a/b", "User-Agent: one two"]
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)

    text_log.server.ask(get("/late?s=0.02", *fields))

    line = text_log.lines(1)[0]
    found = COMBINED.fullmatch(line)
    assert found is not None, line
    at = datetime.datetime.strptime(found["time"], "%d/%b/%Y:%H:%M:%S %z")
    assert before <= at <= datetime.datetime.now(datetime.UTC)
    assert found["remote"] == "127.0.0.1"
    assert found["request"] == "GET /late?s=0.02 HTTP/1.1"
    assert (found["status"], found["bytes"]) == ("200", "4")
    assert (found["referer"], found["agent"]) == ("http://a/b", "one two")
    assert 0.02 <= float(found["duration"]) < DEADLINE_S
    assert found["error"] == "-"


def test_a_line_of_json_has_every_field_in_its_order(log: Log) -> None:
    before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(milliseconds=1)

    log.server.ask(get("/?a=1", "Referer: http://a/b", "User-Agent: one two"))

    told = log.last()
    assert list(told) == KEYS
    assert told["time"].endswith("Z") and len(told["time"]) == len("2026-11-21T19:35:33.123Z")
    at = datetime.datetime.fromisoformat(told.pop("time"))
    assert before <= at <= datetime.datetime.now(datetime.UTC)
    assert 0 < told.pop("duration") < DEADLINE_S
    assert told == {
        "remote_addr": "127.0.0.1",
        "method": "GET",
        "target": "/?a=1",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 12,
        "referer": "http://a/b",
        "user_agent": "one two",
        "error": None,
    }


def test_what_a_request_does_not_say_is_null(log: Log) -> None:
    log.server.ask(get("/", version="1.0"))

    told = log.last()
    assert (told["referer"], told["user_agent"], told["protocol"]) == (None, None, "HTTP/1.0")


@pytest.mark.parametrize(
    ("target", "method", "status", "sent"),
    [
        ("/", "HEAD", 200, 0),
        ("/constant", "GET", 200, 8),
        ("/constant", "HEAD", 200, 0),
        ("/stream", "GET", 200, 5),
        ("/stream", "HEAD", 200, 0),
        ("/late", "GET", 200, 4),
        ("/missing", "GET", 404, 9),
        ("/post", "GET", 405, 18),
        ("/post", "OPTIONS", 204, 0),
        ("/fails", "GET", 500, 21),
    ],
)
def test_every_kind_of_answer_is_logged_with_its_status_and_length(
    log: Log, target: str, method: str, status: int, sent: int
) -> None:
    log.server.ask(get(target, method=method), method)

    told = log.last()
    assert (told["method"], told["target"]) == (method, target)
    assert (told["status"], told["bytes"], told["error"]) == (status, sent, None)


@pytest.mark.parametrize(
    ("sent", "status", "error", "method", "target"),
    [
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "VersionInvalid", "GET", "/a b"),
        (b"\x16\x03\x01\x00\xff\"\\\n", 400, "MethodInvalid", None, '\x16\x03\x01\x00\xff"\\'),
        (get("/" + "x" * 9_000), 414, "TargetTooLong", None, None),
        (get("/", "X-A: " + "x" * 40_000), 431, "HeadTooLarge", "GET", "/"),
        (
            get("/post", "Content-Length: 99999999", method="POST"),
            413,
            "BodyTooLarge",
            "POST",
            "/post",
        ),
        (b"GET /half HTTP/1.1\r\nHo", 400, "IncompleteHead", "GET", "/half"),
    ],
)
def test_a_refused_request_is_logged_with_what_is_wrong(
    log: Log, sent: bytes, status: int, error: str, method: str | None, target: str | None
) -> None:
    log.server.exchange(sent)

    told = log.last()
    assert (told["status"], told["error"]) == (status, error)
    assert told["method"] == method
    if target is not None:
        assert told["target"] == target


def test_a_refused_body_is_logged_with_the_fields_of_its_head(log: Log) -> None:
    fields = ["Content-Length: 99999999", "User-Agent: me"]
    log.server.exchange(get("/post", *fields, method="POST"))

    assert log.last()["user_agent"] == "me"


def test_an_answer_that_fails_on_the_way_says_so(log: Log) -> None:
    with pytest.raises(EOFError):
        log.server.ask(get("/broken"))

    told = log.last()
    assert (told["status"], told["bytes"], told["error"]) == (200, 2, "answer_incomplete")


def test_a_client_that_leaves_within_an_answer_is_logged_with_what_it_took(log: Log) -> None:
    with log.server.client(receive_buffer=4_096) as client:
        client.send(get("/large"))
        client.head()
        client.reset()

    told = log.last()
    assert (told["status"], told["error"]) == (200, "peer_reset")
    assert 0 < told["bytes"] < 30_000_000


def test_a_client_that_leaves_before_its_answer_is_logged_with_499(log: Log) -> None:
    with log.server.client() as client:
        client.send(get("/never"))
        log.server.wait_for_line("^waiting$")
        client.reset()

    told = log.last()
    assert (told["status"], told["bytes"], told["error"]) == (499, 0, "peer_reset")


def test_pipelined_requests_are_logged_in_their_order(log: Log) -> None:
    targets = [f"/late?s=0.0{9 - n}" if n % 2 else f"/?n={n}" for n in range(10)]
    with log.server.client() as client:
        client.send(b"".join(map(get, targets)))
        for _ in targets:
            client.answer()

    assert [json.loads(line)["target"] for line in log.lines(10)] == targets


HOSTILE = [
    '" 200 1 "-" "-" 0.000000 -',
    '","status":200,"x":"',
    "\\",
    "\\x22",
    "\t\x80\xff",
    "caf\xc3\xa9",
    "\xe2\x80\xa8\xc2\x85",
    "\xf0\x9f\x98\x80",
    "\xed\xa0\x80",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_field_cannot_forge_json(log: Log, value: str) -> None:
    log.server.ask(get("/", f"User-Agent: x{value}x", f"Referer: x{value}x"))

    told = log.last()
    try:
        expected = value.encode("latin-1").decode()
    except UnicodeDecodeError:
        expected = value
    assert list(told) == KEYS
    assert told["user_agent"] == told["referer"] == f"x{expected}x"


@pytest.mark.parametrize("value", HOSTILE)
def test_a_field_cannot_forge_text(text_log: Log, value: str) -> None:
    text_log.server.ask(get("/", f"User-Agent: x{value}x", f"Referer: x{value}x"))

    found = COMBINED.fullmatch(text_log.lines(1)[0])
    assert found is not None
    unescaped = re.sub(r"\\x([0-9A-F]{2})", lambda code: chr(int(code[1], 16)), found["agent"])
    assert unescaped == f"x{value}x"
    assert found["referer"] == found["agent"]


def test_a_target_cannot_forge_a_line(log: Log) -> None:
    target = "/?a=%0d%0a\"\\'{}[]<>^`|"
    log.server.ask(get(target))

    assert log.last()["target"] == target


def test_the_longest_target_is_logged_in_full(log: Log) -> None:
    target = "/?" + "x" * 8_188
    log.server.ask(get(target))

    assert log.last()["target"] == target


def test_cookies_credentials_and_bodies_are_not_logged(log: Log) -> None:
    fields = ["Cookie: a=secret", "Authorization: Basic secret", "X-A: secret"]
    log.server.ask(get("/post", *fields, method="POST", body=b"secret"))

    assert "secret" not in log.lines(1)[0]


def test_the_address_is_the_one_behind_trusted_proxies(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "access.log"
    options = ["--access-log", str(path), "--trusted-proxies", "127.0.0.1"]
    log = Log(serve(PROGRAM, *options), path)

    log.server.ask(get("/", "X-Forwarded-For: 10.1.2.3, 192.0.2.9"))

    assert log.lines(1)[0].startswith("192.0.2.9 - - ")


def test_a_peer_without_an_address_is_a_dash(serve: Serve, tmp_path: pathlib.Path) -> None:
    path, place = tmp_path / "access.log", tmp_path / "socket"
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    options = ["--uds", str(place), "--access-log", str(path)]
    command = [sys.executable, "-m", "anel", "run", str(program), *options]
    with contextlib.ExitStack() as stack:
        from conftest import start_service

        server = start_service(stack, command, "Accepting connections on ", (), {})
        with Client.to(socket.AF_UNIX, str(place)) as client:
            client.ask(get("/"))
        assert Log(server, path).lines(1)[0].startswith("- - - [")


def test_no_file_is_made_without_the_option(serve: Serve, tmp_path: pathlib.Path) -> None:
    server = serve(PROGRAM)

    server.ask(get("/"))

    assert server.stop() == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["program.py"]


def test_a_dash_logs_to_stdout(serve: Serve) -> None:
    server = serve(PROGRAM, "--access-log", "-")

    server.ask(get("/?here"))

    server.wait_for_line(r'"GET /\?here HTTP/1.1" 200 12 ')


def test_a_file_is_appended_to(serve: Serve, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    server = serve(PROGRAM, "--access-log", str(path))

    server.ask(get("/"))

    assert Log(server, path).lines(2)[0] == "before"


def test_everything_is_written_when_the_server_was_told_to_stop(log: Log) -> None:
    with log.server.client() as client:
        for n in range(50):
            client.ask(get(f"/?{n}"))

    assert log.server.stop() == 0

    assert [json.loads(line)["target"] for line in read(log.path)] == [
        f"/?{n}" for n in range(50)
    ]


def test_what_is_answered_by_a_handler_that_stops_the_loop_is_logged_as_sent(
    serve: Serve, tmp_path: pathlib.Path, reactor: str
) -> None:
    path = tmp_path / "access.log"
    program = PROGRAM + """
    def stop(request):
        app.loop.stop()
        return request.Response(text="stopped")

    app.router.add_route("/stop", stop)
    """
    server = serve(program, "--access-log", str(path), "--reactor", reactor)

    server.ask(get("/stop"))
    server.wait()

    assert re.search(r'"GET /stop HTTP/1.1" 200 7 .* -$', read(path)[0])


def test_as_many_lines_as_requests(
    serve: Serve, tmp_path: pathlib.Path, reactor: str
) -> None:
    path = tmp_path / "access.log"
    server = serve(PROGRAM, "--access-log", str(path), "--reactor", reactor)
    flood(server, 100_000, b"/constant")

    assert Log(server, path).lines(100_000)
    assert counters(server)["access_log_dropped_total"] == 0


def flood(server: Server, count: int, target: bytes, depth: int = 100) -> None:
    """Asks so many requests on one connection, so many at a time, and reads the answers."""
    request = b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"
    with server.connect() as connection:
        length = None
        for _ in range(count // depth):
            connection.sendall(request * depth)
            if length is None:
                # The first answer tells how long they all are.
                first = connection.recv(1 << 16, socket.MSG_PEEK)
                length = first.index(b"\r\n\r\n") + 4 + len(first.split(b"\r\n\r\n")[1].split(b"HTTP")[0])
            left = length * depth
            while left:
                left -= len(connection.recv(left))


def counters(server: Server) -> dict[str, int]:
    """What the worker has counted."""
    found: dict[str, int] = server.ask(get("/counters")).value
    return found
