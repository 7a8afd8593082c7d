"""The filters of system calls of deploy/: what they let the server do, and what they do not.

Owns the proof that anel serves with io_uring behind seccomp.json, as a container runtime applies
it, and behind the filter of anel.service.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import pathlib
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import confined
import pytest
import services
from conftest import DEADLINE_S, REACTORS, Server, get, start_server, wait_until
from test_units import unit

ROOT = pathlib.Path(__file__).parents[2]
PROFILE = ROOT / "deploy" / "seccomp.json"
CONFINE = [sys.executable, confined.__file__]

PROGRAM = """
    import asyncio, os, subprocess, sys, tempfile, threading
    from anel import Application

    app = Application()

    @app.get("/")
    def pid(request):
        return str(os.getpid())

    @app.get("/work")
    async def work(request):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"written")
            file.flush()
            read = await asyncio.to_thread(open(file.name).read)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print('ran')", stdout=asyncio.subprocess.PIPE
        )
        output, _ = await child.communicate()
        addresses = await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        return [read, output.decode().strip(), bool(addresses)]
"""


def library_is_there() -> None:
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("no libseccomp on this machine: run `make services`")


@pytest.fixture
def profile() -> pathlib.Path:
    """The committed profile, on a machine that can apply it."""
    library_is_there()
    return PROFILE


def without(calls: set[str]) -> dict[str, Any]:
    """The committed profile without these calls."""
    profile: dict[str, Any] = json.loads(PROFILE.read_text())
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in calls]
    return profile


@contextlib.contextmanager
def serving(profile: pathlib.Path, folder: pathlib.Path, *options: str) -> Iterator[Server]:
    program = folder / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [*CONFINE, str(profile), sys.executable, "-m", "anel", "run", str(program)]
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [*command, "--port", "0", *options])
        yield server
        assert server.stop() == 0, "\n".join(server.lines)


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "with_workers"])
def test_anel_serves_behind_the_profile(
    profile: pathlib.Path, reactor: str, workers: list[str], tmp_path: pathlib.Path
) -> None:
    with serving(profile, tmp_path, "--reactor", reactor, *workers) as server:
        first = server.ask(get("/")).text
        worked = server.ask(get("/work"))
        if workers:
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda: server.ask(get("/")).text != first, "the next worker")

    assert worked.value == ["written", "ran", True]


def test_the_profile_is_what_allows_the_ring(profile: pathlib.Path, tmp_path: pathlib.Path) -> None:
    refusing = tmp_path / "refusing.json"
    refusing.write_text(json.dumps(without({"io_uring_setup"})))

    assert doctor(profile)["auto"] == "io_uring"
    refused = doctor(refusing)
    assert refused["auto"] == "epoll"
    assert "seccomp" in refused["why"]


def doctor(profile: pathlib.Path) -> Any:
    """What `anel doctor` says behind a profile."""
    told = subprocess.run(
        [*CONFINE, str(profile), sys.executable, "-m", "anel", "doctor", "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


# Prints the error of each call, 0 for none. For root, none of them is EPERM without the profile:
# wrong arguments have other errors.
ATTEMPTS = """
    import ctypes, json, os, platform
    libc = ctypes.CDLL(None, use_errno=True)

    def error(number, *arguments):
        ctypes.set_errno(0)
        libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
        return ctypes.get_errno()

    x86 = platform.machine() == "x86_64"
    print(json.dumps({
        "mount": error(165 if x86 else 40, 0, 0, 0, 0, 0),
        "unshare": error(272 if x86 else 97, -1),
        "keyctl": error(250 if x86 else 219, -1),
        "bpf": error(321 if x86 else 280, -1),
        "ptrace": error(101 if x86 else 117, -1),
        "new user namespace": error(56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0),
        "clone3": error(435, 0, 0),
        "raw packets": error(41 if x86 else 198, 17, 3, 0),
        "vsock": error(41 if x86 else 198, 40, 1, 0),
        "tcp": error(41 if x86 else 198, 2, 1, 0),
        "personality": error(135 if x86 else 92, 0x0040000),
    }))
"""


def test_the_profile_keeps_a_program_in_its_container(profile: pathlib.Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(ATTEMPTS)]

    attempted = subprocess.run(
        [*CONFINE, str(profile), *command], capture_output=True, text=True, timeout=DEADLINE_S
    )

    assert attempted.returncode == 0, attempted.stderr
    errors = json.loads(attempted.stdout)
    assert errors.pop("clone3") == errno.ENOSYS
    assert errors.pop("tcp") == 0
    assert errors == dict.fromkeys(errors, errno.EPERM)


@pytest.mark.parametrize("reactor", REACTORS)
def test_anel_serves_behind_the_filter_of_the_unit(reactor: str, tmp_path: pathlib.Path) -> None:
    library_is_there()
    profile = tmp_path / "unit.json"
    profile.write_text(json.dumps(filter_of_the_unit()))

    with serving(profile, tmp_path, "--reactor", reactor, "--workers", "2") as server:
        worked = server.ask(get("/work"))

    assert worked.value == ["written", "ran", True]


def filter_of_the_unit() -> dict[str, Any]:
    """The SystemCallFilter= lines of anel.service, as a profile."""
    text = (ROOT / "deploy" / "anel.service").read_text()
    lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith("SystemCallF")]
    allowed: set[str] = set()
    for line in lines:
        words = shlex.split(line.removeprefix("~"))
        named = {call for word in words for call in calls_of(word)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    assert unit("anel.service")["Service"]["SystemCallErrorNumber"] == "EPERM"
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "syscalls": [{"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"}],
    }


def calls_of(word: str) -> set[str]:
    """The calls of a group of systemd's, or the call itself."""
    if not word.startswith("@"):
        return {word}
    analyze = services.program("systemd-analyze")
    listed = subprocess.run(
        [analyze, "syscall-filter", "--no-pager", word],
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    words = [line.strip() for line in listed.stdout.splitlines()[1:]]
    return {call for one in words if one and not one.startswith("#") for call in calls_of(one)}
