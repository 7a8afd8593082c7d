"""What asyncio itself offers works while the reactor waits: wake-ups, clocks, pipes, sockets.

Owns the parts that need the loop's descriptors and timers, and what requests share through asyncio.
What a single handler does with tasks and timeouts is in `test_async.py`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys

import pytest
from conftest import Serve, Server, get, wait_until

# What a server that is told to end says of its connections.
DRAINS = ("Termination request", "Draining connections", "0 idle", "1 idle", "1 connections busy")

PROGRAM = """
    import asyncio, collections, concurrent.futures, contextvars, multiprocessing, os, random
    import signal, socket, sys, tempfile, threading, time
    from anel import Application

    app = Application()
    marks = collections.Counter()
    shared = {}
    variable = contextvars.ContextVar("variable", default="unset")

    def route(path):
        def add(handler):
            app.router.add_route(path, handler)
            return handler
        return add

    def keep(name, make):
        if name not in shared:
            shared[name] = make()
        return shared[name]

    @route("/marks")
    def read_marks(request):
        return request.Response(json=marks)

    @route("/threadsafe_delay")
    async def threadsafe_delay(request):
        loop = asyncio.get_running_loop()
        called = loop.create_future()
        def outside():
            # Long enough for the server to have nothing left to do.
            time.sleep(0.05)
            loop.call_soon_threadsafe(called.set_result, time.monotonic())
        thread = threading.Thread(target=outside)
        thread.start()
        delay = time.monotonic() - await called
        thread.join()
        return request.Response(json=delay)

    @route("/threads/{count}")
    async def threads(request):
        loop, queue = asyncio.get_running_loop(), asyncio.Queue()
        def outside(number):
            for _ in range(100):
                loop.call_soon_threadsafe(queue.put_nowait, number)
        numbers = range(int(request.match_dict["count"]))
        threads = [threading.Thread(target=outside, args=(number,)) for number in numbers]
        for thread in threads:
            thread.start()
        received = collections.Counter([await queue.get() for _ in range(100 * len(threads))])
        for thread in threads:
            thread.join()
        return request.Response(json=[received[number] for number in numbers])

    def square(number):
        return number * number

    @route("/processes")
    async def processes(request):
        # A forked child has the parent's loop and ring, and must leave both alone.
        context = multiprocessing.get_context("fork")
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            loop = asyncio.get_running_loop()
            squares = [loop.run_in_executor(pool, square, number) for number in range(6)]
            return request.Response(json=await asyncio.gather(*squares))

    @route("/signal/{number}")
    async def on_signal(request):
        number = int(request.match_dict["number"])
        loop, received = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        loop.add_signal_handler(number, received.set_result, "received")
        marks["listens"] += 1
        text = await received
        loop.remove_signal_handler(number)
        return request.Response(text=text)

    @route("/sleeps")
    async def sleeps(request):
        early = 0
        async def one(delay):
            begun = time.monotonic()
            await asyncio.sleep(delay)
            # asyncio itself may be early by the resolution of its clock.
            return time.monotonic() - begun + time.get_clock_info("monotonic").resolution >= delay
        delays = [random.random() * 0.02 for _ in range(50)] + [1e-9, 1e-6, 1e-4]
        return request.Response(json=all(await asyncio.gather(*map(one, delays))))

    @route("/call_at")
    async def call_at(request):
        loop, called = asyncio.get_running_loop(), []
        begun, last = loop.time(), loop.create_future()
        numbers = list(range(50))
        random.shuffle(numbers)
        for number in numbers:
            loop.call_at(begun + number / 5000, called.append, number)
        loop.call_at(begun + 0.02, last.set_result, None)
        await last
        return request.Response(json=called == sorted(called) and len(called) == 50)

    @route("/earlier_timer")
    def earlier_timer(request):
        app.loop.call_later(3600, marks.update, ["too late"])
        app.loop.call_later(0.001, marks.update, ["earlier"])
        return request.Response(text="scheduled")

    @route("/call_soon")
    async def call_soon(request):
        loop, called = asyncio.get_running_loop(), []
        for number in range(5000):
            loop.call_soon(called.append, number)
        cancelled = loop.call_soon(called.append, "cancelled")
        cancelled.cancel()
        await asyncio.sleep(0)
        return request.Response(json=called == list(range(5000)))

    @route("/lock")
    async def with_lock(request):
        lock = keep("lock", asyncio.Lock)
        async with lock:
            before = marks["locked"]
            await asyncio.sleep(0)
            marks["locked"] = before + 1
        return request.Response(text="done")

    @route("/semaphore")
    async def with_semaphore(request):
        async with keep("semaphore", lambda: asyncio.Semaphore(3)):
            marks["inside"] += 1
            marks["inside at most"] = max(marks["inside at most"], marks["inside"])
            await asyncio.sleep(0.001)
            marks["inside"] -= 1
        return request.Response(text="done")

    @route("/queue/get")
    async def queue_get(request):
        return request.Response(text=await keep("queue", asyncio.Queue).get())

    @route("/queue/put/{text}")
    def queue_put(request):
        keep("queue", asyncio.Queue).put_nowait(request.match_dict["text"])
        return request.Response(text="put")

    @route("/barrier")
    async def barrier(request):
        async with keep("barrier", lambda: asyncio.Barrier(4)) as position:
            return request.Response(text=str(position))

    @route("/condition")
    async def condition(request):
        condition = keep("condition", asyncio.Condition)
        async with condition:
            marks["conditional"] += 1
            condition.notify_all()
            await condition.wait_for(lambda: marks["conditional"] % 3 == 0)
        return request.Response(text="met")

    @route("/context")
    async def context(request):
        async def child():
            seen = variable.get()
            variable.set("child")
            return seen
        variable.set("handler")
        called = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: called.set_result(variable.get()))
        seen = [await asyncio.create_task(child()), await called,
                await asyncio.to_thread(variable.get), variable.get()]
        return request.Response(json=seen)

    @route("/abandoned_generator")
    async def abandoned_generator(request):
        async def numbers():
            try:
                while True:
                    await asyncio.sleep(0)
                    yield 1
            finally:
                await asyncio.sleep(0)
                marks["cleaned up"] += 1
        async for _ in numbers():
            break
        return request.Response(text="abandoned")

    @route("/datagrams")
    async def datagrams(request):
        loop = asyncio.get_running_loop()
        class Upper(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport
            def datagram_received(self, data, address):
                self.transport.sendto(data.upper(), address)
        class Once(asyncio.DatagramProtocol):
            def __init__(self):
                self.received = loop.create_future()
            def datagram_received(self, data, address):
                self.received.set_result(data)
        upper, _ = await loop.create_datagram_endpoint(Upper, local_addr=("127.0.0.1", 0))
        once, protocol = await loop.create_datagram_endpoint(
            Once, remote_addr=upper.get_extra_info("sockname"))
        once.sendto(b"datagram")
        data = await protocol.received
        upper.close()
        once.close()
        return request.Response(body=data)

    @route("/unix_sockets")
    async def unix_sockets(request):
        async def upper(reader, writer):
            writer.write((await reader.read()).upper())
            writer.close()
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "socket")
            async with await asyncio.start_unix_server(upper, path):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(b"unix" * 100_000)
                writer.write_eof()
                data = await reader.read()
                writer.close()
        return request.Response(text=str(data == b"UNIX" * 100_000))

    @route("/names")
    async def names(request):
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        name = await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)
        return request.Response(json=[any(known[4][1] == 80 for known in found), name[0]])

    @route("/sockets")
    async def sockets(request):
        loop = asyncio.get_running_loop()
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            other.setblocking(False)
            sending = loop.create_task(loop.sock_sendall(one, b"s" * 1_000_000))
            received = 0
            while received < 1_000_000:
                received += len(await loop.sock_recv(other, 65536))
            await sending
            # A descriptor that is ready all the time is told of again and again.
            loop.add_writer(one, marks.update, ["writable"])
            before = marks["writable"]
            while marks["writable"] < before + 3:
                await asyncio.sleep(0)
            return request.Response(json=[received, loop.remove_writer(one)])

    @route("/pipes")
    async def pipes(request):
        script = "import sys; data = sys.stdin.read(); print(data.upper(), end=''); sys.exit(3)"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        output, errors = await process.communicate(b"p" * 200_000)
        return request.Response(
            json=[output == b"P" * 200_000, errors.decode(), process.returncode])

    @route("/child_exits")
    async def child_exits(request):
        process = await asyncio.create_subprocess_exec("sleep", "0.05")
        return request.Response(text=str(await process.wait()))

    @route("/child_killed")
    async def child_killed(request):
        process = await asyncio.create_subprocess_exec("sleep", "3600")
        process.kill()
        return request.Response(text=str(await process.wait()))

    @route("/shell")
    async def shell(request):
        process = await asyncio.create_subprocess_shell(
            "echo $((6 * 7))", stdout=asyncio.subprocess.PIPE)
        lines = [line.decode() async for line in process.stdout]
        return request.Response(json=[lines, await process.wait()])

    @route("/background_fails")
    async def background_fails(request):
        async def fails():
            raise KeyError("in the background")
        loop = asyncio.get_running_loop()
        heard = loop.create_future()
        loop.set_exception_handler(lambda loop, context: heard.set_result(context["exception"]))
        loop.create_task(fails())
        error = await heard
        loop.set_exception_handler(None)
        return request.Response(text=repr(error))

    @route("/callback_fails")
    async def callback_fails(request):
        loop = asyncio.get_running_loop()
        heard = loop.create_future()
        loop.set_exception_handler(lambda loop, context: heard.set_result(context["exception"]))
        loop.call_soon(lambda: 1 / 0)
        error = await heard
        loop.set_exception_handler(None)
        return request.Response(text=type(error).__name__)

    @route("/eager_tasks")
    async def eager_tasks(request):
        loop, found = asyncio.get_running_loop(), []
        async def one(number):
            found.append(number)
            await asyncio.sleep(0)
            return number
        loop.set_task_factory(asyncio.eager_task_factory)
        try:
            task = asyncio.create_task(one(1))
            found.append(2)
            found.append(await task)
            await asyncio.sleep(0.001)
        finally:
            loop.set_task_factory(None)
        return request.Response(json=found)
