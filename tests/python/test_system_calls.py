"""The counters of system calls, against what strace sees of a running server."""

import collections
import contextlib
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from textwrap import dedent

import pytest
from conftest import Server, get, start_server, wait_until
from services import program

# A reactor makes no others while it serves.
CALLS = (
    "io_uring_enter",
    "io_uring_register",
    "epoll_wait",
    "epoll_ctl",
    "recvfrom",
    "sendto",
    "accept4",
    "shutdown",
    "close",
)
# Made by the program at the beginning and at the end of what is compared.
MARK = "getppid"

PROGRAM = """
    import os
    from anel import Application

    app = Application()

    def hello(request):
        return request.Response(text="Hello world!")

    def mark(request):
        os.getppid()
        return request.Response(json=app.counters())

    app.router.add_route("/", hello)
    app.router.add_route("/mark", mark)
"""


@contextlib.contextmanager
def traced(folder: pathlib.Path, reactor: str, flags: str) -> Iterator[tuple[Server, pathlib.Path]]:
    """A server under strace, and the file that its system calls are written to."""
    path, trace = folder / "program.py", folder / "trace"
    path.write_text(dedent(PROGRAM))
    # As a grandchild, so that signals and exit status are the server's.
    strace = [program("strace"), "-D", "-f", "-q", "-o", str(trace)]
    watched = ["-e", "trace=" + ",".join([*CALLS, MARK])]
    server = [sys.executable, "-m", "anel", "run", str(path), "--port", "0", "--reactor", reactor]
    with contextlib.ExitStack() as stack:
        yield start_server(stack, [*strace, *watched, *server], ANEL_URING_FLAGS=flags), trace


def calls_between_marks(trace: str) -> collections.Counter[str]:
    """System calls of the thread that made the marks, between the first two."""
    begun = re.findall(r"^(\d+) +(\w+)\(", trace, re.MULTILINE)
    threads = {thread for thread, name in begun if name == MARK}
    assert len(threads) == 1, trace[-2000:]
    names = [name for thread, name in begun if thread in threads]
    first = names.index(MARK)
    second = names.index(MARK, first + 1)
    return collections.Counter(names[first + 1 : second])


def serve_some(server: Server) -> dict[str, int]:
    """Requests between two marks; what the counters say of them."""
    with server.client() as client:
        before = json.loads(client.ask(get("/mark")).body)
        for depth in (1, 24, 1, 100):
            client.send(get() * depth)
            for _ in range(depth):
                assert client.answer().text == "Hello world!"
        for _ in range(5):
            assert server.ask(get()).text == "Hello world!"
        after = json.loads(client.ask(get("/mark")).body)
    assert server.stop() == 0
    return {name: after[name] - before[name] for name in before}


@pytest.mark.parametrize(
    ("reactor", "flags"),
    [("io_uring", ""), ("io_uring", "mshot_recv=0,mshot_accept=0"), ("epoll", "")],
)
def test_the_counters_are_what_strace_counts(
    tmp_path: pathlib.Path, reactor: str, flags: str
) -> None:
    with traced(tmp_path, reactor, flags) as (server, trace):
        counted = serve_some(server)
        wait_until(lambda: "exited with 0" in trace.read_text(), "strace has seen the end")
        seen = calls_between_marks(trace.read_text())

    assert counted["requests_total"] >= 126
    assert counted["enters_total"] == seen["io_uring_enter"] + seen["epoll_wait"]
    if reactor == "epoll":
        assert counted["sends_total"] == seen["sendto"]
        assert counted["system_calls_total"] == seen.total()
    else:
        assert seen["sendto"] == seen["recvfrom"] == seen["epoll_wait"] == 0
        # A close is an entry of the ring; what the reactor asks besides is not traced here.
        assert seen["close"] == 0
        assert counted["submissions_total"] >= counted["sends_total"] > 0
        assert counted["completions_total"] >= counted["sends_total"]


def test_registered_files_are_counted(tmp_path: pathlib.Path) -> None:
    with traced(tmp_path, "io_uring", "files=1") as (server, trace):
        counted = serve_some(server)
        wait_until(lambda: "exited with 0" in trace.read_text(), "strace has seen the end")
        seen = calls_between_marks(trace.read_text())

    # One for each new connection, and one for its end; the last may end behind the mark.
    assert seen["io_uring_register"] in (9, 10)
    assert counted["system_calls_total"] == seen.total()
