"""The access log of a live server: every field of a line, who cannot forge one, and what is lost.

Owns the lines as programs read them. When an exchange is told, and how much of its answer has left
by then, is the simulation's (`tests/rust/sim/records.rs`).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import datetime
import itertools
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
    REACTORS,
    Client,
    Serve,
    Server,
    get,
    start_server,
    start_service,
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
    """A server that logs to a file, and what the file has got since this was made."""

    def __init__(self, server: Server, path: pathlib.Path) -> None:
        self.server = server
        self.path = path
        self._before = len(read(path))

    def lines(self, count: int) -> list[str]:
        """All lines, as soon as there are so many; each of them is whole."""
        wait_until(lambda: len(self.now()) >= count, f"{count} lines")
        lines = self.now()
        assert len(lines) == count, lines
        return lines

    def last(self, count: int = 1) -> dict[str, Any]:
        """The last of so many JSON lines."""
        found: dict[str, Any] = json.loads(self.lines(count)[-1])
        return found

    def now(self) -> list[str]:
        """The lines there are."""
        return read(self.path)[self._before :]


def read(path: pathlib.Path) -> list[str]:
    """The lines of a file; a last one without its end is none."""
    text = path.read_bytes().decode("ascii") if path.exists() else ""
    return text.split("\n")[:-1]


@contextlib.contextmanager
def started(folder: pathlib.Path, *options: str) -> Iterator[tuple[Server, pathlib.Path]]:
    """A server that logs, and its log."""
    program, path = folder / "program.py", folder / "access.log"
    program.write_text(textwrap.dedent(PROGRAM))
    options = ("--port", "0", "--access-log", str(path), *options)
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "anel", "run", str(program), *options]
        yield start_server(stack, command), path


@pytest.fixture(scope="module", params=REACTORS)
def json_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, pathlib.Path]]:
    """A server on each reactor that logs JSON."""
    options = ["--access-log-format", "json", "--reactor", request.param]
    with started(tmp_path_factory.mktemp("json"), *options) as server:
        yield server


@pytest.fixture(scope="module")
def text_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, pathlib.Path]]:
    """A server that logs text."""
    with started(tmp_path_factory.mktemp("text")) as server:
        yield server


@pytest.fixture
def log(json_server: tuple[Server, pathlib.Path]) -> Log:
    """The JSON log from here on."""
    return Log(*json_server)


@pytest.fixture
def text_log(text_server: tuple[Server, pathlib.Path]) -> Log:
    """The text log from here on."""
    return Log(*text_server)


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
    assert told["time"].endswith("Z")
    assert len(told["time"]) == len("2026-11-21T19:35:33.123Z")
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
        (b'\x16\x03\x01\x00\xff"\\\n', 400, "MethodInvalid", None, '\x16\x03\x01\x00\xff"\\'),
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

    assert server.stop() == 0
    assert len(read(path)) == 2
    assert read(path)[0] == "before"


def test_everything_is_written_when_the_server_was_told_to_stop(
    serve: Serve, tmp_path: pathlib.Path, reactor: str
) -> None:
    path = tmp_path / "access.log"
    server = serve(PROGRAM, "--access-log", str(path), "--reactor", reactor)
    with server.client() as client:
        for n in range(50):
            client.ask(get(f"/?{n}"))

    assert server.stop() == 0

    assert [COMBINED.fullmatch(line)["request"] for line in read(path)] == [  # type: ignore[index]
        f"GET /?{n} HTTP/1.1" for n in range(50)
    ]


def test_what_is_answered_by_a_handler_that_stops_the_loop_is_logged_as_sent(
    serve: Serve, tmp_path: pathlib.Path, reactor: str
) -> None:
    path = tmp_path / "access.log"
    program = (
        PROGRAM
        + """
    def stop(request):
        app.loop.stop()
        return request.Response(text="stopped")

    app.router.add_route("/stop", stop)
    """
    )
    server = serve(program, "--access-log", str(path), "--reactor", reactor)

    server.ask(get("/stop"))
    server.wait()

    assert re.search(r'"GET /stop HTTP/1.1" 200 7 .* -$', read(path)[0])


def test_a_guest_in_another_loop_logs(serve: Serve, tmp_path: pathlib.Path, reactor: str) -> None:
    path = tmp_path / "access.log"
    server = serve(PROGRAM, "--access-log", str(path), "--loop", "uvloop", "--reactor", reactor)

    server.ask(get("/late"))

    wait_until(lambda: len(read(path)) == 1, "the line")


def test_as_many_lines_as_requests(serve: Serve, tmp_path: pathlib.Path, reactor: str) -> None:
    path = tmp_path / "access.log"
    server = serve(PROGRAM, "--access-log", str(path), "--reactor", reactor)

    flood(server, 100_000, "/constant")

    wait_until(lambda: len(read(path)) >= 100_000, "the lines")
    assert len(read(path)) == 100_000
    assert counters(server)["access_log_dropped_total"] == 0


def test_the_lines_of_several_workers_are_never_mixed(serve: Serve, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    server = serve(PROGRAM, "--access-log", str(path), "--workers", "2")

    flood_in_parallel(server, 8, 10_000)

    assert server.stop() == 0
    assert_whole(read(path), 8, 10_000)


def test_the_lines_of_several_workers_are_never_mixed_in_a_pipe(
    tmp_path: pathlib.Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    options = ["--port", "0", "--workers", "2", "--access-log", "-"]
    command = [sys.executable, "-m", "anel", "run", str(program), *options]
    with contextlib.ExitStack() as stack:
        server = start_server(stack, command)

        flood_in_parallel(server, 8, 5_000)

        assert server.stop() == 0
    lines = [line for line in server.lines if " - - [" in line]
    assert_whole(lines, 8, 5_000)


def test_a_line_that_is_too_long_for_a_pipe_is_cut_in_its_parts(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    server = serve(PROGRAM, "--access-log", str(path), "--access-log-format", "json")
    with open(path, "rb") as pipe:
        server.ask(get("/?" + "x" * 8_000, "User-Agent: " + "\xff" * 5_000))

        line = pipe.readline()

    told = json.loads(line)
    assert len(line) <= 4_096
    assert told["target"] == "/?" + "x" * (len(told["target"]) - 5) + "..."
    assert told["user_agent"].startswith("\xff\xff")
    assert told["user_agent"].endswith("\xff...")


def test_a_renamed_file_is_left_when_the_workers_are_replaced(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    server = serve(PROGRAM, "--access-log", str(path), "--workers", "2")
    for _ in range(20):
        server.ask(get("/?before"))
    wait_until(lambda: len(read(path)) == 20, "the lines before")

    path.rename(old)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: ask_and_look(server, path), "a line in the new file")

    assert server.stop() == 0
    assert all("/?before" in line for line in read(old)[:20])
    assert all("/?after" in line for line in read(path))


def ask_and_look(server: Server, path: pathlib.Path) -> bool:
    """Asks once more, and says whether the file is there and has got something."""
    server.ask(get("/?after"))
    return bool(read(path))


def test_a_reader_that_stops_costs_lines_and_nobody_waits(
    serve: Serve, tmp_path: pathlib.Path, reactor: str
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    server = serve(PROGRAM, "--access-log", str(path), "--reactor", reactor)
    target = "/constant?" + "x" * 8_000

    # More than may wait: 16 MiB, and what the pipe holds.
    flood(server, 3_000, target)
    server.wait_for_line("^anel: access log .*pipe: lines are dropped: ")

    with open(path, "rb") as pipe:
        os.set_blocking(pipe.fileno(), False)
        seen = bytearray()
        marks = itertools.count()

        def arrives(mark: int) -> bool:
            with contextlib.suppress(BlockingIOError):
                seen.extend(os.read(pipe.fileno(), 1 << 20))
            return f"/?mark={mark} ".encode() in seen

        def the_next_arrives() -> bool:
            # It is lost, too, if it comes before there is room again.
            mark = next(marks)
            server.ask(get(f"/?mark={mark}"))
            until = time.monotonic() + 1
            while not arrives(mark) and time.monotonic() < until:
                time.sleep(0.002)
            return arrives(mark)

        wait_until(the_next_arrives, "a line behind those that were dropped")
        dropped = counters(server)["access_log_dropped_total"]
        asked = 3_000 + next(marks)
        lines = bytes(seen).split(b"\n")[:-1]
    assert 0 < dropped < 3_000
    assert len([line for line in lines if b"/counters" not in line]) == asked - dropped
    server.stop()
    assert sum("lines are dropped: they come" in line for line in server.lines) == 1


def test_a_reader_that_stops_does_not_keep_the_server(serve: Serve, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    server = serve(PROGRAM, "--access-log", str(path))
    # More than the pipe holds, and less than may wait.
    flood(server, 1_000, "/constant?" + "x" * 1_000)

    assert server.stop() == 0

    assert any("lines are dropped: they are not taken at the end" in line for line in server.lines)


def test_a_full_disk_is_told_once_and_costs_lines_only(serve: Serve) -> None:
    server = serve(PROGRAM, "--access-log", "/dev/full")

    for n in range(20):
        server.ask(get("/"))
        wait_until(lambda n=n: counters(server)["access_log_dropped_total"] > n, "a dropped line")  # type: ignore[misc]

    assert server.stop() == 0
    told = [line for line in server.lines if "dropped" in line]
    assert len(told) == 1
    assert told[0].startswith("anel: access log /dev/full: lines are dropped: No space left")


def test_nobody_reading_stdout_is_no_reason_to_end(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-m", "anel", "run", str(program), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--access-log", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        found = re.search(r":(\d+)$", process.stdout.readline().strip())
        assert found is not None
        process.stdout.close()
        server = Server(process, int(found[1]))

        for _ in range(5):
            assert server.ask(get("/")).status == 200
        assert "lines are dropped: Broken pipe" in process.stderr.readline()
        assert server.ask(get("/")).status == 200

        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_a_sample_is_about_as_large_as_it_should_be(serve: Serve, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    server = serve(PROGRAM, "--access-log", str(path), "--access-log-sample", "0.1")

    flood(server, 40_000, "/constant")

    assert server.stop() == 0
    # 4,000, give or take 60 on average. 900 is fifteen times that.
    assert 3_100 < len(read(path)) < 4_900


def test_failures_are_logged_whatever_the_sample(serve: Serve, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    server = serve(PROGRAM, "--access-log", str(path), "--access-log-sample", "0")
    for target in ["/", "/fails", "/missing", "/late", "/fails"]:
        server.ask(get(target))

    assert server.stop() == 0
    assert [line.split('"')[1] for line in read(path)] == ["GET /fails HTTP/1.1"] * 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing/access.log", "ENOENT"), (".", "EISDIR"), ("program.py/access.log", "ENOTDIR")],
)
def test_a_file_that_cannot_be_had_ends_the_server_with_one_line(
    tmp_path: pathlib.Path, name: str, reason: str
) -> None:
    ended = run(tmp_path, "--access-log", str(tmp_path / name))

    path = os.path.normpath(tmp_path / name)
    assert ended.returncode == 3
    assert ended.stderr == f"anel: cannot write the access log {path} ({reason})\n"


def test_a_worker_whose_file_cannot_be_had_ends_the_server_too(tmp_path: pathlib.Path) -> None:
    ended = run(tmp_path, "--access-log", str(tmp_path), "--workers", "2")

    assert ended.returncode == 3
    assert ended.stderr.count("cannot write the access log") == 1


def test_the_file_is_opened_by_the_user_that_the_server_becomes(tmp_path: pathlib.Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")

    ended = run(tmp_path, "--access-log", "/access.log", "--user", "54321", "--group", "54321")

    assert ended.returncode == 3
    assert "cannot write the access log /access.log (EACCES)" in ended.stderr


def test_a_closed_stdout_cannot_be_logged_to(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    command = f"exec {sys.executable} -m anel run {program} --port 0 --access-log - >&-"

    ended = subprocess.run(
        ["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=DEADLINE_S
    )

    assert ended.returncode == 3
    assert ended.stderr == "anel: cannot log to stdout: it is closed; name a file instead\n"


def test_a_relative_path_is_where_the_process_was_started(tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    program = "import os; os.chdir('elsewhere')\n" + textwrap.dedent(PROGRAM)
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-m", "anel", "run", "program.py", "--port", "0"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(tmp_path))
        server = start_server(stack, command, ANEL_ACCESS_LOG="a.log")
        server.ask(get("/"))
        assert server.stop() == 0

    assert len(read(tmp_path / "a.log")) == 1


def test_a_program_may_say_it_with_arguments(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "access.log"
    arguments = f"access_log=pathlib.Path({str(path)!r}), access_log_format='json'"
    program = tmp_path / "program.py"
    source = f"import pathlib\n{textwrap.dedent(PROGRAM)}\napp.run('127.0.0.1', 0, {arguments})\n"
    program.write_text(source)
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [sys.executable, str(program)])
        server.ask(get("/"))
        assert server.stop() == 0

    assert json.loads(read(path)[0])["status"] == 200


PATH = LogPath(name="log", key="log", help="", group="")
SHARE = Share(name="share", key="share", help="", group="")


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("-", "-"),
        ("on", "-"),
        (True, "-"),
        ("1", "-"),
        ("off", None),
        ("0", None),
        (False, None),
        ("/a/../b", "/b"),
        (pathlib.Path("/a"), "/a"),
    ],
)
def test_a_place_for_a_log_is_a_path_or_stdout_or_none(value: object, meant: str | None) -> None:
    assert PATH.take(value, "log") == meant


@pytest.mark.parametrize("value", ["", "a\0b", 1, b"a"])
def test_what_is_no_place_for_a_log_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="log must be the path of a file, - for stdout, or off"):
        PATH.take(value, "log")


@pytest.mark.parametrize("value", ["0", 1, 0.25, "1e-3"])
def test_a_share_is_a_number(value: object) -> None:
    assert SHARE.parse(value, "share") == float(str(value))


@pytest.mark.parametrize("value", ["-0.1", 1.01, "nan", "inf", "half", True, None])
def test_what_is_no_share_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="share must be a number from 0 to 1"):
        SHARE.parse(value, "share")


def run(folder: pathlib.Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A server that cannot start."""
    program = folder / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-m", "anel", "run", str(program), "--port", "0", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)


