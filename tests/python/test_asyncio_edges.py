"""Handlers that use asyncio badly, or hard: nobody else suffers, and what went wrong is said.

Owns misuse of the loop, floods of callbacks, fairness between asyncio and HTTP, and clients that
leave at the worst moment.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from conftest import Client, Serve, Server, get, wait_until

PROGRAM = """
    import asyncio, collections, threading
    from anel import Application

    app = Application()
    marks = collections.Counter()
    kept = []

    def route(path):
        def add(handler):
            app.router.add_route(path, handler)
            return handler
        return add

    @route("/hello")
    def hello(request):
        return request.Response(text="hello")

    @route("/slept")
    async def slept(request):
        await asyncio.sleep(0.001)
        return request.Response(text="slept")

    @route("/marks")
    def read_marks(request):
        return request.Response(json=marks)

    async def nothing():
        pass

    def closing(coroutine, call):
        "Calls, and closes the coroutine that nobody has awaited."
        try:
            return call(coroutine)
        finally:
            coroutine.close()

    @route("/nested/run_until_complete")
    def run_until_complete(request):
        return closing(nothing(), app.loop.run_until_complete)

    @route("/nested/run_until_complete_later")
    async def run_until_complete_later(request):
        await asyncio.sleep(0)
        return closing(nothing(), app.loop.run_until_complete)

    @route("/nested/run")
    def run(request):
        return closing(nothing(), asyncio.run)

    @route("/nested/run_forever")
    def run_forever(request):
        app.loop.run_forever()

    @route("/nested/other_loop")
    def other_loop(request):
        loop = asyncio.new_event_loop()
        try:
            return closing(nothing(), loop.run_until_complete)
        finally:
            loop.close()

    @route("/nested/close")
    def close(request):
        app.loop.close()

    @route("/nested/in_thread")
    async def in_thread(request):
        async def inner():
            await asyncio.sleep(0.001)
            return "another thread's loop"
        return request.Response(text=await asyncio.to_thread(lambda: asyncio.run(inner())))

    @route("/stop")
    def stop(request):
        app.loop.stop()
        return request.Response(text="stopping")

    @route("/stop_await_free")
    async def stop_await_free(request):
        app.loop.stop()
        return request.Response(text="stopping")

    @route("/stop_later")
    async def stop_later(request):
        await asyncio.sleep(0)
        marks["stopping"] += 1
        app.loop.stop()

    @route("/flood")
    def flood(request):
        for _ in range(20_000):
            app.loop.call_soon(marks.update, ["flood"])
        return request.Response(text="flooded")

    @route("/flood_later")
    async def flood_later(request):
        await asyncio.sleep(0)
        return flood(request)

    @route("/tasks")
    async def tasks(request):
        async def one():
            await asyncio.sleep(0)
        await asyncio.gather(*(one() for _ in range(5000)))
        return request.Response(text="tasks")

    @route("/spin")
    def spin(request):
        async def spins():
            while True:
                marks["spins"] += 1
                await asyncio.sleep(0)
        kept.append(app.loop.create_task(spins()))
        return request.Response(text="spinning")

    @route("/tick")
    def tick(request):
        async def ticks():
            while True:
                marks["ticks"] += 1
                await asyncio.sleep(0.001)
        kept.append(app.loop.create_task(ticks()))
        return request.Response(text="ticking")

    @route("/pipe")
    async def pipe(request):
        "Bytes go around through two descriptors as fast as the loop tells of them."
        reader, writer = await asyncio.open_connection(*kept[0])
        for _ in range(200):
            writer.write(b"b")
            await reader.readexactly(1)
        writer.close()
        return request.Response(text="around")

    @route("/serve_echo")
    async def serve_echo(request):
        async def echo(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
            writer.close()
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        kept[:0] = [server.sockets[0].getsockname(), server]
        return request.Response(text="listens")

    app.router.add_constant("/constant", text="constant")

    def begun(handler):
        async def counting(request):
            marks["begun"] += 1
            try:
                return await handler(request)
            finally:
                marks["ended"] += 1
        return counting

    @route("/leave/swallows")
    @begun
    async def swallows(request):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
        return request.Response(text="for nobody")

    @route("/leave/cleans_up")
    @begun
    async def cleans_up(request):
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.001)
            marks["cleaned up"] += 1

    @route("/leave/fails")
    @begun
    async def fails(request):
        try:
            await asyncio.sleep(3600)
        finally:
            raise LookupError("while cancelled")

    @route("/leave/gathers")
    @begun
    async def gathers(request):
        await asyncio.gather(*(asyncio.sleep(3600) for _ in range(10)))

    @route("/leave/group")
    @begun
    async def group(request):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(10):
                tasks.create_task(asyncio.sleep(3600))

    @route("/leave/timeout")
    @begun
    async def timeout(request):
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()

    @route("/leave/shields")
    @begun
    async def shields(request):
        async def goes_on():
            await asyncio.sleep(0.001)
            marks["went on"] += 1
            await asyncio.sleep(3600)
        kept.append(task := asyncio.ensure_future(goes_on()))
        await asyncio.shield(task)

    @route("/leave/thread")
    @begun
    async def thread(request):
        release = threading.Event()
        try:
            await asyncio.to_thread(release.wait, 10)
        finally:
            release.set()

    @route("/leave/generator")
    @begun
    async def generator(request):
        async def numbers():
            try:
                while True:
                    await asyncio.sleep(3600)
                    yield 1
            finally:
                marks["cleaned up"] += 1
        async for _ in numbers():
            pass

    @route("/tasks_left")
    def tasks_left(request):
        # What a shield protects goes on: it is no handler's.
        left = [task for task in asyncio.all_tasks(app.loop) if task not in kept]
        return request.Response(text=str(len(left)))
