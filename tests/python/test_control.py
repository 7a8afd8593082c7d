"""`anel ctl`, and the control socket that it talks to, on a live server.

Owns what an operator may ask of a server that runs, who may ask, and what becomes of clients that
ask badly.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from conftest import DEADLINE_S, Serve, Server, get, wait_until
from test_workers import PROGRAM, Load, is_gone, pid, pids


def ctl(
    path: pathlib.Path | None, *words: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `anel ctl`."""
    named = [] if path is None else ["--control", str(path)]
    return subprocess.run(
        [sys.executable, "-m", "anel", "ctl", *words, *named],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={**os.environ, **environment},
        check=False,
    )


def status(path: pathlib.Path) -> Any:
    """What `anel ctl status --json` prints."""
    ended = ctl(path, "status", "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where the control socket is."""
    return tmp_path / "control"


@pytest.fixture
def controlled(serve: Serve, path: pathlib.Path) -> Server:
    """A server with two workers and a control socket."""
    return serve(PROGRAM, "--workers", "2", "--control", str(path))


def test_status_tells_of_master_and_workers(controlled: Server, path: pathlib.Path) -> None:
    workers = pids(controlled, 2)

    report = status(path)

    assert report["pid"] == controlled.process.pid
    assert report["state"] == "serving"
    assert report["address"] == f"http://127.0.0.1:{controlled.port}"
    assert 0 < report["uptime_s"] < DEADLINE_S
    assert report["workers_wanted"] == 2
    assert [slot["worker"] for slot in report["workers"]] == [0, 1]
    told = [worker for slot in report["workers"] for worker in slot["processes"]]
    assert {worker["pid"] for worker in told} == workers
    assert {worker["state"] for worker in told} == {"serving"}
    assert all(0 < worker["age_s"] <= report["uptime_s"] for worker in told)
    assert [(slot["starts"], slot["deaths"]) for slot in report["workers"]] == [(1, 0)] * 2


def test_status_counts_deaths(controlled: Server, path: pathlib.Path) -> None:
    victim = pid(controlled)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: is_gone(victim), "the end of the worker")
    assert victim not in pids(controlled, 2)

    slots = status(path)["workers"]

    assert sorted((slot["starts"], slot["deaths"]) for slot in slots) == [(1, 0), (2, 1)]


def test_status_is_told_to_people_in_lines(controlled: Server, path: pathlib.Path) -> None:
    workers = pids(controlled, 2)

    first, *slots = ctl(path, "status").stdout.splitlines()

    address = f"http://127.0.0.1:{controlled.port}"
    assert first.startswith(f"{address}: serving for ")
    assert first.endswith(f" as process {controlled.process.pid}, 2 of 2 workers")
    assert len(slots) == 2
    for number in workers:
        assert any(f"process {number} serving for" in line for line in slots)
    assert all(line.endswith("; 1 started, 0 died") for line in slots)


def test_counters_are_told_where_there_are_any(serve: Serve, path: pathlib.Path) -> None:
    server = serve(
        PROGRAM, "--control", str(path), "--metrics-bind", f"unix:{path.with_name('metrics')}"
    )
    for _ in range(3):
        server.ask(get("/"))

    def requests() -> int:
        return int(status(path)["workers"][0]["counters"]["requests_total"])

    wait_until(lambda: requests() == 3, "three requests")


def test_a_control_socket_needs_no_number_of_workers(serve: Serve, path: pathlib.Path) -> None:
    server = serve(PROGRAM, "--control", str(path))

    assert status(path)["workers_wanted"] == 1
    assert pid(server) != server.process.pid


def test_reload_returns_once_all_workers_were_replaced(
    controlled: Server, path: pathlib.Path
) -> None:
    before = pids(controlled, 2)

    with Load(controlled) as load:
        ended = ctl(path, "reload")
        told = [slot["processes"][-1]["pid"] for slot in status(path)["workers"]]

    assert (ended.returncode, ended.stdout) == (0, "reloaded\n")
    assert not before.intersection(told)
    assert load.failures == []
    assert load.refusals == 0


