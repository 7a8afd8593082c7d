"""What the observer answers, on live servers: metrics, health and readiness.

Owns what whoever watches a server may rely on: it is answered whatever the workers are about, what
it says is what clients saw, and no total goes back.
"""

from __future__ import annotations

import contextlib
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
from types import SimpleNamespace
from typing import cast

import pytest
from anel import Application, _core
from anel.board import Board
from anel.listener import Listeners, Place
from anel.metrics import METRICS, _escape
from anel.observer import Observer
from conftest import (
    DEADLINE_S,
    Answer,
    Client,
    IdleWorker,
    Serve,
    Server,
    get,
    run_until,
    start_server,
    start_service,
    wait_until,
)
from prometheus_client.parser import text_string_to_metric_families
from services import program as find_program

PROGRAM = """
    import asyncio, ctypes, os
    from anel import Application

    app = Application()
    # With the GIL held, as C extensions do that forget about it.
    usleep = ctypes.PyDLL(None).usleep

    def stick(request):
        print("stuck", flush=True)
        usleep(ctypes.c_uint(10_000_000))
        return request.Response(text="free again")

    async def wait(request):
        await asyncio.sleep(float(request.query["s"]))
        return request.Response(text="waited")

    async def fail(request):
        await asyncio.sleep(0)
        raise LookupError("on purpose")

    def stream(request):
        return request.Response(stream=[b"some", b"more"])

    app.router.add_route("/", lambda request: request.Response(text=str(os.getpid())))
    app.router.add_route("/moved", lambda request: request.Response(code=302))
    app.router.add_constant("/constant", text="always")
    app.router.add_route("/stick", stick)
    app.router.add_route("/wait", wait)
    app.router.add_route("/fail", fail)
    app.router.add_route("/stream", stream)
    app.router.add_route("/read", lambda request: request.Response(body=request.body), "POST")
"""

# On a loopback port that the kernel picks.
BESIDE = ("--metrics-bind", "127.0.0.1:0")

Samples = dict[str, list[tuple[dict[str, str], float]]]


def ask(server: Server, path: str, *fields: str) -> Answer:
    """What the observer answers."""
    port = int(server.wait_for_line(r"^Metrics at http://127.0.0.1:(\d+)/metrics$")[1])
    with Client(port) as client:
        return client.ask(get(path, *fields))


