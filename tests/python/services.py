"""Real servers for tests: a PostgreSQL, a Redis, an HAProxy, an nginx and a certificate.

Owns their start and their end. Each runs on a port that the kernel picked, in a temporary folder,
once for all tests that ask for it. What this machine does not have is a skipped test with the
reason; `make services` installs it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# Bounds a hang; a server is there after a second.
START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 10.0

# Somebody else may take the port between our look and the server's bind.
ATTEMPTS = 3


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def program(name: str, *folders: pathlib.Path) -> str:
    """The path of a program; without it the test is skipped."""
    found = shutil.which(name) or next(
        (str(folder / name) for folder in folders if (folder / name).exists()), None
    )
    if found is None:
        pytest.skip(f"no {name} on this machine: run `make services`")
    return found


def start(
    command: Callable[[int], list[str]], ready: str, folder: pathlib.Path, **options: Any
) -> tuple[subprocess.Popen[bytes], int]:
    """Starts a server on a free port and waits until it prints that it is ready."""
    log = folder / "log"
    for _ in range(ATTEMPTS):
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                **options,
            )
        deadline = time.monotonic() + START_DEADLINE_S
        while process.poll() is None:
            if ready in log.read_text(errors="replace"):
                return process, port
            if time.monotonic() > deadline:
                stop(process, signal.SIGKILL)
            time.sleep(0.01)
    raise AssertionError(f"{command(0)[0]} did not start:\n{log.read_text(errors='replace')}")


def stop(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Ends a server with its signal, or by force when it takes too long."""
    process.send_signal(number)
    try:
        process.wait(STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_DEADLINE_S)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis that keeps nothing."""
    redis_server = program("redis-server")

    def command(port: int) -> list[str]:
        where = ["--bind", "127.0.0.1", "--port", str(port)]
        return [redis_server, *where, "--save", "", "--appendonly", "no"]

    process, port = start(command, "eady to accept connections", tmp_path_factory.mktemp("redis"))
    yield f"redis://127.0.0.1:{port}/0"
    stop(process, signal.SIGTERM)


@dataclasses.dataclass
class Postgres:
    """A PostgreSQL; both addresses name the same database."""

    over_tcp: str
    over_unix: str


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL with an empty database that trusts everybody on this machine."""
    # Debian keeps the programs of each version in a folder that is not in PATH.
    installed = pathlib.Path("/usr/lib/postgresql").glob("*/bin")
    folders = sorted(installed, key=lambda folder: folder.parent.name, reverse=True)
    initdb, server = program("initdb", *folders), program("postgres", *folders)
    user = plain_user()
    # Not pytest's folder: it is closed to others, and the server may have to be somebody else.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="anel-postgres-"))
    try:
        if user:
            shutil.chown(folder, user["user"])
        cluster = folder / "cluster"
        subprocess.run(
            [
                *(initdb, "--pgdata", cluster, "--username", "anel", "--auth", "trust"),
                *("--encoding", "UTF8", "--no-locale", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **user,
        )

        def command(port: int) -> list[str]:
            settings = {
                "port": str(port),
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": str(folder),
                "fsync": "off",
                "logging_collector": "off",
                "lc_messages": "C",
            }
            chosen = [
                word for name, value in settings.items() for word in ("-c", f"{name}={value}")
            ]
            return [server, "-D", str(cluster), *chosen]

        process, port = start(command, "ready to accept connections", folder, **user)
        yield Postgres(
            f"postgresql://anel@127.0.0.1:{port}/postgres",
            f"postgresql://anel@/postgres?host={folder}&port={port}",
        )
        # Its "fast" shutdown, which does not wait for clients.
        stop(process, signal.SIGINT)
    finally:
        shutil.rmtree(folder)


def plain_user() -> dict[str, Any]:
    """Popen's options for a user that PostgreSQL runs as: it refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": name, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL refuses root, and there is no user postgres or nobody to run it as")


@dataclasses.dataclass
class HAProxy:
    """Ports of an HAProxy, by how it tells its servers of the client."""

    v1: int
    v2: int
    fields: int


# Health checks of the second backend come over connections of the proxy's own (LOCAL).
HAPROXY = """
defaults
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen v1
    bind 127.0.0.1:{v1}
    server one 127.0.0.1:{speaking} send-proxy
listen v2
    mode http
    option httpchk GET /
    bind 127.0.0.1:{v2}
    server one 127.0.0.1:{speaking} send-proxy-v2 proxy-v2-options authority,crc32c,unique-id \
        check inter 100ms
listen fields
    mode http
    option forwardfor
    bind 127.0.0.1:{fields}
    server one 127.0.0.1:{plain}
"""


@contextlib.contextmanager
def haproxy(folder: pathlib.Path, speaking: int, plain: int) -> Iterator[HAProxy]:
    """An HAProxy in front of two servers: one gets headers of the PROXY protocol, one fields."""
    ports = HAProxy(0, 0, 0)

    def configuration(port: int) -> str:
        ports.v1, ports.v2, ports.fields = port, free_port(), free_port()
        return HAPROXY.format(**dataclasses.asdict(ports), speaking=speaking, plain=plain)

    with haproxy_as(configuration, folder):
        yield ports


@contextlib.contextmanager
def haproxy_as(configuration: Callable[[int], str], folder: pathlib.Path) -> Iterator[int]:
    """An HAProxy with this configuration for a port; yields the port."""
    path, file = program("haproxy", pathlib.Path("/usr/sbin")), folder / "haproxy.cfg"

    def command(port: int) -> list[str]:
        file.write_text(configuration(port))
        return [path, "-W", "-db", "-f", str(file)]

    process, port = start(command, "Loading success", folder)
    try:
        yield port
    finally:
        stop(process, signal.SIGTERM)


# What a distribution's nginx.conf has around the files of conf.d, with nothing outside of a folder.
# Its workers may use the sockets of the tests' own servers: in the folders of one user.
NGINX = """
daemon off;
pid nginx.pid;
error_log stderr notice;
worker_processes 1;
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}}
"""


@contextlib.contextmanager
def nginx_as(site: Callable[[int], str], folder: pathlib.Path) -> Iterator[int]:
    """An nginx with this file in its `http` block, for a port; yields the port."""
    path = program("nginx", pathlib.Path("/usr/sbin"))
    # Others than root have no choice, and are warned of the line.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(NGINX.format(user=user))

    def command(port: int) -> list[str]:
        (folder / "site.conf").write_text(site(port))
        return [path, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]

    process, port = start(command, "start worker process ", folder)
    try:
        yield port
    finally:
        stop(process, signal.SIGQUIT)


@dataclasses.dataclass
class Certificate:
    """A self-signed certificate for localhost and its key, as PEM files."""

    certificate: pathlib.Path
    key: pathlib.Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate that is its own authority."""
    folder = tmp_path_factory.mktemp("certificate")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    subprocess.run(
        [
            *(program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", made.key, "-out", made.certificate),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    return made
