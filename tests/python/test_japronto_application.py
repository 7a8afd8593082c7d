"""What Japronto documents of its Application, command line and errors, under its own name.

One test per behaviour. Where Japronto's code did something else than it documents, the test shows
what is documented.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import pathlib
import signal
import subprocess
import sys
import types
from typing import Any

import pytest
from anel import ConfigError, RouteNotFoundException, alias, options
from anel.japronto import Application
from conftest import DEADLINE_S, IdleWorker, Serve, Server, as_japronto, get, start_server

PROGRAM = """
    import asyncio
    from japronto import Application, RouteNotFoundException

    class Special(Application):
        def default_request_logger(self, request):
            print("logged", request.path, flush=True)

    app = Special(log_request=True)
    setup = app.loop.run_until_complete(asyncio.sleep(0, "set up before run"))

    class Loud(Exception):
        pass

    class Louder(Loud):
        pass

    def raises(exception):
        def handler(request):
            raise exception
        return handler

    async def raises_later(request):
        await asyncio.sleep(0)
        raise Louder("later")

    def answered_already(request):
        request.Response(text="never sent")
        raise ValueError("after Response")

    async def cancelled(request):
        raise asyncio.CancelledError

    def on_loud(request, exception):
        return request.Response(text="loud: {}".format(exception), code=409)

    def on_key_error(request, exception):
        raise RuntimeError("the error handler's own")

    def on_type_error(request, exception):
        return None

    app.add_error_handler(Loud, on_loud)
    app.add_error_handler(Louder, raises(AssertionError("the first one that fits is called")))
    app.add_error_handler(KeyError, on_key_error)
    app.add_error_handler(TypeError, on_type_error)

    def cached(request):
        return request.path[1:]

    def shout(request, word="hey"):
        return word.upper()

    app.extend_request(cached, property=True)
    app.extend_request(shout)
    app.extend_request(lambda request: "renamed", name="other", property=True)

    def count(request, counted=[]):
        counted.append(request)
        return len(counted)

    app.extend_request(count, property=True)

    def computed(request):
        return request.Response(text="{} {}".format(request.count, request.count))

    def extended(request):
        return request.Response(text=" ".join(
            [request.cached, request.shout(), request.shout("you"), request.other]))

    def whole(request):
        return request.Response(text=str(request.app is app and app.router is app.router))

    router = app.router
    router.add_route("/setup", lambda request: request.Response(text=setup))
    router.add_route("/loud", raises(Louder("sync")))
    router.add_route("/later", raises_later)
    router.add_route("/key", raises(KeyError("first")))
    router.add_route("/type", raises(TypeError()))
    router.add_route("/unknown", raises(ZeroDivisionError("unknown")))
    router.add_route("/answered", answered_already)
    router.add_route("/cancelled", cancelled)
    router.add_route("/none", lambda request: None)
    router.add_route("/extended", extended)
    router.add_route("/whole", whole)
    router.add_route("/computed", computed)
    app.run()
