"""A million requests leave nothing behind: objects, references, memory, descriptors.

Owns the counting. Half a million mixed requests go to each reactor in pipelined batches, and what
the server holds before and after is compared; requests that a handler kept are still what they
were.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import Client, Server, get, wait_until

PROGRAM = """
    import asyncio, collections, gc, os, sys
    from anel import Application, Headers, HTTPException, Request, Response

    app = Application()
    kept = []
    OK = Response(text="the same each time")

    def sync(request):
        return request.Response(text="sync")

    async def await_free(request):
        return request.Response(text="await free")

    async def awaits(request):
        await asyncio.sleep(0)
        return request.Response(text="awaits")

    def touch(request):
        seen = (request.method, request.path, request.query, request.query_string, request.headers,
                request.body, request.text, request.json, request.match_dict, request.keep_alive,
                request.route, request.remote_addr, request.hostname, request.port, request.version,
                request.mime_type, request.encoding, request.app, request.extra)
        request.extra["seen"] = seen
        return request.Response(json=[None, True, False], headers={"X-A": "1"}, code=201)

    async def touch_later(request):
        await asyncio.sleep(0)
        return touch(request)

    def raises(request):
        raise HTTPException(418, "teapot")

    def raises_lookup(request):
        raise LookupError

    def plain(request):
        return {"plain": [None, True, False]}, 200

    def keep(request):
        if int(request.match_dict["number"]) % 2:
            request.headers, request.body
        kept.append(request)
        return OK

    def recall(request):
        return Response(json=[
            [past.path, past.headers["X-Number"], past.text, past.query["n"], past.method]
            for past in kept])

    def cycle(request):
        request.extra["self"] = request
        return OK

    def streams(request):
        request.add_done_callback(lambda _: request.path)
        return Response(stream=(b"piece" for _ in range(3)), length=15)

    async def streams_async(request):
        async def pieces():
            for _ in range(3):
                yield request.path[:5]
                await asyncio.sleep(0)
        return Response(stream=pieces(), length=15)

    def streams_on(request):
        return Response(stream=(b"x" * 10_000 for _ in range(10_000)))

    async def streams_on_async(request):
        async def pieces():
            while True:
                yield b"x" * 10_000
        return Response(stream=pieces())

    def calls_back(request):
        request.add_done_callback(lambda _: request.path)
        return OK

    async def calls_back_later(request):
        request.add_done_callback(lambda _: request.path)
        await asyncio.sleep(0)
        request.transport.get_extra_info("socket").getsockname()
        return OK

    def forget(request):
        kept.clear()
        return "forgotten"

    def stats(request):
        for _ in range(3):
            gc.collect()
        counts = collections.Counter(type(known).__name__ for known in gc.get_objects())
        references = {
            name: sys.getrefcount(value) for name, value in {
                "None": None, "True": True, "False": False, "()": (), "Request": Request,
                "Response": Response, "Headers": Headers, "app": app, "OK": OK, "sync": sync,
                "dict": dict, "str": str, "bytes": bytes, "200": 200,
            }.items()}
        return Response(json={
            "objects": sum(counts.values()), "counts": counts, "references": references,
            "tasks": len(asyncio.all_tasks(app.loop)), "blocks": sys.getallocatedblocks()})

    app.add_error_handler(LookupError, lambda request, error: OK)
    app.router.add_route("/sync", sync)
    app.router.add_route("/await_free", await_free)
    app.router.add_route("/awaits", awaits)
    app.router.add_route("/touch/{one}/{two}", touch)
    app.router.add_route("/touch_later/{one}/{two}", touch_later)
    app.router.add_route("/raises", raises)
    app.router.add_route("/raises_lookup", raises_lookup)
    app.router.add_route("/plain", plain)
    app.router.add_route("/keep/{number}", keep)
    app.router.add_route("/recall", recall)
    app.router.add_route("/cycle", cycle)
    app.router.add_route("/streams", streams)
    app.router.add_route("/streams_async", streams_async)
    app.router.add_route("/streams_on", streams_on)
    app.router.add_route("/streams_on_async", streams_on_async)
    app.router.add_route("/calls_back", calls_back)
    app.router.add_route("/calls_back_later", calls_back_later)
    app.router.add_route("/forget", forget)
    app.router.add_route("/stats", stats)
    app.router.add_constant("/constant", text="constant")
