"""Counts instructions of user code with callgrind; knows neither cases nor records.

A program is run twice, with few and with many rounds. The difference is free of start-up, and of everything
else that does not depend on the number of rounds.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

STOP_SECONDS = 120
# A batch takes milliseconds under callgrind.
SLEEP_SECONDS = 60


class Failed(Exception):
    """Nothing was counted; the text says why."""


def version() -> str | None:
    """What valgrind calls itself; None where there is none."""
    if shutil.which("valgrind") is None:
        return None
    done = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def count(command: Sequence[str], drive: Callable[[subprocess.Popen[str]], None] | None = None) -> int:
    """The instructions of one run of `command`; `drive` talks to it and ends it."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            # Without randomised addresses: allocators and hash tables depend on them.
            ["setarch", "--addr-no-randomize", "valgrind", "--tool=callgrind",
             f"--callgrind-out-file={folder}/out", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            if drive is not None:
                drive(process)
            _, report = process.communicate(timeout=STOP_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
    found = re.search(r"Collected : (\d+)", report)
    if process.returncode not in (0, -15) or found is None:
        raise Failed(f"{command[0]}: exit code {process.returncode}: {report.strip()[-300:]}")
    return int(found.group(1))


def per_round(run: Callable[[int], int], few: int, many: int, tries: int = 1) -> float:
    """Instructions per round: `run` counts a program that makes so many of them.

    The least of some tries counts: a server that was woken between two rounds, by a clock or because the
    machine was busy, takes steps that are not the round's, and it never takes fewer.
    """
    least = {rounds: min(run(rounds) for _ in range(tries)) for rounds in (few, many)}
    return (least[many] - least[few]) / (many - few)


def served(source: str, rounds: int, requests: bytes, answers: int, connections: int = 1) -> int:
    """Serves a Python program that listens on a port of its own, and counts so many rounds.

    In each, every connection sends `requests` in one write, and then all answers are read. With one
    connection every run takes the same steps: a batch arrives when the server waits for it.
    """
    import sys

    def drive(process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r":(\d+)$", line.strip())
        if found is None:
            raise Failed(f"the server says {line!r}: {process.communicate()[1][-300:]}")
        port = int(found.group(1))
        converse(process.pid, port, rounds, requests, answers, connections)
        process.terminate()

    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        program.write_text(source)
        return count([sys.executable, str(program)], drive)


def converse(
    pid: int, port: int, rounds: int, requests: bytes, answers: int, connections: int
) -> None:
    """Sends batches over all connections, then reads all answers; so many times."""
    clients = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(connections)]
    size = None
    for _ in range(rounds):
        wait_until_asleep(pid)
        for client in clients:
            client.sendall(requests)
        for client in clients:
            if size is None:
                size = answer_bytes(client, answers)
                continue
            left = size
            while left:
                part = client.recv(left)
                if not part:
                    raise Failed("the server closed the connection")
                left -= len(part)
    for client in clients:
        client.close()


def wait_until_asleep(pid: int) -> None:
    """Waits until the server has nothing left to do. One that finds the next batch before it has to wait
    for it takes fewer steps, and who is first would be a matter of luck.
    """
    deadline = time.monotonic() + SLEEP_SECONDS
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        if time.monotonic() > deadline:
            raise Failed(f"the server does not come to rest within {SLEEP_SECONDS} s")


def answer_bytes(client: socket.socket, answers: int) -> int:
    """Reads the first batch, and returns the length that all others must have, too."""
    received = b""
    while received.count(b"Hello world!") < answers:
        part = client.recv(65536)
        if not part:
            raise Failed("the server closed the connection")
        received += part
    return len(received)