def samples(server: Server) -> Samples:
    """All samples by their names."""
    found: Samples = {}
    for family in text_string_to_metric_families(ask(server, "/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def total(server: Server, name: str, **labels: str) -> float:
    """The sum over all samples that have these labels."""
    return sum(value for found, value in samples(server)[name] if labels.items() <= found.items())


def wait_for_total(server: Server, name: str, expected: float, **labels: str) -> None:
    """Waits until a sum is as large; a worker may be a turn behind what its clients have seen."""
    wait_until(lambda: total(server, name, **labels) >= expected, f"{name} {expected}")
    assert total(server, name, **labels) == expected


def worker_pids(server: Server) -> list[int]:
    """The worker processes that live."""
    found = samples(server).get("anel_worker_awake_seconds", [])
    return [int(labels["pid"]) for labels, _ in found]


def is_ready(server: Server) -> bool:
    """Whether new requests should be sent there."""
    return ask(server, "/ready").status == 200


# The format.


def test_metrics_are_what_a_parser_of_prometheus_takes(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE)
    server.ask(get("/"))

    answer = ask(server, "/metrics")

    content_type = "text/plain; version=0.0.4; charset=utf-8"
    assert (answer.status, answer.field("Content-Type")) == (200, content_type)
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    # The parser names a counter without its suffix.
    for metric in METRICS:
        family = families.pop(metric.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (metric.type, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample
    assert families == {}


def test_every_metric_is_in_the_table_as_it_is_shown() -> None:
    table = pathlib.Path(__file__).parents[2] / "python/anel/METRICS.md"
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \| (.+) \|$", table.read_text(), re.M)

    assert rows == [
        (
            metric.name,
            metric.type,
            ", ".join(f"`{label}`" for label in metric.labels) or "-",
            metric.help,
        )
        for metric in METRICS
    ]


def test_names_have_their_units_and_counters_their_suffix() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"(anel|process)_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert not re.search(r"_(ms|ns|millis|kib)(_|$)", metric.name)


def test_text_is_escaped() -> None:
    assert _escape('a\\b\n"c"') == 'a\\\\b\\n"c"'
    assert _escape('a\\b\n"c"', quotes=True) == 'a\\\\b\\n\\"c\\"'


def test_histograms_count_in_cumulative_buckets(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE)
    server.ask(get("/wait?s=0.05"))
    wait_for_total(server, "anel_handler_seconds_count", 1, suspended="yes")

    found = samples(server)

    labels = {"worker": "0", "suspended": "yes"}
    buckets = [
        (float(labeled["le"]), value)
        for labeled, value in found["anel_handler_seconds_bucket"]
        if labels.items() <= labeled.items()
    ]
    assert buckets == sorted(buckets)
    assert [value for bound, value in buckets if bound < 0.05] == [0] * 8
    assert buckets[-1] == (float("inf"), 1)
    (seconds,) = (
        value for labeled, value in found["anel_handler_seconds_sum"] if labeled == labels
    )
    assert 0.05 <= seconds < 10


# What is counted.


def test_requests_are_as_many_as_were_sent(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM, *BESIDE, "--workers", "2", "--reactor", reactor)

    for _ in range(20):
        with server.client() as client:
            client.send(get("/") * 10 + get("/constant") * 5)
            for _ in range(15):
                client.answer()

    wait_for_total(server, "anel_requests_total", 300)
    wait_for_total(server, "anel_responses_total", 300, status="2xx")
    # A constant route has no handler.
    wait_for_total(server, "anel_handler_seconds_count", 200, suspended="no")
    wait_for_total(server, "anel_connections_accepted_total", 20)
    wait_for_total(server, "anel_connections_closed_total", 20)
    assert total(server, "anel_connections_open") == 0


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/"), "2xx"),
        (get("/constant"), "2xx"),
        (get("/stream"), "2xx"),
        (get("/wait?s=0"), "2xx"),
        (get("/read", method="POST", body=b"x"), "2xx"),
        (get("/moved"), "3xx"),
        (get("/nowhere"), "4xx"),
        (b"not HTTP\r\n\r\n", "4xx"),
        (get("/fail"), "5xx"),
    ],
    ids=["call", "constant", "stream", "task", "body", "3xx", "404", "refused", "500"],
)
def test_every_kind_of_response_is_counted_by_its_status(
    watched: Server, request_bytes: bytes, status: str
) -> None:
    classes = ("2xx", "3xx", "4xx", "5xx")
    before = {name: total(watched, "anel_responses_total", status=name) for name in classes}

    watched.ask(request_bytes)

    wait_for_total(watched, "anel_responses_total", before.pop(status) + 1, status=status)
    for name, count in before.items():
        assert total(watched, "anel_responses_total", status=name) == count


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with an observer for several tests."""
    path = tmp_path_factory.mktemp("watched") / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-m", "anel", "run", str(path), "--port", "0", *BESIDE]
    with contextlib.ExitStack() as stack:
        yield start_server(stack, command)


def test_an_answer_in_the_place_of_a_handler_that_does_not_end_is_counted(serve: Serve) -> None:
    stubborn = PROGRAM + textwrap.indent(
        textwrap.dedent("""
            async def stay(request):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    await asyncio.sleep(60)

            app.router.add_route("/stay", stay)
        """),
        "    ",
    )
    server = serve(stubborn, *BESIDE, "--timeout-request", "100ms")

    assert server.ask(get("/stay")).status == 503

    wait_for_total(server, "anel_responses_total", 1, status="5xx")
    assert total(server, "anel_handlers_overdue_total") == 1


def test_refused_requests_are_counted_apart(watched: Server) -> None:
    requests = total(watched, "anel_requests_total")
    refused = total(watched, "anel_requests_refused_total")

    watched.ask(b"GET / HTTP/1.1\r\n\r\n")

    wait_for_total(watched, "anel_requests_refused_total", refused + 1)
    assert total(watched, "anel_requests_total") == requests


@pytest.mark.parametrize(
    ("answer", "status"),
    [("HTTP/1.0 503 Later\\r\\n\\r\\n", "5xx"), ("What?", "4xx")],
    ids=["HTTP", "no HTTP"],
)
def test_a_refusal_counts_as_what_the_application_made_of_it(
    serve: Serve, answer: str, status: str
) -> None:
    server = serve(
        PROGRAM + f"\n    app.protocol_error_handler = lambda error: b'{answer}'\n", *BESIDE
    )

    server.exchange(b"not HTTP\r\n\r\n")

    wait_for_total(server, "anel_responses_total", 1)
    assert total(server, "anel_responses_total", status=status) == 1


def test_bytes_are_counted_in_both_directions(watched: Server) -> None:
    received = total(watched, "anel_received_bytes_total")
    sent = total(watched, "anel_sent_bytes_total")
    request = get("/read", method="POST", body=b"x" * 1000)

    answer = watched.ask(request)

    wait_for_total(watched, "anel_received_bytes_total", received + len(request))
    wait_for_total(watched, "anel_sent_bytes_total", sent + len(answer.head) + 1000)


def test_requests_in_progress_are_those_whose_handlers_await(watched: Server) -> None:
    with watched.client() as client:
        client.send(get("/wait?s=60") * 3)
        wait_for_total(watched, "anel_requests_in_progress", 3)
        assert total(watched, "anel_connections_open") == 1
        client.reset()

    wait_until(lambda: total(watched, "anel_requests_in_progress") == 0, "their end")


def test_a_batch_is_as_large_as_what_came_meanwhile(watched: Server) -> None:
    completions = total(watched, "anel_completions_total")
    assert completions == total(watched, "anel_wait_completions_sum")
    assert total(watched, "anel_waits_total") >= total(watched, "anel_wait_completions_count") > 0
    assert total(watched, "anel_gil_wait_seconds_count") > 0


def test_processes_are_shown_as_the_kernel_sees_them(watched: Server) -> None:
    (pid,) = worker_pids(watched)

    def has_worked() -> bool:
        """The kernel counts in hundredths of a second."""
        watched.ask(get("/"))
        return total(watched, "process_cpu_seconds_total") > 0

    wait_until(has_worked, "a hundredth of a second of work")
    found = samples(watched)

    labels = {"worker": "0", "pid": str(pid)}
    one = {
        name: next(value for labeled, value in values if labeled == labels)
        for name, values in found.items()
        if name.startswith("process_")
    }
    assert one["process_open_fds"] == len(os.listdir(f"/proc/{pid}/fd"))
    assert one["process_max_fds"] > one["process_open_fds"]
    assert 1 << 20 < one["process_resident_memory_bytes"] < one["process_virtual_memory_bytes"]
    assert 0 < one["process_cpu_seconds_total"] < 600
    assert abs(one["process_start_time_seconds"] - time.time()) < 600


def test_a_worker_on_somebody_elses_loop_publishes_too(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE, "--loop", "uvloop")

    with server.client() as client:
        client.send(get("/") * 10 + get("/wait?s=0"))
        for _ in range(11):
            client.answer()

    wait_for_total(server, "anel_requests_total", 11)
    wait_for_total(server, "anel_handler_seconds_count", 1, suspended="yes")
    # Between two turns the loop waits in the worker's place.
    wait_until(lambda: total(server, "anel_worker_awake_seconds") == 0, "a rest")


def test_the_time_to_get_the_gil_back_is_that_which_other_threads_keep_it(serve: Serve) -> None:
    spinning = (
        PROGRAM
        + """
    import threading

    def spin():
        while True:
            pass

    threading.Thread(target=spin, daemon=True).start()
    """
    )
    server = serve(spinning, *BESIDE)

    def slow_waits() -> float:
        """Those in which the other thread used up its switch interval, 5 ms, after a request."""
        server.ask(get("/"))
        within = total(server, "anel_gil_wait_seconds_bucket", le="0.001")
        return total(server, "anel_gil_wait_seconds_count") - within

    wait_until(lambda: slow_waits() >= 5, "waits for the GIL")


def test_heartbeats_are_shown_where_there_are_some(serve: Serve, watched: Server) -> None:
    server = serve(PROGRAM, *BESIDE, "--timeout-heartbeat", "10s")

    wait_until(lambda: "anel_worker_beat_age_seconds" in samples(server), "a beat")
    assert total(server, "anel_worker_beat_age_seconds") < 10
    assert "anel_worker_beat_age_seconds" not in samples(watched)


def test_waits_are_those_that_the_kernel_has_seen(tmp_path: pathlib.Path, reactor: str) -> None:
    calls = {"io_uring": ("io_uring_enter",), "epoll": ("epoll_wait", "epoll_pwait2")}[reactor]
    strace = find_program("strace")
    path, trace = tmp_path / "program.py", tmp_path / "trace"
    path.write_text(textwrap.dedent(PROGRAM))
    command = [strace, "-f", "-qq", "-e", f"trace={','.join(calls)}", "-o", str(trace)]
    command += [sys.executable, "-m", "anel", "run", str(path), "--port", "0", *BESIDE]
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [*command, "--reactor", reactor])
        (pid,) = worker_pids(server)

        def seen() -> tuple[int, float]:
            """How many calls have begun, and how many were counted."""
            lines = trace.read_text().splitlines()
            begun = sum(line.startswith(f"{pid} ") and "resumed>" not in line for line in lines)
            return begun, total(server, "anel_enters_total")

        server.ask(get("/"))
        wait_for_total(server, "anel_connections_closed_total", 1)
        before = seen()
        for _ in range(50):
            server.ask(get("/"))
        wait_for_total(server, "anel_connections_closed_total", 51)
        after = seen()
        # strace is the parent; it passes signals on to nobody.
        os.kill(server_pid(pid), signal.SIGTERM)
        server.wait()

    assert after[0] - before[0] == after[1] - before[1] > 0


def server_pid(worker: int) -> int:
    """The master of a worker."""
    stat = pathlib.Path(f"/proc/{worker}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


# Whatever the workers are about.


def test_the_observer_answers_while_all_workers_are_stuck(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE, "--workers", "2")
    clients: dict[str, Client] = {}
    with contextlib.ExitStack() as stack:
        while len(clients) < 2:
            client = stack.enter_context(server.client())
            clients.setdefault(client.ask(get("/")).text, client)
        wait_until(lambda: total(server, "anel_worker_awake_seconds") == 0, "a rest")
        before = total(server, "anel_requests_total")
        for client in clients.values():
            client.send(get("/stick"))
        wait_until(
            lambda: all(v > 0.1 for _, v in samples(server)["anel_worker_awake_seconds"]),
            "workers that are stuck",
        )

        began = time.monotonic()
        found = samples(server)
        health, ready = ask(server, "/health"), ask(server, "/ready")
        took = time.monotonic() - began

        # What they have received since is on nobody's board yet.
        assert sum(value for _, value in found["anel_requests_total"]) == before
        assert (health.status, ready.status) == (200, 200)
        assert took < 1.0
        for pid in worker_pids(server):
            os.kill(pid, signal.SIGKILL)


def test_totals_do_not_go_back_when_a_worker_is_killed(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE, "--workers", "2")
    counted = Counted(server)
    for _ in range(3):
        for _ in range(10):
            server.ask(get("/"))
        counted.look()
        victim = worker_pids(server)[0]
        os.kill(victim, signal.SIGKILL)
        while victim in worker_pids(server):
            counted.look()
        wait_until(lambda: is_ready(server), "readiness")
        counted.look()

    wait_for_total(server, "anel_worker_starts_total", 5)
    assert total(server, "anel_worker_deaths_total") == 3
    assert total(server, "anel_requests_total") >= 29


def test_totals_do_not_go_back_when_workers_are_replaced(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE, "--workers", "2")
    counted = Counted(server)
    for _ in range(10):
        server.ask(get("/"))
    before = set(worker_pids(server))

    server.process.send_signal(signal.SIGHUP)
    while before & set(worker_pids(server)):
        counted.look()
        server.ask(get("/"))
        counted.asked += 1
    counted.look()

    wait_for_total(server, "anel_requests_total", 10 + counted.asked)
    assert total(server, "anel_worker_deaths_total") == 0
    assert total(server, "anel_worker_starts_total") == 4


def test_totals_do_not_go_back_when_there_are_fewer_workers(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE)
    counted = Counted(server)
    server.process.send_signal(signal.SIGTTIN)
    wait_until(lambda: len(worker_pids(server)) == 2, "another worker")
    assert total(server, "anel_workers_wanted") == 2
    for _ in range(20):
        server.ask(get("/"))
    wait_for_total(server, "anel_requests_total", 20)
    counted.look()

    server.process.send_signal(signal.SIGTTOU)
    while len(worker_pids(server)) == 2:
        counted.look()
    counted.look()

    assert total(server, "anel_workers_wanted") == 1
    assert total(server, "anel_requests_total") == 20
    assert total(server, "anel_worker_deaths_total") == 0


class Counted:
    """Totals as they were seen so far."""

    def __init__(self, server: Server) -> None:
        self.asked = 0
        self._server = server
        self._seen: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def look(self) -> None:
        """Looks again, and fails if one has gone back or is gone."""
        # Those of a process end with it.
        now = {
            (name, tuple(labels.items())): value
            for name, values in samples(self._server).items()
            for labels, value in values
            if name.startswith("anel_") and name.endswith(("_total", "_bucket", "_sum", "_count"))
        }
        for one, value in self._seen.items():
            assert now[one] >= value, one
        self._seen = now


# Health and readiness.


@contextlib.contextmanager
def starting(path: pathlib.Path, source: str, *options: str) -> Iterator[Server]:
    """A server of which only the observer is sure to be there."""
    program = path / "program.py"
    program.write_text(textwrap.dedent(source))
    command = [sys.executable, "-m", "anel", "run", str(program), "--port", "0", *options]
    with contextlib.ExitStack() as stack:
        yield start_service(stack, command, "^Metrics at", (), {})


def waiting_for(door: pathlib.Path) -> str:
    """A program whose workers start once a file is there."""
    lines = f"""
    import pathlib, time
    while not pathlib.Path({str(door)!r}).exists():
        time.sleep(0.01)
    """
    return PROGRAM + lines


def test_a_server_that_starts_is_healthy_and_not_ready(tmp_path: pathlib.Path) -> None:
    door = tmp_path / "door"
    with starting(tmp_path, waiting_for(door), *BESIDE) as server:
        wait_until(lambda: ask(server, "/health").status == 200, "a worker")
        health, ready = ask(server, "/health"), ask(server, "/ready")
        door.touch()
        wait_until(lambda: is_ready(server), "readiness")
        serving = ask(server, "/ready")
        assert server.stop() == 0

    assert health.text == "healthy: the server starts, 1 worker alive\n"
    assert (ready.status, ready.text) == (
        503,
        "not ready: the server starts, 0 of 1 worker ready\n",
    )
    assert serving.text == "ready: the server serves, 1 of 1 worker ready\n"


def test_a_server_that_stops_is_not_ready_and_answers_what_it_has(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE)
    with server.client() as client:
        client.send(get("/") + get("/wait?s=1"))
        client.answer()

        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_ready(server), "the end of readiness")
        health, ready = ask(server, "/health"), ask(server, "/ready")

        assert client.answer().text == "waited"
    assert (health.status, ready.status) == (200, 503)
    assert ready.text == "not ready: the server stops, 0 of 1 worker ready\n"
    assert server.wait() == 0


def test_a_server_that_is_about_to_stop_is_not_ready_and_serves_on(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE, "--shutdown-delay", "1s")

    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not is_ready(server), "the end of readiness")
    ready = ask(server, "/ready")
    answer = server.ask(get("/"))

    assert ready.text == "not ready: the server drains, 1 of 1 worker ready\n"
    assert answer.status == 200
    assert answer.field("Connection") is None
    assert server.wait() == 0


def test_a_server_whose_worker_is_gone_is_not_ready_until_the_next_one_serves(
    tmp_path: pathlib.Path,
) -> None:
    door = tmp_path / "door"
    door.touch()
    with starting(tmp_path, waiting_for(door), *BESIDE) as server:
        wait_until(lambda: is_ready(server), "readiness")
        (pid,) = worker_pids(server)
        door.unlink()

        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_ready(server), "the end of readiness")
        door.touch()
        wait_until(lambda: is_ready(server), "readiness")

        assert worker_pids(server) != [pid]
        assert server.stop() == 0


def test_a_master_that_was_stopped_midway_is_neither_ready_nor_healthy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = Board()
    # As if it were stopped within a change of the board.
    board._cells[0] += 1
    monkeypatch.setattr("anel.board._READ_S_MAX", 0.01)
    request = cast(_core.Request, SimpleNamespace(headers={"Accept": "application/json"}))
    with contextlib.closing(Listeners([Place("127.0.0.1", 0)])) as listeners:
        handlers = Observer(listeners, board, lambda _post, _handlers: None).handlers()

        answers = {path: handler(request).code for path, handler in handlers.items()}

    assert answers == {"/metrics": 503, "/health": 503, "/ready": 503}


def test_health_is_json_for_who_accepts_it(watched: Server) -> None:
    health = ask(watched, "/health", "Accept: text/plain, application/json;q=0.5")
    ready = ask(watched, "/ready", "Accept: application/json")

    workers = {"wanted": 1, "starting": 0, "serving": 1, "draining": 0, "stopping": 0}
    assert health.value == {
        "healthy": True,
        "why": "the server serves, 1 worker alive",
        "state": "serving",
        "workers": workers,
    }
    assert (ready.value["ready"], ready.value["workers"]) == (True, workers)


def test_a_probe_may_ask_with_head(watched: Server) -> None:
    port = int(watched.wait_for_line(r"^Metrics at http://127.0.0.1:(\d+)/metrics$")[1])
    with Client(port) as client:
        answer = client.ask(get("/ready", method="HEAD"), "HEAD")

    assert (answer.status, answer.body) == (200, b"")


def test_the_observer_serves_nothing_else(watched: Server) -> None:
    assert ask(watched, "/").status == 404


# The observer's own life.


def test_a_slow_scraper_hurts_nobody(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE)
    port = int(server.wait_for_line(r"^Metrics at http://127.0.0.1:(\d+)/metrics$")[1])
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            slow = stack.enter_context(Client(port, receive_buffer=1024))
            slow.send(get("/metrics") * 20 + b"GET /metr")

        assert ask(server, "/metrics").status == 200
        assert server.ask(get("/")).status == 200
        assert server.stop() == 0
    assert server.lines[2:] == ["Termination request received"]


def test_an_observer_that_dies_is_replaced_and_knows_what_was(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE)
    for _ in range(5):
        server.ask(get("/"))
    wait_for_total(server, "anel_requests_total", 5)
    (worker,) = worker_pids(server)
    children = pathlib.Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    (observer,) = {int(pid) for pid in children.read_text().split()} - {worker}

    os.kill(observer, signal.SIGKILL)
    server.wait_for_line("the observer crashed on signal SIGKILL!; starting another")

    assert total(server, "anel_requests_total") == 5
    assert server.stop() == 0


def test_the_observer_leaves_signals_to_the_master(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE)
    (worker,) = worker_pids(server)
    children = pathlib.Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    (observer,) = {int(pid) for pid in children.read_text().split()} - {worker}

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(observer, number)

    assert ask(server, "/ready").status == 200
    assert server.stop() == 0
    assert not [line for line in server.lines if "observer" in line]


def test_metrics_may_be_on_a_unix_socket_which_is_removed_at_the_end(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "metrics.sock"
    server = serve(PROGRAM, "--metrics-bind", f"unix:{path}")
    assert server.lines[0] == f"Metrics at unix:{path}"

    with Client.to(socket.AF_UNIX, str(path)) as client:
        assert client.ask(get("/ready")).status == 200

    assert server.stop() == 0
    assert not path.exists()


def test_a_program_may_ask_for_metrics_itself(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    source = textwrap.dedent(PROGRAM) + "app.run('127.0.0.1', 0, metrics_bind='127.0.0.1:0')\n"
    program.write_text(source)
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [sys.executable, str(program)])
        server.ask(get("/"))

        wait_for_total(server, "anel_requests_total", 1)
        assert server.stop() == 0


def test_a_program_that_is_executed_again_by_a_reload_publishes_too(
    tmp_path: pathlib.Path,
) -> None:
    program = tmp_path / "program.py"
    run = "app.run('127.0.0.1', 0, reload=True, metrics_bind='127.0.0.1:0')\n"
    program.write_text(textwrap.dedent(PROGRAM) + run)
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [sys.executable, str(program)])
        server.ask(get("/"))

        wait_for_total(server, "anel_requests_total", 1)
        assert server.stop() == 0


def test_the_options_of_the_server_are_not_the_observers(serve: Serve) -> None:
    server = serve(PROGRAM, *BESIDE, ANEL_PROXY_PROTOCOL="1", ANEL_TRUSTED_PROXIES="127.0.0.1")

    assert ask(server, "/ready").status == 200


def run(*arguments: str) -> tuple[int, str]:
    """A server that cannot start: its exit code and all it prints."""
    command = [sys.executable, "-m", "anel", "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    return done.returncode, done.stdout + done.stderr


def test_a_port_that_is_taken_ends_the_server_before_its_workers_start(
    tmp_path: pathlib.Path, watched: Server
) -> None:
    program = tmp_path / "program.py"
    program.write_text("print('loaded', flush=True)\n" + textwrap.dedent(PROGRAM))
    taken = f"127.0.0.1:{watched.port}"

    code, printed = run(str(program), "--port", "0", "--metrics-bind", taken)

    assert (code, printed) == (4, f"anel: cannot listen on {taken}: Address already in use\n")


@pytest.mark.parametrize("where", ["9100", "localhost", ":x", "::1:9100", "unix:", "a:70000", ""])
def test_what_is_no_address_is_refused(where: str, tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))

    code, printed = run(str(program), "--metrics-bind", where)

    assert code == 2
    assert "--metrics-bind" in printed
    assert "must be HOST:PORT" in printed


def test_without_the_option_nothing_is_measured(
    idle_worker: type[IdleWorker],
) -> None:
    worker = run_until(Application(), signal.SIGTERM)

    assert worker.row is None
