"""What a worker may not do for long, and what is done about it; and where workers run.

Owns the options about single workers: the heartbeat, processors, and the deadline of a drain with
the delay before it.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from conftest import DEADLINE_S, Serve, Server, get, wait_until
from test_workers import PROGRAM, Load, is_gone, pid, pids, wait_until_gone

STUCK = """
    import asyncio, ctypes, os, time
    from anel import Application

    app = Application()
    here = ctypes.PyDLL(None)

    def sleeps_with_the_gil(request):
        here.sleep(60)

    def sleeps_without_the_gil(request):
        time.sleep(60)

    def computes_in_c(request):
        return 3 ** 100_000_000 % 7

    def loops(request):
        while True:
            pass

    def short(request):
        time.sleep(0.3)
        return request.Response(text="short")

    async def waits(request):
        await asyncio.sleep(float(request.query["s"]))
        return request.Response(text="waited")

    stuck = (sleeps_with_the_gil, sleeps_without_the_gil, computes_in_c, loops)
    for handler in (*stuck, short, waits):
        app.router.add_route("/" + handler.__name__, handler)
    app.router.add_route("/", lambda request: request.Response(text=str(os.getpid())))
"""


def told(server: Server, number: int) -> str:
    """What the master says of a worker that is stuck."""
    server.wait_for_line(f"^anel: worker {number} has not come round for")
    server.wait_for_line("^(Current thread|Thread 0x)")
    return "\n".join(server.lines)


@pytest.mark.parametrize(
    "handler", ["sleeps_with_the_gil", "sleeps_without_the_gil", "computes_in_c", "loops"]
)
def test_a_worker_that_is_stuck_is_shown_and_replaced_while_the_other_serves(
    serve: Serve, handler: str
) -> None:
    server = serve(STUCK, "--workers", "2", "--timeout-heartbeat", "1s")
    both = pids(server, 2)
    with server.client() as client:
        # The worker of this connection.
        stuck = int(client.ask(get("/")).text)
        other = (both - {stuck}).pop()
        client.send(get(f"/{handler}"))

        told(server, stuck)
        server.wait_for_line(f'program.py", line .* in {handler}$')
        wait_until(lambda: is_gone(stuck), "the end of the worker")
        after = pids(server, 2)

    assert other in after
    assert stuck not in after
    assert server.stop() == 0
    # Once is enough.
    assert not any(line.startswith("Worker crashed") for line in server.lines)


@pytest.mark.parametrize("loop", ["auto", "asyncio", "uvloop"])
def test_a_worker_that_is_busy_or_idle_is_not_missed(serve: Serve, loop: str) -> None:
    server = serve(STUCK, "--timeout-heartbeat", "2s", "--loop", loop)
    only = pid(server)

    # Longer than the heartbeat: handlers that wait, then short ones in a row, then nothing.
    assert server.ask(get("/waits?s=2.3")).text == "waited"
    for _ in range(8):
        assert server.ask(get("/short")).text == "short"
    assert server.ask(get("/waits?s=2.3")).text == "waited"

    assert pid(server) == only
    assert server.stop() == 0
    assert not any("come round" in line for line in server.lines)


def test_a_worker_may_take_longer_to_start_than_it_may_be_stuck(serve: Serve) -> None:
    slow = "import time\ntime.sleep(3)\n" + textwrap.dedent(STUCK)
    server = serve(slow, "--timeout-heartbeat", "2s")

    assert server.ask(get("/")).status == 200
    assert server.stop() == 0


def test_a_worker_that_is_stopped_is_killed(serve: Serve) -> None:
    server = serve(STUCK, "--timeout-heartbeat", "500ms")
    stopped = pid(server)

    os.kill(stopped, signal.SIGSTOP)

    server.wait_for_line(f"^anel: worker {stopped} has not come round")
    wait_until(lambda: is_gone(stopped), "the end of the worker")
    assert pid(server) != stopped


def test_a_handler_that_blocks_in_a_drain_is_not_missed(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "1", "--timeout-heartbeat", "3s")
    with server.client() as client:
        client.send(get("/block?s=4"))
        server.wait_for_line("^blocking$")

        server.process.send_signal(signal.SIGTERM)

        assert client.answer().text == "blocked"
    assert server.wait() == 0
    assert not any("come round" in line for line in server.lines)


def processors(number: int) -> set[int]:
    """Where a process may run."""
    return os.sched_getaffinity(number)


def test_workers_run_on_the_processors_of_the_list_in_turn(serve: Serve) -> None:
    usable = sorted(os.sched_getaffinity(0))
    first, last = usable[0], usable[-1]
    server = serve(PROGRAM, "--workers", "3", "--affinity", f"{last},{first}")

    found = sorted(next(iter(processors(number))) for number in pids(server, 3))

    assert found == sorted([last, first, last])
    assert processors(server.process.pid) == set(usable)


def test_auto_keeps_every_worker_on_a_processor_of_its_own(serve: Serve) -> None:
    usable = os.sched_getaffinity(0)
    server = serve(PROGRAM, "--workers", str(len(usable)), "--affinity", "auto")

    found = [processors(number) for number in pids(server, len(usable))]

    assert all(len(one) == 1 for one in found)
    assert set.union(*found) == usable


def test_a_server_without_workers_is_pinned_itself(serve: Serve) -> None:
    first = min(os.sched_getaffinity(0))
    server = serve(PROGRAM, "--affinity", str(first))

    assert processors(server.process.pid) == {first}


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("8000", 3, "anel: affinity names processor 8000, but this process may only use"),
        ("3-1", 2, "names no processors with '3-1'"),
        ("9000", 2, "names no processors with '9000'"),
        ("0,", 2, "must be off, auto or a list of processors such as 0-3,6, not '0,'"),
        ("all", 2, "must be off, auto or a list of processors such as 0-3,6, not 'all'"),
    ],
)
def test_processors_that_are_not_there_are_refused(
    tmp_path: pathlib.Path, text: str, code: int, reason: str
) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-m", "anel", "program.py", "--port", "0", "--affinity", text]

    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S
    )

    assert ended.returncode == code
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("options", [(), ("--workers", "1")], ids=["alone", "with_workers"])
def test_open_requests_have_as_long_as_the_operator_says(
    serve: Serve, options: tuple[str, ...]
) -> None:
    server = serve(PROGRAM, "--timeout-graceful", "500ms", *options)
    with server.client() as client:
        client.send(get("/") + get("/wait?s=60"))
        client.answer()
        begun = time.monotonic()

        server.process.send_signal(signal.SIGTERM)

        assert client.answer().status == 503
    assert server.wait() == 0
    assert 0.5 <= time.monotonic() - begun < 4


def test_a_longer_deadline_lets_requests_finish(serve: Serve) -> None:
    server = serve(PROGRAM, "--timeout-graceful", "30s", "--workers", "1")
    with server.client() as client:
        client.send(get("/") + get("/wait?s=6"))
        client.answer()

        server.process.send_signal(signal.SIGTERM)

        assert client.answer().text == "waited"
    assert server.wait() == 0


def test_without_a_deadline_to_wait_for_a_server_ends_at_once(serve: Serve) -> None:
    server = serve(PROGRAM, "--timeout-graceful", "0")
    with server.client() as client:
        client.send(get("/") + get("/wait?s=60"))
        client.answer()
        begun = time.monotonic()

        assert server.stop() == 0

    assert time.monotonic() - begun < 3


def test_a_server_goes_on_serving_for_the_delay(serve: Serve) -> None:
    server = serve(PROGRAM, "--shutdown-delay", "1500ms")
    worker = pid(server)
    begun = time.monotonic()

    server.process.send_signal(signal.SIGTERM)
    server.wait_for_line("^Serving for 1.5 more seconds$")

    assert worker != server.process.pid
    assert {pid(server) for _ in range(20)} == {worker}
    assert server.wait() == 0
    assert 1.5 <= time.monotonic() - begun < 6


def test_a_worker_that_dies_in_the_delay_is_replaced(serve: Serve) -> None:
    server = serve(PROGRAM, "--shutdown-delay", "60s")
    worker = pid(server)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_line("^Serving for 60 more seconds$")

    os.kill(worker, signal.SIGKILL)
    wait_until_gone({worker})

    assert pid(server) != worker


def test_a_second_signal_cuts_the_delay_short(serve: Serve) -> None:
    server = serve(PROGRAM, "--shutdown-delay", "60s")
    with Load(server) as load:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_line("^Serving for 60 more seconds$")

        assert server.stop() == 0
        wait_until(lambda: load.refusals > 0, "refusals")

    # It is a drain all the same.
    assert load.failures == []
