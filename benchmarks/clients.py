"""Clients: one measured run of `load` or wrk against a server, and one run that counts system
calls.

A run gives a sample: a dict of numbers per request. Throughput and latency are the client's; CPU
time, memory and steal are read from the kernel when the measured window begins and ends.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time

from dataclasses import dataclass, field, replace

import measure
from catalogue import HERE, Exchange, Scenario
from engines import Places, Server, Unavailable, raise_descriptor_limit

WARM_UP_SECONDS = 0.5
# For connecting 10,000 idle connections, the drain and a slow machine.
SPARE_SECONDS = 90
COUNT_SECONDS = 1.0
# Longer answers are handed to the client in a file.
INLINE_BYTES_MAX = 200
# load's names of percentiles, and ours.
PERCENTILES = ("p50", "p75", "p90", "p99", "p99_9", "p99_99", "max")
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


@dataclass(frozen=True)
class Setting:
    """One run: who asks what of whom, from which processors and for how long."""

    scenario: Scenario
    exchange: Exchange
    server: Server
    cpus: list
    seconds: float
    places: Places
    # Processes that work for the run but are neither server nor client: a database.
    companions: list = field(default_factory=list)


class Window:
    """The kernel's counters of a server and the processors between two moments."""

    def __init__(self, setting):
        self.pids = measure.tree(setting.server.pid)
        self.companions = setting.companions
        # Those of the server, and the client's.
        self.cpus = sorted({*os.sched_getaffinity(setting.server.pid), *setting.cpus})

    def begin(self):
        self.start = time.monotonic()
        self.cpu_before = measure.cpu_time(self.pids)
        self.companions_before = measure.cpu_time(self.companions)
        self.processors_before = measure.processors(self.cpus)

    def end(self):
        self.cpu = measure.cpu_time(self.pids) - self.cpu_before
        self.companions_cpu = measure.cpu_time(self.companions) - self.companions_before
        self.processors = measure.processors(self.cpus) - self.processors_before
        self.elapsed = time.monotonic() - self.start
        self.resident = measure.resident_bytes(self.pids)

    def sample(self, requests, client_seconds):
        """What the window says per request; `client_seconds` is the client's own CPU time."""
        ours = self.cpu.total + self.companions_cpu.total + client_seconds
        foreign = self.processors.busy - ours
        return {
            "cpu_us": 1e6 * self.cpu.total / requests,
            "cpu_user_us": 1e6 * self.cpu.user / requests,
            "cpu_system_us": 1e6 * self.cpu.system / requests,
            "server_load": self.cpu.total / self.elapsed,
            "rss_bytes": self.resident,
            "steal": self.processors.stolen / (self.elapsed * len(self.cpus)),
            "foreign": max(0.0, foreign) / (self.elapsed * len(self.cpus)),
        }


def command(setting):
    """The exact command of a run."""
    pinned = ["taskset", "-c", ",".join(map(str, setting.cpus))]
    port, seconds = setting.server.port, setting.seconds
    if setting.scenario.client == "wrk":
        return [*pinned, *_wrk_words(setting.scenario, setting.exchange, port, seconds)]
    return [*pinned, *_load_words(setting, port, seconds)]


def _wrk_words(scenario, exchange, port, seconds):
    words = ["wrk", "-t", "1", "-c", str(scenario.connections), "-d", f"{seconds:.0f}s", "--latency"]
    script = ["-s", str(HERE / "wrk/pipeline.lua")] if scenario.depth > 1 else []
    depth = ["--", str(scenario.depth)] if scenario.depth > 1 else []
    return [*words, *script, f"http://127.0.0.1:{port}{exchange.path}", *depth]