def test_a_reload_that_cannot_start_fails_and_leaves_the_old_workers(
    controlled: Server, path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    before = pids(controlled, 2)
    (tmp_path / "program.py").write_text("1 / 0\n")

    ended = ctl(path, "reload")

    assert ended.returncode == 1
    assert ended.stderr == "anel: a new worker cannot start; the others stay as they are\n"
    assert pids(controlled, 2) == before


def test_a_reload_may_be_left_to_itself(controlled: Server, path: pathlib.Path) -> None:
    before = pids(controlled, 2)

    ended = ctl(path, "reload", "--no-wait")

    assert (ended.returncode, ended.stdout) == (0, "reloading\n")
    wait_until(lambda: all(map(is_gone, before)), "the end of the old workers")


def test_scale_adds_and_ends_workers(controlled: Server, path: pathlib.Path) -> None:
    before = pids(controlled, 2)

    with Load(controlled) as load:
        assert ctl(path, "scale", "3").stdout == "scaling to 3 workers\n"
        assert before < pids(controlled, 3)
        assert ctl(path, "scale", "1").returncode == 0
        wait_until(lambda: sum(map(is_gone, before)) == 1, "the end of a worker")

    assert load.failures == []
    assert load.refusals == 0
    assert status(path)["workers_wanted"] == 1


@pytest.mark.parametrize("count", ["0", "1025"])
def test_a_number_of_workers_that_cannot_be_is_refused(
    controlled: Server, path: pathlib.Path, count: str
) -> None:
    ended = ctl(path, "scale", count)

    assert ended.returncode == 1
    assert ended.stderr == f"anel: there can be from 1 to 1024 workers, not {count}\n"
    assert controlled.process.poll() is None


def test_stop_returns_once_the_server_has_ended(controlled: Server, path: pathlib.Path) -> None:
    with controlled.client() as client:
        client.send(get("/") + get("/wait?s=0.5"))
        client.answer()

        ended = ctl(path, "stop")

        assert client.answer().text == "waited"
    assert (ended.returncode, ended.stdout) == (0, "stopped\n")
    assert not path.exists()
    assert controlled.wait() == 0


def test_stop_tells_when_the_server_fails_to_end_well(serve: Serve, path: pathlib.Path) -> None:
    server = serve(PROGRAM, "--workers", "1", "--control", str(path), "--timeout-graceful", "100ms")
    stuck = pid(server)
    os.kill(stuck, signal.SIGSTOP)
    # The one that waits, and two that insist.
    answers: list[subprocess.CompletedProcess[str]] = []
    waiting = threading.Thread(target=lambda: answers.append(ctl(path, "stop")))
    waiting.start()
    server.wait_for_line("^Termination request received$")
    assert ctl(path, "stop", "--no-wait").stdout == "stopping\n"

    waiting.join(DEADLINE_S)

    assert server.wait() == 1
    assert answers[0].returncode == 1
    assert answers[0].stderr == "anel: the server has ended with exit code 1\n"


@pytest.mark.usefixtures("controlled")
@pytest.mark.parametrize("words", [("status",), ("reload",), ("scale", "2"), ("stop",)])
def test_what_is_asked_is_answered_as_json(path: pathlib.Path, words: tuple[str, ...]) -> None:
    ended = ctl(path, *words, "--json")

    assert ended.returncode == 0
    assert isinstance(json.loads(ended.stdout), dict)


def test_the_control_socket_may_be_named_in_every_place(
    controlled: Server, path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.anel]\ncontrol = "{path}"\n')
    in_folder = subprocess.run(
        [sys.executable, "-m", "anel", "ctl", "status"],
        cwd=tmp_path,
        capture_output=True,
        timeout=DEADLINE_S,
    )

    assert in_folder.returncode == 0
    assert ctl(None, "status", ANEL_CONTROL=str(path)).returncode == 0
    assert ctl(None, "--control", str(path), "status").returncode == 0
    assert controlled.stop() == 0


def test_without_a_control_socket_the_usage_is_wrong() -> None:
    ended = ctl(None, "status")

    assert ended.returncode == 2
    assert "Name the server's control socket: --control PATH." in ended.stderr


def test_a_path_that_is_not_there_is_named(path: pathlib.Path) -> None:
    ended = ctl(path, "status")

    assert ended.returncode == 1
    assert ended.stderr == f"anel: there is no control socket {path}\n"


def test_a_server_that_has_ended_is_told(path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_behind:
        left_behind.bind(str(path))

    ended = ctl(path, "status")

    assert ended.returncode == 1
    assert ended.stderr == f"anel: nobody listens on {path}: the server has ended\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_others_may_not_ask(controlled: Server, path: pathlib.Path) -> None:
    path.parent.chmod(0o755)
    for folder in path.parent.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    become = "import os; os.setgid(65534); os.setuid(65534);"
    ask = f"from anel.cli import main; main(['ctl', 'status', '--control', {str(path)!r}])"

    ended = subprocess.run(
        [sys.executable, "-c", f"import anel.cli; {become} {ask}"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    assert ended.returncode == 1
    assert ended.stderr.endswith("only the server's user and root may\n")
    assert controlled.stop() == 0


def test_only_the_servers_user_may_connect(controlled: Server, path: pathlib.Path) -> None:
    found = path.stat()

    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.geteuid()
    assert controlled.stop() == 0


def test_a_stale_control_socket_is_replaced(serve: Serve, path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left_behind:
        left_behind.bind(str(path))

    serve(PROGRAM, "--control", str(path))

    assert status(path)["state"] == "serving"


def test_the_control_socket_of_another_server_is_not_taken(
    controlled: Server, path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    command = [sys.executable, "-m", "anel", "program.py", "--port", "0", "--control", str(path)]

    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S
    )

    assert ended.returncode == 4
    assert ended.stderr == f"anel: cannot listen on {path}: Address already in use\n"
    assert status(path)["pid"] == controlled.process.pid


def connected(path: pathlib.Path) -> socket.socket:
    """A connection to the control socket."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(DEADLINE_S)
    client.connect(str(path))
    return client


@pytest.mark.parametrize(
    "message",
    [b"", b"nonsense", b"[]", b"{}", b'{"command": 5}', b'{"command": "scale"}', b"x" * 5000],
    ids=["empty", "no_json", "no_object", "no_command", "number", "no_workers", "too_long"],
)
def test_nonsense_is_answered_and_changes_nothing(
    controlled: Server, path: pathlib.Path, message: bytes
) -> None:
    with connected(path) as client:
        client.send(message)

        answer = client.recv(65536)

    assert answer == b"" or "error" in json.loads(answer)
    assert status(path)["workers_wanted"] == 2
    assert controlled.stop() == 0


def test_clients_that_say_nothing_are_closed_and_keep_nobody_from_asking(
    controlled: Server, path: pathlib.Path
) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connected(path)) for _ in range(20)]

        # Whoever comes behind them waits until the first ones have been closed.
        assert status(path)["state"] == "serving"
        assert [client.recv(1) for client in silent[:16]] == [b""] * 16
    assert controlled.stop() == 0


def test_clients_that_leave_at_once_leave_nothing_behind(
    controlled: Server, path: pathlib.Path
) -> None:
    before = controlled.open_descriptors()

    for _ in range(50):
        connected(path).close()
        with connected(path) as client:
            client.send(b'{"command": "reload", "wait": false}')

    wait_until(lambda: status(path)["state"] == "serving", "the end of the reloads")
    wait_until(lambda: controlled.open_descriptors() <= before + 4, "closed descriptors")
    assert controlled.stop() == 0


def test_workers_inherit_nothing_of_the_control_socket(
    controlled: Server, path: pathlib.Path
) -> None:
    workers = pids(controlled, 2)
    inode = {f"socket:[{line.split()[6]}]" for line in unix_sockets() if line.endswith(str(path))}

    held = {
        os.readlink(link)
        for number in workers
        for link in pathlib.Path(f"/proc/{number}/fd").iterdir()
    }

    assert inode
    assert not inode & held


def unix_sockets() -> list[str]:
    """The lines of the kernel's table."""
    return pathlib.Path("/proc/net/unix").read_text().splitlines()


def test_status_is_told_until_the_end(controlled: Server, path: pathlib.Path) -> None:
    with controlled.client() as client:
        client.send(get("/") + get("/wait?s=3"))
        worker = int(client.answer().text)
        controlled.process.send_signal(signal.SIGTERM)
        controlled.wait_for_line("^1 connections busy")

        report = status(path)

        assert client.answer().text == "waited"
    assert report["state"] == "stopping"
    assert report["address"] == f"http://127.0.0.1:{controlled.port}"
    told = [process for slot in report["workers"] for process in slot["processes"]]
    assert {process["state"] for process in told if process["pid"] == worker} == {"stopping"}
    assert controlled.wait() == 0


def test_a_stop_in_the_delay_is_told_of_by_status(serve: Serve, path: pathlib.Path) -> None:
    server = serve(PROGRAM, "--control", str(path), "--shutdown-delay", "60s")
    ctl(path, "stop", "--no-wait")

    assert status(path)["state"] == "draining"
    refused = ctl(path, "scale", "2")
    assert (refused.returncode, refused.stderr) == (1, "anel: the server is about to end\n")
    assert ctl(path, "reload").returncode == 1
    begun = time.monotonic()
    assert ctl(path, "stop").returncode == 0
    assert time.monotonic() - begun < DEADLINE_S
    assert server.wait() == 0
