"""Start-up and shutdown hooks, lifespans, and what lives beside the handlers while serving."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from anel import Application, ConfigError
from conftest import DEADLINE_S, IdleWorker, Serve, get, run_until, wait_until

idle = pytest.mark.usefixtures("idle_worker")


@idle
def test_hooks_run_in_order_of_registration_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    app = Application()

    @app.on_startup
    def first() -> None:
        print("first up")

    app.on_shutdown(lambda: print("first down"))

    @app.lifespan
    async def whole(_app: Application) -> AsyncIterator[None]:
        print("whole up")
        yield
        print("whole down")

    @app.on_shutdown
    async def last() -> None:
        await asyncio.sleep(0)
        print("last down")

    @app.on_startup
    async def second() -> None:
        await asyncio.sleep(0)
        print("second up")

    run_until(app, signal.SIGTERM)

    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["first up", "whole up", "second up"]
    assert lines[3].startswith("Accepting connections on ")
    assert lines[-3:] == ["last down", "whole down", "first down"]


@idle
def test_a_hook_with_a_parameter_is_given_the_application() -> None:
    app = Application()
    seen: list[Any] = []
    hooks: list[Callable[..., Any]] = [
        lambda one: seen.append(one),
        lambda one=7: seen.append(one),
        lambda *many: seen.append(many),
    ]

    for hook in hooks:
        app.on_startup(hook)
    run_until(app, signal.SIGTERM)

    assert seen == [app, 7, ()]


@idle
def test_hooks_run_on_the_loop_of_the_application() -> None:
    app = Application()
    loop = app.loop
    seen: list[asyncio.AbstractEventLoop] = []

    app.on_startup(lambda: seen.append(asyncio.get_running_loop()))
    app.on_shutdown(lambda: seen.append(asyncio.get_running_loop()))
    run_until(app, signal.SIGTERM)

    assert seen == [loop, loop]


@idle
def test_hooks_decorate() -> None:
    app = Application()

    def hook() -> None: ...

    assert app.on_startup(hook) is hook
    assert app.on_shutdown(hook) is hook


def generator() -> Any:
    yield


async def async_generator() -> AsyncIterator[None]:
    yield


async def coroutine() -> None: ...


@pytest.mark.parametrize(
    ("phase", "hook", "message"),
    [
        ("on_startup", 5, "5"),
        ("on_startup", generator, "must not be a generator"),
        ("on_shutdown", async_generator, "use app.lifespan"),
        ("lifespan", generator, "must not be a generator"),
        ("lifespan", coroutine, "must yield once"),
        ("on_startup", lambda app, loop: None, "(app, loop)"),
        ("on_startup", lambda *, app: None, "(app)"),
    ],
)
def test_a_hook_that_could_not_be_called_is_refused(phase: str, hook: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        getattr(Application(), phase)(hook)

    assert message in str(caught.value)


@idle
def test_a_failing_start_shows_the_users_frames_and_exits_with_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = Application()

    @app.lifespan
    async def entered() -> AsyncIterator[None]:
        try:
            yield
        finally:
            print("left")

    app.on_shutdown(lambda: print("must not run: the start is not whole"))

    @app.on_startup
    async def broken() -> None:
        raise ZeroDivisionError("no database")

    with pytest.raises(SystemExit) as caught:
        app.run("127.0.0.1", 0)

    assert caught.value.code == 3
    out, err = capsys.readouterr()
    assert out == "left\n"
    assert err.splitlines()[-1] == "ZeroDivisionError: no database"
    files = [line for line in err.splitlines() if line.lstrip().startswith("File ")]
    assert len(files) == 1
    assert "in broken" in files[0]


@idle
def test_a_start_that_is_cancelled_is_a_failing_start() -> None:
    app = Application()

    @app.on_startup
    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(SystemExit) as caught:
        app.run("127.0.0.1", 0)

    assert caught.value.code == 3


@idle
def test_a_lifespan_that_gives_no_context_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    app = Application()

    @app.lifespan
    def no_context() -> int:
        return 7

    with pytest.raises(SystemExit):
        app.run("127.0.0.1", 0)

    assert "no_context returned 7" in capsys.readouterr().err


@idle
def test_a_lifespan_may_be_any_async_context_manager() -> None:
    app = Application()
    seen = []

    @app.lifespan
    @contextlib.asynccontextmanager
    async def whole(one: Application) -> AsyncIterator[None]:
        seen.append(one)
        yield
        seen.append(one)

    run_until(app, signal.SIGTERM)

    assert seen == [app, app]


@idle
def test_a_failing_shutdown_is_logged_and_the_others_run(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    app = Application()
    app.on_shutdown(lambda: print("reached"))

    @app.lifespan
    async def broken_lifespan() -> AsyncIterator[None]:
        yield
        raise KeyError("lifespan")

    @app.on_shutdown
    def broken_hook() -> None:
        raise ValueError("hook")

    run_until(app, signal.SIGTERM)

    assert capsys.readouterr().out.endswith("reached\n")
    assert "ValueError: hook" in caplog.text
    assert "KeyError: 'lifespan'" in caplog.text


@idle
def test_a_background_task_lives_while_serving_and_is_cancelled_at_the_end() -> None:
    app = Application()
    tasks: list[Any] = []

    @app.on_startup
    async def start() -> None:
        tasks.append(asyncio.get_running_loop().create_task(asyncio.sleep(3600)))

    app.on_shutdown(lambda: tasks.append(tasks[0].done()))
    run_until(app, signal.SIGTERM)

    assert tasks[0].cancelled()
    assert not tasks[1]


@idle
def test_a_task_that_fails_at_the_end_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    app = Application()

    async def fail_when_cancelled() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise ValueError("in the end")

    tasks = []
    app.on_startup(lambda: tasks.append(app.loop.create_task(fail_when_cancelled())))
    run_until(app, signal.SIGTERM)

    assert "ValueError: in the end" in caplog.text


@idle
def test_async_generators_and_the_default_executor_are_shut_down() -> None:
    app = Application()
    seen: list[Any] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            seen.append("closed")

    running = numbers()

    @app.on_startup
    async def start() -> None:
        await anext(running)
        await asyncio.to_thread(seen.append, "thread")

    loop = app.loop
    run_until(app, signal.SIGTERM)

    assert seen == ["thread", "closed"]
    with pytest.raises(RuntimeError):
        loop.run_in_executor(None, print)


@idle
def test_a_lifespan_may_hold_a_task_group_open() -> None:
    app = Application()
    seen = []

    @app.lifespan
    async def group() -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            beat = tasks.create_task(asyncio.sleep(3600))
            yield
            seen.append(beat.done())
            beat.cancel()

    run_until(app, signal.SIGTERM)

    assert seen == [False]


@idle
def test_a_lifespan_that_fails_while_serving_drains_and_is_raised() -> None:
    app = Application()

    async def fail() -> None:
        raise ZeroDivisionError

    @app.lifespan
    async def group() -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            yield

    with pytest.raises(ExceptionGroup) as caught:
        app.run("127.0.0.1", 0)

    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert IdleWorker.made[-1].told[0] == "drain"


def test_requests_find_what_the_start_made_and_none_is_answered_before(serve: Serve) -> None:
    server = serve(
        """
        import asyncio
        from anel import Application

        app = Application()
        made = []

        @app.on_startup
        async def start(app):
            await asyncio.sleep(0.05)
            made.append("pool")

        @app.on_shutdown
        def stop():
            print("stopped with", app.counters()["connections_open"], "connections")

        def hello(request):
            return made[0]

        app.router.add_route("/", hello)
        """
    )

    with server.client() as client:
        assert client.ask(get()).text == "pool"
        assert server.stop() == 0

    assert server.lines[-1] == "stopped with 0 connections"


PATIENT = """
import asyncio, sys
from anel import Application

