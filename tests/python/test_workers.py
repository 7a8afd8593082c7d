"""A master and its workers on a live server: start, death, replacement, signals and exit codes.

Owns what the operator of a server with workers may rely on. The application counts nothing across
workers: who answered is told by its process number.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter

import pytest
from anel.listener import Listeners, Place
from conftest import DEADLINE_S, Client, Serve, Server, get, start_server, wait_until

PROGRAM = """
    import asyncio, os, signal, time
    from anel import Application

    app = Application()

    async def wait(request):
        await asyncio.sleep(float(request.query["s"]))
        return request.Response(text="waited")

    def block(request):
        print("blocking", flush=True)
        time.sleep(float(request.query["s"]))
        return request.Response(text="blocked")

    app.router.add_route("/", lambda request: request.Response(text=str(os.getpid())))
    app.router.add_route("/wait", wait)
    app.router.add_route("/block", block)
    app.router.add_route("/parent", lambda request: request.Response(text=str(os.getppid())))
"""


def pid(server: Server) -> int:
    """The worker that answers a connection of its own."""
    return int(server.ask(get("/")).text)


def pids(server: Server, count: int) -> set[int]:
    """All workers, once so many have answered."""
    seen: set[int] = set()

    def all_seen() -> bool:
        with contextlib.suppress(OSError):
            seen.add(pid(server))
        return len(seen) >= count

    wait_until(all_seen, f"{count} workers")
    return seen


def is_gone(number: int) -> bool:
    """Whether a process has ended, and was reaped."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return False


def wait_until_gone(numbers: set[int]) -> None:
    """Waits for the end of some processes."""
    wait_until(lambda: all(map(is_gone, numbers)), "the end of the old workers")


class Load:
    """Clients that ask one request after the other, and note everything that goes wrong."""

    def __init__(self, server: Server, clients: int = 4, *, keep_alive: bool = True) -> None:
        self.failures: list[str] = []
        self.refusals = 0
        self.answers: Counter[str] = Counter()
        self._server = server
        self._keep_alive = keep_alive
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.answers.total() > 0, "an answer")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()

    def _ask_on(self) -> None:
        while not self._is_over.is_set():
            try:
                client = self._server.client()
            except ConnectionRefusedError:
                self.refusals += 1
                return
            try:
                with client:
                    self._ask_while_open(client)
            except Exception as error:
                self.failures.append(repr(error))

    def _ask_while_open(self, client: Client) -> None:
        while not self._is_over.is_set():
            answer = client.ask(get("/"))
            self.answers[answer.text] += 1
            if answer.field("Connection") == "close" or not self._keep_alive:
                return


def test_workers_share_the_port_and_a_master_that_serves_nobody(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "2")

    workers = pids(server, 2)

    assert server.process.pid not in workers
    assert server.ask(get("/parent")).text == str(server.process.pid)


def test_a_server_without_workers_has_no_master(serve: Serve) -> None:
    server = serve(PROGRAM)

    assert pid(server) == server.process.pid


@pytest.mark.parametrize("variable", ["WEB_CONCURRENCY", "ANEL_WORKERS"])
def test_the_environment_may_say_how_many_workers(serve: Serve, variable: str) -> None:
    server = serve(PROGRAM, **{variable: "2"})

    assert len(pids(server, 2)) == 2