"""


def test_the_package_has_japrontos_names_and_version() -> None:
    assert alias.__version__ == "0.1.2"
    assert alias.RouteNotFoundException is RouteNotFoundException


@pytest.mark.parametrize(
    "line",
    [
        "from japronto import Application, RouteNotFoundException",
        "from japronto.app import Application",
        "from japronto.router import Router, RouteNotFoundException, Route",
        "from japronto.router.route import Route",
        "import japronto.app; Application = japronto.app.Application",
        "import japronto; Application = japronto.Application",
        "from anel.japronto import Application",
        "from anel import Application",
    ],
)
def test_every_way_to_import_works(serve_japronto: Serve, line: str) -> None:
    server = serve_japronto(
        f"""
        {line}
        if "Application" not in globals():
            from japronto import Application
        Application().run()
        """
    )

    assert server.stop() == 0


def test_the_alias_wins_over_an_installed_japronto_and_leaves_it_alone(
    serve_japronto: Serve, tmp_path: pathlib.Path
) -> None:
    package = tmp_path / "japronto"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('the installed one')\n")
    (package / "protocol.py").write_text("raise AssertionError('the installed one')\n")

    server = serve_japronto(
        """
        from japronto import Application
        try:
            import japronto.protocol
        except ModuleNotFoundError as error:
            print(error, flush=True)
        Application().run()
        """
    )

    assert server.lines[0] == "No module named 'japronto.protocol'"
    assert sorted(path.name for path in package.iterdir()) == ["__init__.py", "protocol.py"]


def test_arguments_of_application_are_keyword_only() -> None:
    parameters = list(inspect.signature(Application).parameters.values())

    assert {parameter.kind for parameter in parameters} == {inspect.Parameter.KEYWORD_ONLY}
    defaults = {parameter.name: parameter.default for parameter in parameters}
    assert defaults["reaper_settings"] is None
    assert defaults["log_request"] is None
    assert defaults["protocol_factory"] is None
    assert defaults["debug"] is False


def test_run_is_called_with_host_and_port_and_listens_on_8080_everywhere() -> None:
    parameters = inspect.signature(Application.run).parameters

    assert list(parameters)[1:6] == ["host", "port", "worker_num", "reload", "debug"]
    held = options.resolve()
    assert (held["host"], held["port"]) == ("0.0.0.0", 8080)


@pytest.mark.usefixtures("idle_worker")
def test_one_worker_may_be_asked_for(idle_worker: type[IdleWorker]) -> None:
    app = Application()
    app.on_startup(lambda: os.kill(os.getpid(), signal.SIGTERM))

    app.run("127.0.0.1", 0, worker_num=1, reload=False, debug=False)

    assert len(idle_worker.made) == 1


def test_the_loop_works_before_run(japronto: Server) -> None:
    assert japronto.ask(get("/setup")).text == "set up before run"


def test_the_application_and_its_router_are_single_objects(japronto: Server) -> None:
    assert japronto.ask(get("/whole")).text == "True"


def test_the_first_error_handler_that_fits_answers(japronto: Server) -> None:
    answer = japronto.ask(get("/loud"))

    assert (answer.status, answer.text) == (409, "loud: sync")


def test_an_error_handler_answers_for_an_async_handler(japronto: Server) -> None:
    answer = japronto.ask(get("/later"))

    assert (answer.status, answer.text) == (409, "loud: later")


def test_an_error_handler_that_raises_gives_a_plain_500_and_both_tracebacks(
    japronto: Server,
) -> None:
    answer = japronto.ask(get("/key"))

    assert (answer.status, answer.text) == (500, "Internal Server Error")
    japronto.wait_for_line("KeyError: 'first'")
    japronto.wait_for_line("RuntimeError: the error handler's own")


def test_an_error_handler_that_returns_none_is_not_asked_for_ever(japronto: Server) -> None:
    assert japronto.ask(get("/type")).status == 500


def test_an_unknown_exception_is_a_500_with_a_traceback_on_stderr(japronto: Server) -> None:
    answer = japronto.ask(get("/unknown"))

    assert (answer.status, answer.text) == (500, "Internal Server Error")
    japronto.wait_for_line("^Traceback")
    japronto.wait_for_line("^ZeroDivisionError: unknown")


def test_an_exception_behind_response_is_not_masked(japronto: Server) -> None:
    answer = japronto.ask(get("/answered"))

    assert (answer.status, answer.text) == (500, "Internal Server Error")
    japronto.wait_for_line("^ValueError: after Response")


def test_a_cancelled_handler_is_unavailable(japronto: Server) -> None:
    answer = japronto.ask(get("/cancelled"))

    assert (answer.status, answer.text) == (503, "Service unavailable")


def test_an_unknown_path_is_not_found(japronto: Server) -> None:
    answer = japronto.ask(get("/nowhere"))

    assert (answer.status, answer.text) == (404, "Not Found")


def test_a_handler_that_returns_no_response_is_told(japronto: Server) -> None:
    assert japronto.ask(get("/none")).status == 500
    japronto.wait_for_line("ValueError: View did not return Response instance")


def test_a_request_is_extended_by_properties_and_methods(japronto: Server) -> None:
    assert japronto.ask(get("/extended")).text == "extended HEY YOU renamed"


def test_the_request_logger_can_be_replaced(japronto: Server) -> None:
    japronto.ask(get("/setup"))

    japronto.wait_for_line("^logged /setup$")


@pytest.mark.parametrize("path", ["/nowhere", "/unknown", "/later", "/cancelled"])
def test_a_request_that_failed_is_logged(japronto: Server, path: str) -> None:
    japronto.ask(get(path))

    japronto.wait_for_line(f"^logged {path}$")


def test_an_extension_is_computed_on_every_access(japronto: Server) -> None:
    assert japronto.ask(get("/computed")).text == "1 2"


def test_a_catch_all_sees_everything(serve_japronto: Serve) -> None:
    server = serve_japronto(
        """
        import asyncio
        from japronto import Application

        app = Application()

        async def cancelled(request):
            raise asyncio.CancelledError

        def catch_all(request, exception):
            return request.Response(
                json={"type": type(exception).__name__, "route": request.route is None,
                      "match": request.match_dict}, code=500)

        app.add_error_handler(None, catch_all)
        app.router.add_route("/cancelled", cancelled)
        app.run()
        """
    )

    lost, cancelled = server.ask(get("/lost")), server.ask(get("/cancelled"))

    assert (lost.status, cancelled.status) == (500, 500)
    assert b'"RouteNotFoundException"' in lost.body
    assert b"true" in lost.body
    assert b'"CancelledError"' in cancelled.body


@pytest.mark.parametrize("where", ["constructor", "run"])
def test_debug_logs_requests_and_shows_tracebacks(serve_japronto: Serve, where: str) -> None:
    constructor, run = ("debug=True", "") if where == "constructor" else ("", "debug=True")
    server = serve_japronto(
        f"""
        from japronto import Application
        app = Application({constructor})
        app.router.add_route("/", lambda request: 1 / 0)
        app.run({run})
        """
    )

    answer = server.ask(get("/"))

    assert answer.status == 500
    assert "ZeroDivisionError: division by zero" in answer.text
    server.wait_for_line(r"^127\.0\.0\.1 GET /$")


def test_without_debug_nothing_is_logged(serve_japronto: Serve) -> None:
    server = serve_japronto("from japronto import Application\nApplication().run()\n")

    server.ask(get("/"))
    server.stop()

    assert not [line for line in server.lines if "GET" in line]


@pytest.mark.parametrize(
    "replaced",
    [
        "class Mine(Application): protocol_error_handler = lambda *_: answer\napp = Mine()",
        "app = Application()\napp.protocol_error_handler = lambda error: answer",
    ],
    ids=["class", "instance"],
)
@pytest.mark.parametrize("package", ["anel", "japronto"])
def test_the_answer_to_what_is_no_http_can_be_replaced(
    serve_japronto: Serve, package: str, replaced: str
) -> None:
    server = serve_japronto(
        f"from {package} import Application\n"
        "answer = b'HTTP/1.0 400 Bad Request\\r\\nContent-Length: 4\\r\\n\\r\\nmine'\n"
        f"{replaced}\n"
        "app.run()\n"
    )

    assert server.exchange(b"nonsense\r\n\r\n").endswith(b"mine")


@pytest.mark.usefixtures("idle_worker")
def test_an_attribute_that_requests_have_is_not_replaced() -> None:
    def path(request: Any) -> None: ...

    with pytest.raises(ConfigError, match=r"request\.path exists already"):
        Application().extend_request(path)


@pytest.mark.usefixtures("idle_worker")
def test_a_default_error_handler_may_be_overridden() -> None:
    class Mine(Application):
        def default_error_handler(self, request: Any, exception: BaseException) -> Any:
            return "mine", exception

    error = ValueError()

    request: Any = types.SimpleNamespace()
    assert Mine().error_handler(request, error) == ("mine", error)


def test_a_script_is_main_with_its_arguments_and_folder(
    serve_japronto: Serve, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "beside.py").write_text("value = 'imported from beside'\n")
    program = tmp_path / "main.py"
    program.write_text(
        "import sys, beside\n"
        "from japronto import Application\n"
        "assert sys.modules['__main__'].__dict__ is globals()\n"
        "print(__name__, sys.argv[1:], __file__ == sys.argv[0], beside.value, flush=True)\n"
        "if __name__ == '__main__':\n"
        "    Application().run()\n"
    )

    server = serve_japronto(program, "--port", "7", "word")

    assert server.lines[0] == "__main__ ['--port', '7', 'word'] True imported from beside"


EXTRA = "Error: Got unexpected extra arguments"


def run(*arguments: str, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        cwd=cwd,
    )


@pytest.mark.parametrize(
    "command", [["anel", "run", "--japronto"], ["anel", "--japronto"], ["anel.japronto"]]
)
def test_a_script_that_runs_nothing_exits_with_3(
    tmp_path: pathlib.Path, command: list[str]
) -> None:
    (tmp_path / "idle.py").write_text("print('idle')\n")

    ended = run(*command, "idle.py", cwd=tmp_path)

    assert ended.returncode == 3
    assert ended.stdout == "idle\n"
    assert ended.stderr == "anel: 'idle.py' has ended without serving: nothing called app.run()\n"


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--japronto", "missing.py"], 3, "anel: cannot find file 'missing.py'"),
        (["--japronto", "nowhere.app"], 3, "anel: cannot find module 'nowhere' of 'nowhere.app'"),
        (["--japronto", "broken.app", "a"], 2, f"{EXTRA} (a)"),
        (["broken.py", "--japronto"], 2, f"{EXTRA} (--japronto); --japronto goes before APP"),
        (["--japronto", "broken.py"], 3, "ZeroDivisionError: division by zero"),
        (["--japronto", "leaving.py"], 7, ""),
    ],
)
def test_a_program_that_cannot_be_run_says_why(
    tmp_path: pathlib.Path, arguments: list[str], code: int, line: str
) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(7)\n")

    ended = run("anel", "run", *arguments, cwd=tmp_path)

    assert ended.returncode == code
    assert ended.stderr.rstrip("\n").rpartition("\n")[2] == line


def test_a_traceback_shows_the_frames_of_the_script_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "two.py").write_text(
        "from japronto import Application\nApplication().run(port=-1)\n"
    )

    ended = run("anel", "run", "--japronto", "two.py", cwd=tmp_path)

    assert ended.returncode == 3
    files = [line for line in ended.stderr.splitlines() if line.lstrip().startswith("File ")]
    assert len(files) == 1
    assert "two.py" in files[0]
    assert ended.stderr.rstrip().endswith("port must be a number from 0 to 65535, not -1")


def test_a_module_attribute_is_loaded_as_by_japrontos_command_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "module_for_japronto.py").write_text(
        "from japronto import Application\n"
        "app = Application()\n"
        "app.router.add_route('/', lambda request: request.Response(text=__name__))\n"
        "app.run(port=1)  # Does nothing: the command line runs the application.\n"
    )
    search = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    with contextlib.ExitStack() as stack:
        command = as_japronto("module_for_japronto.app", "auto")
        server = start_server(stack, command, PYTHONPATH=search)

        assert server.ask(get("/")).text == "module_for_japronto"
        assert server.stop() == 0
