"""The task of a handler that awaits: what asyncio and its tools see of it."""

from __future__ import annotations

import json
import signal

import pytest
from conftest import Serve, Server, get, wait_until

PROGRAM = """
    import asyncio, collections.abc, inspect, io, logging, traceback
    from anel import Application, Response

    app = Application()
    kept = {}
    log = []

    class Keep(logging.Handler):
        def emit(self, record):
            log.append(record.name)

    logging.getLogger().addHandler(Keep())

    def route(path):
        def register(handler):
            app.router.add_route(path, handler)
            return handler
        return register

    @route("/self")
    async def own_task(request):
        await asyncio.sleep(0)
        task = asyncio.current_task()
        coroutine = task.get_coro()
        stack = io.StringIO()
        task.print_stack(file=stack)
        return {
            "is a task": type(task) is asyncio.Task,
            "in all_tasks": task in asyncio.all_tasks(),
            "name": coroutine.__name__,
            "code": coroutine.cr_code.co_name,
            "frame": coroutine.cr_frame.f_code.co_name,
            "running": coroutine.cr_running,
            "coroutine": asyncio.iscoroutine(coroutine),
            "abc": isinstance(coroutine, collections.abc.Coroutine),
            "stack": "own_task" in stack.getvalue(),
            "repr": "own_task() running at" in repr(task),
        }

    @route("/waits/{name}")
    async def waits(request):
        name = request.match_dict["name"]
        kept[name] = asyncio.current_task()
        kept[name + " event"] = event = asyncio.Event()
        try:
            await event.wait()
        finally:
            log.append("left " + name)
        return "waited"

    @route("/frame/{name}")
    def frame(request):
        task = kept[request.match_dict["name"]]
        return {
            "frames": [frame.f_code.co_name for frame in task.get_stack()],
            "await": type(task.get_coro().cr_await).__name__,
        }

    @route("/cancel/{name}")
    def cancel(request):
        return str(kept[request.match_dict["name"]].cancel())

    @route("/set/{name}")
    def set_event(request):
        kept[request.match_dict["name"] + " event"].set()
        return "set"

    @route("/close/{name}")
    def close(request):
        kept[request.match_dict["name"]].get_coro().close()
        return "closed"

    @route("/outcome/{name}")
    def outcome(request):
        task = kept[request.match_dict["name"]]
        if not task.done():
            return "pending"
        return "cancelled" if task.cancelled() else repr((task.exception(), task.result()))

    @route("/swallows/{name}")
    async def swallows(request):
        kept[request.match_dict["name"]] = asyncio.current_task()
        kept[request.match_dict["name"] + " event"] = event = asyncio.Event()
        try:
            await event.wait()
        except asyncio.CancelledError:
            return "swallowed"

    @route("/goes_on/{name}")
    async def goes_on(request):
        kept[request.match_dict["name"]] = asyncio.current_task()
        event = asyncio.Event()
        try:
            await event.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "went on"

    @route("/raises")
    async def raises(request):
        await asyncio.sleep(0)
        raise ValueError("once")

    @route("/raises_at_once")
    async def raises_at_once(request):
        if request.method == "GET":
            raise ValueError("once")
        await asyncio.sleep(0)

    @route("/log")
    def read_log(request):
        return list(log)

    @route("/log/clear")
    def clear_log(request):
        import gc
        gc.collect()
        log.clear()
        return "clear"

    @route("/tasks")
    def tasks(request):
        return str(len(asyncio.all_tasks(app.loop)))

    @route("/shields")
    async def shields(request):
        async def inner():
            await asyncio.sleep(0)
            return "shielded"
        return await asyncio.shield(inner())

    @route("/awaits_its_task")
    async def awaits_its_task(request):
        await asyncio.current_task()
"""


def test_a_handlers_task_shows_its_coroutine(shared: Server) -> None:
    seen = json.loads(shared.ask(get("/self")).text)

    assert seen == {
        "is a task": True,
        "in all_tasks": True,
        "name": "own_task",
        "code": "own_task",
        "frame": "own_task",
        "running": True,
        "coroutine": True,
        "abc": True,
        "stack": True,
        "repr": True,
    }