"""

RESULTS = {
    "threads/4": [100, 100, 100, 100],
    "processes": [0, 1, 4, 9, 16, 25],
    "sleeps": True,
    "call_at": True,
    "call_soon": True,
    "context": ["handler", "handler", "handler", "handler"],
    "datagrams": "DATAGRAM",
    "unix_sockets": "True",
    "names": [True, "127.0.0.1"],
    "sockets": [1_000_000, True],
    "pipes": [True, "", 3],
    "child_exits": "0",
    "child_killed": "-9",
    "shell": [["42\n"], 0],
    "background_fails": "KeyError('in the background')",
    "callback_fails": "ZeroDivisionError",
}
if sys.version_info >= (3, 12):
    RESULTS["eager_tasks"] = [1, 2, 1]


def marks(server: Server) -> dict[str, int]:
    """What handlers have noted."""
    found: dict[str, int] = json.loads(server.ask(get("/marks")).body)
    return found


@pytest.mark.parametrize("path", RESULTS)
def test_it_works_in_a_handler(shared: Server, path: str) -> None:
    with shared.client() as client:
        for _ in range(2):
            assert client.ask(get(f"/{path}")).value == RESULTS[path]


def test_everything_works_at_the_same_time(shared: Server) -> None:
    # These two exchange the loop's exception handler or task factory for all.
    paths = [path for path in RESULTS if not path.endswith(("_fails", "eager_tasks"))] * 3
    random.Random(1).shuffle(paths)
    with shared.client() as client, shared.client() as other:
        client.send(b"".join(get(f"/{path}") for path in paths))
        other.send(b"".join(get(f"/{path}") for path in reversed(paths)))

        assert [client.answer().value for _ in paths] == [RESULTS[path] for path in paths]
        backwards = paths[::-1]
        assert [other.answer().value for _ in paths] == [RESULTS[path] for path in backwards]


def test_a_thread_wakes_an_idle_server_at_once(shared: Server) -> None:
    delays = [float(shared.ask(get("/threadsafe_delay")).text) for _ in range(5)]

    # A server that is not woken would go on at its next deadline, seconds later.
    assert min(delays) < 0.02


def test_a_timer_that_a_sync_handler_sets_is_met(shared: Server) -> None:
    before = marks(shared).get("earlier", 0)

    shared.ask(get("/earlier_timer"))

    wait_until(lambda: marks(shared).get("earlier", 0) == before + 1, "the timer is met")


def test_a_signal_wakes_an_idle_server(shared: Server) -> None:
    before = marks(shared).get("listens", 0)
    with shared.client() as client:
        client.send(get(f"/signal/{int(signal.SIGUSR1)}"))
        wait_until(lambda: marks(shared).get("listens", 0) == before + 1, "it listens")

        os.kill(shared.process.pid, signal.SIGUSR1)

        assert client.answer().text == "received"


def test_a_server_stops_as_before_when_a_signal_handler_was_removed(
    serve: Serve, reactor: str
) -> None:
    server = serve(PROGRAM, "--reactor", reactor)
    with server.client() as client:
        client.send(get(f"/signal/{int(signal.SIGUSR1)}"))
        wait_until(lambda: marks(server).get("listens") == 1, "it listens")
        os.kill(server.process.pid, signal.SIGUSR1)
        assert client.answer().text == "received"

        assert server.stop() == 0


def test_requests_share_a_lock(shared: Server) -> None:
    before = marks(shared).get("locked", 0)
    clients = [shared.client() for _ in range(4)]
    for client in clients:
        client.send(get("/lock") * 24)
    for client in clients:
        with client:
            assert [client.answer().text for _ in range(24)] == ["done"] * 24

    assert marks(shared)["locked"] == before + 96


def test_requests_share_a_semaphore(shared: Server) -> None:
    clients = [shared.client() for _ in range(4)]
    for client in clients:
        client.send(get("/semaphore") * 8)
    for client in clients:
        with client:
            assert [client.answer().text for _ in range(8)] == ["done"] * 8

    assert marks(shared)["inside at most"] == 3


def test_requests_exchange_through_a_queue(shared: Server) -> None:
    with shared.client() as getting, shared.client() as putting:
        getting.send(get("/queue/get") * 24)
        putting.send(b"".join(get(f"/queue/put/{number}") for number in range(24)))

        assert [putting.answer().text for _ in range(24)] == ["put"] * 24
        assert [getting.answer().text for _ in range(24)] == [str(n) for n in range(24)]


@pytest.mark.parametrize(("path", "count"), [("barrier", 4), ("condition", 3)])
def test_requests_wait_for_each_other(shared: Server, path: str, count: int) -> None:
    clients = [shared.client() for _ in range(count)]
    for client in clients:
        client.send(get(f"/{path}"))

    texts = []
    for client in clients:
        with client:
            texts.append(client.answer().text)
    assert sorted(texts) == (["0", "1", "2", "3"] if path == "barrier" else ["met"] * 3)


def test_an_abandoned_generator_is_cleaned_up(shared: Server) -> None:
    before = marks(shared).get("cleaned up", 0)

    assert shared.ask(get("/abandoned_generator")).text == "abandoned"

    wait_until(lambda: marks(shared).get("cleaned up", 0) == before + 1, "it is cleaned up")


def test_asyncios_debug_mode_finds_nothing_to_complain_of(serve: Serve, reactor: str) -> None:
    # Slow callbacks are told of, and on a busy machine anything is slow.
    quiet = """
    app.loop.slow_callback_duration = 3600
    """
    # A forked child is warned of threads by newer versions of Python.
    paths = [path for path in RESULTS if path != "processes"]
    environment = {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "always::ResourceWarning"}
    server = serve(PROGRAM + quiet, "--reactor", reactor, **environment)
    with server.client() as client:
        for path in paths:
            assert client.ask(get(f"/{path}")).value == RESULTS[path]

    assert server.stop() == 0
    first, *ending = server.lines
    assert "Accepting connections" in first
    assert [line for line in ending if not line.startswith(DRAINS)] == []
