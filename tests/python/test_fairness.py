"""What one client can take from the others: memory, time, descriptors.

Owns clients that ask for everything and read nothing, and those that have to be served meanwhile,
on both reactors. Memory is measured in the server's process.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable

import pytest
from conftest import Client, Serve, Server, get, sending, wait_until

PROGRAM = """
import asyncio, resource, time
from anel import Application

app = Application()
app.router.add_constant("/constant", text="hello")
asked = []
gate = asyncio.Event()

@app.get("/plain")
def plain(request):
    return "hello"

@app.get("/await")
async def awaits(request):
    await asyncio.sleep(0)
    return "hello"

@app.get("/hold")
async def hold(request):
    await gate.wait()
    return "held"

@app.get("/release")
async def release(request):
    gate.set()
    return "released"

@app.get("/slow/{name}")
def slow(request, name):
    asked.append(name)
    time.sleep(0.001)
    return name

@app.get("/asked")
def told(request):
    return asked

@app.get("/counts")
def counted(request):
    return app.counters()
"""

LITTLE = """
resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_MAX, OPEN_MAX))
"""

GREEDY = 100_000


@pytest.fixture
def server(serve: Serve, reactor: str) -> Server:
    return serve(PROGRAM, "--reactor", reactor)


def counts(client: Client) -> dict[str, int]:
    """What the worker has counted."""
    found: dict[str, int] = json.loads(client.ask(get("/counts")).body)
    return found


def settled(read: Callable[[], int]) -> bool:
    """Whether a number stays the same while others are served."""
    first = read()
    return all(read() == first for _ in range(20))


@pytest.mark.parametrize("target", ["/constant", "/plain", "/await", "/hold"])
def test_a_pipeliner_that_never_reads_costs_bounded_memory(server: Server, target: str) -> None:
    with server.client() as other, server.client(receive_buffer=4096) as greedy:
        assert other.ask(get("/plain")).status == 200
        before = server.resident_kib()

        with sending(greedy, get(target) * GREEDY):
            wait_until(lambda: counts(other)["pauses_total"] > 0, "it is not read any more")
            wait_until(lambda: settled(lambda: counts(other)["bytes_received_total"] // 8192))
            received = counts(other)["bytes_received_total"]
            grown = server.peak_kib() - before

        print(f"peak RSS grew by {grown} KiB; {received} bytes were read")
        assert grown < 8 * 1024
        assert other.ask(get("/plain")).status == 200


@pytest.mark.parametrize("target", ["/constant", "/plain", "/await"])
def test_a_pipeline_of_100_000_is_answered_to_its_end(server: Server, target: str) -> None:
    with server.client() as greedy, sending(greedy, get(target) * GREEDY):
        for _ in range(GREEDY):
            assert greedy.answer().text == "hello"


def test_others_are_served_while_one_is_greedy(server: Server) -> None:
    with server.client() as other, server.client() as greedy:
        other.ask(get("/plain"))
        with sending(greedy, get("/slow/greedy") * 2000):
            # In the middle of it.
            wait_until(lambda: len(json.loads(other.ask(get("/asked")).body)) > 0, "it began")
            assert other.ask(get("/slow/other")).text == "other"
            asked = json.loads(other.ask(get("/asked")).body)
            for _ in range(2000):
                greedy.answer()

    assert asked.index("other") < 1000


def test_a_handler_that_awaits_does_not_stop_accepting(server: Server) -> None:
    with server.client() as waits:
        waits.send(get("/hold"))

        for _ in range(20):
            assert server.ask(get("/plain")).text == "hello"

        server.ask(get("/release"))
        assert waits.answer().text == "held"


def test_a_handler_that_blocks_does_not_refuse_connections(server: Server) -> None:
    with server.client() as blocks:
        blocks.send(get("/slow/blocks") * 100)

        clients = [server.client() for _ in range(20)]
        for client in clients:
            client.send(get("/plain"))

        assert [client.answer().text for client in clients] == ["hello"] * 20
        for client in clients:
            client.socket.close()


def test_a_lack_of_descriptors_is_survived_and_counted(serve: Serve, reactor: str) -> None:
    open_max = 40
    source = PROGRAM + LITTLE.replace("OPEN_MAX", str(open_max))
    server = serve(source, "--reactor", reactor)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert open_max < hard

    with server.client() as first:
        first.ask(get("/plain"))
        clients = [server.client() for _ in range(open_max)]
        for client in clients:
            client.send(get("/plain"))

        wait_until(lambda: counts(first)["accept_errors_total"] > 2, "it was tried again")
        state = counts(first)
        assert state["accept_pauses_total"] > 0
        assert state["connections_open"] < open_max
        # It is tried ten times a second, not all the time.
        turns = state["waits_total"]
        wait_until(lambda: counts(first)["accept_errors_total"] > 6, "it was tried again")
        assert counts(first)["waits_total"] - turns < 10_000

        # Each that leaves makes room for one that waits.
        for client in clients:
            assert client.answer().text == "hello"
            client.socket.close()
        assert first.ask(get("/plain")).text == "hello"
