"""More and fewer workers at run time, on a live server under load.

Owns TTIN and TTOU and what they must not cost: no client is refused or lost, whether slots have
sockets of their own or share one. (`anel ctl scale` does the same: `test_control`.)
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import sys
import textwrap
from collections.abc import Iterator

import pytest
from anel.listener import Listeners, Place
from conftest import Client, Serve, Server, get, start_service, wait_until
from test_workers import PROGRAM, Load, is_gone, pid, pids, wait_until_gone


def workers_of(server: Server) -> set[int]:
    """The processes that the master has at the moment."""
    children = pathlib.Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return set(map(int, children.read_text().split()))


def wait_for_workers(server: Server, count: int) -> set[int]:
    """Waits until there are exactly so many worker processes."""
    wait_until(lambda: len(workers_of(server)) == count, f"{count} workers")
    return workers_of(server)


def test_ttin_adds_a_worker_that_serves(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "1")
    first = pid(server)

    server.process.send_signal(signal.SIGTTIN)

    assert first in pids(server, 2)
    server.wait_for_line("^Scaling from 1 to 2 workers$")
    assert server.stop() == 0


def test_ttou_ends_a_worker_and_the_others_serve_on(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "2")
    before = pids(server, 2)

    server.process.send_signal(signal.SIGTTOU)
    left = wait_for_workers(server, 1)

    assert left < before
    assert {pid(server) for _ in range(20)} == left
    assert server.stop() == 0


def test_the_last_worker_stays(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "1")
    only = pid(server)

    server.process.send_signal(signal.SIGTTOU)
    server.wait_for_line("^anel: there can be from 1 to 1024 workers, not 0$")

    assert pid(server) == only


@contextlib.contextmanager
def on_a_path(tmp_path: pathlib.Path) -> Iterator[tuple[Server, pathlib.Path]]:
    """A server with a worker on a Unix socket."""
    program, path = tmp_path / "program.py", tmp_path / "socket"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-m", "anel", str(program), "--uds", str(path), "--workers", "1"]
    with contextlib.ExitStack() as stack:
        yield start_service(stack, command, "^Accepting", [], {}), path


def test_scaling_down_and_up_again_and_again_loses_nobody(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM, "--workers", "3", "--reactor", reactor)

    with Load(server, 6) as load, Load(server, 2, keep_alive=False) as strangers:
        for _ in range(2):
            for number, wanted in ((signal.SIGTTOU, 1), (signal.SIGTTIN, 3)):
                for _ in range(2):
                    server.process.send_signal(number)
                    server.wait_for_line("^Scaling from")
                    server.lines.clear()
                assert len(pids(server, wanted)) == len(wait_for_workers(server, wanted)) == wanted

    assert load.failures == strangers.failures == []
    assert load.refusals == strangers.refusals == 0
    # Both of those that were given up came back as somebody else, twice.
    assert len(load.answers + strangers.answers) >= 5
    assert server.stop() == 0


def test_a_unix_socket_is_shared_by_more_and_fewer_workers(tmp_path: pathlib.Path) -> None:
    with on_a_path(tmp_path) as (server, path):

        def answered() -> int:
            with Client.to(socket.AF_UNIX, str(path)) as client:
                return int(client.ask(get("/")).text)

        first = answered()
        server.process.send_signal(signal.SIGTTIN)
        assert first in wait_for_workers(server, 2)
        server.process.send_signal(signal.SIGTTOU)

        assert wait_for_workers(server, 1) == {answered()} == {first}
        assert path.is_socket()
        assert server.stop() == 0


def test_a_worker_that_was_about_to_go_stays_when_it_is_wanted_again(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "2")
    before = pids(server, 2)

    server.process.send_signal(signal.SIGTTOU)
    server.wait_for_line("^Scaling from 2 to 1 workers$")
    server.process.send_signal(signal.SIGTTIN)
    server.wait_for_line("^Scaling from 1 to 2 workers$")

    assert pids(server, 2) == before


def test_reloads_amid_scaling_replace_everybody(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "2")
    before = pids(server, 2)

    with Load(server) as load:
        server.process.send_signal(signal.SIGTTIN)
        server.process.send_signal(signal.SIGHUP)
        server.process.send_signal(signal.SIGTTOU)
        wait_until_gone(before)
        wait_for_workers(server, 2)

    assert load.failures == []
    assert load.refusals == 0
    assert server.stop() == 0


def test_a_slot_is_not_given_up_while_its_next_worker_starts(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    slow = tmp_path / "slow"
    waits = f"import os, time\ntime.sleep(3 if os.path.exists({str(slow)!r}) else 0)\n"
    server = serve(waits + textwrap.dedent(PROGRAM), "--workers", "2")
    before = pids(server, 2)
    slow.touch()

    server.process.send_signal(signal.SIGHUP)
    # The turn of the second one has come.
    wait_until(lambda: sum(map(is_gone, before)) == 1, "the end of the first one")
    wait_until(lambda: len(workers_of(server)) == 3, "the start of the next one")
    server.process.send_signal(signal.SIGTTOU)
    wait_until_gone(before)

    assert wait_for_workers(server, 1) == {pid(server)}
    assert server.stop() == 0


def test_a_worker_that_is_given_up_answers_what_it_has(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "2")
    both = pids(server, 2)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(8)]
        for client in clients:
            client.send(get("/") + get("/wait?s=2"))
        busy = {int(client.answer().text) for client in clients}

        server.process.send_signal(signal.SIGTTOU)

        assert [client.answer().text for client in clients] == ["waited"] * 8
    assert busy == both
    wait_until(lambda: sum(map(is_gone, both)) == 1, "the end of a worker")


def test_new_connections_go_to_the_sockets_that_they_are_steered_to() -> None:
    with contextlib.closing(Listeners([Place("127.0.0.1", 0)], 3)) as listeners:
        sockets = [listeners.of(slot)[0] for slot in range(3)]

        assert listeners.steer(2)
        clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(64)]
        accepted = [queued(listener) for listener in sockets]

        assert accepted[2] == 0
        assert min(accepted[:2]) > 0
        assert sum(accepted) == len(clients)
        for client in clients:
            client.close()


def test_nobody_begins_to_connect_to_sockets_that_are_about_to_be_closed() -> None:
    with contextlib.closing(Listeners([Place("127.0.0.1", 0)], 2)) as listeners:
        address = listeners.of(0)[0].getsockname()
        early = [socket.create_connection(address) for _ in range(8)]

        listeners.refuse_more()

        with socket.socket() as late:
            late.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.connect(address)
        assert sum(queued(listeners.of(slot)[0]) for slot in range(2)) == len(early)
        for client in early:
            client.close()


def queued(listener: socket.socket) -> int:
    """How many are in a queue; they are accepted and closed."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


def test_a_port_of_one_worker_is_not_taken_by_a_second_server() -> None:
    with contextlib.closing(Listeners([Place("127.0.0.1", 0)], 1)) as listeners:
        port = listeners.of(0)[0].getsockname()[1]

        with pytest.raises(OSError, match="in use"):
            Listeners([Place("127.0.0.1", port)], 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_server_that_has_given_up_root_says_why_it_stays_as_it_is(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    # Its parents belong to root alone.
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    server = serve(PROGRAM, "--workers", "1", "--user", "12345", "--group", "12345")
    only = pid(server)

    server.process.send_signal(signal.SIGTTIN)

    said = server.wait_for_line("^anel: there cannot be more workers than 1").string
    assert f"http://127.0.0.1:{server.port}" in said
    assert "a server that has given up its privileges opens none" in said
    assert pid(server) == only
    assert server.stop() == 0
