"""The worker as a guest of other event loops: uvloop, and asyncio's own as it comes.

Owns what could differ from hosting: who wakes whom, and who is kept waiting. Everything else that a
handler may do is the same; `make loops` runs the tests of it on these loops, too. A late answer
that nobody sends would arrive with the idle timeout, which is longer than any test's patience.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from subprocess import CompletedProcess

import pytest
from anel import Application, ConfigError, SetupError, choices
from anel.loop import ReactorLoop
from conftest import DEADLINE_S, REACTORS, Client, Serve, Server, get, start_server, wait_until

GUESTS = ["uvloop", "asyncio"]

PROGRAM = """
    import asyncio, collections, json, os, random, signal, threading
    from anel import Application

    app = Application()
    marks = collections.Counter()
    events = collections.defaultdict(asyncio.Event)

    def route(path):
        return lambda handler: app.router.add_route(path, handler)

    @route("/")
    def hello(request):
        return request.Response(text="Hello world!")

    @route("/loop")
    async def loop_of_handler(request):
        running = asyncio.get_running_loop()
        assert running is app.loop
        return request.Response(text=type(running).__module__)

    @route("/sync/{number}")
    def sync(request):
        return request.Response(text=request.match_dict["number"])

    @route("/await_free/{number}")
    async def await_free(request):
        return request.Response(text=request.match_dict["number"])

    @route("/yield/{number}")
    async def yields(request):
        await asyncio.sleep(0)
        return request.Response(text=request.match_dict["number"])

    @route("/random/{number}")
    async def sleeps_at_random(request):
        await asyncio.sleep(random.random() * 0.01)
        return request.Response(text=request.match_dict["number"])

    @route("/fails/{number}")
    async def fails(request):
        await asyncio.sleep(0)
        raise LookupError(request.match_dict["number"])

    app.add_error_handler(
        LookupError, lambda request, error: request.Response(text=str(error.args[0]), code=500))

    @route("/threadsafe")
    async def threadsafe(request):
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        thread = threading.Thread(
            target=lambda: loop.call_soon_threadsafe(future.set_result, "from a thread"))
        thread.start()
        text = await future
        thread.join()
        return request.Response(text=text)

    @route("/subprocess")
    async def in_subprocess(request):
        process = await asyncio.create_subprocess_exec(
            "echo", "-n", "from a process", stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        return request.Response(body=output)

    @route("/streams")
    async def streams(request):
        async def reply(reader, writer):
            writer.write((await reader.readline()).upper())
            await writer.drain()
            writer.close()
        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"streamed\\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return request.Response(body=answer)

    @route("/signal")
    async def own_signal(request):
        loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        loop.add_signal_handler(signal.SIGUSR1, future.set_result, "signalled")
        os.kill(os.getpid(), signal.SIGUSR1)
        text = await future
        loop.remove_signal_handler(signal.SIGUSR1)
        return request.Response(text=text)

    @route("/fork")
    async def fork(request):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                asyncio.run(asyncio.sleep(0))
                status = 7
            finally:
                os._exit(status)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        return request.Response(text=str(os.waitstatus_to_exitcode(status)))

    @route("/wait/{name}")
    async def wait(request):
        name = request.match_dict["name"]
        marks[f"begun-{name}"] += 1
        try:
            await events[name].wait()
        except asyncio.CancelledError:
            marks[f"cancelled-{name}"] += 1
            raise
        return request.Response(text=name)

    @route("/set_later/{name}")
    def set_later(request):
        app.loop.call_later(0.001, events[request.match_dict["name"]].set)
        return request.Response(text="set later")

    @route("/marks/{name}")
    def read_marks(request):
        return request.Response(text=str(marks[request.match_dict["name"]]))

    @route("/counters")
    def counters(request):
        return request.Response(json=app.counters())

    @route("/quiet")
    async def quiet(request):
        before = app.counters()["waits_total"]
        await asyncio.sleep(0.1)
        return request.Response(text=str(app.counters()["waits_total"] - before))

    @route("/spin")
    async def spin(request):
        async def turn_and_turn():
            while not events["stop"].is_set():
                await asyncio.sleep(0)
                marks["turns"] += 1
        events["spinning"] = asyncio.create_task(turn_and_turn())
        return request.Response(text="spinning")

    @route("/stop_spinning")
    async def stop_spinning(request):
        events["stop"].set()
        await events.pop("spinning")
        events.pop("stop")
        return request.Response(text="stopped")
"""


@pytest.fixture(params=GUESTS)
def loop(request: pytest.FixtureRequest) -> str:
    """Each loop that the worker can be a guest of."""
    return str(request.param)


@pytest.fixture
def guest(serve: Serve, loop: str, reactor: str) -> Server:
    """The program, started for one test."""
    return serve(PROGRAM, "--loop", loop, "--reactor", reactor)


@pytest.fixture(
    scope="module",
    params=[(loop, reactor) for loop in GUESTS for reactor in REACTORS],
    ids="-".join,
)
def lasting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The program, started once for all tests, on each loop with each reactor."""
    loop, reactor = request.param
    program = tmp_path_factory.mktemp("guest") / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    options = ["--port", "0", "--loop", loop, "--reactor", reactor]
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [sys.executable, "-m", "anel", "run", str(program), *options])
        yield server
        assert server.process.poll() is None, "the server ended:\n" + "\n".join(server.lines)
        assert server.stop() == 0, "\n".join(server.lines)


