"""The application object: construction, error handling, `run()`, signals and the loop."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import select
import signal
import socket
import threading
import types
from typing import Any

import pytest
from anel import Application
from anel.exceptions import (
    AnelError,
    ConfigError,
    HTTPException,
    ReactorUnavailable,
    RouteError,
    RouteNotFoundException,
    SetupError,
)
from anel.listener import Listeners
from anel.loading import _marked
from anel.loop import ReactorLoop, new_loop
from anel.request import log_failure
from conftest import IdleWorker, run_until

REQUEST: Any = types.SimpleNamespace(method="GET", path="/x", remote_addr="192.0.2.1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol_factory": print}, "protocol_factory=<built-in function print>"),
        ({"log_request": "yes"}, "'yes'"),
        ({"reaper_settings": 5}, "5"),
        ({"reaper_settings": {"idle": 1}}, "'idle'"),
        ({"reaper_settings": {"idle_timeout": 0}}, "0"),
        ({"reaper_settings": {"idle_timeout": "5"}}, "'5'"),
    ],
)
def test_bad_constructor_arguments_raise_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Application(**arguments)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"worker_num": 0}, 'worker_num must be "auto" or a number from 1 to 1024, not 0'),
        ({"worker_num": "two"}, "not 'two'"),
        ({"worker_num": True}, "not True"),
        ({"max_requests": 0}, "max_requests must be a number from 1, not 0"),
        ({"max_requests_jitter": 5}, "max_requests_jitter needs max_requests"),
        ({"uds": ""}, "uds must be the path of a socket"),
        ({"uds": "x" * 108}, "107 bytes at most"),
        ({"fd": -1}, "fd must be the number of a descriptor, not -1"),
        ({"fd": 3, "uds": "x"}, "uds and fd exclude each other"),
        ({"pidfile": ""}, "pidfile must be the path of a file"),
        ({"reactor": "kqueue"}, "'kqueue'"),
        ({"port": 65536}, "65536"),
        ({"port": "80"}, "'80'"),
        ({"host": 1}, "host must be a str, not 1"),
    ],
)
def test_bad_run_arguments_raise_at_once(
    idle_worker: type[IdleWorker], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Application().run(**arguments)

    assert message in str(caught.value)
    assert idle_worker.made == []


@pytest.mark.usefixtures("plain_response")
def test_the_first_error_handler_that_fits_is_called() -> None:
    app = Application()
    app.add_error_handler(KeyError, lambda _request, error: ("key", error))
    app.add_error_handler(LookupError, lambda _request, error: ("lookup", error))
    key, index, other = KeyError(), IndexError(), RouteNotFoundException()

    assert app.error_handler(REQUEST, key) == ("key", key)
    assert app.error_handler(REQUEST, index) == ("lookup", index)
    assert app.error_handler(REQUEST, other) == {"text": "Not Found", "code": 404}

    app.add_error_handler(None, lambda _request, error: ("any", error))

    assert app.error_handler(REQUEST, other) == ("any", other)


@pytest.mark.usefixtures("plain_response")
def test_an_exception_in_an_error_handler_gives_a_plain_500_and_both_tracebacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Application()

    def broken(_request: Any, error: BaseException) -> None:
        raise ValueError("second") from error

    app.add_error_handler(KeyError, broken)
    app.add_error_handler(None, lambda _request, _error: "must not be reached")

    answer = app.error_handler(REQUEST, KeyError("first"))

    assert answer == {"text": "Internal Server Error", "code": 500}
    assert "second" in caplog.text
    assert "first" in caplog.text


@pytest.mark.usefixtures("plain_response")
def test_unexpected_exceptions_are_logged_and_answered_with_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, "anel.error"):
        answer = Application().error_handler(REQUEST, ZeroDivisionError("boom"))

    assert answer == {"text": "Internal Server Error", "code": 500}
    assert "unhandled exception method=GET path=/x" in caplog.text
    assert "ZeroDivisionError: boom" in caplog.text


@pytest.mark.usefixtures("plain_response")
def test_debug_puts_the_traceback_into_the_response() -> None:
    answer = Application(debug=True).error_handler(REQUEST, ZeroDivisionError("boom"))

    assert answer["code"] == 500
    assert "ZeroDivisionError: boom" in answer["text"]


@pytest.mark.usefixtures("plain_response")
def test_expected_exceptions_have_their_own_answers() -> None:
    app = Application()
    teapot = HTTPException(418, "short and stout", {"X-Spout": "yes"})

    assert app.error_handler(REQUEST, asyncio.CancelledError()) == {
        "text": "Service unavailable",
        "code": 503,
    }
    assert app.error_handler(REQUEST, teapot) == {
        "text": "short and stout",
        "code": 418,
        "headers": {"X-Spout": "yes"},
    }
    assert app.error_handler(REQUEST, HTTPException(403))["text"] == "Forbidden"


def test_an_error_handler_may_be_for_several_classes() -> None:
    app = Application()
    app.add_error_handler((KeyError, ValueError), lambda _request, error: repr(error))

    assert app.error_handler(REQUEST, KeyError(1)) == "KeyError(1)"
    assert app.error_handler(REQUEST, ValueError(2)) == "ValueError(2)"


@pytest.mark.parametrize(
    ("typ", "handler", "message"),
    [
        (7, print, "not 7"),
        (ValueError("x"), print, "ValueError"),
        (None, "nope", "'nope'"),
        ((), print, "not ()"),
        ((ValueError, None), print, "None"),
    ],
)
def test_bad_error_handlers_are_refused(typ: Any, handler: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Application().add_error_handler(typ, handler)


def test_an_async_error_handler_is_refused() -> None:
    async def handler(_request: Any, _error: Any) -> None: ...

    with pytest.raises(ConfigError, match="must not be async"):
        Application().add_error_handler(None, handler)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"handler": 7}, "7"),
        ({"handler": print, "name": "not a name"}, "'not a name'"),
        ({"handler": print, "name": "method"}, "request.method exists"),
        ({"handler": print, "property": "yes"}, "'yes'"),
    ],
)
def test_bad_request_extensions_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Application().extend_request(**arguments)

    assert message in str(caught.value)


def test_a_request_extension_is_named_after_its_function_and_only_once() -> None:
    app = Application()

    def user(request: Any) -> Any:
        return request

    app.extend_request(user, property=True)

    assert app._request_extensions == {"user": (user, True)}
    with pytest.raises(ConfigError, match=r"request\.user is extended twice"):
        app.extend_request(print, name="user")


@pytest.mark.parametrize(
    ("log_request", "debug", "logs"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_the_request_log_follows_debug_unless_it_is_set(
    log_request: bool | None, debug: bool, logs: bool
) -> None:
    app = Application(log_request=log_request, debug=debug)

    assert (app._request_logger is not None) == logs


def test_the_default_request_logger_prints_address_method_and_path(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Application().default_request_logger(REQUEST)

    assert capsys.readouterr().out == "192.0.2.1 GET /x\n"


@pytest.mark.usefixtures("plain_response")
def test_a_path_cannot_forge_a_line_of_a_log(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = "/a b\u0105\n192.0.2.9 GET /forged\r\x1b[2J\u2028\ud800"
    request: Any = types.SimpleNamespace(method="GET", path=path, remote_addr="192.0.2.1")

    Application().default_request_logger(request)
    log_failure("event", request, KeyError())
    Application().error_handler(request, KeyError())

    shown = "/a b\u0105\\n192.0.2.9 GET /forged\\r\\x1b[2J\\u2028\\ud800"
    assert capsys.readouterr().out == f"192.0.2.1 GET {shown}\n"
    assert [record.getMessage().partition("path=")[2] for record in caplog.records] == [shown] * 2


def test_the_protocol_error_handler_returns_the_whole_response() -> None:
    answer = Application().protocol_error_handler("malformed_headers")

    assert answer == (
        b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 17\r\n\r\nmalformed_headers"
    )


def test_a_setup_error_carries_errno_reason_and_hint() -> None:
    error = ReactorUnavailable(1, "io_uring is forbidden", "use epoll")

    assert isinstance(error, SetupError | OSError | AnelError)
    assert (error.errno, error.reason, error.hint) == (1, "io_uring is forbidden", "use epoll")
    assert str(error) == "io_uring is forbidden (EPERM); use epoll"
    assert str(SetupError(None, "no memory")) == "no memory"


def test_an_http_exception_takes_only_error_statuses() -> None:
    for status in (200, 399, 600, "404"):
        with pytest.raises(ValueError, match="400 to 599"):
            HTTPException(status)  # type: ignore[arg-type]
    assert str(HTTPException(499)) == "499 Error 499"


def test_run_does_nothing_while_the_command_line_loads(idle_worker: type[IdleWorker]) -> None:
    with _marked():
        Application().run()

    assert idle_worker.made == []


def test_a_busy_port_ends_with_one_line_and_exit_code_4(
    idle_worker: type[IdleWorker], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(SystemExit) as caught:
            Application().run("127.0.0.1", port)

    assert caught.value.code == 4
    expected = f"anel: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert capsys.readouterr().err == expected
    assert idle_worker.made == []


def test_an_unavailable_reactor_ends_with_one_line_and_exit_code_3(
    idle_worker: type[IdleWorker],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_arguments: Any, **_named: Any) -> None:
        raise ReactorUnavailable(1, "io_uring is forbidden", "use epoll")

    monkeypatch.setattr(idle_worker, "__init__", refuse)
    app = Application()

    with pytest.raises(SystemExit) as caught:
        app.run("127.0.0.1", 0, reactor="io_uring")

    assert caught.value.code == 3
    assert capsys.readouterr().err == "anel: io_uring is forbidden (EPERM); use epoll\n"
    app.router.add_route("/", print)


@pytest.mark.usefixtures("idle_worker")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_and_run_returns(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)

    worker = run_until(Application(), number)

    assert worker.told == ["drain", "stop"]
    assert signal.getsignal(number) is before
    accepting, terminating = capsys.readouterr().out.splitlines()
    assert accepting.startswith("Accepting connections on http://127.0.0.1:")
    assert terminating == "Termination request received"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_as_soon_as_the_port_is_open_drains(
    idle_worker: type[IdleWorker],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    class Opening(Listeners):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            os.kill(os.getpid(), number)

    monkeypatch.setattr("anel.launch.Listeners", Opening)
    before = signal.getsignal(number)

    Application().run("127.0.0.1", 0)

    assert idle_worker.made[-1].told == ["drain", "stop"]
    assert "Termination request received" in capsys.readouterr().out
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("idle_worker")
@pytest.mark.parametrize(
    ("turns_between", "told"),
    # Signal 0 is none. What arrived before the first signal is taken in before the drain.
    [([], ["stop"]), ([0] * 10, ["drain", "stop"])],
    ids=["before_the_drain", "in_the_drain"],
)
def test_the_second_signal_ends_at_once(turns_between: list[int], told: list[str]) -> None:
    signals = [signal.SIGTERM, *turns_between, signal.SIGTERM]

    worker = run_until(Application(), *signals, checks=10**9)

    assert worker.told == told


@pytest.mark.usefixtures("idle_worker")
def test_the_worker_is_given_routes_reactor_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANEL_REACTOR", "epoll")
    app = Application(reaper_settings={"check_interval": 1, "idle_timeout": 2.5})
    route = app.router.add_route("/", print)

    worker = run_until(app, signal.SIGTERM)

    assert worker.app is app
    assert [entry[:5] for entry in worker.routes] == [("/", None, print, "sync", route)]
    assert worker.reactor == "epoll"
    assert worker.limits == {"idle_timeout_ms": 2500}


def test_a_bad_reactor_in_the_environment_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANEL_REACTOR", "kqueue")

    with pytest.raises(SystemExit) as caught:
        Application().run("127.0.0.1", 0)

    assert caught.value.code == 3
    assert "ANEL_REACTOR must be one of" in capsys.readouterr().err


@pytest.mark.usefixtures("idle_worker")
def test_routes_cannot_be_added_while_serving() -> None:
    app = Application()
    raised = []

    async def add_late() -> None:
        try:
            app.router.add_route("/late", print)
        except RouteError as error:
            raised.append(error)

    task = app.loop.create_task(add_late())
    run_until(app, signal.SIGTERM)

    assert task.done()
    assert len(raised) == 1


@pytest.mark.usefixtures("idle_worker")
def test_the_loop_works_before_run_and_a_new_one_follows_it() -> None:
    app = Application()
    loop = app.loop

    assert loop.run_until_complete(asyncio.sleep(0, "ready")) == "ready"
    run_until(app, signal.SIGTERM)

    assert loop.is_closed()
    assert app.loop is not loop
    app.loop.close()


@pytest.mark.usefixtures("idle_worker")
def test_tasks_left_behind_are_cancelled_at_the_end() -> None:
    app = Application()
    task = app.loop.create_task(asyncio.sleep(3600))

    run_until(app, signal.SIGTERM)

    assert task.cancelled()


def attached_loop() -> tuple[ReactorLoop, IdleWorker]:
    loop = new_loop()
    worker = IdleWorker(None, [], [], reactor="idle")
    loop.reactor_selector.attach(worker)
    return loop, worker


@pytest.mark.usefixtures("idle_worker")
def test_asyncio_runs_on_the_workers_turn() -> None:
    loop, worker = attached_loop()

    async def use_everything() -> str:
        await asyncio.sleep(0.001)
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
        async with asyncio.timeout(10):
            return await asyncio.to_thread(lambda: "from a thread")

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(use_everything()) == "from a thread"
    assert worker.turns > 0


@pytest.mark.usefixtures("idle_worker")
def test_a_nested_select_gets_the_epoll_part_alone() -> None:
    loop, worker = attached_loop()
    nested = []
    worker.on_turn = lambda: nested.append(loop.reactor_selector.select(0))

    loop.run_until_complete(asyncio.sleep(0))

    assert nested[0] == []
    assert worker.turns == len(nested)
    loop.close()


@pytest.mark.usefixtures("idle_worker")
def test_another_thread_never_turns_the_worker() -> None:
    loop, worker = attached_loop()

    thread = threading.Thread(target=loop.reactor_selector.select, args=(0,))
    thread.start()
    thread.join()

    assert worker.turns == 0
    loop.close()


@pytest.mark.usefixtures("idle_worker")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_never_turns_the_worker() -> None:
    loop, worker = attached_loop()

    child = os.fork()
    if child == 0:
        loop.reactor_selector.select(0)
        os._exit(worker.turns)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    loop.close()


@pytest.mark.usefixtures("idle_worker")
def test_registration_follows_epolls_rules() -> None:
    loop, _ = attached_loop()
    selector = loop.reactor_selector
    reader, writer = os.pipe()

    with open(os.devnull) as unknown, pytest.raises(KeyError):
        selector.unregister(unknown)
    with open(__file__) as plain_file, pytest.raises(PermissionError):
        selector.register(plain_file, select.EPOLLIN)
    key = selector.register(reader, select.EPOLLIN)
    os.write(writer, b"x")

    assert selector.select(1) == [(key, select.EPOLLIN)]
    selector.unregister(reader)
    os.close(reader)
    os.close(writer)
    loop.close()
