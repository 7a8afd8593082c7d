"""Processes of a server beside its workers: their life, and what they may ask of the master.

Owns the seam that the file watcher and the observer stand on, with a companion made for the tests:
it prints its process number, says a word when told by a signal, and notes its end.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator

import pytest
from conftest import Server, get, start_server, wait_until
from test_workers import is_gone, pid, pids

PROGRAM = """
    import os, select, signal, sys
    import anel
    from anel.companions import Companion
    from anel.launch import Launch
    from anel.telling import say

    class Echo(Companion):
        name = "echo"

        def run(self, channel):
            say(f"echo {os.getpid()} under {os.getppid()}")
            signal.signal(signal.SIGUSR1, lambda *_: channel.send(b"reload"))
            signal.signal(signal.SIGUSR2, lambda *_: channel.send(b"nonsense"))
            signal.signal(signal.SIGALRM, lambda *_: sys.exit(7))
            poll = select.poll()
            poll.register(channel, select.POLLIN)
            poll.poll()
            assert channel.recv(1) == b""
            say(f"echo ends {' '.join(os.listdir('/proc/self/fd'))}")
            %s

        def on_message(self, message, orders):
            say(f"heard {message.decode()}")
            if message == b"reload":
                orders.reload()

        def shed(self):
            pass

    Launch.companions = lambda self, *_: [Echo()]
    app = anel.Application()
    app.on_shutdown(lambda: say(f"worker {os.getpid()} ends"))
    app.router.add_route("/", lambda request: request.Response(text=str(os.getpid())))
    app.run("127.0.0.1", 0, worker_num=2)
"""

Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Start]:
    """`start(last_words)` runs the program with these at the end of its companion."""
    with contextlib.ExitStack() as stack:

        def started(last_words: str = "pass") -> Server:
            program = tmp_path / "program.py"
            program.write_text(textwrap.dedent(PROGRAM % last_words))
            return start_server(stack, [sys.executable, str(program)])

        yield started


def companion(server: Server) -> int:
    """The process number of the companion that was announced last."""
    server.wait_for_line(r"^echo \d+ under")
    last = [line for line in server.lines if line.startswith("echo ") and "under" in line][-1]
    return int(last.split()[1])


def next_companion(server: Server) -> int:
    """The process number of the companion that is announced next."""
    server.lines.clear()
    return companion(server)


def test_a_companion_is_started_by_the_master_beside_the_workers(start: Start) -> None:
    server = start()

    number = companion(server)

    assert f"echo {number} under {server.process.pid}" in server.lines
    assert number not in pids(server, 2)


def test_a_companion_that_dies_is_replaced_and_told_of_once(start: Start) -> None:
    server = start()
    workers = pids(server, 2)
    first = companion(server)
    server.lines.clear()

    os.kill(first, signal.SIGKILL)
    second = companion(server)

    assert second != first
    assert pids(server, 2) == workers
    assert server.stop() == 0
    told = [line for line in server.lines if line.startswith("anel:")]
    assert told == ["anel: the echo crashed on signal SIGKILL!; starting another"]


def test_a_companion_that_ends_by_itself_is_told_of_with_its_exit_code(start: Start) -> None:
    server = start()

    os.kill(companion(server), signal.SIGALRM)

    server.wait_for_line(r"^anel: the echo exited with code 7; starting another$")


def test_companions_that_die_again_and_again_are_replaced_later_and_later(start: Start) -> None:
    server = start()
    times = []
    number = companion(server)

    for _ in range(4):
        begun = time.monotonic()
        os.kill(number, signal.SIGKILL)
        number = next_companion(server)
        times.append(time.monotonic() - begun)

    # The first one started at once; the fourth after 0.4 s.
    assert times[3] >= 0.4
    assert server.ask(get("/")).status == 200


def test_what_a_companion_says_is_heard_message_by_message(start: Start) -> None:
    server = start()
    number = companion(server)

    for _ in range(2):
        os.kill(number, signal.SIGUSR2)
        server.lines.clear()
        server.wait_for_line(r"^heard nonsense$")


def test_a_companion_may_have_the_workers_replaced(start: Start) -> None:
    server = start()
    before = pids(server, 2)

    os.kill(companion(server), signal.SIGUSR1)

    wait_until(lambda: all(map(is_gone, before)), "the end of the old workers")
    assert not before & pids(server, 2)


def test_companions_end_after_the_last_worker_and_hold_nothing_of_the_masters(start: Start) -> None:
    server = start()
    number = companion(server)

    assert server.stop() == 0

    ends = [line.rpartition(" ends")[0] for line in server.lines if " ends" in line]
    assert [end.split()[0] for end in ends] == ["worker", "worker", "echo"]
    # Standard streams, the channel, and the folder that it lists.
    assert len(server.lines[-1].split()) - len(["echo", "ends"]) == 5
    assert is_gone(number)


def test_a_companion_that_does_not_end_is_killed_and_the_exit_code_stays(start: Start) -> None:
    server = start("while True: signal.pause()")
    number = companion(server)

    assert server.stop() == 0

    assert server.lines[-1] == "anel: the echo did not end in time"
    assert is_gone(number)


def test_companions_end_when_their_master_is_killed(start: Start) -> None:
    server = start()
    companion(server)
    pid(server)

    server.process.kill()

    # The channel's end is what tells it.
    server.wait_for_line(r"^echo ends")