def counters(client: Client) -> dict[str, int]:
    """What the worker has counted up to its last wait."""
    found: dict[str, int] = json.loads(client.ask(get("/counters")).body)
    return found


def begun(server: Server, name: str, count: int) -> None:
    """Waits until so many handlers wait for the event."""
    mark = get(f"/marks/begun-{name}")
    wait_until(lambda: server.ask(mark).text == str(count), f"{count} begin")


@pytest.mark.parametrize(
    ("choice", "module"),
    [("auto", "anel.loop"), ("asyncio", "asyncio.unix_events"), ("uvloop", "uvloop")],
)
def test_handlers_run_on_the_loop_that_was_chosen(
    serve: Serve, reactor: str, choice: str, module: str
) -> None:
    by_option = serve(PROGRAM, "--reactor", reactor, "--loop", choice)
    by_environment = serve(PROGRAM, "--reactor", reactor, ANEL_LOOP=choice)
    over_environment = serve(PROGRAM, "--reactor", reactor, "--loop", choice, ANEL_LOOP="auto")

    for server in (by_option, by_environment, over_environment):
        assert server.ask(get("/loop")).text == module


def test_a_connection_is_served_again_and_again(lasting: Server) -> None:
    with lasting.client() as client:
        for number in range(200):
            kind = ("sync", "await_free", "yield")[number % 3]
            assert client.ask(get(f"/{kind}/{number}")).text == str(number)


@pytest.mark.parametrize("seed", range(5))
def test_a_pipeline_of_24_mixed_requests_is_answered_in_order(lasting: Server, seed: int) -> None:
    numbers = random.Random(seed)
    kinds = [numbers.choice(["sync", "await_free", "yield", "random", "fails"]) for _ in range(24)]
    with lasting.client() as client:
        client.send(b"".join(get(f"/{kind}/{at}") for at, kind in enumerate(kinds)))

        for at, kind in enumerate(kinds):
            answer = client.answer()
            assert (answer.text, answer.status) == (str(at), 500 if kind == "fails" else 200)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("random/1", "1"),
        ("threadsafe", "from a thread"),
        ("subprocess", "from a process"),
        ("streams", "STREAMED\n"),
        ("signal", "signalled"),
        ("fork", "7"),
    ],
)
def test_a_late_answer_is_sent_without_any_news_from_the_network(
    lasting: Server, path: str, text: str
) -> None:
    with lasting.client() as client:
        for _ in range(5):
            assert client.ask(get(f"/{path}")).text == text


def test_answers_that_are_ready_together_are_sent_together(lasting: Server) -> None:
    with lasting.client() as client, lasting.client() as observer:
        client.send(get("/wait/together") * 24)
        begun(lasting, "together", 24)
        before = counters(observer)

        assert observer.ask(get("/set_later/together")).text == "set later"
        assert [client.answer().text for _ in range(24)] == ["together"] * 24

        # One for the 24, one for each answer to the observer.
        assert counters(observer)["sends_total"] - before["sends_total"] == 3


def test_an_idle_server_makes_no_turns(lasting: Server) -> None:
    with lasting.client() as client:
        client.ask(get())

        # Those that the request itself leads to; a descriptor that stays readable makes thousands.
        assert int(client.ask(get("/quiet")).text) < 10


def test_a_request_costs_few_system_calls_that_wait(lasting: Server) -> None:
    with lasting.client() as client:
        before = counters(client)
        for _ in range(100):
            client.ask(get())
        after = counters(client)

    assert after["requests_total"] - before["requests_total"] == 101
    assert after["enters_total"] - before["enters_total"] <= 3 * 101


def test_a_busy_loop_does_not_starve_http_nor_the_other_way_round(lasting: Server) -> None:
    with lasting.client() as client, lasting.client() as flooding:
        assert client.ask(get("/spin")).text == "spinning"
        flood = threading.Thread(target=flooding.send, args=(get() * 5_000,))
        flood.start()
        for _ in range(5_000):
            assert flooding.answer().status == 200
        flood.join()
        turns = int(client.ask(get("/marks/turns")).text)

        assert client.ask(get("/stop_spinning")).text == "stopped"
        assert turns > 20


