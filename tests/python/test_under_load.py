"""What clients notice of signals and deaths while they ask one request after the other.

Owns the promises of the process model: who is answered, who is refused, and for how long. The load
is a few clients that never pause, so whatever is lost is lost within milliseconds of its cause.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import DEADLINE_S, Serve, get, wait_until
from test_workers import PROGRAM, Load, is_gone, pids, wait_until_gone


@pytest.mark.parametrize("workers", [1, 2])
def test_twenty_reloads_in_a_row_refuse_and_lose_nobody(serve: Serve, workers: int) -> None:
    server = serve(PROGRAM, "--workers", str(workers))
    before = pids(server, workers)

    with Load(server, 2) as load, Load(server, 1, keep_alive=False) as strangers:
        for _ in range(20):
            server.process.send_signal(signal.SIGHUP)
            wait_until_gone(before)
            before = pids(server, workers)

    assert load.failures == strangers.failures == []
    assert load.refusals == strangers.refusals == 0
    assert server.stop() == 0
    # Nobody served twice.
    assert len(load.answers + strangers.answers) >= 20


def test_a_kill_loses_that_workers_open_requests_alone_and_is_made_good_within_a_second(
    serve: Serve,
) -> None:
    server = serve(PROGRAM, "--workers", "2")
    both = pids(server, 2)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(16)]
        for client in clients:
            client.send(get("/") + get("/wait?s=1"))
        owners = [int(client.answer().text) for client in clients]
        victim = owners[0]
        assert set(owners) == both

        os.kill(victim, signal.SIGKILL)
        killed_at = time.monotonic()
        wait_until(lambda: is_gone(victim), "the end of the worker")
        restored = pids(server, 2)
        restored_at = time.monotonic()
        answered = []
        for client in clients:
            with contextlib.suppress(EOFError, ConnectionResetError):
                answered.append((client, client.answer().text))

    assert victim not in restored
    # A new interpreter and an import; a machine under load may take longer than that.
    assert restored_at - killed_at < max(1.0, 3 * start_s())
    survivors = [client for client, owner in zip(clients, owners, strict=True) if owner != victim]
    assert answered == [(client, "waited") for client in survivors]
    assert server.stop() == 0


def start_s() -> float:
    """How long this machine takes, just now, to load the library."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "import anel"], check=True, timeout=DEADLINE_S)
    return time.monotonic() - begun


def test_clients_of_other_workers_notice_nothing_of_a_kill(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "2")
    both = pids(server, 2)

    with Load(server, 6) as load:
        wait_until(lambda: len(load.answers) == 2, "answers of both workers")
        victim = both.pop()
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: is_gone(victim), "the end of the worker")
        wait_until(lambda: len(pids(server, 2) - {victim}) == 2, "two workers")

    assert load.refusals == 0
    # Each client had one request open at most, and some of them were another worker's.
    assert len(load.failures) < 6
    assert server.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stop_under_load_answers_whoever_was_accepted_and_exits_with_0(
    serve: Serve, workers: str
) -> None:
    server = serve(PROGRAM, "--workers", workers)

    with Load(server, 4) as load, Load(server, 2, keep_alive=False) as strangers:
        status = server.stop()
        wait_until(lambda: load.refusals + strangers.refusals == 6, "refusals")

    assert status == 0
    assert load.failures == strangers.failures == []


def test_deaths_and_reloads_together_leave_as_many_workers_as_are_wanted(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "2")

    with Load(server, 2) as load:
        for _ in range(3):
            before = pids(server, 2)
            server.process.send_signal(signal.SIGHUP)
            with contextlib.suppress(ProcessLookupError):
                os.kill(min(before), signal.SIGKILL)
            wait_until_gone(before)
        after = pids(server, 2)

    assert load.refusals == 0
    assert len(after) == 2
    assert server.stop() == 0
