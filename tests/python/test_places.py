"""Where a server listens: IPv6, Unix sockets, descriptors and systemd's; and its pid file.

Owns the ways in and what is left behind at the end, with and without a master.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator

import pytest
from anel import Application, concurrency
from anel.exceptions import ConfigError
from anel.listener import Listeners, Place
from conftest import DEADLINE_S, Answer, Client, Server, get, start_service, wait_until

PROGRAM = """
    import os
    from anel import Application

    app = Application()

    def who(request):
        transport = request.transport
        return {
            "pid": os.getpid(),
            "remote_addr": request.remote_addr,
            "peername": transport.get_extra_info("peername"),
            "sockname": transport.get_extra_info("sockname"),
            "variables": [name for name in os.environ if name.startswith(("LISTEN_", "NOTIFY_"))],
        }

    app.router.add_route("/", who)
"""

Start = Callable[..., Server]

WITH_AND_WITHOUT = pytest.mark.parametrize(
    "workers", [[], ["--workers", "2"]], ids=["alone", "with_workers"]
)


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Start]:
    """`start(*options)` starts the program and returns once it has announced itself."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    with contextlib.ExitStack() as stack:

        def started(*options: str, pass_fds: Collection[int] = ()) -> Server:
            command = [sys.executable, "-m", "anel", "run", str(program), *options]
            return start_service(stack, command, "^Accepting connections on", pass_fds, {})

        yield started


def ask(family: int, address: object) -> Answer:
    """One request on a connection of any family."""
    with Client.to(family, address) as client:
        return client.ask(get("/"))


@WITH_AND_WITHOUT
def test_ipv6_is_listened_on(start: Start, workers: list[str]) -> None:
    server = start("--host", "::1", "--port", "0", *workers)
    port = int(server.lines[-1].rpartition(":")[2])

    answer = ask(socket.AF_INET6, ("::1", port))

    assert server.lines[-1] == f"Accepting connections on http://[::1]:{port}"
    assert answer.value["remote_addr"] == "::1"
    assert server.stop() == 0


def test_two_colons_are_every_address_of_both_kinds(start: Start) -> None:
    server = start("--host", "::", "--port", "0")
    port = int(server.lines[-1].rpartition(":")[2])

    assert ask(socket.AF_INET6, ("::1", port)).status == 200
    assert ask(socket.AF_INET, ("127.0.0.1", port)).value["remote_addr"] == "127.0.0.1"


@WITH_AND_WITHOUT
def test_a_unix_socket_is_listened_on_and_removed_at_the_end(
    start: Start, workers: list[str], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "socket"
    server = start("--uds", str(path), *workers)

    answer = ask(socket.AF_UNIX, str(path))

    assert server.lines[-1] == f"Accepting connections on unix:{path}"
    assert answer.status == 200
    assert [answer.value[name] for name in ("remote_addr", "peername", "sockname")] == [None] * 3
    assert server.stop() == 0
    assert not path.exists()


def test_a_unix_socket_that_nobody_listens_on_is_replaced(
    start: Start, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))

    start("--uds", str(path))

    assert ask(socket.AF_UNIX, str(path)).status == 200


def test_a_unix_socket_that_somebody_listens_on_is_left_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "socket"
    with contextlib.closing(Listeners([Place("", 0, str(path))])):
        with pytest.raises(OSError, match="in use"):
            Listeners([Place("", 0, str(path))])

        assert path.is_socket()