def test_a_reset_cancels_the_tasks_of_its_connection_only(lasting: Server) -> None:
    stays, leaves = lasting.client(), lasting.client()
    stays.send(get("/wait/reset"))
    leaves.send(get("/wait/reset") * 3)
    begun(lasting, "reset", 4)

    leaves.reset()

    cancelled = get("/marks/cancelled-reset")
    wait_until(lambda: lasting.ask(cancelled).text == "3", "three are cancelled")
    with stays:
        lasting.ask(get("/set_later/reset"))
        assert stays.answer().text == "reset"


def test_random_pipelines_and_resets_leave_every_answer_whole_and_in_order(
    lasting: Server,
) -> None:
    numbers = random.Random(24)
    until = time.monotonic() + 2

    while time.monotonic() < until:
        kinds = numbers.choices(["sync", "await_free", "yield", "random", "fails"], k=24)
        with lasting.client() as client, lasting.client() as leaving:
            request = b"".join(get(f"/{kind}/{at}") for at, kind in enumerate(kinds))
            leaving.send(request[: numbers.randrange(1, len(request))])
            client.send(request)
            if numbers.random() < 0.5:
                leaving.reset()
            assert [client.answer().text for _ in kinds] == [str(at) for at in range(24)]


def test_a_deadline_is_met_without_any_news_and_before_one_that_was_set_earlier(
    serve: Serve, loop: str, reactor: str
) -> None:
    server = serve(
        """
        from anel import Application

        app = Application(reaper_settings={"idle_timeout": 0.2})
        app.router.add_route("/", lambda request: request.Response(text="hello"))
        """,
        "--loop",
        loop,
        "--reactor",
        reactor,
    )
    with server.client() as half, server.client() as idle:
        # The head's deadline is 10 s away; nothing but the alarm for the nearer one ends `idle`.
        half.send(b"GET / HT")
        assert idle.ask(get()).text == "hello"

        assert idle.is_ended()
        assert half.ask(b"TP/1.1\r\nHost: a\r\n\r\n").text == "hello"


def test_a_drain_finishes_what_is_pending_and_closes_what_is_idle(guest: Server) -> None:
    with guest.client() as idle, guest.client() as pending:
        idle.ask(get())
        pending.send(get("/wait/drain"))
        begun(guest, "drain", 1)

        guest.process.send_signal(signal.SIGTERM)

        assert idle.is_ended()
        pending.reset()
    assert guest.wait() == 0


def test_a_drain_answers_503_at_its_deadline(serve: Serve, loop: str) -> None:
    guest = serve(PROGRAM, "--loop", loop)
    with guest.client() as client:
        client.send(get("/wait/deadline"))
        begun(guest, "deadline", 1)

        guest.process.send_signal(signal.SIGTERM)

        assert client.answer().status == 503
        assert client.is_ended()
    assert guest.wait() == 0


def test_a_second_signal_ends_at_once(guest: Server) -> None:
    with guest.client() as client:
        client.send(get("/wait/signals"))
        begun(guest, "signals", 1)
        with guest.client() as idle:
            idle.ask(get())
            guest.process.send_signal(signal.SIGINT)
            assert idle.is_ended()
        begin = time.monotonic()

        assert guest.stop(signal.SIGINT) == 0
        assert time.monotonic() - begin < 4


@pytest.mark.parametrize("kind", ["SystemExit(9)", "KeyboardInterrupt"])
@pytest.mark.parametrize("suspends", ["0", "1"])
def test_an_exit_in_a_handler_ends_the_process(
    serve: Serve, loop: str, reactor: str, kind: str, suspends: str
) -> None:
    server = serve(
        f"""
        import asyncio
        from anel import Application

        app = Application()

        async def leave(request):
            if {suspends}:
                await asyncio.sleep(0)
            raise {kind}

        app.router.add_route("/", leave)
        """,
        "--loop",
        loop,
        "--reactor",
        reactor,
    )
    with server.client() as client:
        client.send(get())

        assert server.wait() == (9 if "9" in kind else 1)


@pytest.mark.parametrize(
    "flags", ["noarray=0", "defer=0", "single=0,defer=0", "mshot_recv=0,mshot_accept=0"]
)
def test_every_rung_of_the_ladder_serves_as_a_guest(serve: Serve, loop: str, flags: str) -> None:
    server = serve(PROGRAM, "--loop", loop, "--reactor", "io_uring", ANEL_URING_FLAGS=flags)
    with server.client() as client:
        client.send(b"".join(get(f"/random/{number}") for number in range(24)))

        assert [client.answer().text for _ in range(24)] == [str(n) for n in range(24)]
        assert client.ask(get()).text == "Hello world!"