def test_a_waiting_handler_shows_where_it_waits(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waits/place"))
        wait_until(lambda: "pending" in shared.ask(get("/outcome/place")).text)

        seen = json.loads(shared.ask(get("/frame/place")).text)

        assert seen == {"frames": ["waits"], "await": "coroutine"}
        shared.ask(get("/set/place"))
        assert client.answer().text == "waited"


def test_the_result_of_a_handlers_task_is_none(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waits/result"))
        wait_until(lambda: "pending" in shared.ask(get("/outcome/result")).text)
        shared.ask(get("/set/result"))

        assert client.answer().text == "waited"
        assert shared.ask(get("/outcome/result")).text == "(None, None)"


def test_a_cancelled_handler_is_answered_and_its_task_is_cancelled(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waits/cancelled"))
        wait_until(lambda: "pending" in shared.ask(get("/outcome/cancelled")).text)

        assert shared.ask(get("/cancel/cancelled")).text == "True"

        assert client.answer().status == 503
        assert shared.ask(get("/outcome/cancelled")).text == "cancelled"


@pytest.mark.parametrize(("path", "text"), [("swallows", "swallowed"), ("goes_on", "went on")])
def test_a_handler_may_answer_although_it_is_cancelled(
    shared: Server, path: str, text: str
) -> None:
    with shared.client() as client:
        client.send(get(f"/{path}/{path}"))
        wait_until(lambda: "pending" in shared.ask(get(f"/outcome/{path}")).text)
        shared.ask(get(f"/cancel/{path}"))

        assert client.answer().text == text
        assert shared.ask(get(f"/outcome/{path}")).text == "(None, None)"


def test_a_closed_coroutine_ends_the_handler(shared: Server) -> None:
    with shared.client() as client:
        client.send(get("/waits/closed"))
        wait_until(lambda: "pending" in shared.ask(get("/outcome/closed")).text)

        assert shared.ask(get("/close/closed")).text == "closed"
        assert "left closed" in shared.ask(get("/log")).text
        shared.ask(get("/cancel/closed"))
        assert client.answer().status == 500


@pytest.mark.parametrize("path", ["raises", "raises_at_once"])
def test_what_a_handler_raises_is_logged_once(shared: Server, path: str) -> None:
    shared.ask(get("/log/clear"))

    assert shared.ask(get(f"/{path}")).status == 500

    # A task that nobody asked for its exception would say so when it is freed.
    logged = json.loads(shared.ask(get("/log")).text)
    assert logged == ["anel.error"]


def test_an_answered_handler_leaves_no_task(shared: Server) -> None:
    before = shared.ask(get("/tasks")).text

    assert [shared.ask(get("/shields")).text for _ in range(3)] == ["shielded"] * 3

    wait_until(lambda: shared.ask(get("/tasks")).text == before, "the tasks are gone")


def test_a_handler_that_awaits_itself_is_answered(shared: Server) -> None:
    assert shared.ask(get("/awaits_its_task")).status == 500


def test_a_drain_cancels_what_does_not_end(serve: Serve, reactor: str) -> None:
    server = serve(
        """
        import asyncio
        from anel import Application

        app = Application()

        async def waits(request):
            print("begun", flush=True)
            await asyncio.Event().wait()

        app.router.add_route("/", waits)
        """,
        "--reactor",
        reactor,
        "--timeout-graceful",
        "100ms",
    )
    with server.client() as client:
        client.send(get("/") * 3)
        wait_until(lambda: server.wait_for_line("begun") is not None)
        server.process.send_signal(signal.SIGTERM)

        assert [client.answer().status for _ in range(3)] == [503] * 3
    assert server.wait() == 0


def test_asyncios_debug_mode_serves(serve: Serve, reactor: str) -> None:
    server = serve(PROGRAM, "--reactor", reactor, PYTHONASYNCIODEBUG="1")
    with server.client() as client:
        client.send(get("/self") + get("/shields") + get("/raises") + get("/self"))

        assert [client.answer().status for _ in range(4)] == [200, 200, 500, 200]
