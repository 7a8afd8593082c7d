"""Handlers that await: asyncio works inside them, and each answer takes its place in the order.

Owns what a handler may do with the loop. Overlap is observed through events that only overlapping
handlers can set for each other, never by measuring time.
"""

from __future__ import annotations

import random
import signal

import pytest
from conftest import Serve, Server, get, wait_until

PROGRAM = """
    import asyncio, collections, contextvars, functools, os, random, signal, threading, time, types
    from anel import Application, Response

    app = Application()
    marks = collections.Counter()
    events = collections.defaultdict(asyncio.Event)
    variable = contextvars.ContextVar("variable", default="unset")

    def route(path, handler=None):
        if handler is None:
            return lambda handler: route(path, handler)
        app.router.add_route(path, handler)
        return handler

    @route("/await_free")
    async def await_free(request):
        return request.Response(text="await free")

    @route("/awaits_done")
    async def awaits_done(request):
        async def inner():
            return "awaits what does not suspend"
        return request.Response(text=await inner())

    @route("/sleep")
    async def sleep(request):
        await asyncio.sleep(0.001)
        return request.Response(text="slept")

    @route("/gather")
    async def gather(request):
        async def one(number):
            await asyncio.sleep(0.001 * (3 - number))
            return number
        return request.Response(json=await asyncio.gather(*map(one, range(3))))

    @route("/timeout")
    async def timeout(request):
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(3600)
        except TimeoutError:
            return request.Response(text="timeout")

    @route("/wait_for")
    async def wait_for(request):
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        except TimeoutError:
            return request.Response(text="timeout")

    @route("/group")
    async def group(request):
        found = []
        async def one(number):
            await asyncio.sleep(0)
            found.append(number)
        async with asyncio.TaskGroup() as tasks:
            for number in range(3):
                tasks.create_task(one(number))
        return request.Response(json=sorted(found))

    @route("/group_fails")
    async def group_fails(request):
        async def fails():
            await asyncio.sleep(0)
            raise KeyError("in a group")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fails())
                tasks.create_task(asyncio.sleep(3600))
        except* KeyError as errors:
            text = str(errors.exceptions[0])
        return request.Response(text=text)

    @route("/to_thread")
    async def to_thread(request):
        name = await asyncio.to_thread(lambda: threading.current_thread().name)
        return request.Response(text=str(name != threading.current_thread().name))

    @route("/run_in_executor")
    async def run_in_executor(request):
        loop = asyncio.get_running_loop()
        return request.Response(text=await loop.run_in_executor(None, str.upper, "executor"))

    @route("/threadsafe")
    async def threadsafe(request):
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        thread = threading.Thread(
            target=lambda: loop.call_soon_threadsafe(future.set_result, "from a thread"))
        thread.start()
        text = await future
        thread.join()
        return request.Response(text=text)

    @route("/threadsafe_coroutine")
    async def threadsafe_coroutine(request):
        loop = asyncio.get_running_loop()
        async def inner():
            await asyncio.sleep(0)
            return "from the loop"
        def outside():
            return asyncio.run_coroutine_threadsafe(inner(), loop).result(10)
        return request.Response(text=await asyncio.to_thread(outside))

    background = set()

    @route("/background")
    async def in_background(request):
        async def work():
            await asyncio.sleep(0.001)
            marks["background"] += 1
        background.add(task := asyncio.create_task(work()))
        task.add_done_callback(background.discard)
        return request.Response(text="started")

    @route("/background_from_sync")
    def background_from_sync(request):
        async def work():
            await asyncio.sleep(0.001)
            marks["background_from_sync"] += 1
        background.add(task := app.loop.create_task(work()))
        task.add_done_callback(background.discard)
        return request.Response(text="started")

    @route("/call_later_from_sync")
    def call_later_from_sync(request):
        app.loop.call_later(0.001, lambda: marks.update(["call_later"]))
        return request.Response(text="started")

    @route("/marks/{name}")
    def read_marks(request):
        return request.Response(text=str(marks[request.match_dict["name"]]))

    @route("/streams/{port}")
    async def streams(request):
        port = int(request.match_dict["port"])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /sleep HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
        await writer.drain()
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return request.Response(text=answer.decode().rpartition("\\r\\n\\r\\n")[2])

    @route("/subprocess")
    async def in_subprocess(request):
        process = await asyncio.create_subprocess_exec(
            "echo", "-n", "from a process", stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        return request.Response(body=output)

    @route("/generator")
    async def over_generator(request):
        async def numbers():
            for number in range(3):
                await asyncio.sleep(0)
                yield number
        return request.Response(json=[number async for number in numbers()])

    @route("/semaphore")
    async def semaphore(request):
        async with asyncio.Lock(), asyncio.Semaphore(1):
            queue = asyncio.Queue()
            asyncio.get_running_loop().call_soon(queue.put_nowait, "queued")
            return request.Response(text=await queue.get())

    @route("/current_task")
    async def current_task(request):
        first = asyncio.current_task()
        await asyncio.sleep(0)
        same = first is asyncio.current_task() and first is not None
        return request.Response(text=str(same and first in asyncio.all_tasks()))

    def decorated(handler):
        @functools.wraps(handler)
        async def wrapper(request):
            await asyncio.sleep(0)
            return await handler(request)
        return wrapper

    def plainly_decorated(handler):
        def wrapper(request):
            return handler(request)
        return wrapper

    async def target(request, greeting="hello"):
        await asyncio.sleep(0)
        return request.Response(text=greeting)

    class Callable:
        async def __call__(self, request):
            return await target(request, "callable")
        async def method(self, request):
            return await target(request, "method")
        @classmethod
        async def of_class(cls, request):
            return await target(request, "class method")
        @staticmethod
        async def of_nothing(request):
            return await target(request, "static method")

    class Awaitable:
        def __init__(self, request):
            self.request = request
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return self.request.Response(text="awaitable")

    @types.coroutine
    def old_style(request):
        yield from asyncio.sleep(0).__await__()
        return request.Response(text="old style")

    route("/decorated", decorated(target))
    route("/plainly_decorated", plainly_decorated(target))
    route("/plainly_decorated_await_free", plainly_decorated(await_free))
    route("/partial", functools.partial(target, greeting="partial"))
    route("/partial_of_partial", functools.partial(functools.partial(target), greeting="twice"))
    route("/callable", Callable())
    route("/method", Callable().method)
    route("/class_method", Callable.of_class)
    route("/static_method", Callable.of_nothing)
    route("/lambda", lambda request: target(request, "lambda"))
    route("/awaitable", Awaitable)
    route("/old_style", plainly_decorated(old_style))

    @route("/future")
    def future(request):
        future = app.loop.create_future()
        app.loop.call_soon(future.set_result, Response(text="future"))
        return asyncio.ensure_future(resolve(future))

    async def resolve(future):
        return await future

    @route("/returns_coroutine")
    async def returns_coroutine(request):
        coroutine = target(request)
        background.add(coroutine)
        return coroutine

    @route("/returns_generator")
    def returns_generator(request):
        return (number for number in [request])

    @route("/yields_nonsense")
    @plainly_decorated
    @types.coroutine
    def yields_nonsense(request):
        yield 42

    @route("/raises")
    async def raises(request):
        await asyncio.sleep(0)
        raise ValueError("after await")

    @route("/raises_before")
    async def raises_before(request):
        raise ValueError("before await")
        await asyncio.sleep(0)

    @route("/raises_cancelled")
    async def raises_cancelled(request):
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    @route("/raises_cancelled_before")
    async def raises_cancelled_before(request):
        raise asyncio.CancelledError
        await asyncio.sleep(0)

    @route("/raises_cancelled_sync")
    def raises_cancelled_sync(request):
        raise asyncio.CancelledError

    @route("/cancels_itself")
    async def cancels_itself(request):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    @route("/exits_sync/{kind}")
    def exits_sync(request):
        raise {"exit": SystemExit(9), "interrupt": KeyboardInterrupt()}[request.match_dict["kind"]]

    @route("/exits_await_free/{kind}")
    async def exits_await_free(request):
        raise {"exit": SystemExit(9), "interrupt": KeyboardInterrupt()}[request.match_dict["kind"]]

    @route("/exits_before_await/{kind}")
    async def exits_before_await(request):
        raise {"exit": SystemExit(9), "interrupt": KeyboardInterrupt()}[request.match_dict["kind"]]
        await asyncio.sleep(0)

    @route("/exits_after_await/{kind}")
    async def exits_after_await(request):
        await asyncio.sleep(0)
        raise {"exit": SystemExit(9), "interrupt": KeyboardInterrupt()}[request.match_dict["kind"]]

    @route("/random/{number}")
    async def sleeps_at_random(request):
        await asyncio.sleep(random.random() * 0.01)
        return request.Response(text=request.match_dict["number"])

    @route("/random_sync/{number}")
    def at_once(request):
        return request.Response(text=request.match_dict["number"])

    @route("/random_fails/{number}")
    async def fails_at_random(request):
        await asyncio.sleep(random.random() * 0.01)
        raise LookupError(request.match_dict["number"])

    app.add_error_handler(
        LookupError, lambda request, error: request.Response(text=str(error.args[0]), code=500))

    @route("/meet/{own}/{other}")
    async def meet(request):
        events[request.match_dict["own"]].set()
        await events[request.match_dict["other"]].wait()
        return request.Response(text=request.match_dict["own"])

    @route("/set/{name}")
    def set_event(request):
        events[request.match_dict["name"]].set()
        return request.Response(text="set")

    @route("/wait/{name}")
    async def wait(request):
        name = request.match_dict["name"]
        marks[f"begun-{name}"] += 1
        try:
            await events[name].wait()
        except asyncio.CancelledError:
            marks[f"cancelled-{name}"] += 1
            raise
        return request.Response(text=request.path)

    @route("/context/{value}")
    async def context(request):
        before = variable.get()
        variable.set(request.match_dict["value"])
        await asyncio.sleep(0)
        return request.Response(text=before + " " + variable.get())

    @route("/context_before_await/{value}")
    async def context_before_await(request):
        before = variable.get()
        variable.set(request.match_dict["value"])
        if request.match_dict["value"] == "never":
            await asyncio.sleep(0)
        return request.Response(text=before + " " + variable.get())
"""


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("await_free", "await free"),
        ("awaits_done", "awaits what does not suspend"),
        ("sleep", "slept"),
        ("gather", "[0,1,2]"),
        ("timeout", "timeout"),
        ("wait_for", "timeout"),
        ("group", "[0,1,2]"),
        ("group_fails", "'in a group'"),
        ("to_thread", "True"),
        ("run_in_executor", "EXECUTOR"),
        ("threadsafe", "from a thread"),
        ("threadsafe_coroutine", "from the loop"),
        ("subprocess", "from a process"),
        ("generator", "[0,1,2]"),
        ("semaphore", "queued"),
        ("current_task", "True"),
        ("decorated", "hello"),
        ("plainly_decorated", "hello"),
        ("plainly_decorated_await_free", "await free"),
        ("partial", "partial"),
        ("partial_of_partial", "twice"),
        ("callable", "callable"),
        ("method", "method"),
        ("class_method", "class method"),
        ("static_method", "static method"),
        ("lambda", "lambda"),
        ("awaitable", "awaitable"),
        ("future", "future"),
    ],
)
def test_asyncio_works_in_a_handler(shared: Server, path: str, text: str) -> None:
    with shared.client() as client:
        client.send(get(f"/{path}") * 3 + get("/await_free"))

        assert [client.answer().text for _ in range(3)] == [text] * 3
        assert client.answer().text == "await free"