def flood(server: Server, count: int, target: str, depth: int = 100) -> None:
    """Asks so many requests on one connection, so many at a time, and reads the answers."""
    request = get(target)
    with server.client() as client:
        client.send(request)
        # The others are as long: of the same second or not, a date is.
        answer = client.answer()
        length = len(answer.head) + len(answer.body)
        left = count - 1
        while left:
            batch = min(depth, left)
            client.send(request * batch)
            client.next_bytes(length * batch)
            left -= batch


def flood_in_parallel(server: Server, clients: int, count: int) -> None:
    """The same on some connections at the same time, each with a target of its own."""
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        floods = [
            pool.submit(flood, server, count, f"/constant?client={n}&{'x' * 50 * n}")
            for n in range(clients)
        ]
        for one in floods:
            one.result(DEADLINE_S * 3)


def assert_whole(lines: list[str], clients: int, count: int) -> None:
    """Every line is whole, and there are as many as requests."""
    targets = Counter()  # type: ignore[var-annotated]
    for line in lines:
        found = COMBINED.fullmatch(line)
        assert found is not None, line
        targets[found["request"]] += 1
    expected = {f"GET /constant?client={n}&{'x' * 50 * n} HTTP/1.1": count for n in range(clients)}
    assert targets == expected


def counters(server: Server) -> dict[str, int]:
    """What the worker has counted."""
    found: dict[str, int] = server.ask(get("/counters")).value
    return found


def test_the_page_lists_every_key_in_its_order() -> None:
    page = pathlib.Path(__file__).parents[2] / "src/python/ACCESS_LOG.md"

    assert re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE) == KEYS