def test_a_file_is_no_socket_to_replace(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")

    with pytest.raises(OSError, match="in use"):
        Listeners([Place("", 0, str(path))])

    assert path.read_text() == "precious"


def test_the_path_of_a_successor_is_not_removed(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "socket"
    first = Listeners([Place("", 0, str(path))])
    path.unlink()
    with contextlib.closing(Listeners([Place("", 0, str(path))])):
        first.close()

        assert path.is_socket()


@WITH_AND_WITHOUT
def test_a_descriptor_that_somebody_has_opened_is_listened_on(
    start: Start, workers: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        server = start("--fd", str(opened.fileno()), *workers, pass_fds=[opened.fileno()])
        address = opened.getsockname()

        assert ask(socket.AF_INET, address).status == 200
        assert server.lines[-1] == f"Accepting connections on http://127.0.0.1:{address[1]}"
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("number", "reason"), [("0", "Socket operation on non-socket"), ("99", "Bad file descriptor")]
)
def test_a_descriptor_that_is_no_socket_ends_the_server_with_4(
    tmp_path: pathlib.Path, number: str, reason: str
) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))

    ended = subprocess.run(
        [sys.executable, "-m", "anel", "program.py", "--fd", number],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    assert ended.returncode == 4
    assert ended.stderr == f"anel: cannot listen on descriptor {number}: {reason}\n"


class Manager:
    """A service manager: it opens sockets for a service and is told how that is."""

    # What systemd does between fork and exec, for the process whose number only it knows then.
    LAUNCHER = """
        import os, sys
        count, *descriptors = map(int, sys.argv[1].split(","))
        for target, descriptor in enumerate(descriptors, 3):
            os.dup2(descriptor, target)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count), LISTEN_FDNAMES="http")
        os.execv(sys.argv[2], sys.argv[2:])
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(DEADLINE_S)
        self._socket.bind(str(self.path))
        self._launcher = folder / "launcher.py"
        self._launcher.write_text(textwrap.dedent(self.LAUNCHER))

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def told(self) -> list[str]:
        """The lines of the next message."""
        return self._socket.recv(4096).decode().splitlines()

    def command(self, sockets: list[socket.socket], program: pathlib.Path) -> list[str]:
        """Starts a service with these sockets, from the third descriptor on."""
        # Above those that they become.
        numbers = [os.dup2(one.fileno(), 50 + index) for index, one in enumerate(sockets)]
        listed = ",".join(map(str, [len(numbers), *numbers]))
        serve = [sys.executable, "-m", "anel", "run", str(program)]
        return [sys.executable, str(self._launcher), listed, *serve]


@pytest.fixture
def manager(tmp_path: pathlib.Path) -> Iterator[Manager]:
    """A service manager with its notification socket."""
    with Manager(tmp_path) as manager:
        yield manager


@WITH_AND_WITHOUT
def test_sockets_of_a_service_manager_are_served_and_it_is_told(
    manager: Manager, workers: list[str], tmp_path: pathlib.Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    path = tmp_path / "socket"
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(path))
        unix.listen()
        command = [*manager.command([tcp, unix], program), *workers]
        notified = {"NOTIFY_SOCKET": str(manager.path)}
        server = start_service(stack, command, "^Accepting", [50, 51], notified)

        answers = [ask(socket.AF_INET, tcp.getsockname()), ask(socket.AF_UNIX, str(path))]

        assert [answer.status for answer in answers] == [200, 200]
        assert [answer.value["variables"] for answer in answers] == [[], []]
        assert manager.told() == ["READY=1", f"MAINPID={server.process.pid}"]
        if workers:
            server.process.send_signal(signal.SIGHUP)
            assert manager.told()[0] == "RELOADING=1"
            assert manager.told()[0] == "READY=1"
        assert server.stop() == 0
        assert manager.told() == ["STOPPING=1"]
    # It is the manager's to remove.
    assert path.is_socket()


@WITH_AND_WITHOUT
def test_the_pid_file_names_the_server_as_long_as_it_lives(
    start: Start, workers: list[str], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "pid"
    server = start("--port", "0", "--pidfile", str(path), *workers)

    assert path.read_text() == f"{server.process.pid}\n"
    assert server.stop() == 0
    assert not path.exists()


def test_a_pid_file_of_a_server_that_runs_is_not_taken(tmp_path: pathlib.Path) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    path = tmp_path / "pid"
    path.write_text(f"{os.getpid()}\n")

    ended = subprocess.run(
        [sys.executable, "-m", "anel", "program.py", "--port", "0", "--pidfile", str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    assert ended.returncode == 3
    assert ended.stderr == f"anel: {path} names process {os.getpid()}, which is running\n"
    assert path.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("content", ["", "nonsense\n"])
def test_a_pid_file_that_names_nobody_is_taken(
    start: Start, tmp_path: pathlib.Path, content: str
) -> None:
    path = tmp_path / "pid"
    path.write_text(content)

    server = start("--port", "0", "--pidfile", str(path))

    wait_until(lambda: path.read_text() == f"{server.process.pid}\n", "the pid file")


def test_a_pid_file_of_a_server_that_has_ended_is_taken(
    start: Start, tmp_path: pathlib.Path
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(DEADLINE_S)
    path = tmp_path / "pid"
    path.write_text(f"{ended.pid}\n")

    server = start("--port", "0", "--pidfile", str(path))

    assert path.read_text() == f"{server.process.pid}\n"


def test_auto_is_the_number_of_processors_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 3, 5})
    monkeypatch.setattr(concurrency, "_quota", lambda: 1024)

    assert concurrency.worker_count("auto") == 3


@pytest.mark.parametrize(
    ("content", "granted"), [("150000 100000\n", 2), ("100000 100000\n", 1), ("max 100000\n", 1024)]
)
def test_a_quota_of_the_control_group_is_rounded_up(
    tmp_path: pathlib.Path, content: str, granted: int
) -> None:
    (tmp_path / "cpu.max").write_text(content)

    assert concurrency._granted(str(tmp_path / "cpu.max")) == granted


@pytest.mark.parametrize("wanted", [0, -1, 1025, "0", "two", "", 1.5, None])
def test_what_is_no_number_of_workers_is_refused(wanted: object) -> None:
    with pytest.raises(ConfigError, match="worker_num must be"):
        concurrency.worker_count(wanted)  # type: ignore[arg-type]


# Several places.


@WITH_AND_WITHOUT
def test_several_places_are_listened_on(
    start: Start, workers: list[str], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "socket"
    with socket.create_server(("127.0.0.1", 0)) as opened:
        fd = opened.fileno()
        places = ["-b", "127.0.0.1:0,[::1]:0", "--bind", f"unix:{path}", "-b", f"fd:{fd}"]
        server = start(*places, *workers, pass_fds=[fd])

        announced = server.lines[-1].removeprefix("Accepting connections on ").split(", ")
        ipv4, ipv6 = (int(address.rpartition(":")[2]) for address in announced[:2])
        assert announced[2:] == [f"unix:{path}", f"http://127.0.0.1:{opened.getsockname()[1]}"]
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", ipv4)),
            (socket.AF_INET6, ("::1", ipv6)),
            (socket.AF_UNIX, str(path)),
            (socket.AF_INET, opened.getsockname()),
        ):
            assert ask(family, address).status == 200
        assert server.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:80", Place("127.0.0.1", 80)),
        ("localhost:0", Place("localhost", 0)),
        (":8000", Place("", 8000)),
        ("[::]:8000", Place("[::]", 8000)),
        ("unix:/run/a:b", Place("", 0, "/run/a:b")),
        ("unix:relative", Place("", 0, "relative")),
        ("fd:3", Place("", 0, None, (3,))),
    ],
)
def test_a_place_is_written_in_one_word(text: str, place: Place) -> None:
    assert Place.at(text) == place


@pytest.mark.parametrize(
    "text", ["", "8000", "localhost", "::1:80", "[::1]", "a:b", "unix:", "fd:", "fd:x", "a:-1"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"a place must be host:port, .*, not "):
        Place.at(text)


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "with_workers"])
def test_a_place_that_is_taken_is_named_and_the_others_are_given_back(
    tmp_path: pathlib.Path, workers: list[str]
) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "anel", "program.py", "-b", "unix:mine"]
        ended = subprocess.run(
            [*command, "-b", f"127.0.0.1:{port}", *workers],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )

    assert ended.returncode == 4
    assert ended.stderr == f"anel: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bind": "nowhere"}, "bind: a place must be host:port"),
        ({"bind": ["127.0.0.1:65536"]}, "bind: port must be an int from 0 to 65535"),
        ({"bind": ":0", "uds": "x"}, "bind excludes uds and fd"),
        ({"bind": ":0", "fd": 3}, "bind excludes uds and fd"),
        ({"bind": 80}, "bind must be a str or an iterable of str"),
    ],
)
def test_a_wrong_place_is_named_by_run(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Application().run(**arguments)  # type: ignore[arg-type]

    assert words in str(caught.value)


@WITH_AND_WITHOUT
def test_the_operator_says_who_may_connect_to_a_path(
    start: Start, workers: list[str], tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "socket"

    start("--uds", str(path), "--uds-mode", "660", *workers)

    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_the_umask_holds_for_what_the_server_makes(start: Start, tmp_path: pathlib.Path) -> None:
    path, pid = tmp_path / "socket", tmp_path / "pid"

    start("--uds", str(path), "--pidfile", str(pid), "--umask", "027")

    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert stat.S_IMODE(pid.stat().st_mode) == 0o640


@pytest.mark.parametrize("option", ["--umask", "--uds-mode"])
@pytest.mark.parametrize("value", ["8", "1000", "-1", "rw", "0x1f"])
def test_what_is_no_mode_is_refused(option: str, value: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "anel", "run", "program.py", option, value],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )

    assert ended.returncode == 2
    assert f"must be an octal number from 0 to 777, not '{value}'" in ended.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
@WITH_AND_WITHOUT
def test_a_path_belongs_to_whom_the_server_becomes(
    start: Start, workers: list[str], tmp_path: pathlib.Path
) -> None:
    # Its parents belong to root alone.
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o011)
    home = tmp_path / "home"
    home.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    path = home / "socket"
    server = start("--uds", str(path), "--user", "nobody", *workers)

    assert (path.stat().st_uid, path.stat().st_gid) == (nobody.pw_uid, nobody.pw_gid)
    assert server.stop() == 0
    assert not path.exists()


@WITH_AND_WITHOUT
def test_a_watchdog_hears_of_a_server_again_and_again(
    manager: Manager, workers: list[str], tmp_path: pathlib.Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    watched = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "200000"}
    command = [sys.executable, "-m", "anel", "run", str(program), "--port", "0", *workers]
    with contextlib.ExitStack() as stack:
        server = start_service(stack, command, "^Accepting", [], watched)

        # Half of what is allowed, so that one may come late.
        wait_until(lambda: manager.told()[0] == "READY=1", "the announcement")
        assert [manager.told() for _ in range(5)] == [["WATCHDOG=1"]] * 5
        assert server.stop() == 0


def test_another_processs_watchdog_is_none_of_ours(
    manager: Manager, tmp_path: pathlib.Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    watched = {
        "NOTIFY_SOCKET": str(manager.path),
        "WATCHDOG_USEC": "1000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    command = [sys.executable, "-m", "anel", "run", str(program), "--port", "0"]
    with contextlib.ExitStack() as stack:
        server = start_service(stack, command, "^Accepting", [], watched)
        assert manager.told()[0] == "READY=1"
        assert server.stop() == 0

        assert manager.told() == ["STOPPING=1"]


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="needs root and unshare for a process 1 of its own",
)
def test_the_first_process_of_a_container_reaps_whoever_is_left_to_it(
    tmp_path: pathlib.Path,
) -> None:
    program = tmp_path / "program.py"
    orphan = """
    import subprocess

    def leave_behind(request):
        # Its child is an orphan at once, and ends soon.
        subprocess.run(["sh", "-c", "sleep 0.1 & echo $!"], check=True)
        return request.Response(text="left")

    def zombies(request):
        numbers = [name for name in os.listdir("/proc") if name.isdecimal()]
        return [number for number in numbers if ") Z " in open(f"/proc/{number}/stat").read()]

    app.router.add_route("/leave", leave_behind)
    app.router.add_route("/zombies", zombies)
    """
    program.write_text(textwrap.dedent(PROGRAM) + textwrap.dedent(orphan))
    serve = [sys.executable, "-m", "anel", "run", str(program), "--port", "0", "--workers", "1"]
    alone = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    with contextlib.ExitStack() as stack:
        server = start_service(stack, [*alone, *serve], r"^Accepting .*:(\d+)$", [], {})
        assert server.ask(get("/")).value["pid"] > 1

        for _ in range(3):
            assert server.ask(get("/leave")).text == "left"
            orphaned = int(server.wait_for_line(r"^(\d+)$")[1])
            server.lines.clear()
            assert orphaned > 1

        wait_until(lambda: server.ask(get("/zombies")).value == [], "no zombie")
