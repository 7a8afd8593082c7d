"""A throw-away PostgreSQL for the scenarios that ask for a row: made, filled, and removed with the run.

It runs on the client's processor, so that the server's is the server's alone; `pids` lets the measurement
tell its time from that of strangers. Durability is off: what is measured is the way to a database.
"""

import contextlib
import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import tempfile
import time

import measure
from engines import Unavailable

START_SECONDS = 30
ROWS = """
CREATE TABLE rows (id integer PRIMARY KEY, number integer NOT NULL);
INSERT INTO rows SELECT n, n + 4710 FROM generate_series(1, 10000) AS n;
"""


class Database:
    """A running PostgreSQL; a context manager. `Unavailable` when it cannot be had."""

    def __init__(self, cpu):
        self.cpu = cpu
        self.process = None
        self.folder = None
        self.port = None

    @property
    def address(self):
        """What asyncpg connects to."""
        return f"postgresql://anel@127.0.0.1:{self.port}/postgres"

    def pids(self):
        """All of its processes."""
        return measure.tree(self.process.pid)

    def __enter__(self):
        programs = {name: program(name) for name in ("initdb", "postgres", "psql")}
        user = plain_user()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="anel-bench-postgres-"))
        try:
            if user:
                shutil.chown(self.folder, user["user"])
            self._make(programs["initdb"], user)
            self._start(programs["postgres"], user)
            self._fill(programs["psql"])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process is not None:
            # SIGINT is its fast shutdown, which does not wait for clients.
            self.process.send_signal(2)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self, initdb, user):
        words = ["--username", "anel", "--auth", "trust", "--encoding", "UTF8", "--no-locale"]
        done = subprocess.run(
            [initdb, "--pgdata", self.folder / "cluster", *words, "--no-sync"],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=120,
            **user,
        )
        if done.returncode:
            raise Unavailable(f"initdb: {done.stderr.strip()[-200:]}")

    def _start(self, postgres, user):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "logging_collector": "off",
            "autovacuum": "off",
        }
        chosen = [word for name in settings for word in ("-c", f"{name}={settings[name]}")]
        log = self.folder / "log"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(self.cpu), postgres, "-D", self.folder / "cluster", *chosen],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                **user,
            )
        deadline = time.monotonic() + START_SECONDS
        # Its own word: a connection before that is refused or told to wait.
        while b"ready to accept connections" not in log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"postgres: {log.read_text(errors='replace')[-200:]}")
            time.sleep(0.02)

    def _fill(self, psql):
        done = subprocess.run(
            [psql, "--quiet", "--no-psqlrc", self.address],
            input=ROWS,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode or done.stderr:
            raise Unavailable(f"psql: {done.stderr.strip()[-200:]}")


def program(name):
    """A program of PostgreSQL: Debian keeps those of each version in a folder that is not in PATH."""
    folders = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which(name, path=os.pathsep.join([*map(str, folders), os.environ["PATH"]]))
    if found is None:
        raise Unavailable(f"no {name} (install PostgreSQL)")
    return found


def plain_user():
    """Popen's options for a user that PostgreSQL runs as: it refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": name, "group": user.pw_gid, "extra_groups": []}
    raise Unavailable("PostgreSQL refuses root, and there is no user postgres or nobody")