app = Application()

@app.lifespan
async def outer():
    try:
        yield
    finally:
        print("outer left", flush=True)

if "start" in sys.argv:
    @app.on_startup
    async def wait():
        print("waiting", flush=True)
        await asyncio.sleep(3600)
else:
    @app.on_shutdown
    async def wait():
        print("waiting", flush=True)
        await asyncio.sleep(3600)

app.run("127.0.0.1", 0)
"""


@pytest.mark.parametrize(("phase", "signals"), [("start", 1), ("shutdown", 2)])
def test_a_signal_cuts_a_start_short_and_a_second_one_a_shutdown(phase: str, signals: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PATIENT, phase], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        awaited = "waiting" if phase == "start" else "Accepting connections"
        lines: list[str] = []
        for _ in range(signals):
            while not lines or not lines[-1].startswith(awaited):
                lines.append(process.stdout.readline())
                assert lines[-1], lines
            process.send_signal(signal.SIGTERM)
            awaited = "waiting"
        rest = process.stdout.read()

        assert process.wait(DEADLINE_S) == 0
        assert rest.splitlines()[-1] == "outer left"


def test_a_background_task_beats_while_requests_are_served(serve: Serve) -> None:
    server = serve(
        """
        import asyncio
        from anel import Application

        app = Application()
        beats = []

        async def beat():
            while True:
                beats.append(1)
                await asyncio.sleep(0.001)

        @app.on_startup
        def start():
            app.beat = app.loop.create_task(beat())

        app.router.add_route("/", lambda request: str(len(beats)))
        """
    )

    first = int(server.ask(get()).text)
    wait_until(lambda: int(server.ask(get()).text) > first + 3, "beats")
    began = time.monotonic()

    assert server.stop() == 0
    assert time.monotonic() - began < DEADLINE_S / 2
