"""The commands beside `run`: what they print and how they end; and what the help says."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
from anel import Application, options
from anel.choices import Choices
from anel.cli import main
from anel.launch import Launch
from click.testing import CliRunner, Result
from conftest import DEADLINE_S, Serve, get, start_server

HELP = pathlib.Path(__file__).parent / "help"

ROUTES = """
import functools
from anel import Application, Router

app = Application()

def greet(request, greeting):
    return greeting

class Counter:
    def __call__(self, request):
        return "1"

    async def later(self, request, id):
        await something()

app.router.add_route("/", functools.partial(greet, greeting="hello"), "GET")
app.router.add_route("/count", Counter())
app.router.add_route("/users/{id:int}", Counter().later, methods=["PUT", "POST"], name="user")
app.router.add_constant("/robots.txt", text="", name="robots")

@app.post("/upload", body_bytes_max=10)
async def upload(request):
    await request.save("x")
"""


pytestmark = pytest.mark.usefixtures("folder")


def invoke(*arguments: str) -> Result:
    # As in a terminal of 100 columns.
    return CliRunner().invoke(main, list(arguments), terminal_width=98, prog_name="anel")


# anel routes.


def test_routes_are_listed_in_their_order(folder: pathlib.Path) -> None:
    (folder / "listed.py").write_text(ROUTES)

    result = invoke("routes", "listed.py")

    assert [line.split() for line in result.stdout.splitlines()] == [
        ["METHOD", "PATTERN", "HANDLER", "KIND", "NAME"],
        ["GET", "/", "listed.greet", "sync", "greet"],
        ["*", "/count", "listed.Counter", "sync", "-"],
        ["POST,PUT", "/users/{id:int}", "listed.Counter.later", "async", "user"],
        ["GET,HEAD", "/robots.txt", "-", "constant", "robots"],
        ["POST", "/upload", "listed.upload", "async", "upload"],
    ]


def test_routes_are_told_to_programs(folder: pathlib.Path) -> None:
    (folder / "listed.py").write_text(ROUTES)

    routes = json.loads(invoke("routes", "listed.py", "--json").stdout)

    assert len(routes) == 5
    assert routes[4] == {
        "methods": ["POST"],
        "pattern": "/upload",
        "handler": "listed.upload",
        "kind": "async",
        "name": "upload",
        "stream": True,
        "body_bytes_max": 10,
    }


def test_an_application_without_routes_has_an_empty_list(folder: pathlib.Path) -> None:
    (folder / "bare.py").write_text("import anel\napp = anel.Application()\n")

    assert invoke("routes", "bare.py").stdout == "METHOD  PATTERN  HANDLER  KIND  NAME\n"
    assert invoke("routes", "bare.py", "--json").stdout == "[]\n"


# anel config --check.


def test_what_is_right_is_ok(folder: pathlib.Path) -> None:
    (folder / "right.py").write_text("import anel\napp = anel.Application()\n")

    assert invoke("config", "right.py", "--check").stdout == "ok\n"
    assert json.loads(invoke("config", "right.py", "--check", "--json").stdout) == {"ok": True}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere.py"], "cannot find file 'nowhere.py'"),
        (["right.py", "--user", "no-such-user"], "there is no user 'no-such-user' on"),
        (["right.py", "--proxy-protocol"], "proxy_protocol needs trusted_proxies"),
        (["right.py", "--max-requests-jitter", "5"], "max_requests_jitter needs max_requests"),
        (["right.py", "--uds", "x" * 108], "uds must have 107 bytes at most"),
        (["right.py", "--uds", "x", "-b", ":0"], "bind excludes uds and fd"),
        (["wrong.py"], "the loop uvloop cannot be had"),
    ],
)
def test_what_is_wrong_is_one_line(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    (folder / "right.py").write_text("import anel\napp = anel.Application()\n")
    (folder / "wrong.py").write_text("import anel\napp = anel.Application(loop='uvloop')\n")

    result = invoke("config", "--check", *arguments)

    assert result.exit_code == 3
    assert result.stderr.startswith(f"anel: {line}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_check_needs_an_application() -> None:
    assert invoke("config", "--check").exit_code == 2


# anel dev.


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Choices]:
    """What held when a command ran an application; nothing is served."""
    seen: list[Choices] = []
    monkeypatch.setattr(Application, "run", lambda app: seen.append(options.resolve({}, app._own)))
    monkeypatch.setattr(Launch, "fork", lambda *_arguments: seen.append(options.resolve()))
    return seen


def test_dev_is_for_the_author_alone(
    folder: pathlib.Path, started: list[Choices], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "mine.py").write_text("import anel\napp = anel.Application()\n")
    monkeypatch.setenv("ANEL_HOST", "0.0.0.0")
    monkeypatch.setenv("ANEL_DEBUG", "0")
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    monkeypatch.setenv("PORT", "81")

    result = invoke("dev", "mine.py")

    assert result.exit_code == 0, result.output
    (held,) = started
    assert (held["host"], held["port"], held["worker_num"]) == ("127.0.0.1", 81, None)
    assert {one.setting.name: one.value for one in held if one.origin == "anel dev"} == options.DEV


def test_options_go_before_what_dev_chooses(folder: pathlib.Path, started: list[Choices]) -> None:
    (folder / "mine.py").write_text("import anel\napp = anel.Application()\n")

    invoke("dev", "mine.py", "--no-debug", "--host", "::1", "--port", "0")

    (held,) = started
    assert (held["debug"], held["host"], held["port"]) == (False, "::1", 0)


def test_what_dev_chooses_ends_with_it(folder: pathlib.Path, started: list[Choices]) -> None:
    (folder / "mine.py").write_text("import anel\napp = anel.Application()\n")

    invoke("dev", "mine.py", "--port", "0")

    held = options.resolve()
    assert (held["host"], held["port"], held["debug"]) == ("0.0.0.0", 8080, False)


FAILING = """
import anel

