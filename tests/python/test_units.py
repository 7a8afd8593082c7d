"""The files of deploy/ for systemd: units that it accepts, and sockets that it hands over.

Owns what can be found out without systemd as the first process: its own check of the units, and
its program that starts a service with sockets. The filters of system calls are tried by
`test_seccomp.py`.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
import services
from anel import master, rules
from anel.cli import main
from conftest import DEADLINE_S, Client, Server, get, start_service, wait_until

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
INSTALLED = "/srv/app/.venv/bin/anel"

PROGRAM = """
    import os
    from anel import Application

    app = Application()
    app.router.add_route("/", lambda request: str(os.getpid()))
"""


def unit(name: str) -> configparser.RawConfigParser:
    """A unit; of a key that is repeated, the last value."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DEPLOY / name).read_text())
    return parser


@pytest.fixture
def units(tmp_path: pathlib.Path) -> list[str]:
    """The units as they would be installed, for a program that is there."""
    program = services.program("true")
    for name in ("anel.service", "anel.socket"):
        text = (DEPLOY / name).read_text()
        (tmp_path / name).write_text(text.replace(INSTALLED, program))
    return [str(tmp_path / "anel.service"), str(tmp_path / "anel.socket")]


def test_systemd_has_nothing_to_say_about_the_units(units: list[str]) -> None:
    analyze = services.program("systemd-analyze")

    verified = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", *units],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    # It warns, and succeeds, where a directive is not known; and it reads the machine's own units.
    said = (verified.stdout + verified.stderr).splitlines()
    assert (verified.returncode, [line for line in said if "anel." in line]) == (0, [])


def test_systemd_calls_the_service_well_confined(units: list[str]) -> None:
    analyze = services.program("systemd-analyze")

    # From 0 (nothing is left to it) to 100; a unit without any hardening has 96.
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", "--no-pager", units[0]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    assert judged.returncode == 0, judged.stdout


def test_the_service_starts_what_there_is() -> None:
    service = unit("anel.service")["Service"]
    path, *arguments = shlex.split(service["ExecStart"])

    context = main.commands["run"].make_context("run", arguments[1:])

    assert (path, arguments[0]) == (INSTALLED, "run")
    # The unit's ExecReload replaces workers, and KillMode leaves them to their master.
    assert context.params["worker_num"] is not None
    assert (service["KillMode"], service["ExecReload"]) == ("mixed", "/bin/kill -HUP $MAINPID")


def test_the_service_has_time_to_end() -> None:
    service = unit("anel.service")["Service"]

    assert int(service["TimeoutStopSec"]) > rules.GRACEFUL_S + master._SHUTDOWN_S


def test_the_proxies_connect_to_the_socket_that_systemd_opens() -> None:
    path = unit("anel.socket")["Socket"]["ListenStream"]

    assert f"server unix:{path} " in (DEPLOY / "nginx.conf").read_text()
    assert f"server anel unix@{path}\n" in (DEPLOY / "haproxy.cfg").read_text()


@contextlib.contextmanager
def activated(folder: pathlib.Path, listen: str, *options: str) -> Iterator[Server]:
    """`anel run` by systemd-socket-activate, which starts it when somebody connects."""
    program = folder / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    activate = services.program("systemd-socket-activate")
    serve = [sys.executable, "-m", "anel", "run", str(program), *options]
    # It clears the environment of what it starts.
    kept = [word for name in ("PATH", "PYTHONPATH") if name in os.environ for word in ("-E", name)]
    command = [activate, "-l", listen, *kept, "-E", "PYTHONUNBUFFERED=1", *serve]
    with contextlib.ExitStack() as stack:
        server = start_service(stack, command, r"^Listening on \S+ as 3", (), {})
        yield server


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "with_workers"])
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_service_is_started_by_its_first_client_and_serves_it(
    tmp_path: pathlib.Path, kind: str, workers: list[str]
) -> None:
    port = services.free_port()
    path = str(tmp_path / "http.sock")
    listen = path if kind == "unix" else f"127.0.0.1:{port}"
    address = path if kind == "unix" else ("127.0.0.1", port)
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    with activated(tmp_path, listen, *workers) as server:
        # This one waits in the queue of a socket that nobody accepts from yet.
        with Client.to(family, address) as client:
            first = client.ask(get("/")).text
        announced = server.wait_for_line("^Accepting connections on (.*)$")[1]
        with Client.to(family, address) as client:
            second = client.ask(get("/"))

        assert announced == (f"unix:{path}" if kind == "unix" else f"http://127.0.0.1:{port}")
        # The process is the one that listened.
        assert (int(first) != server.process.pid) == bool(workers)
        assert second.status == 200
        assert server.stop() == 0


def test_a_reload_keeps_the_socket_that_was_handed_over(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "http.sock")
    with activated(tmp_path, path, "--workers", "1") as server:

        def worker() -> str:
            with Client.to(socket.AF_UNIX, path) as client:
                return client.ask(get("/")).text

        first = worker()
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: worker() != first, "the next worker")

        assert server.stop() == 0
    # It is not ours to remove.
    assert pathlib.Path(path).is_socket()
