"""Clients: one measured run of `load` or wrk against a server, and one run that counts system
calls.

A run gives a sample: a dict of numbers per request. Throughput and latency are the client's; CPU
time, memory and steal are read from the kernel when the measured window begins and ends.
"""

import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import time

import measure
from engines import BODY, Unavailable, raise_descriptor_limit

HERE = pathlib.Path(__file__).resolve().parent
WARM_UP_SECONDS = 0.5
# For connecting 10,000 idle connections, the drain and a slow machine.
SPARE_SECONDS = 90
SYSCALL_SECONDS = 1.0
# What moves bytes and waits for them; the rest is counted together.
SYSCALLS = (
    "io_uring_enter",
    "epoll_wait",
    "epoll_pwait",
    "epoll_ctl",
    "recvfrom",
    "read",
    "sendto",
    "sendmsg",
    "write",
    "writev",
)


class Failed(Exception):
    """A run gave no usable numbers; the text says why."""


class Window:
    """The kernel's counters of a server and the processors between two moments."""

    def __init__(self, server, cpus):
        self.pids = measure.tree(server.pid)
        self.cpus = cpus

    def begin(self):
        self.start = time.monotonic()
        self.cpu_before = measure.cpu_time(self.pids)
        self.processors_before = measure.processors(self.cpus)

    def end(self):
        self.cpu = measure.cpu_time(self.pids) - self.cpu_before
        self.processors = measure.processors(self.cpus) - self.processors_before
        self.elapsed = time.monotonic() - self.start
        self.resident = measure.resident_bytes(self.pids)

    def sample(self, requests, client_seconds):
        """What the window says per request; `client_seconds` is the client's own CPU time."""
        foreign = self.processors.busy - self.cpu.total - client_seconds
        return {
            "cpu_us": 1e6 * self.cpu.total / requests,
            "cpu_user_us": 1e6 * self.cpu.user / requests,
            "cpu_system_us": 1e6 * self.cpu.system / requests,
            "server_load": self.cpu.total / self.elapsed,
            "rss_bytes": self.resident,
            "steal": self.processors.stolen / (self.elapsed * len(self.cpus)),
            "foreign": max(0.0, foreign) / (self.elapsed * len(self.cpus)),
        }


def command(scenario, port, cpu, seconds, places):
    """The exact command of a run."""
    pinned = ["taskset", "-c", str(cpu)]
    if scenario.client == "wrk":
        script = ["-s", str(HERE / "wrk/pipeline.lua")] if scenario.depth > 1 else []
        words = [
            "wrk",
            "-t",
            "1",
            "-c",
            str(scenario.connections),
            "-d",
            f"{seconds:.0f}s",
            "--latency",
        ]
        depth = ["--", str(scenario.depth)] if scenario.depth > 1 else []
        return [*pinned, *words, *script, f"http://127.0.0.1:{port}/", *depth]
    words = [
        str(places.bin / "load"),
        *("--address", f"127.0.0.1:{port}"),
        *("--connections", str(scenario.connections)),
        *("--depth", str(scenario.depth)),
        *("--idle", str(scenario.idle)),
        *("--warmup", str(WARM_UP_SECONDS)),
        *("--duration", f"{seconds:g}"),
        *("--expect-body", BODY.decode()),
        *("--json", "--marks"),
    ]
    return [*pinned, *words]


def check_available(scenario, places):
    """Raises `Unavailable` when the scenario's client is missing."""
    if scenario.client == "wrk":
        if shutil.which("wrk") is None:
            raise Unavailable("no wrk")
    elif not (places.bin / "load").exists():
        raise Unavailable("load is not built (benchmarks/setup.sh)")


def run(scenario, server, cpus, seconds, places):
    """One measured run; `cpus` are the server's and the client's processor."""
    raise_descriptor_limit()
    if scenario.client == "wrk":
        return _run_wrk(scenario, server, cpus, seconds, places)
    return _run_load(scenario, server, cpus, seconds, places)


def _run_load(scenario, server, cpus, seconds, places):
    words = command(scenario, server.port, cpus[1], seconds, places)
    window = Window(server, cpus)
    marks, result = {"begin": window.begin, "end": window.end}, None
    for line in _lines(words, seconds + SPARE_SECONDS):
        message = json.loads(line)
        if "mark" in message:
            marks[message["mark"]]()
        else:
            result = message
    if result is None or result["errors"] or not result["requests"]:
        raise Failed(f"load: {result['first_fault'] if result else 'no result'}")
    client_seconds = result["client_cpu_user_s"] + result["client_cpu_system_s"]
    return {
        "requests": result["requests"],
        "seconds": result["seconds"],
        "requests_per_second": result["requests_per_second"],
        "p50_us": result["latency_us"]["p50"],
        "p99_us": result["latency_us"]["p99"],
        "max_us": result["latency_us"]["max"],
        "idle_alive": result["idle_alive"],
        "client_load": result["client_load"],
        **window.sample(result["requests"], client_seconds),
    }