class Mine(anel.Application):
    def default_request_logger(self, request):
        print("own", request.path, flush=True)

app, mine = anel.Application(), Mine()

@app.get("/")
@mine.get("/")
def fail(request):
    1 / 0
"""


def test_dev_serves_with_tracebacks_and_logs_a_request_once(folder: pathlib.Path) -> None:
    (folder / "main.py").write_text(FAILING)
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "anel", "dev", "--port", "0"]
        server = start_server(stack, command)

        answer = server.ask(get("/"))

        assert "ZeroDivisionError: division by zero" in answer.text
        server.wait_for_line(r'^127\.0\.0\.1 .* "GET / HTTP/1\.1" 500 ')
        assert server.lines[0] == "anel: found main.py"
        assert server.stop() == 0
    assert len([line for line in server.lines if "GET /" in line]) == 1


def test_a_request_logger_of_its_own_logs_beside_the_access_log(folder: pathlib.Path) -> None:
    (folder / "main.py").write_text(FAILING)
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "anel", "dev", "main:mine", "--port", "0", "--no-reload"]
        server = start_server(stack, command)

        server.ask(get("/"))

        server.wait_for_line(r'"GET / HTTP/1\.1" 500 ')
        server.wait_for_line("^own /$")


# The first word.


@pytest.mark.parametrize(("word", "command"), [("confg", "config"), ("rotues", "routes")])
def test_a_slip_in_a_command_is_noticed(word: str, command: str) -> None:
    result = invoke(word, "app.py")

    assert result.exit_code == 2
    assert f"There is no command {word!r}, nor such an application. Is it {command!r}?" in (
        result.stderr
    )


def test_an_application_that_is_called_nearly_like_a_command_is_run(
    folder: pathlib.Path, started: list[Choices]
) -> None:
    (folder / "routers.py").write_text("import anel\napp = anel.Application()\n")

    assert invoke("routers").exit_code == 0
    assert len(started) == 1


def test_python_m_is_the_same_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "anel", "--help"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env={**os.environ, "COLUMNS": "100"},
    )

    assert ended.stdout == (HELP / "anel.txt").read_text()


# Japronto's own flags.


@pytest.mark.parametrize("name", ["program", "program.py"])
def test_japrontos_script_is_run_as_it_is(folder: pathlib.Path, name: str) -> None:
    (folder / name).write_text(
        "import sys\nfrom japronto import Application\napp = Application()\n"
        "app.router.add_route('/', lambda request: request.Response(text=sys.argv[1]))\n"
        "app.run(port=1)\n"
    )
    with contextlib.ExitStack() as stack:
        where = ["--host", "127.0.0.1", "--port", "0", "--worker-num", "1"]
        server = start_server(
            stack, [sys.executable, "-m", "anel", *where, "--script", name, "--port"]
        )

        assert server.ask(get("/")).text == "--port"
        assert server.stop() == 0


# --log-level.

LOGGING = """
    import logging
    from anel import Application

    app = Application()

    @app.get("/{level}")
    def log(request, level):
        logging.getLogger("anel.test").log(getattr(logging, level.upper()), "told level=%s", level)
        return "logged"
"""


def logged(serve: Serve, *arguments: str, source: str = LOGGING) -> list[str]:
    """The lines about what handlers have logged, at every level."""
    server = serve(textwrap.dedent(source), *arguments)
    for level in ("debug", "info", "warning", "error"):
        assert server.ask(get(f"/{level}")).text == "logged"
    assert server.stop() == 0
    return [line for line in server.lines if "told" in line]


@pytest.mark.parametrize(
    ("arguments", "levels"),
    [
        (["--log-level", "debug"], ["debug", "info", "warning", "error"]),
        ([], ["info", "warning", "error"]),
        (["--log-level", "error"], ["error"]),
        (["--log-level", "critical"], []),
    ],
)
def test_the_log_is_shown_from_a_level_on(
    serve: Serve, arguments: list[str], levels: list[str]
) -> None:
    lines = logged(serve, *arguments)

    assert [line.rpartition("=")[2] for line in lines] == levels
    for line, level in zip(lines, levels, strict=True):
        assert f" {level.upper()} anel.test: told level={level}" in line


@pytest.mark.parametrize(
    ("arguments", "levels"), [([], ["warning", "error"]), (["--log-level", "error"], ["error"])]
)
def test_logging_that_an_application_configures_is_its_own(
    serve: Serve, arguments: list[str], levels: list[str]
) -> None:
    own = LOGGING + "\n    logging.basicConfig(format='own %(message)s')\n"

    lines = logged(serve, *arguments, source=own)

    assert lines == [f"own told level={level}" for level in levels]


# The help.


@pytest.mark.parametrize("command", ["anel", "run", "routes", "config", "doctor"])
def test_the_help_is_as_it_was_last_read(command: str) -> None:
    words = [] if command == "anel" else [command]

    result = invoke(*words, "--help")

    path = HELP / f"{command}.txt"
    shown = " ".join(["anel", *words])
    assert result.stdout == path.read_text(), (
        f"read it, and then: COLUMNS=100 {shown} --help > {path}"
    )


def test_the_help_of_dev_has_every_option_of_run() -> None:
    words = {word.strip(",") for word in invoke("dev", "--help").stdout.split()}

    assert {one.option for one in options.OPTIONS} <= words