def test_a_handler_can_be_a_client_of_another_server(shared: Server, serve: Serve) -> None:
    other = serve(PROGRAM)

    assert shared.ask(get(f"/streams/{other.port}")).text == "slept"


def test_a_handler_can_be_a_client_of_its_own_server(shared: Server) -> None:
    with shared.client() as client:
        client.send(get(f"/streams/{shared.port}") * 8)

        assert [client.answer().text for _ in range(8)] == ["slept"] * 8


@pytest.mark.parametrize(
    ("path", "mark"),
    [
        ("background", "background"),
        ("background_from_sync", "background_from_sync"),
        ("call_later_from_sync", "call_later"),
    ],
)
def test_what_a_handler_leaves_to_the_loop_is_done(shared: Server, path: str, mark: str) -> None:
    before = int(shared.ask(get(f"/marks/{mark}")).text)

    assert shared.ask(get(f"/{path}")).text == "started"

    wait_until(lambda: int(shared.ask(get(f"/marks/{mark}")).text) == before + 1, mark)


def test_the_loop_goes_on_without_any_request(serve: Serve, reactor: str) -> None:
    server = serve(
        """
        import asyncio
        from anel import Application

        app = Application()

        async def tick():
            for number in range(3):
                await asyncio.sleep(0.001)
                print("tick", number, flush=True)

        task = app.loop.create_task(tick())
        """,
        "--reactor",
        reactor,
    )

    server.wait_for_line("tick 2")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("raises", 500),
        ("raises_before", 500),
        ("returns_coroutine", 500),
        ("returns_generator", 500),
        ("yields_nonsense", 500),
        ("old_style", 500),
        ("raises_cancelled", 503),
        ("raises_cancelled_before", 503),
        ("raises_cancelled_sync", 503),
        ("cancels_itself", 503),
    ],
)
def test_a_handler_that_fails_is_answered_and_its_neighbours_too(
    shared: Server, path: str, status: int
) -> None:
    with shared.client() as client:
        client.send(get("/sleep") + get(f"/{path}") + get("/sleep"))

        assert client.answer().text == "slept"
        failed = client.answer()
        assert failed.status == status
        assert failed.text == {500: "Internal Server Error", 503: "Service unavailable"}[status]
        assert client.answer().text == "slept"