def _run_wrk(scenario, server, cpus, seconds, places):
    # wrk has no warm-up of its own; a short run before does the same.
    warm_up = command(scenario, server.port, cpus[1], 1, places)
    list(_lines(warm_up, 1 + SPARE_SECONDS))
    # Whole seconds are all that wrk knows.
    words = command(scenario, server.port, cpus[1], max(1, round(seconds)), places)
    window = Window(server, cpus)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    window.begin()
    text = "\n".join(_lines(words, seconds + SPARE_SECONDS))
    window.end()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    client_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m),", text)
    if not found or int(found[1]) == 0:
        raise Failed(f"wrk: {text[-200:]}")
    if wrong := re.search(r"(Socket errors|Non-2xx).*", text):
        raise Failed(f"wrk: {wrong[0]}")
    requests, elapsed = int(found[1]), _micros(found[2], found[3]) / 1e6
    # wrk sometimes prints 0.00us for the 99th percentile of pipelined runs: that is no measurement.
    quantiles = {
        name: _micros(*value) or None
        for name, *value in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)", text, re.MULTILINE)
    }
    return {
        "requests": requests,
        "seconds": elapsed,
        "requests_per_second": requests / elapsed,
        "p50_us": quantiles.get("50"),
        "p99_us": quantiles.get("99"),
        "client_load": client_seconds / elapsed,
        **window.sample(requests, client_seconds),
    }


def count_syscalls(scenario, server, cpus, places):
    """System calls per request of a short run under strace, which is too slow to be timed."""
    if shutil.which("strace") is None:
        raise Unavailable("no strace")
    attach = [word for pid in measure.tree(server.pid) for word in ("-p", str(pid))]
    tracer = subprocess.Popen(
        ["strace", "-c", "-f", "-U", "name,calls", *attach],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first = tracer.stderr.readline()
        if "attached" not in first:
            raise Unavailable(f"strace: {first.strip()}")
        words = command(scenario, server.port, cpus[1], SYSCALL_SECONDS, places)
        result = json.loads(list(_lines(words, SYSCALL_SECONDS + SPARE_SECONDS))[-1])
    finally:
        if tracer.poll() is None:
            os.kill(tracer.pid, signal.SIGINT)
        rest = tracer.stderr.read()
        tracer.wait()
        tracer.stderr.close()
    requests = result["requests_total"]
    if not requests:
        raise Failed("no responses under strace")
    calls = {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", rest, re.MULTILINE)}
    total = calls.pop("total", 0) or sum(calls.values())
    named = {name: calls[name] / requests for name in SYSCALLS if name in calls}
    return {"all": total / requests, **named, "requests": requests}


def count_instructions(scenario, server, cpus, places):
    """User instructions per request, where the processor counts them for us."""
    if shutil.which("perf") is None:
        raise Unavailable("no perf")
    pids = ",".join(map(str, measure.tree(server.pid)))
    counter = subprocess.Popen(
        ["perf", "stat", "-x", ",", "-e", "instructions:u", "-p", pids],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        words = command(scenario, server.port, cpus[1], SYSCALL_SECONDS, places)
        result = json.loads(list(_lines(words, SYSCALL_SECONDS + SPARE_SECONDS))[-1])
    finally:
        if counter.poll() is None:
            os.kill(counter.pid, signal.SIGINT)
        text = counter.stderr.read()
        counter.wait()
        counter.stderr.close()
    count = text.strip().splitlines()[-1].split(",")[0] if text.strip() else ""
    if not count.isdigit():
        raise Unavailable("perf cannot count instructions here")
    return int(count) / result["requests_total"]


def _lines(words, seconds):
    """Runs a command and yields its lines as they come; it is killed when it takes too long."""
    # Killed by timeout(1), so that reading needs no thread.
    bounded = ["timeout", "--signal=KILL", f"{seconds:.0f}", *words]
    with subprocess.Popen(
        bounded, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        for line in client.stdout:
            yield line.rstrip("\n")
        problem = client.stderr.read().strip()
    # 1: `load` says that responses were wrong; its report says which.
    if client.returncode not in (0, 1):
        raise Failed(problem or f"client ended with {client.returncode}")


def _micros(amount, unit):
    return float(amount) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}[unit]