"""

PATHS_TO_LEAVE = [
    *("swallows", "cleans_up", "fails", "gathers", "group", "timeout", "shields", "thread"),
    "generator",
]


@pytest.fixture
def server(serve: Serve, reactor: str) -> Server:
    """The program on each reactor, for tests that leave something behind."""
    return serve(PROGRAM, "--reactor", reactor)


def marks(server: Server) -> dict[str, int]:
    """What handlers have noted."""
    found: dict[str, int] = json.loads(server.ask(get("/marks")).body)
    return found


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("run_until_complete", "RuntimeError: This event loop is already running"),
        ("run_until_complete_later", "RuntimeError: This event loop is already running"),
        ("run", r"RuntimeError: asyncio.run\(\) cannot be called from a running event loop"),
        ("run_forever", "RuntimeError: This event loop is already running"),
        ("other_loop", "RuntimeError: Cannot run the event loop while another loop is running"),
        ("close", "RuntimeError: Cannot close a running event loop"),
    ],
)
def test_a_loop_within_the_loop_is_an_error_of_its_handler_alone(
    server: Server, path: str, error: str
) -> None:
    with server.client() as client:
        client.send(get("/slept") + get(f"/nested/{path}") + get("/slept"))

        assert client.answer().text == "slept"
        assert client.answer().status == 500
        assert client.answer().text == "slept"
    server.wait_for_line(error)


def test_another_thread_may_run_a_loop_of_its_own(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/nested/in_thread") * 3)

        assert [client.answer().text for _ in range(3)] == ["another thread's loop"] * 3


@pytest.mark.parametrize("path", ["stop", "stop_await_free"])
def test_a_handler_that_stops_the_loop_is_answered(server: Server, path: str) -> None:
    with server.client() as client, server.client() as other:
        assert other.ask(get("/hello")).text == "hello"
        client.send(get("/hello") + get(f"/{path}"))

        assert client.answer().text == "hello"
        assert client.answer().text == "stopping"
        assert client.is_ended()
        assert other.is_ended()
    assert server.wait() == 0


def test_a_task_that_stops_the_loop_ends_the_server(server: Server) -> None:
    with server.client() as client:
        client.send(get("/stop_later"))

        assert server.wait() == 0


@pytest.mark.parametrize("path", ["flood", "flood_later"])
def test_thousands_of_callbacks_are_all_called(server: Server, path: str) -> None:
    with server.client() as client:
        client.send((get(f"/{path}") + get("/hello") + get("/slept")) * 5)

        texts = [client.answer().text for _ in range(15)]

    assert texts == ["flooded", "hello", "slept"] * 5
    wait_until(lambda: marks(server)["flood"] == 100_000, "all are called")


def test_thousands_of_tasks_are_no_burden(shared: Server) -> None:
    with shared.client() as client:
        client.send((get("/tasks") + get("/hello")) * 3)

        assert [client.answer().text for _ in range(6)] == ["tasks", "hello"] * 3


@pytest.mark.parametrize("path", ["hello", "slept", "constant"])
def test_http_is_served_while_asyncio_is_busy(server: Server, path: str) -> None:
    server.ask(get("/spin"))
    with server.client() as client:
        before = marks(server)["spins"]
        for _ in range(100):
            assert client.ask(get(f"/{path}")).text == path
        client.send(get(f"/{path}") * 240)
        assert [client.answer().text for _ in range(240)] == [path] * 240

        # A turn serves all that has arrived, so an answer takes few rounds of the loop. Only a
        # round that was not served would let this grow without bound.
        assert marks(server)["spins"] - before < 100_000


@pytest.fixture
def flood(server: Server, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server on which every connection always has another request at hand."""
    ending = threading.Event()

    def pipeline() -> None:
        with server.client() as client:
            data = get(f"/{request.param}") * 24
            first = client.ask(data)
            length = len(first.head) + len(first.body)
            client.send(data)
            client.next_bytes(length * 23)
            while not ending.is_set():
                client.send(data)
                client.next_bytes(length * 24)
            client.next_bytes(length * 24)

    threads = [threading.Thread(target=pipeline) for _ in range(3)]
    for thread in threads:
        thread.start()
    yield server
    ending.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("flood", ["hello", "slept", "constant"], indirect=True)
