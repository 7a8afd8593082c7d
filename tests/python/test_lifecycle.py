"""From start to exit: signals, drains, idle connections, and reactors that cannot be had.

Owns the process's side. What the exit codes are is said in `anel.cli`; a drain's deadline is that
of `anel.serving`.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Iterator
from typing import Any

import pytest
from anel.rules import GRACEFUL_S
from conftest import DEADLINE_S, Client, Serve, Server, get, start_server, wait_until

PROGRAM = """
    import asyncio, collections, json, os, signal
    from anel import Application

    app = Application()
    event = asyncio.Event()
    marks = collections.Counter()

    def hello(request):
        return request.Response(text="Hello world!")

    async def wait(request):
        marks["begun"] += 1
        await event.wait()
        return request.Response(text="finished")

    async def stop_and_finish(request):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        return request.Response(text="finished")

    async def finish(request):
        await asyncio.sleep(0.3)
        return request.Response(text="finished")

    def counters(request):
        return request.Response(json=app.counters())

    def set_event(request):
        event.set()
        return request.Response(text="set")

    app.router.add_route("/", hello)
    app.router.add_route("/wait", wait)
    app.router.add_route("/stop_and_finish", stop_and_finish)
    app.router.add_route("/set", set_event)
    app.router.add_route("/finish", finish)
    app.router.add_route("/counters", counters)
    app.router.add_route("/marks", lambda request: request.Response(json=marks))
    app.router.add_constant("/constant", text="constant")
"""

# Makes io_uring_setup, and nothing else, fail: what a container's default profile does. Or, with
# REFUSE=restrictions, the registration of a ring's restrictions and nothing else.
LAUNCHER = """
    import ctypes, errno, os, platform, struct, sys

    SYS_IO_URING_SETUP, SYS_IO_URING_REGISTER, REGISTER_RESTRICTIONS = 425, 427, 11
    SECOND_ARGUMENT = 24
    PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
    LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
    ALLOW, ERRNO = 0x7FFF0000, 0x00050000

    def instruction(code, jump_true, jump_false, value):
        return struct.pack("HBBI", code, jump_true, jump_false, value)

    program = b"".join([
        instruction(LOAD_WORD, 0, 0, 0),
        *(
            [
                instruction(JUMP_IF_EQUAL, 0, 3, SYS_IO_URING_REGISTER),
                instruction(LOAD_WORD, 0, 0, SECOND_ARGUMENT),
                instruction(JUMP_IF_EQUAL, 0, 1, REGISTER_RESTRICTIONS),
            ]
            if os.environ.get("REFUSE") == "restrictions"
            else [instruction(JUMP_IF_EQUAL, 0, 1, SYS_IO_URING_SETUP)]
        ),
        instruction(RETURN, 0, 0, ERRNO | int(os.environ["REFUSE_WITH"])),
        instruction(RETURN, 0, 0, ALLOW),
    ])

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_char_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    prctl = libc.prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_void_p] * 4
    if prctl(PR_SET_NO_NEW_PRIVS, 1, None, None, None):
        sys.exit("no_new_privs: " + os.strerror(ctypes.get_errno()))
    chosen = Filter(len(program) // 8, program)
    if prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(chosen), None, None):
        sys.exit("seccomp: " + os.strerror(ctypes.get_errno()))
    os.execv(sys.executable, [sys.executable, "-m", "anel", *sys.argv[1:]])