"""

JSON = "Content-Type: application/json; charset=utf-8"
# One of everything, and mostly what is most common.
BATCH = [
    *[get("/sync")] * 24,
    *[get("/await_free")] * 8,
    *[get("/awaits")] * 8,
    *[get("/touch/1/2?a=b&a=c", JSON, method="POST", body=b'{"a": [1, null]}')] * 4,
    *[get("/touch_later/1/2?a=b", JSON, method="POST", body=b'{"a": [1, null]}')] * 4,
    *[get("/plain")] * 4,
    *[get("/constant")] * 4,
    get("/streams"),
    get("/streams_async"),
    get("/streams", method="HEAD"),
    get("/calls_back"),
    get("/calls_back_later"),
    get("/nowhere"),
    get("/raises"),
    get("/raises_lookup"),
    get("/sync", method="POST", body=b"b" * 1000),
    get("/sync", method="HEAD"),
    get("/sync", "Transfer-Encoding: chunked", method="PUT") + b"3\r\nabc\r\n0\r\n\r\n",
    get("/touch/%c4%85/b", "Content-Length: 4") + b"null",
    get("/sync?" + "q" * 500, "X-Long: " + "l" * 2000),
]
METHODS = [request.split(b" ", 1)[0].decode() for request in BATCH]
CONNECTIONS = 4
ROUNDS_MEASURED = 500_000 // (len(BATCH) * CONNECTIONS) + 1
ROUNDS_TO_WARM_UP = 200


class Load:
    """Sends the batch on several connections at once and counts the bytes that come back."""

    def __init__(self, server: Server) -> None:
        self.clients = [server.client() for _ in range(CONNECTIONS)]
        self.data = b"".join(BATCH)
        first = self.clients[0]
        first.send(self.data)
        answers = [first.answer(method) for method in METHODS]
        assert {answer.status for answer in answers} == {200, 201, 404, 418}
        # A Date has always the same length, so every answer to the batch has.
        self.length = sum(len(answer.head) + len(answer.body) for answer in answers)
        self.buffer = memoryview(bytearray(1 << 18))

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            for client in self.clients:
                client.send(self.data)
            for client in self.clients:
                left = self.length
                while left:
                    received = client.socket.recv_into(self.buffer, min(left, len(self.buffer)))
                    assert received, "the connection ended"
                    left -= received

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_exception: object) -> None:
        for client in self.clients:
            client.socket.close()


def stats(server: Server) -> dict[str, Any]:
    answer = server.ask(get("/stats"))
    assert answer.status == 200
    found: dict[str, Any] = json.loads(answer.body)
    return found


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_half_a_million_requests_leave_nothing_behind(shared: Server) -> None:
    with Load(shared) as load:
        load.run(ROUNDS_TO_WARM_UP)
        before = stats(shared)
        resident_before, open_before = shared.resident_kib(), shared.open_descriptors()

        load.run(ROUNDS_MEASURED)

        after = stats(shared)
        resident_after = shared.resident_kib()
        wait_until(lambda: shared.open_descriptors() <= open_before, "as few as before")
    grown = {
        name: count - before["counts"].get(name, 0)
        for name, count in after["counts"].items()
        if count - before["counts"].get(name, 0) > 20
    }
    assert grown == {}
    assert after["objects"] - before["objects"] < 100
    assert after["tasks"] == before["tasks"]
    assert after["blocks"] - before["blocks"] < 2000
    for name, count in before["references"].items():
        assert abs(after["references"][name] - count) < 100, name
    assert resident_after - resident_before < 4 * 1024
    wait_until(lambda: shared.open_descriptors() <= open_before - CONNECTIONS, "all are closed")


@pytest.mark.slow
def test_requests_that_are_kept_stay_what_they_were(shared: Server) -> None:
    count = 600
    with Load(shared) as load, shared.client() as client:
        for number in range(count):
            body = f"{number} " * (1 + number % 50 * 20)
            field = f"X-Number: {number} {'h' * (number % 300)}"
            client.send(get(f"/keep/{number}?n={number}", field, method="PUT", body=body.encode()))
            if number % 24 == 23:
                for _ in range(24):
                    client.answer()
                load.run(4)
        load.run(100)

    past = json.loads(shared.ask(get("/recall")).body)

    assert past == [
        [
            f"/keep/{number}",
            f"{number} {'h' * (number % 300)}".strip(),
            f"{number} " * (1 + number % 50 * 20),
            str(number),
            "PUT",
        ]
        for number in range(count)
    ]
    shared.ask(get("/forget"))
    with Load(shared) as load:
        load.run(1)


@pytest.mark.slow
def test_connections_that_come_and_go_leave_nothing_behind(shared: Server) -> None:
    def come_and_go(rounds: int) -> None:
        for number in range(rounds):
            clients: list[Client] = [shared.client() for _ in range(20)]
            for client in clients:
                client.send(get("/sync") + get("/awaits") + get("/touch/a/b"))
                client.send(get("/streams_on" if number % 2 else "/streams_on_async"))
            for client in clients:
                if number % 3 == 0:
                    client.reset()
                    continue
                if number % 3 == 1:
                    for _ in range(3):
                        client.answer()
                    client.next_bytes(100_000)
                client.socket.close()

    come_and_go(30)
    wait_until(lambda: stats(shared)["tasks"] == 0, "no tasks")
    before, open_before = stats(shared), shared.open_descriptors()
    resident_before = shared.resident_kib()

    come_and_go(150)

    wait_until(lambda: shared.open_descriptors() <= open_before, "all are closed")
    wait_until(lambda: stats(shared)["tasks"] == 0, "no tasks")
    assert stats(shared)["objects"] - before["objects"] < 100
    assert shared.resident_kib() - resident_before < 4 * 1024


def test_a_request_that_refers_to_itself_is_collected(shared: Server) -> None:
    with shared.client() as client:
        before = json.loads(client.ask(get("/stats")).body)["counts"].get("Request", 0)
        for _ in range(10):
            client.send(get("/cycle") * 20)
            for _ in range(20):
                assert client.answer().status == 200

        after = json.loads(client.ask(get("/stats")).body)["counts"].get("Request", 0)

    assert after <= before + 1