def _load_words(setting, port, seconds):
    scenario, exchange = setting.scenario, setting.exchange
    words = [
        *(str(setting.places.bin / "load"), "--address", f"127.0.0.1:{port}"),
        *("--connections", str(scenario.connections)),
        *("--depth", str(scenario.depth)),
        *("--warmup", str(WARM_UP_SECONDS)),
        *("--duration", f"{seconds:g}"),
    ]
    # What is not the client's default, so that a command is as short as it can be.
    options = {
        "--method": (exchange.method, "GET"),
        "--path": (exchange.path, "/"),
        "--headers": (scenario.headers, "minimal"),
        "--body-bytes": (scenario.body_bytes, 0),
        "--body-framing": (scenario.body_framing, "length"),
        "--idle": (scenario.idle, 0),
        "--requests-per-connection": (scenario.requests_per_connection, 0),
        "--sources": (scenario.sources, 1),
        "--buffer-bytes": (scenario.buffer_bytes, 8192),
    }
    for name, (value, default) in options.items():
        if value != default:
            words += [name, str(value)]
    body = exchange.body(scenario.body_bytes)
    if len(body) <= INLINE_BYTES_MAX:
        words += ["--expect-body", body.decode()]
    else:
        words += ["--expect-body-file", _file_of(exchange.name, body)]
    return [*words, "--json", "--marks"]


def _file_of(name, body):
    """A file with the right answer, which is too long for a command line."""
    path = HERE / "target/answers" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != body:
        path.write_bytes(body)
    return str(path)


def check_available(scenario, places):
    """Raises `Unavailable` when the scenario's client is missing."""
    if scenario.client == "wrk":
        if shutil.which("wrk") is None:
            raise Unavailable("no wrk")
    elif not (places.bin / "load").exists():
        raise Unavailable("load is not built (benchmarks/setup.sh)")


def run(setting):
    """One measured run: a sample."""
    raise_descriptor_limit()
    if setting.scenario.client == "wrk":
        return _run_wrk(setting)
    return _run_load(setting)


def _run_load(setting):
    window = Window(setting)
    marks, result = {"begin": window.begin, "end": window.end}, None
    for line in _lines(command(setting), setting.seconds + SPARE_SECONDS):
        message = json.loads(line)
        if "mark" in message:
            marks[message["mark"]]()
        else:
            result = message
    if result is None or result["errors"] or not result["requests"]:
        fault = result and (result["first_fault"] or "no response within the window")
        raise Failed(f"load: {fault or 'no result'}")
    client_seconds = result["client_cpu_user_s"] + result["client_cpu_system_s"]
    return {
        "requests": result["requests"],
        "seconds": result["seconds"],
        "requests_per_second": result["requests_per_second"],
        "bytes_per_request": result["bytes"] / result["requests"],
        **{f"{name}_us": result["latency_us"][name] for name in PERCENTILES},
        "idle_alive": result["idle_alive"],
        "client_load": result["client_load"],
        **window.sample(result["requests"], client_seconds),
    }


def _run_wrk(setting):
    # wrk has no warm-up of its own; a short run before does the same.
    list(_lines(command(replace(setting, seconds=1)), 1 + SPARE_SECONDS))
    window = Window(setting)
    # Whole seconds are all that wrk knows.
    words = command(replace(setting, seconds=max(1, round(setting.seconds))))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    window.begin()
    text = "\n".join(_lines(words, setting.seconds + SPARE_SECONDS))
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


def count_syscalls(setting):
    """System calls per request of a short run under strace, which is too slow to be timed."""
    if shutil.which("strace") is None:
        raise Unavailable("no strace")
    attach = [word for pid in measure.tree(setting.server.pid) for word in ("-p", str(pid))]
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
        words = command(setting)
        result = json.loads(list(_lines(words, setting.seconds + SPARE_SECONDS))[-1])
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


def count_instructions(setting):
    """User instructions per request, where the processor counts them for us."""
    if shutil.which("perf") is None:
        raise Unavailable("no perf")
    pids = ",".join(map(str, measure.tree(setting.server.pid)))
    counter = subprocess.Popen(
        ["perf", "stat", "-x", ",", "-e", "instructions:u", "-p", pids],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        words = command(setting)
        result = json.loads(list(_lines(words, setting.seconds + SPARE_SECONDS))[-1])
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