"""


def dedent(source: str) -> str:
    return re.sub(r"^    ", "", source, flags=re.MULTILINE)


@pytest.fixture
def server(serve: Serve, reactor: str) -> Server:
    """The program on each reactor."""
    return serve(PROGRAM, "--reactor", reactor)


def counters(client: Client) -> dict[str, int]:
    """What the worker has counted up to its last wait."""
    found: dict[str, int] = json.loads(client.ask(get("/counters")).body)
    return found


def begun(server: Server, count: int) -> None:
    """Waits until so many handlers wait."""
    wait_until(lambda: json.loads(server.ask(get("/marks")).body).get("begun") == count, "begun")


def refuses_connections(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_idle_connections_are_closed_at_once(server: Server, number: int, count: int) -> None:
    untouched = [server.client() for _ in range(count)]
    used = [server.client() for _ in range(count)]
    for client in used:
        assert client.ask(get()).text == "Hello world!"

    assert server.stop(number) == 0

    for client in untouched + used:
        with client:
            assert client.is_ended()


def test_a_stdout_that_nobody_reads_any_more_keeps_no_server_from_its_end(
    tmp_path: pathlib.Path, reactor: str
) -> None:
    program = tmp_path / "unread.py"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-m", "anel", "run", str(program), "--port", "0", "--debug"]
    with subprocess.Popen(
        [*command, "--reactor", reactor], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        process.stdout.close()
        with Client(port) as client:
            assert client.ask(get()).text == "Hello world!"
            process.terminate()
            _, errors = process.communicate(timeout=DEADLINE_S)

    assert process.returncode == 0
    assert "Exception in callback" not in errors


def test_connections_that_were_closed_before_do_not_matter(server: Server) -> None:
    for _ in range(4):
        server.ask(get())

    assert server.stop() == 0


def test_a_request_that_was_not_read_yet_is_answered(server: Server) -> None:
    with server.client() as client:
        client.ask(get())
        client.send(get())

        assert server.stop() == 0

        assert client.answer().text == "Hello world!"


def test_a_pending_request_is_finished_and_its_connection_closed(server: Server) -> None:
    with server.client() as client:
        answer = client.ask(get("/stop_and_finish"))

        assert answer.text == "finished"
        assert answer.field("Connection") == "close"
        assert client.is_ended()
    assert server.wait() == 0


def test_pipelined_pending_requests_are_all_finished(server: Server) -> None:
    with server.client() as client:
        client.send(get("/finish") + get("/stop_and_finish") + get())

        assert client.answer().text == "finished"
        assert client.answer().text == "finished"
        assert client.answer().text == "Hello world!"
        assert client.is_ended()
    assert server.wait() == 0


def test_a_half_sent_request_may_be_completed(server: Server) -> None:
    request = get("/", method="POST", body=b"body")
    with server.client() as half, server.client() as pending:
        half.send(request[:-2])
        pending.send(get("/wait"))
        begun(server, 1)

        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(server), "no more connections")
        half.send(request[-2:])

        answer = half.answer()
        assert answer.text == "Hello world!"
        assert answer.field("Connection") == "close"
        assert half.is_ended()
        server.process.send_signal(signal.SIGTERM)
    assert server.wait() == 0


def test_a_handler_beyond_the_deadline_is_cancelled_and_answered_with_503(server: Server) -> None:
    clients = [server.client() for _ in range(4)]
    for client in clients:
        client.send(get("/wait"))
    begun(server, 4)

    server.process.send_signal(signal.SIGTERM)
    before = time.monotonic()
    answers = [client.answer() for client in clients]

    assert [(answer.status, answer.text) for answer in answers] == [
        (503, "Service unavailable")
    ] * 4
    assert time.monotonic() - before >= GRACEFUL_S - 1
    assert {answer.field("Connection") for answer in answers} == {"close"}
    assert server.wait() == 0
    for client in clients:
        with client:
            assert client.is_ended()
    begin = server.lines.index("4 connections busy, read-end closed") + 1
    assert server.lines[begin:] == [
        "4 seconds remaining, 4 connections still busy",
        "3 seconds remaining, 4 connections still busy",
        "2 seconds remaining, 4 connections still busy",
        "1 seconds remaining, 4 connections still busy",
        "Forcefully killing 4 connections",
    ]


def test_a_drain_without_connections_tells_nothing(server: Server) -> None:
    assert server.stop() == 0

    assert server.lines[1:] == ["Termination request received"]


def test_a_drain_tells_of_idle_connections(server: Server) -> None:
    with server.client() as one, server.client() as other:
        one.ask(get())
        other.ask(get())

        assert server.stop() == 0

    assert server.lines[1:] == [
        "Termination request received",
        "Draining connections...",
        "2 idle connections closed immediately",
    ]


def test_a_drain_that_ends_in_time_kills_nobody(server: Server) -> None:
    with server.client() as idle, server.client() as client:
        idle.ask(get())
        assert client.ask(get("/stop_and_finish")).text == "finished"
        assert server.wait() == 0

    assert server.lines[1:] == [
        "Termination request received",
        "Draining connections...",
        "1 idle connections closed immediately",
        "1 connections busy, read-end closed",
    ]


def test_a_half_sent_request_does_not_outlive_the_deadline(server: Server) -> None:
    with server.client() as client:
        client.send(b"GET / HT")

        assert server.stop() == 0


def test_a_second_signal_ends_at_once(server: Server) -> None:
    with server.client() as client:
        client.send(get("/wait"))
        begun(server, 1)

        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses_connections(server), "no more connections")
        before = time.monotonic()

        assert server.stop() == 0
        assert time.monotonic() - before < GRACEFUL_S - 1


def test_a_connection_during_a_drain_is_refused(server: Server) -> None:
    with server.client() as client:
        client.send(get("/wait"))
        begun(server, 1)

        server.process.send_signal(signal.SIGTERM)

        wait_until(lambda: refuses_connections(server), "no more connections")
        assert server.process.poll() is None
        assert server.stop() == 0


def test_a_stop_under_load_answers_whole_responses_only(server: Server) -> None:
    clients = [server.client() for _ in range(8)]
    for client in clients:
        client.send(get() * 200)
        client.answer()

    assert server.stop() == 0

    for client in clients:
        with client:
            left = client.rest()
            assert left.count(b"HTTP/1.1 200 OK") == left.count(b"Hello world!")


def test_a_busy_port_ends_with_one_line_and_exit_code_4(
    server: Server, tmp_path: pathlib.Path
) -> None:
    second = anel("run", str(tmp_path / "program.py"), "--port", str(server.port))

    assert second.returncode == 4
    reason = f"cannot listen on 127.0.0.1:{server.port}: Address already in use"
    assert second.stderr == f"anel: {reason}\n"
    assert second.stdout == ""
    assert server.ask(get()).status == 200


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.py", "nowhere.py"),
        ("no_such_module:app", "no_such_module"),
        ("json:nothing", "nothing"),
        ("json:dumps", "not an anel.Application"),
    ],
)
def test_an_application_that_is_not_there_ends_with_one_line(spec: str, message: str) -> None:
    result = anel("run", spec)

    assert result.returncode == 3
    assert re.fullmatch(r"anel: .*\n", result.stderr)
    assert message in result.stderr


def test_a_module_that_cannot_be_read_ends_with_one_line_or_its_own_traceback(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "broken.py").write_text("app = \n")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "binary.py").write_bytes(b"\x00\xff")

    for name in ("broken.py", "folder.py", "binary.py"):
        result = anel("run", str(tmp_path / name))

        assert result.returncode == 3, name
        assert "site-packages/anel" not in result.stderr
        assert 1 <= len(result.stderr.splitlines()) <= 8


@pytest.mark.parametrize("flags", ["nonsense=0", "defer", "defer=2"])
def test_an_unknown_knob_ends_with_one_line(tmp_path: pathlib.Path, flags: str) -> None:
    result = run_forbidden_or_not(tmp_path, [sys.executable, "-m", "anel"], flags=flags)

    assert result.returncode == 3
    assert re.fullmatch(r"anel: ANEL_URING_FLAGS.*\n", result.stderr)


RUNGS = [
    "",
    "noarray=0",
    "defer=0",
    "single=0,defer=0",
    "mshot_recv=0",
    "mshot_accept=0",
    "mshot_recv=0,mshot_accept=0",
    "restrict=0",
    "defer=0,noarray=0,single=0,mshot_recv=0,mshot_accept=0",
]


def serve_many_and_much(serve: Serve, flags: str) -> None:
    """A ring with these flags answers pipelines, and what is larger than a receive buffer."""
    server = serve(PROGRAM, "--reactor", "io_uring", ANEL_URING_FLAGS=flags)
    clients = [server.client() for _ in range(4)]

    for client in clients:
        client.send(get() * 200 + get("/", method="POST", body=b"b" * 100_000))
    for client in clients:
        with client:
            assert [client.answer().text for _ in range(201)] == ["Hello world!"] * 201

    assert server.stop() == 0


@pytest.mark.parametrize("flags", RUNGS)
def test_every_rung_of_the_ladder_serves(serve: Serve, flags: str) -> None:
    serve_many_and_much(serve, flags)


EXPERIMENTS = [
    "send_zc=1",
    "bundle=1,buffer_bytes=512",
    "files=1",
    "sqpoll=20",
    "batch=4,batch_us=100",
    "send_zc=1,bundle=1,files=1,batch=2,batch_us=100,buffers=32,buffer_bytes=1024",
]


def doctor(flags: str) -> dict[str, Any]:
    """What the doctor says of a ring with these flags; skips where the kernel lacks one."""
    command = [sys.executable, "-m", "anel", "doctor", "--json"]
    ring: dict[str, Any] = json.loads(run(command, ANEL_URING_FLAGS=flags).stdout)["io_uring"]
    if "why" in ring and "ANEL_URING_FLAGS" in ring["why"]:
        pytest.skip(ring["why"])
    return ring


@pytest.mark.parametrize("flags", EXPERIMENTS)
def test_every_experiment_serves(serve: Serve, flags: str) -> None:
    doctor(flags)
    serve_many_and_much(serve, flags)


def test_the_doctor_lists_experiments() -> None:
    assert doctor("")["experiments"] == []
    assert doctor("files=1,batch=4,batch_us=100")["experiments"] == [
        "files=1",
        "batch=4",
        "batch_us=100",
    ]


def test_an_experiment_that_cannot_be_had_is_not_hidden_by_epoll(tmp_path: pathlib.Path) -> None:
    options = ["run", program(tmp_path), "--port", "0", "--reactor", "auto"]

    result = run(
        [sys.executable, "-m", "anel", *options], ANEL_URING_FLAGS="sqpoll=20,sqpoll_cpu=100000"
    )

    assert result.returncode == 3
    assert re.fullmatch(r"anel: .*ANEL_URING_FLAGS.*sqpoll_cpu=100000.*\n", result.stderr)


@pytest.mark.parametrize("error", [1, 38], ids=["EPERM", "ENOSYS"])
def test_a_forbidden_ring_ends_with_one_line_that_says_what_to_do(
    tmp_path: pathlib.Path, error: int
) -> None:
    result = run_forbidden_or_not(tmp_path, launcher(tmp_path), REFUSE_WITH=str(error))

    assert result.returncode == 3
    assert re.fullmatch(r"anel: .*\n", result.stderr), result.stderr
    assert "io_uring" in result.stderr
    assert "seccomp" in result.stderr


@pytest.mark.parametrize("error", [1, 38], ids=["EPERM", "ENOSYS"])
def test_auto_serves_with_epoll_where_the_ring_is_forbidden_and_says_why(
    tmp_path: pathlib.Path, error: int
) -> None:
    with forbidden(tmp_path, "auto", error) as server:
        assert server.ask(get()).text == "Hello world!"

        assert server.stop() == 0

    notice, accepting = server.lines[:2]
    assert notice.startswith("anel: serving with epoll, because")
    assert "seccomp" in notice
    assert accepting.startswith("Accepting connections")
    assert not [line for line in server.lines[2:] if "epoll" in line]


def test_epoll_is_served_without_a_word_where_the_ring_is_forbidden(
    tmp_path: pathlib.Path,
) -> None:
    with forbidden(tmp_path, "epoll", 1) as server:
        assert server.ask(get()).text == "Hello world!"
        assert server.stop() == 0

    assert server.lines[0].startswith("Accepting connections")
    assert not [line for line in server.lines if "epoll" in line]


def test_a_ring_that_cannot_be_restricted_serves_and_says_so(tmp_path: pathlib.Path) -> None:
    with forbidden(tmp_path, "io_uring", 22, REFUSE="restrictions") as server:
        assert server.ask(get()).text == "Hello world!"
        assert server.stop() == 0

    notice, accepting = server.lines[:2]
    assert notice.startswith("anel: serving with io_uring without restrictions, because")
    assert accepting.startswith("Accepting connections")


def test_the_doctor_says_whether_the_ring_is_restricted() -> None:
    restricted = json.loads(anel("doctor", "--json").stdout)["io_uring"]
    switched_off = run(
        [sys.executable, "-m", "anel", "doctor", "--json"], ANEL_URING_FLAGS="restrict=0"
    )
    unrestricted = json.loads(switched_off.stdout)["io_uring"]

    assert restricted["restricted"] is True
    assert set(restricted["operations"]) >= {"ACCEPT", "RECV", "SEND"}
    assert "R_DISABLED" in restricted["setup_flags"]
    assert (unrestricted["restricted"], unrestricted["operations"]) == (False, None)
    assert "R_DISABLED" not in unrestricted["setup_flags"]


def test_the_doctor_says_that_the_ring_is_forbidden(tmp_path: pathlib.Path) -> None:
    command = [*launcher(tmp_path), "doctor", "--json"]

    result = run(command, REFUSE_WITH="1")

    assert result.returncode == 0
    report = json.loads(result.stdout)
    assert report["auto"] == "epoll"
    assert report["io_uring"]["available"] is False
    assert report["io_uring"]["errno"] == 1
    assert report["seccomp"] == 2
    assert "epoll" in report["why"]


def test_the_doctor_reports_a_usable_ring() -> None:
    report = json.loads(anel("doctor", "--json").stdout)
    lines = anel("doctor").stdout

    assert report["auto"] == ("io_uring" if report["io_uring"]["available"] else "epoll")
    assert f"kernel: {report['kernel']}" in lines
    assert f"auto: {report['auto']}" in lines


def test_idle_connections_and_only_those_are_closed_by_the_reaper(
    serve: Serve, reactor: str
) -> None:
    source = PROGRAM.replace("Application()", "Application(reaper_settings={'idle_timeout': 0.4})")
    server = serve(source, "--reactor", reactor)
    pending, untouched, used, busy = (server.client() for _ in range(4))
    pending.send(get("/wait"))
    used.ask(get())

    before = time.monotonic()
    ended: dict[str, float] = {}
    while len(ended) < 2:
        assert busy.ask(get()).text == "Hello world!"
        for name, client in (("untouched", untouched), ("used", used)):
            if name not in ended and not client.is_silent():
                assert client.is_ended()
                ended[name] = time.monotonic() - before
        assert time.monotonic() - before < DEADLINE_S
        time.sleep(0.01)

    assert min(ended.values()) > 0.3
    assert pending.is_silent()
    assert busy.ask(get()).text == "Hello world!"
    assert busy.ask(get("/set")).status == 200
    assert pending.answer().text == "finished"
    for client in (pending, untouched, used, busy):
        client.socket.close()


def test_the_counters_count(server: Server) -> None:
    with server.client() as client:
        client.send(get() * 100)
        for _ in range(100):
            client.answer()
        # A send is counted when its completion comes, which may be after the peer has the bytes.
        wait_until(lambda: counters(client)["bytes_sent_total"] > 100 * len(get()), "all are sent")
        counted = counters(client)

    assert counted["requests_total"] >= 100
    assert counted["connections_accepted_total"] == counted["connections_open"] == 1
    assert counted["connections_closed_total"] == 0
    assert counted["sends_total"] >= 1
    assert counted["bytes_received_total"] >= 100 * len(get())
    assert counted["waits_total"] > 0
    assert counted["completions_total"] > 0


def test_a_ring_enters_the_kernel_once_per_turn(serve: Serve) -> None:
    server = serve(PROGRAM, "--reactor", "io_uring")
    rounds = 200
    with server.client() as client:
        before = counters(client)
        for _ in range(rounds):
            client.send(get() * 24)
            for _ in range(24):
                client.answer()
        after = counters(client)

    enters = after["enters_total"] - before["enters_total"]
    assert after["requests_total"] - before["requests_total"] >= rounds * 24
    # A batch wakes the worker for its bytes and for the end of its send; a few come in two pieces.
    assert enters <= rounds * 3


def test_a_constant_is_served_while_draining_and_before(server: Server) -> None:
    with server.client() as client:
        client.send(get("/constant") * 24 + get("/constant", method="HEAD") + get())

        assert [client.answer().text for _ in range(24)] == ["constant"] * 24
        assert client.answer("HEAD").field("Content-Length") == "8"
        assert client.answer().text == "Hello world!"


def anel(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run([sys.executable, "-m", "anel", *arguments])


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env={**os.environ, **environment},
    )


def launcher(folder: pathlib.Path) -> list[str]:
    """The start of a command line that runs `anel` where io_uring is forbidden."""
    path = folder / "launcher.py"
    path.write_text(dedent(LAUNCHER))
    return [sys.executable, str(path)]


def program(folder: pathlib.Path) -> str:
    path = folder / "program.py"
    path.write_text(dedent(PROGRAM))
    return str(path)


def run_forbidden_or_not(
    folder: pathlib.Path, start: list[str], flags: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a server that cannot start."""
    options = ["run", program(folder), "--port", "0", "--reactor", "io_uring"]
    return run([*start, *options], ANEL_URING_FLAGS=flags, **environment)


@contextlib.contextmanager
def forbidden(
    folder: pathlib.Path, reactor: str, error: int, **environment: str
) -> Iterator[Server]:
    """A server where io_uring is forbidden, or a part of it."""
    options = ["run", program(folder), "--port", "0", "--reactor", reactor]
    with contextlib.ExitStack() as stack:
        yield start_server(
            stack, [*launcher(folder), *options], REFUSE_WITH=str(error), **environment
        )
