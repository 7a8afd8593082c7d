"""The command line: how an application is named, what failures look like, exit codes."""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import anel
import pytest
from anel import Application, options
from anel.choices import Choices
from anel.cli import main
from anel.exceptions import LoadError
from anel.loading import load
from click.testing import CliRunner, Result
from conftest import DEADLINE_S, Serve

PROGRAM = """
from anel import Application

app = Application()
other = Application()
number = 7
app.run()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty folder to work in, and a search path that forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


@pytest.fixture
def program(folder: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A program of its own name, so that no test finds another's module."""
    name = f"program_{abs(hash(request.node.nodeid))}"
    (folder / f"{name}.py").write_text(PROGRAM)
    yield name
    sys.modules.pop(name, None)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(
    ("form", "attribute"),
    [
        ("{}:app", "app"),
        ("{}:other", "other"),
        ("{}.other", "other"),
        ("{}", "app"),
        ("{}.py", "app"),
        ("{}.py:other", "other"),
        ("./{}.py:other", "other"),
    ],
)
def test_an_application_is_named_in_every_documented_form(
    program: str, form: str, attribute: str
) -> None:
    found = load(form.format(program))

    assert isinstance(found, Application)
    assert found is getattr(sys.modules[program], attribute)


def test_a_file_does_not_take_the_place_of_a_loaded_module(folder: pathlib.Path) -> None:
    (folder / "json.py").write_text(PROGRAM)

    load("json.py")

    assert sys.modules["json"] is json
    del sys.modules["anel_application_json"]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("nowhere:app", "cannot find module 'nowhere' of 'nowhere:app'"),
        ("nowhere.py", "cannot find file 'nowhere.py'"),
        ("{}:nothing", "has no attribute 'nothing'"),
        ("{}.nothing", "has no attribute 'nothing'"),
        ("{}:", "names no application"),
        (":app", "names no application"),
        ("..x:app", "is not a module name"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(program: str, form: str, message: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(form.format(program))

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("nowhere:app", "anel: cannot find module 'nowhere' of 'nowhere:app'\n"),
        ("{0}:number", "anel: '{0}:number' is a int, not an anel.Application\n"),
    ],
)
def test_an_unusable_application_ends_with_one_line_and_exit_code_3(
    program: str, form: str, line: str
) -> None:
    result = invoke("run", form.format(program))

    assert result.exit_code == 3
    assert result.stderr == line.format(program)


@pytest.mark.parametrize(
    ("source", "last_line"),
    [
        ("import missing_dependency", "ModuleNotFoundError: No module named 'missing_dependency'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def (", "SyntaxError: invalid syntax"),
        (
            "from anel import Application\nApplication().router.add_route('/{a', print)",
            "anel.exceptions.RouteError: unbalanced '{' in pattern '/{a'; write '{{' for a brace",
        ),
    ],
)
def test_an_exception_of_the_application_shows_only_its_own_frames(
    folder: pathlib.Path, source: str, last_line: str
) -> None:
    (folder / "broken_for_test.py").write_text(source)

    result = invoke("run", "broken_for_test.py")

    assert result.exit_code == 3
    lines = result.stderr.splitlines()
    assert lines[-1] == last_line
    files = [line for line in lines if line.lstrip().startswith("File ")]
    assert len(files) == 1
    assert "broken_for_test.py" in files[0]


def test_a_module_that_exits_is_reported(folder: pathlib.Path) -> None:
    (folder / "leaving_for_test.py").write_text("raise SystemExit(7)")

    result = invoke("run", "leaving_for_test.py")

    assert result.exit_code == 3
    assert "called exit(7) while it was imported" in result.stderr


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Choices]:
    """What held when a command ran an application; nothing is served."""
    seen: list[Choices] = []
    monkeypatch.setattr(Application, "run", lambda app: seen.append(options.resolve({}, app._own)))
    return seen


def given(started: list[Choices]) -> dict[str, Any]:
    """What somebody had chosen beside the application."""
    chosen = {one.setting.name: one.value for one in started[-1] if one.origin != "default"}
    del chosen["app"]
    return chosen


@pytest.mark.parametrize("words", [["run"], []])
def test_options_reach_the_application(
    program: str, words: list[str], started: list[Choices]
) -> None:
    # The program's own run() is patched as well, so it is seen here before the command's.
    result = invoke(*words, f"{program}:app", "--host", "::1", "--port", "81", "--reactor", "epoll")

    assert result.exit_code == 0, result.output
    assert given(started) == {"host": "::1", "port": 81, "reactor": "epoll"}


def test_whom_to_be_and_whom_to_believe_reach_the_application(
    program: str, started: list[Choices]
) -> None:
    options = ["--user", "nobody", "--group", "54321", "--trusted-proxies", "10.0.0.0/8,::1"]

    result = invoke(program, *options, "--proxy-headers", "forwarded", "--no-proxy-protocol")

    assert result.exit_code == 0, result.output
    assert given(started) == {
        "user": "nobody",
        "group": "54321",
        "trusted_proxies": ("10.0.0.0/8", "::1"),
        "proxy_headers": ("forwarded",),
        "proxy_protocol": False,
    }


@pytest.mark.parametrize(
    "arguments",
    [["run"], ["x:y", "--port", "65536"], ["x:y", "--reactor", "kqueue"], ["x:y", "--nope"]],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_a_wrong_variable_is_found_before_the_application_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANEL_REACTOR", "kqueue")

    result = invoke("x:y")

    assert result.exit_code == 3
    assert result.stderr == (
        "anel: ANEL_REACTOR must be one of auto, io_uring, epoll, not 'kqueue'\n"
    )


def test_doctor_prints_json_and_lines_about_the_same_report() -> None:
    as_json = invoke("doctor", "--json")
    as_lines = invoke("doctor")

    assert as_json.exit_code == as_lines.exit_code == 0
    for name in json.loads(as_json.stdout):
        assert f"{name.replace('_', ' ')}:" in as_lines.stdout


def test_the_version_is_cargos() -> None:
    root = pathlib.Path(__file__).parents[2]
    cargo = tomllib.loads((root / "Cargo.toml").read_text())

    assert anel.__version__ == cargo["package"]["version"]
    assert anel.__version__ in invoke("--version").stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_served_program_ends_with_0_on_a_signal(serve: Serve, reactor: str, number: int) -> None:
    server = serve(PROGRAM, "--reactor", reactor)

    assert server.stop(number) == 0
    assert server.lines[1:] == ["Termination request received"]


def test_a_program_that_runs_itself_ends_with_4_on_a_busy_port(
    serve: Serve, folder: pathlib.Path
) -> None:
    server = serve(PROGRAM)
    (folder / "second.py").write_text(
        f"from anel import Application\nApplication().run('127.0.0.1', {server.port})\n"
    )

    second = subprocess.run(
        [sys.executable, "second.py"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert second.returncode == 4
    expected = f"anel: cannot listen on 127.0.0.1:{server.port}: Address already in use\n"
    assert second.stderr == expected