def test_a_program_that_runs_itself_has_workers(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    source = textwrap.dedent(PROGRAM) + "app.run('127.0.0.1', 0, worker_num=2)\nprint('over')\n"
    program.write_text(source)
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [sys.executable, str(program)])

        assert len(pids(server, 2)) == 2
        assert server.stop() == 0

    # Workers do not return into the program.
    assert server.lines.count("over") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_master_and_workers_give_up_root(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import os, pathlib
            from anel import Application

            def who(request):
                master = pathlib.Path(f"/proc/{os.getppid()}/status").read_text()
                return [*os.getresuid(), *map(int, master.split("Uid:")[1].split()[:3])]

            app = Application()
            app.router.add_route("/", who)
            app.run("127.0.0.1", 0, worker_num=2, user="nobody")
            """
        )
    )
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [sys.executable, str(program)])

        assert server.ask(get("/")).value == [pwd.getpwnam("nobody").pw_uid] * 6
        assert server.stop() == 0


def test_a_loop_that_was_used_before_run_is_refused(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import anel\napp = anel.Application()\napp.loop\napp.run(worker_num=2)\n")

    ended = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=DEADLINE_S
    )

    assert ended.returncode == 1
    assert "app.loop was used before run()" in ended.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_that_is_killed_is_replaced(serve: Serve, workers: str) -> None:
    server = serve(PROGRAM, "--workers", workers)
    before = pids(server, int(workers))
    victim = before.pop()

    os.kill(victim, signal.SIGKILL)

    assert victim not in pids(server, int(workers))
    server.wait_for_line(r"^Worker crashed on signal SIGKILL!$")
    assert server.stop() == 0


def test_what_waits_in_the_queue_of_a_dead_worker_is_served_by_the_next(serve: Serve) -> None:
    # An accept that a ring has armed may still take somebody while its process dies; that one is
    # among those whom the worker loses.
    server = serve(PROGRAM, "--workers", "1", "--reactor", "epoll")
    victim = pid(server)
    os.kill(victim, signal.SIGSTOP)
    with server.client() as client:
        client.send(get("/"))

        os.kill(victim, signal.SIGKILL)

        assert client.answer().text != str(victim)


def test_workers_that_die_again_and_again_are_replaced_later_and_later(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "1")
    times = []

    for _ in range(4):
        os.kill(pid(server), signal.SIGKILL)
        server.wait_for_line(r"^Worker crashed on signal SIGKILL!$")
        server.lines.clear()
        begun = time.monotonic()
        pid(server)
        times.append(time.monotonic() - begun)

    # The first one started at once; the fourth after 0.4 s.
    assert times[3] >= 0.4


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("app = 5\n", "anel: 'program.py' is a int, not an anel.Application"),
        (
            "import anel\napp = anel.Application()\n"
            "@app.on_startup\ndef fail():\n    raise OSError('no store')\n",
            "OSError: no store",
        ),
        ("import os\nos._exit(9)\n", "anel: a worker exited with code 9 before it served"),
        (
            "import os\nos.kill(os.getpid(), 9)\n",
            "anel: a worker crashed on signal SIGKILL! before it served",
        ),
    ],
    ids=["import", "no_application", "start_up", "exit", "crash"],
)
def test_an_application_that_cannot_start_ends_the_server_with_3_and_is_told_of_once(
    tmp_path: pathlib.Path, source: str, line: str
) -> None:
    (tmp_path / "program.py").write_text(source)
    command = [sys.executable, "-m", "anel", "program.py", "--port", "0", "--workers", "3"]

    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S
    )

    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1] == line
    assert ended.stderr.count(line) == 1
    assert ended.stdout == ""


def test_a_server_whose_last_worker_cannot_be_replaced_ends_with_3(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    server = serve(PROGRAM, "--workers", "1")
    victim = pid(server)
    (tmp_path / "program.py").write_text("1 / 0\n")

    os.kill(victim, signal.SIGKILL)

    assert server.wait() == 3
    assert server.lines[-1] == "ZeroDivisionError: division by zero"


def test_a_port_that_is_taken_ends_the_server_with_4(tmp_path: pathlib.Path) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    # As another server with workers has it.
    listeners = Listeners([Place("127.0.0.1", 0)], 2)
    port = listeners.of(0)[0].getsockname()[1]
    command = [sys.executable, "-m", "anel", "program.py", "--port", str(port), "--workers", "2"]

    with contextlib.closing(listeners):
        ended = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S
        )

    assert ended.returncode == 4
    assert ended.stderr == f"anel: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_workers(serve: Serve, number: int) -> None:
    server = serve(PROGRAM, "--workers", "2")
    workers = pids(server, 2)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(4)]
        for client in clients:
            # Both answers come: the connection is accepted before the signal.
            client.send(get("/") + get("/wait?s=0.5"))
            client.answer()

        server.process.send_signal(number)
        answers = [client.answer() for client in clients]

    assert [answer.text for answer in answers] == ["waited"] * 4
    assert {answer.field("Connection") for answer in answers} == {"close"}
    assert server.wait() == 0
    assert server.lines.count("Termination request received") == 1
    assert all(map(is_gone, workers))


def test_a_signal_to_all_processes_is_the_one_to_the_master(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "2")
    processes = [server.process.pid, *pids(server, 2)]
    with server.client() as client:
        client.send(get("/") + get("/wait?s=0.5"))
        client.answer()

        # As service managers do it, more than once, and terminals that are closed.
        for number in (signal.SIGHUP, signal.SIGTERM):
            for pid in processes:
                os.kill(pid, number)
        answer = client.answer()

    assert answer.text == "waited"
    assert server.wait() == 0


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "with_workers"])
def test_a_drain_amid_traffic_answers_everybody_and_refuses_the_rest(
    serve: Serve, options: tuple[str, ...], reactor: str
) -> None:
    server = serve(PROGRAM, "--reactor", reactor, *options)

    with Load(server, 8) as load:
        status = server.stop()
        wait_until(lambda: load.refusals == 8, "refusals")

    assert load.failures == []
    assert status == 0


def test_ctrl_c_in_a_terminal_reaches_workers_too_and_still_drains(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-m", "anel", str(program), "--port", "0", "--workers", "2"]
    with contextlib.ExitStack() as stack:
        # A session of its own, so that the signal reaches nobody else.
        server = start_server(stack, ["setsid", *command])
        with server.client() as client:
            client.send(get("/") + get("/wait?s=0.5"))
            client.answer()

            os.killpg(server.process.pid, signal.SIGINT)

            assert client.answer().text == "waited"
        assert server.wait() == 0


def test_the_second_signal_ends_at_once(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "2")
    with server.client() as client:
        client.send(get("/") + get("/wait?s=60"))
        client.answer()

        server.process.send_signal(signal.SIGTERM)
        server.wait_for_line(r"^1 connections busy")
        begun = time.monotonic()

        assert server.stop() == 0
        # Well within the drain's deadline.
        assert time.monotonic() - begun < 4


def test_a_second_signal_ends_a_worker_that_is_stuck(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "1")
    stuck = pid(server)
    with server.client() as client:
        client.send(get("/block?s=60"))
        server.wait_for_line(r"^blocking$")

        server.process.send_signal(signal.SIGTERM)
        server.wait_for_line(r"^Termination request received$")

        assert server.stop() == 1
    assert is_gone(stuck)
    assert server.lines[-1] == f"anel: worker {stuck} did not end in time"


def test_workers_end_when_their_master_is_killed(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "2")
    workers = pids(server, 2)
    with server.client() as client:
        client.send(get("/") + get("/wait?s=0.3"))
        client.answer()

        server.process.kill()

        assert client.answer().text == "waited"

    def all_ended() -> bool:
        # Whoever inherits them may be slow to reap.
        states = [pathlib.Path(f"/proc/{number}/stat") for number in workers]
        return all(not path.exists() or ") Z " in path.read_text() for path in states)

    wait_until(all_ended, "the end of the workers")


@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_replace_every_worker_and_lose_no_request(
    serve: Serve, workers: int, reactor: str
) -> None:
    server = serve(PROGRAM, "--workers", str(workers), "--reactor", reactor)
    before = pids(server, workers)

    with Load(server) as load, Load(server, 2, keep_alive=False) as strangers:
        for _ in range(3):
            server.process.send_signal(signal.SIGHUP)
            wait_until_gone(before)
            before = pids(server, workers)

    assert load.failures == strangers.failures == []
    assert load.refusals == strangers.refusals == 0
    assert server.stop() == 0
    assert len(load.answers) >= 3 * workers


def test_a_reload_serves_what_the_files_say_by_now(serve: Serve, tmp_path: pathlib.Path) -> None:
    server = serve(PROGRAM, "--workers", "1")
    program = tmp_path / "program.py"
    program.write_text(program.read_text().replace("str(os.getpid())", "'changed'"))

    server.process.send_signal(signal.SIGHUP)

    wait_until(lambda: server.ask(get("/")).text == "changed", "the new program")


def test_a_reload_that_cannot_start_leaves_the_old_workers(
    serve: Serve, tmp_path: pathlib.Path
) -> None:
    server = serve(PROGRAM, "--workers", "2")
    before = pids(server, 2)
    (tmp_path / "program.py").write_text("1 / 0\n")

    server.process.send_signal(signal.SIGHUP)
    server.wait_for_line(r"^anel: the workers stay as they are$")

    assert pids(server, 2) == before
    assert server.lines.count("ZeroDivisionError: division by zero") == 1
    assert server.stop() == 0


def test_many_reloads_at_once_are_followed_by_one_more(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "1")
    before = pid(server)

    with Load(server) as load:
        for _ in range(10):
            server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: is_gone(before), "the end of the old worker")

    assert load.failures == []
    assert server.stop() == 0


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "with_workers"])
def test_workers_are_replaced_after_so_many_requests_and_none_is_lost(
    serve: Serve, options: tuple[str, ...]
) -> None:
    server = serve(PROGRAM, "--max-requests", "20", "--max-requests-jitter", "10", *options)

    with Load(server) as load:
        wait_until(lambda: len(load.answers) >= 4, "a fourth worker")

    assert load.failures == []
    assert server.stop() == 0


def test_a_worker_that_is_told_to_leave_takes_nobodys_port_with_it(serve: Serve) -> None:
    server = serve(PROGRAM, "--workers", "1")
    with server.client() as idle:
        first = int(idle.ask(get("/")).text)

        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: pid(server) != first, "the next worker")
        answer = idle.ask(get("/"))

    # The old worker answers whom it has, once more.
    assert answer.text == str(first)
    assert answer.field("Connection") == "close"