@pytest.mark.parametrize(("kind", "status"), [("exit", 9), ("interrupt", 1)])
@pytest.mark.parametrize(
    "path", ["exits_sync", "exits_await_free", "exits_before_await", "exits_after_await"]
)
def test_an_exit_in_a_handler_ends_the_process_as_asyncio_has_it(
    serve: Serve, reactor: str, path: str, kind: str, status: int
) -> None:
    server = serve(PROGRAM, "--reactor", reactor)
    with server.client() as client:
        client.send(get(f"/{path}/{kind}"))

        assert server.wait() == status


@pytest.mark.parametrize("depth", [24, 500])
@pytest.mark.parametrize("seed", range(3))
def test_a_deep_mixed_pipeline_is_answered_in_order(shared: Server, depth: int, seed: int) -> None:
    numbers = random.Random(f"{depth} {seed}")
    kinds = [numbers.choice(["random", "random_sync", "random_fails"]) for _ in range(depth)]
    with shared.client() as client:
        client.send(b"".join(get(f"/{kind}/{at}") for at, kind in enumerate(kinds)))

        for at, kind in enumerate(kinds):
            answer = client.answer()
            assert answer.text == str(at)
            assert answer.status == (500 if kind == "random_fails" else 200)


def test_deep_pipelines_of_many_connections_are_answered_in_order(shared: Server) -> None:
    clients = [shared.client() for _ in range(16)]
    for client in clients:
        client.send(b"".join(get(f"/random/{number}") for number in range(100)))

    for client in clients:
        with client:
            assert [client.answer().text for _ in range(100)] == [str(n) for n in range(100)]


