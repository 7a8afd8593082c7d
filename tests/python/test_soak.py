"""Clients of every kind at once: no answer is wrong, and nothing grows.

Owns the load: deep pipelines of every kind of handler by clients that stay, leave or reset; slow
ones; some that break a rule of HTTP; some that only connect and reset. Each draws what it does from
a seed of its own, and checks every answer that it reads: its status, its content, its place.
Descriptors and resident memory are watched meanwhile. `make soak` goes on for longer.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import random
import statistics
import threading
import time
from collections.abc import Callable

import pytest
from conftest import Client, Server, get, wait_until
from test_wire import cases

SOAK_S = float(os.environ.get("ANEL_SOAK_S") or 3)
DEPTH = 24
# Between two looks at the process, and between two steps of a slow client.
LOOK_S = 0.25
SLOW_S = 0.005
# How much more memory may be resident in the last quarter of the time than in the second one. A
# process that serves a million requests meanwhile would show a leak of 16 bytes in each.
GROWTH_KIB_MAX = 16 * 1024

PROGRAM = """
    import asyncio, gc, random
    from anel import Application, HTTPException

    app = Application()

    def route(path):
        def add(handler):
            app.router.add_route(path, handler)
            return handler
        return add

    def answer(request):
        return request.Response(text=f"{request.match_dict['n']} {request.text or ''}")

    @route("/sync/{n}")
    def sync(request):
        return answer(request)

    @route("/await_free/{n}")
    async def await_free(request):
        return answer(request)

    @route("/yields/{n}")
    async def yields(request):
        await asyncio.sleep(0)
        return answer(request)

    @route("/sleeps/{n}")
    async def sleeps(request):
        await asyncio.sleep(random.random() * 0.01)
        return answer(request)

    @route("/gathers/{n}")
    async def gathers(request):
        async def part(text):
            await asyncio.sleep(random.random() * 0.005)
            return text
        number, body = request.match_dict["n"], request.text or ""
        return request.Response(text=" ".join(await asyncio.gather(part(number), part(body))))

    @route("/groups/{n}")
    async def groups(request):
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            number = group.create_task(asyncio.sleep(0, request.match_dict["n"]))
            body = group.create_task(asyncio.sleep(0.001, request.text or ""))
        return request.Response(text=f"{number.result()} {body.result()}")

    @route("/fails/{n}")
    def fails(request):
        raise HTTPException(418, request.match_dict["n"] + " ")

    @route("/fails_later/{n}")
    async def fails_later(request):
        await asyncio.sleep(random.random() * 0.002)
        raise HTTPException(418, request.match_dict["n"] + " ")

    @route("/tasks")
    def tasks(request):
        gc.collect()
        return request.Response(json=len(asyncio.all_tasks(app.loop)))

    app.router.add_constant("/constant", text="constant")
    app.router.add_constant("/large", text="large " * 10_000)
