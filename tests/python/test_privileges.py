"""`--user` and `--group`: whom the server becomes, when, and what happens where that cannot be.

The tests that change users need root; so does the one thing that they are about.
"""

from __future__ import annotations

import grp
import os
import pathlib
import pwd
import socket
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from anel import privileges
from anel.exceptions import ConfigError, SetupError
from conftest import DEADLINE_S, Serve, Server, get

PROGRAM = """
    import os
    from anel import Application

    app = Application()
    seen = {}

    @app.on_startup
    def look():
        seen["at_startup"] = os.getresuid()

    def who(request):
        return {
            "uids": os.getresuid(),
            "gids": os.getresgid(),
            "groups": sorted(os.getgroups()),
            "at_startup": seen["at_startup"],
        }

    def try_to_return(request):
        try:
            os.setuid(0)
        except PermissionError:
            return "refused"
        return "root again"

    app.router.add_route("/", who)
    app.router.add_route("/try", try_to_return)
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


def some_user() -> pwd.struct_passwd:
    """A user that every machine has and nobody should be."""
    return pwd.getpwnam("nobody")


def told(server: Server) -> Any:
    return server.ask(get()).value


def three(number: int) -> list[int]:
    return [number] * 3


@as_root
def test_the_server_is_the_user_from_its_startup_on(serve: Serve, reactor: str) -> None:
    user = some_user()
    server = serve(PROGRAM, "--reactor", reactor, "--user", user.pw_name)

    answer = told(server)

    assert answer["uids"] == answer["at_startup"] == three(user.pw_uid)
    assert answer["gids"] == three(user.pw_gid)
    assert answer["groups"] == sorted(set(os.getgrouplist(user.pw_name, user.pw_gid)))
    assert server.ask(get("/try")).text == "refused"
    assert server.stop() == 0


@as_root
def test_the_ring_belongs_to_the_user(serve: Serve) -> None:
    server = serve(PROGRAM, "--reactor", "io_uring", "--user", some_user().pw_name)

    folder = pathlib.Path(f"/proc/{server.process.pid}/fd")
    rings = [fd for fd in folder.iterdir() if os.readlink(fd) == "anon_inode:[io_uring]"]

    assert [ring.stat().st_uid for ring in rings] == [some_user().pw_uid]


@as_root
def test_the_port_is_opened_before_root_is_given_up(serve: Serve) -> None:
    threshold = pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    port = free_port_below(int(threshold.read_text()) or 1024)

    server = serve(PROGRAM, "--port", str(port), "--user", some_user().pw_name)

    assert server.port == port
    assert told(server)["uids"] == three(some_user().pw_uid)


def free_port_below(end: int) -> int:
    for port in range(end - 1, 0, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"every port below {end} is taken")


@as_root
def test_numbers_need_no_entry(serve: Serve) -> None:
    server = serve(PROGRAM, "--user", "54321", "--group", "54322")

    answer = told(server)

    assert (answer["uids"], answer["gids"]) == (three(54321), three(54322))
    assert answer["groups"] == [54322]


@as_root
def test_a_group_alone_leaves_the_user_and_no_other_group(serve: Serve) -> None:
    group = grp.getgrgid(some_user().pw_gid)

    server = serve(PROGRAM, "--group", group.gr_name)

    answer = told(server)
    assert (answer["uids"], answer["gids"]) == (three(0), three(group.gr_gid))
    assert answer["groups"] == [group.gr_gid]


@as_root
def test_run_takes_user_and_group_as_arguments(serve: Serve, tmp_path: pathlib.Path) -> None:
    program = tmp_path / "own.py"
    source = PROGRAM + "\n    app.run('127.0.0.1', 0, user='nobody', group=54322)\n"
    program.write_text(textwrap.dedent(source))

    with subprocess.Popen(
        [sys.executable, "-u", str(program)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        server = Server(process, int(process.stdout.readline().rpartition(":")[2]))
        answer = told(server)
        process.terminate()

    assert (answer["uids"], answer["gids"]) == (three(some_user().pw_uid), three(54322))
    assert process.returncode == 0


# Takes from root what makes it root here, without making the interpreter unreadable.
LAUNCHER = """
    import ctypes, os, sys

    PR_CAPBSET_DROP, CAP_SETGID, CAP_SETUID = 24, 6, 7
    for capability in (CAP_SETGID, CAP_SETUID):
        if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            sys.exit("the capability stays")
    os.execv(sys.executable, [sys.executable, "-m", "anel", *sys.argv[1:]])
"""


@as_root
def test_without_the_right_to_change_the_server_does_not_start(tmp_path: pathlib.Path) -> None:
    launcher, program = tmp_path / "launcher.py", tmp_path / "program.py"
    launcher.write_text(textwrap.dedent(LAUNCHER))
    program.write_text(textwrap.dedent(PROGRAM))

    result = anel([str(launcher), "run"], program, "--user", "nobody")

    assert result.returncode == 3
    assert result.stdout == ""
    assert result.stderr == (
        "anel: cannot become user 'nobody' (EPERM);"
        " start as root, or leave --user and --group out\n"
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--user", "no-such-user"], "there is no user 'no-such-user' on this machine"),
        (["--group", "no-such-group"], "there is no group 'no-such-group' on this machine"),
        (["--user", "54321"], "user '54321' is not known here; name a group, too"),
        (["--user", ""], "user must be a name or a number from 0 to 4294967294, not ''"),
        (["--group", "4294967295"], "group must be a name or a number from 0 to 4294967294"),
    ],
)
def test_who_is_not_known_ends_with_one_line(
    tmp_path: pathlib.Path, options: list[str], line: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))

    result = anel(["-m", "anel", "run"], program, *options)

    assert result.returncode == 3
    assert result.stderr.startswith(f"anel: {line}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("wrong", [True, 1.5, -1, 2**32 - 1, b"root", ["root"]])
def test_what_is_no_name_and_no_number_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="user must be a name or a number"):
        privileges.identity(wrong, None)


def test_nobody_named_is_nobody_to_become() -> None:
    assert privileges.identity(None, None) is None


def test_a_refusal_of_the_kernel_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_groups: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setgroups", refuse)
    chosen = privileges.identity(None, os.getgid())
    assert chosen is not None

    with pytest.raises(SetupError) as caught:
        chosen.assume()

    assert caught.value.errno == 1


def anel(
    start: list[str], program: pathlib.Path, *options: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *start, str(program), "--port", "0", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