def test_asyncio_goes_on_while_http_is_flooded(flood: Server) -> None:
    flood.ask(get("/tick"))
    before = marks(flood)["ticks"]

    wait_until(lambda: marks(flood)["ticks"] > before + 50, "timers are met")

    assert flood.ask(get("/serve_echo")).text == "listens"
    assert flood.ask(get("/pipe")).text == "around"


@pytest.mark.parametrize("path", PATHS_TO_LEAVE)
def test_a_client_that_leaves_takes_its_handlers_with_it(server: Server, path: str) -> None:
    clients = [server.client() for _ in range(4)]
    for client in clients:
        client.send(get("/hello") + get(f"/leave/{path}") * 3 + get("/hello"))
    wait_until(lambda: marks(server).get("begun") == 12, "all have begun")

    for client in clients:
        client.reset()

    wait_until(lambda: marks(server).get("ended") == 12, "all have ended")
    wait_until(lambda: server.ask(get("/tasks_left")).text == "0", "no task is left")
    expected = {"cleans_up": "cleaned up", "generator": "cleaned up", "shields": "went on"}
    if path in expected:
        wait_until(lambda: marks(server).get(expected[path]) == 12, expected[path])
    assert server.ask(get("/slept")).text == "slept"


@pytest.mark.parametrize("path", PATHS_TO_LEAVE)
def test_clients_that_leave_do_not_disturb_those_that_stay(server: Server, path: str) -> None:
    with server.client() as staying:
        for _ in range(10):
            leaving: list[Client] = [server.client() for _ in range(4)]
            for client in leaving:
                client.send(get(f"/leave/{path}") * 2 + get("/slept") * 4)
            staying.send((get("/slept") + get("/hello")) * 12)
            for client in leaving:
                client.reset()

            texts = [staying.answer().text for _ in range(24)]
            assert texts == ["slept", "hello"] * 12
    wait_until(lambda: server.ask(get("/tasks_left")).text == "0", "no task is left")