"""

KINDS = [
    *("sync", "await_free", "yields", "sleeps", "gathers", "groups", "fails", "fails_later"),
    "constant",
]


@dataclasses.dataclass
class Expected:
    """A request and what its answer must be."""

    sent: bytes
    status: int
    text: str


def drawn(numbers: random.Random, number: int) -> Expected:
    """A request of a random kind, with a body or without."""
    kind = numbers.choice(KINDS)
    if kind == "constant":
        return Expected(get("/constant"), 200, "constant")
    target = f"/{kind}/{number}"
    if kind.startswith("fails"):
        return Expected(get(target), 418, f"{number} ")
    if numbers.random() < 0.7:
        return Expected(get(target), 200, f"{number} ")
    body = f"{number}-" * numbers.choice([1, 10, 1000, 10_000])
    sent = get(target, method="POST", body=body.encode())
    return Expected(sent, 200, f"{number} {body}")


def send(client: Client, numbers: random.Random, data: bytes) -> None:
    """Sends whole, or in pieces that respect nothing."""
    if numbers.random() < 0.8:
        client.send(data)
        return
    cuts = sorted(numbers.randrange(len(data)) for _ in range(4))
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        client.send(data[begin:end])


def check(client: Client, expected: list[Expected]) -> int:
    """Reads the answers to these requests, which come in their order."""
    for one in expected:
        answer = client.answer()
        assert (answer.status, answer.text) == (one.status, one.text)
    return len(expected)


def live(server: Server, seed: int, until: float) -> int:
    """One client after the other, each with its fate; returns how many answers were right."""
    numbers = random.Random(seed)
    checked = 0
    while time.monotonic() < until:
        client = server.client()
        fate = numbers.choice(["stays", "stays", "resets", "leaves", "half-closes", "breaks off"])
        for _ in range(numbers.randrange(1, 10)):
            expected = [drawn(numbers, at) for at in range(DEPTH)]
            send(client, numbers, b"".join(one.sent for one in expected))
            checked += check(client, expected)
        expected = [drawn(numbers, at) for at in range(DEPTH)]
        data = b"".join(one.sent for one in expected)
        if fate == "breaks off":
            client.send(data[: numbers.randrange(len(data))])
        else:
            send(client, numbers, data)
        if fate == "half-closes":
            client.finish()
        if fate in ("stays", "half-closes"):
            checked += check(client, expected)
        elif fate in ("resets", "leaves"):
            checked += check(client, expected[: numbers.randrange(DEPTH)])
        if fate in ("resets", "breaks off"):
            client.reset()
        else:
            client.socket.close()
    return checked


def dawdle(server: Server, seed: int, until: float) -> int:
    """Slow clients: some send a few bytes at a time, some read their answers late."""
    numbers = random.Random(seed)
    pause = threading.Event()
    checked = 0
    while time.monotonic() < until:
        with server.client(receive_buffer=4096) as client:
            if numbers.random() < 0.5:
                expected = [drawn(numbers, at) for at in range(3)]
                data = b"".join(one.sent for one in expected)
                size = max(len(data) // 100, 1)
                for at in range(0, len(data), size):
                    client.send(data[at : at + size])
                    pause.wait(SLOW_S)
                checked += check(client, expected)
                continue
            client.send(get("/large") * DEPTH)
            for _ in range(numbers.randrange(DEPTH)):
                pause.wait(SLOW_S)
                checked += check(client, [LARGE])
    return checked


LARGE = Expected(get("/large"), 200, "large " * 10_000)


def break_rules(server: Server, seed: int, until: float) -> int:
    """Mistakes behind good requests: all are answered in their order, and then it ends."""
    numbers = random.Random(seed)
    checked = 0
    while time.monotonic() < until:
        with server.client() as client:
            case = numbers.choice(REFUSED)
            expected = [drawn(numbers, at) for at in range(numbers.randrange(4))]
            client.send(b"".join(one.sent for one in expected) + case["input"])
            checked += check(client, expected)
            answers = client.rest()
            last = answers.rindex(b"HTTP/1.1 ")
            status = str(case["status"]).encode()
            assert answers[last:].startswith(b"HTTP/1.1 " + status), (case["name"], answers)
            checked += 1
    return checked


# What is refused for its size alone takes longer to send than to refuse.
REFUSED = [case for case in cases() if "refuse" in case and len(case["input"]) < 10_000]


def storm(server: Server, seed: int, until: float) -> int:
    """Clients that connect, ask or not, and reset at once; returns how many."""
    numbers = random.Random(seed)
    # Without a rest it would leave no time for the others.
    pause = threading.Event()
    gone = 0
    while time.monotonic() < until:
        pause.wait(SLOW_S)
        client = server.client()
        if numbers.random() < 0.7:
            client.send(drawn(numbers, gone).sent * numbers.randrange(1, DEPTH))
        client.reset()
        gone += 1
    return gone


@dataclasses.dataclass
class Watch:
    """What was seen of the process while it was under load."""

    descriptors: list[int] = dataclasses.field(default_factory=list)
    resident_kib: list[int] = dataclasses.field(default_factory=list)

    def look(self, server: Server, until: float) -> None:
        """Looks again and again until then."""
        pause = threading.Event()
        while time.monotonic() < until:
            pause.wait(LOOK_S)
            self.descriptors.append(server.open_descriptors())
            self.resident_kib.append(server.resident_kib())

    def growth_kib(self) -> float:
        """How much more memory the last quarter saw than the second one; the first warms up."""
        quarter = len(self.resident_kib) // 4
        early, late = self.resident_kib[quarter : 2 * quarter], self.resident_kib[-quarter:]
        return statistics.median(late) - statistics.median(early)


Life = Callable[[Server, int, float], int]
LIVES: list[Life] = [live, live, live, live, dawdle, dawdle, dawdle, break_rules, storm]


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 60)
def test_every_answer_is_right_whatever_others_do_and_nothing_grows(
    shared: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    open_before = shared.open_descriptors()
    until = time.monotonic() + SOAK_S
    watch = Watch()
    with concurrent.futures.ThreadPoolExecutor(len(LIVES)) as pool:
        lives = [pool.submit(one, shared, seed, until) for seed, one in enumerate(LIVES)]
        watch.look(shared, until)

    checked: dict[str, int] = {}
    for one, result in zip(LIVES, lives, strict=True):
        checked[one.__name__] = checked.get(one.__name__, 0) + result.result()

    grown_kib = watch.growth_kib()
    wait_until(lambda: json.loads(shared.ask(get("/tasks")).body) == 0, "no task is left")
    wait_until(lambda: shared.open_descriptors() <= open_before, "all connections are closed")
    with capsys.disabled():
        print(f"\n{SOAK_S:.0f} s: {checked}; {open_before} descriptors before and after, ", end="")
        print(f"{max(watch.descriptors)} at most; {watch.resident_kib[-1]} KiB, ", end="")
        print(f"{grown_kib:+.0f} between the second and the last quarter")
    assert min(checked.values()) > SOAK_S
    assert grown_kib < GROWTH_KIB_MAX