def test_a_half_closed_pipeline_is_answered_to_its_end(shared: Server) -> None:
    with shared.client() as client:
        client.send(b"".join(get(f"/random/{number}") for number in range(300)))
        client.finish()

        assert [client.answer().text for _ in range(300)] == [str(n) for n in range(300)]
        assert client.is_ended()


def test_requests_of_one_connection_overlap(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/meet/a/b") + get("/meet/b/c") + get("/meet/c/a"))

        assert [client.answer().text for _ in range(3)] == ["a", "b", "c"]


def test_a_sync_handler_runs_before_an_earlier_one_that_waits_is_done(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/wait/door") + get("/set/door"))

        assert [client.answer().text for _ in range(2)] == ["/wait/door", "set"]


def test_an_answer_is_sent_although_a_later_request_waits(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/sleep") + get("/await_free") + get("/wait/gate"))

        assert client.answer().text == "slept"
        assert client.answer().text == "await free"
        assert client.is_silent()
        shared.ask(get("/set/gate"))
        assert client.answer().text == "/wait/gate"


def test_a_reset_cancels_the_tasks_of_its_connection_only(shared: Server) -> None:
    mark = "/marks/cancelled-reset"
    stays, leaves = shared.client(), shared.client()
    stays.send(get("/wait/reset"))
    leaves.send(get("/wait/reset") * 3)
    wait_until(lambda: shared.ask(get("/marks/begun-reset")).text == "4", "four begin")

    leaves.reset()

    wait_until(lambda: shared.ask(get(mark)).text == "3", "three are cancelled")
    with stays:
        shared.ask(get("/set/reset"))
        assert stays.answer().text == "/wait/reset"


@pytest.mark.parametrize("path", ["context", "context_before_await"])
def test_context_variables_do_not_leak_into_other_requests(shared: Server, path: str) -> None:
    with shared.client() as client:
        client.send(b"".join(get(f"/{path}/{number}") for number in range(10)))
        assert [client.answer().text for _ in range(10)] == [f"unset {n}" for n in range(10)]

        assert client.ask(get("/context/later")).text == "unset later"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_busy_handler_does_not_hurt_its_answer(
    serve: Serve, reactor: str, number: int
) -> None:
    server = serve(
        """
        import os, signal
        from anel import Application

        app = Application()

        def busy(request):
            os.kill(os.getpid(), int(request.match_dict["number"]))
            return request.Response(text=str(sum(range(100_000))))

        app.router.add_route("/{number}", busy)
        """,
        "--reactor",
        reactor,
    )
    with server.client() as client:
        answer = client.ask(get(f"/{int(number)}"))

        assert answer.text == str(sum(range(100_000)))
        assert client.is_ended()
    assert server.wait() == 0
