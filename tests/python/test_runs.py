"""Applications that run in this process: again, one after the other, in threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from anel import Application, Request, Response
from anel.japronto import Application as JaprontoApplication
from anel.listener import Listeners
from conftest import DEADLINE_S, Client, get, wait_until

Running = Callable[..., "contextlib.AbstractContextManager[int]"]


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Running:
    """`with running(app) as port` has it serve in a thread; its end is awaited."""
    ports: queue.Queue[int] = queue.Queue()

    class Opening(Listeners):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            ports.put(self.of(0)[0].getsockname()[1])

    @contextlib.contextmanager
    def start(app: Application, host: str = "127.0.0.1") -> Iterator[int]:
        # Made here, so that the end of the block has the loop that `run` takes.
        loop = app.loop
        ended: queue.Queue[BaseException | None] = queue.Queue()

        def run() -> None:
            try:
                app.run(host, 0)
            except BaseException as error:
                ended.put(error)
            else:
                ended.put(None)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield ports.get(timeout=DEADLINE_S)
        finally:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)
            error = ended.get(timeout=DEADLINE_S)
            thread.join(DEADLINE_S)
        if error is not None:
            raise error

    monkeypatch.setattr("anel.launch.Listeners", Opening)
    return start


def ask(port: int, path: str = "/") -> str:
    with Client(port) as client:
        return client.ask(get(path)).text


def saying(text: str) -> Callable[[Request], Response]:
    return lambda request: request.Response(text=text)


def constantly(value: str) -> Callable[[Request], str]:
    return lambda _request: value


def greeting(text: str) -> Application:
    app = Application()
    app.router.add_route("/", saying(text))
    return app


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("", "0.0.0.0"), ("::1", "[::1]")],
)
def test_the_host_is_announced_as_it_was_given(
    running: Running, capsys: pytest.CaptureFixture[str], host: str, shown: str
) -> None:
    with running(greeting("hello"), host) as port:
        printed = ""

        def is_announced() -> bool:
            nonlocal printed
            printed += capsys.readouterr().out
            return printed.endswith("\n")

        wait_until(is_announced, "the announcement")

    assert printed == f"Accepting connections on http://{shown}:{port}\n"


def test_an_application_runs_again_after_it_has_ended(running: Running) -> None:
    app = greeting("hello")

    with running(app) as port:
        assert ask(port) == "hello"
    app.router.add_route("/more", lambda request: request.Response(text="more"))
    with running(app) as port:
        assert [ask(port), ask(port, "/more")] == ["hello", "more"]


def test_applications_run_one_after_the_other(running: Running) -> None:
    for name in ("first", "second"):
        with running(greeting(name)) as port:
            assert ask(port) == name


def test_applications_run_side_by_side_each_with_its_own_extensions(running: Running) -> None:
    apps = []
    for name in ("first", "second"):
        app = Application()
        app.extend_request(constantly(name), name="whose", property=True)
        app.router.add_route("/", lambda request: request.Response(text=request.whose))
        apps.append(app)

    with running(apps[0]) as one, running(apps[1]) as two:
        assert [ask(one), ask(two)] == ["first", "second"]


def test_tasks_and_futures_from_before_run_go_on_in_it(running: Running) -> None:
    app = Application()
    words: asyncio.Queue[str] = asyncio.Queue()

    async def say() -> None:
        await asyncio.sleep(0)
        await words.put("said by a task from before")

    async def hear(request: Any) -> Any:
        return request.Response(text=await words.get())

    app.router.add_route("/", hear)
    app.loop.run_until_complete(asyncio.sleep(0))
    task = app.loop.create_task(say())

    with running(app) as port:
        assert ask(port) == "said by a task from before"
    assert task.done()


@pytest.mark.parametrize("loop", ["auto", "asyncio"])
def test_what_handlers_raised_does_not_keep_the_worker_of_a_thread(
    running: Running, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    # A worker that ends in another thread than its own is a RuntimeError that nobody can catch.
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    kept: list[BaseException] = []

    def serve_once() -> None:
        app = Application(loop=loop)

        def fails(request: Any) -> Any:
            try:
                raise ValueError("kept, with its traceback")
            except ValueError as error:
                kept.append(error)
            return request.Response(text="kept")

        async def forever(request: Any) -> Any:
            app.loop.create_task(asyncio.sleep(3600))
            return request.Response(text="started")

        app.router.add_route("/", fails)
        app.router.add_route("/forever", forever)
        with running(app) as port:
            assert [ask(port), ask(port, "/forever")] == ["kept", "started"]

    serve_once()
    assert len(kept) == 1
    kept.clear()
    gc.collect()

    assert unraisable == []


@pytest.mark.parametrize("seconds", [float("inf"), 10**20, 1e-9])
def test_an_idle_timeout_may_be_any_number_above_0(running: Running, seconds: float) -> None:
    app = Application(reaper_settings={"idle_timeout": seconds})
    app.router.add_route("/", lambda request: request.Response(text="hello"))

    with running(app) as port, Client(port) as client:
        # With the shortest one the connection may be closed before the request is there.
        if seconds < 1:
            assert client.is_ended()
        else:
            assert client.ask(get()).text == "hello"


def test_an_extension_replaces_what_only_anel_has_for_its_own_application(
    running: Running,
) -> None:
    theirs = JaprontoApplication()

    def url_for(_request: Request, name: str) -> str:
        return f"/theirs/{name}"

    theirs.extend_request(cast(Any, url_for))
    ours = Application()
    for app in (theirs, ours):

        def where(request: Any) -> Any:
            return request.Response(text=request.url_for("where"))

        app.router.add_route("/here", where)

    with running(theirs) as one, running(ours) as two:
        assert [ask(one, "/here"), ask(two, "/here")] == ["/theirs/where", "/here"]
