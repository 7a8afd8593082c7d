"""Deep pipelines of every kind of handler, and clients that leave at random: no answer is wrong.

Owns the load. Each client draws its requests and its misfortunes from a seed of its own, and checks
every answer that it reads: its status, its content, its place. `make soak` goes on for longer.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import random
import time

import pytest
from conftest import Client, Server, get, wait_until

SOAK_S = float(os.environ.get("ANEL_SOAK_S") or 3)
CLIENTS = 6
DEPTH = 24

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


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 60)
def test_every_answer_is_right_whatever_others_do(shared: Server) -> None:
    open_before = shared.open_descriptors()
    until = time.monotonic() + SOAK_S
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        lives = [pool.submit(live, shared, seed, until) for seed in range(CLIENTS)]

    checked = [one.result() for one in lives]

    assert min(checked) > DEPTH * SOAK_S
    wait_until(lambda: json.loads(shared.ask(get("/tasks")).body) == 0, "no task is left")
    wait_until(lambda: shared.open_descriptors() <= open_before, "all connections are closed")