def test_a_loop_that_is_asked_for_while_the_application_is_loaded_is_the_chosen_one(
    serve: Serve, loop: str
) -> None:
    server = serve(
        """
        import asyncio
        from anel import Application

        app = Application()
        kind = app.loop.run_until_complete(asyncio.sleep(0, type(app.loop).__module__))
        app.router.add_route("/", lambda request: request.Response(text=kind))
        """,
        "--loop",
        loop,
    )

    assert loop in server.ask(get()).text


def test_any_function_that_makes_a_loop_is_a_choice(serve: Serve, reactor: str) -> None:
    server = serve(
        """
        import asyncio
        from anel import Application

        class OwnLoop(asyncio.SelectorEventLoop):
            pass

        async def own(request):
            await asyncio.sleep(0)
            return request.Response(text=type(asyncio.get_running_loop()).__name__)

        app = Application(loop=OwnLoop)
        app.router.add_route("/", own)
        """,
        "--reactor",
        reactor,
    )

    assert server.ask(get()).text == "OwnLoop"


def anel(folder: pathlib.Path, *options: str, **environment: str) -> CompletedProcess[str]:
    """Runs the program of a folder, whose modules go before those that are installed."""
    search = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "anel", "run", str(folder / "program.py"), "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        env={**os.environ, "PYTHONPATH": search, **environment},
    )


@pytest.mark.parametrize("given", ["option", "environment", "constructor"])
def test_a_missing_uvloop_ends_with_one_line_and_exit_code_3(
    tmp_path: pathlib.Path, given: str
) -> None:
    (tmp_path / "uvloop.py").write_text("raise ModuleNotFoundError(\"No module named 'uvloop'\")\n")
    choice = "'uvloop'" if given == "constructor" else "None"
    (tmp_path / "program.py").write_text(
        f"from anel import Application\napp = Application(loop={choice})\n"
    )
    options = ["--loop", "uvloop"] if given == "option" else []
    environment = {"ANEL_LOOP": "uvloop"} if given == "environment" else {}

    ended = anel(tmp_path, *options, **environment)

    assert ended.returncode == 3
    assert ended.stderr.count("\n") == 1
    assert "uvloop" in ended.stderr
    assert "pip install 'anel[uvloop]'" in ended.stderr


def test_an_unknown_loop_in_the_environment_ends_with_one_line_and_exit_code_3(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "program.py").write_text("from anel import Application\napp = Application()\n")

    ended = anel(tmp_path, ANEL_LOOP="trio")

    assert ended.returncode == 3
    assert ended.stderr == "anel: ANEL_LOOP must be one of auto, asyncio, uvloop, not 'trio'\n"


@pytest.mark.parametrize("choice", ["trio", "", 3, asyncio])
def test_an_unknown_loop_is_refused_with_its_name(choice: object) -> None:
    with pytest.raises(ConfigError, match="loop must be one of auto, asyncio, uvloop"):
        Application(loop=choice)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="loop must be one of auto, asyncio, uvloop"):
        Application().run(loop=choice)  # type: ignore[arg-type]


def test_a_function_that_makes_no_loop_is_refused() -> None:
    with pytest.raises(ConfigError, match="must make an asyncio event loop, not 42"):
        Application(loop=lambda: 42).loop  # type: ignore[arg-type]  # noqa: B018


def test_run_refuses_another_loop_than_the_one_that_was_made_before() -> None:
    app = Application(loop="asyncio")
    with contextlib.closing(app.loop), pytest.raises(ConfigError, match="made before it"):
        app.run(loop="uvloop")


def test_the_environment_goes_before_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(Application(loop="auto").loop) as own:
        assert isinstance(own, ReactorLoop)

    monkeypatch.setenv("ANEL_LOOP", "uvloop")

    with contextlib.closing(Application(loop="auto").loop) as from_environment:
        assert type(from_environment).__module__ == "uvloop"


def test_a_choice_of_the_command_line_goes_before_the_application() -> None:
    with (
        choices.given({"loop": "asyncio"}),
        contextlib.closing(Application(loop="auto").loop) as made,
    ):
        assert not isinstance(made, ReactorLoop)
    with contextlib.closing(Application(loop="auto").loop) as made:
        assert isinstance(made, ReactorLoop)


def test_a_missing_package_is_a_setup_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    with pytest.raises(SetupError, match="uvloop cannot be had"):
        Application(loop="uvloop").loop  # noqa: B018
