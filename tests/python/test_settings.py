"""Where settings come from, and what is said about wrong ones.

Owns the layers, spellings and messages. What each limit does is `test_limits`' business.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
from anel import Application, ConfigError, choices, options, settings
from anel.limits import LIMITS, Limit
from anel.options import APPLICATION, OPTIONS, RunOptions
from anel.settings import Number, Setting, Unit
from conftest import Serve, get

BODY = next(limit for limit in LIMITS if limit.name == "body_bytes_max")
HANDLER = next(limit for limit in LIMITS if limit.name == "handler_timeout_ms")


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: pathlib.Path, *lines: str) -> None:
    (folder / "pyproject.toml").write_text("\n".join(["[tool.anel]", *lines, ""]))


def held(name: str, own: dict[str, Any] | None = None, **said: Any) -> tuple[Any, str]:
    """The value of an option, and where it comes from; `said` is what `run()` is given."""
    found = options.resolve(options.said_by_run(None, said), own)
    return found[name], found.of(name).origin


def run(*arguments: str, cwd: pathlib.Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "anel", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        (BODY, "65536", 65536),
        (BODY, "64KiB", 65536),
        (BODY, "64 kib", 65536),
        (BODY, "1.5MiB", 1_572_864),
        (BODY, "1MB", 1_000_000),
        (BODY, "9223372036854775807", 2**63 - 1),
        (BODY, 10, 10),
        (HANDLER, "10", 10_000),
        (HANDLER, "0.5", 500),
        (HANDLER, 2.5, 2_500),
        (HANDLER, "500ms", 500),
        (HANDLER, "2m", 120_000),
        (HANDLER, "1h", 3_600_000),
        (HANDLER, "off", 0),
    ],
)
def test_a_value_is_a_number_or_has_a_unit(setting: Number, text: object, value: int) -> None:
    assert setting.parse(text, "x") == value


@pytest.mark.parametrize(
    ("setting", "text", "words"),
    [
        (BODY, "many", "x must be a size such as 65536, 64KiB or 16MiB, not 'many'"),
        (BODY, "off", "not 'off'"),
        (BODY, "-1", "not '-1'"),
        (BODY, "0.3", "not '0.3'"),
        (BODY, True, "not True"),
        (BODY, "10s", "not '10s'"),
        (BODY, [1], "not [1]"),
        (BODY, str(2**63), "x must be from 0 to 9223372036854775807, not"),
        (HANDLER, "2d", "x must be a time such as 10, 10s, 500ms or 2m or off, not '2d'"),
        (HANDLER, "25h", "x must be from 1ms to 86400s, or off, not '25h'"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(setting: Setting, text: object, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        setting.parse(text, "x")

    assert words in str(raised.value)


@pytest.mark.parametrize("setting", LIMITS, ids=lambda limit: limit.key)
def test_what_is_written_is_read_back(setting: Limit) -> None:
    for value in (setting.minimum, setting.default, setting.maximum):
        assert setting.parse(setting.write(value), "x") == value


def test_names_and_keys_are_unique() -> None:
    for names in ([one.name for one in OPTIONS], [one.key for one in OPTIONS]):
        assert len(set(names)) == len(names)


def test_every_option_is_a_keyword_of_run() -> None:
    japrontos = {"host", "port", "reload", "debug"}

    assert {*RunOptions.__annotations__} == {one.parameter for one in OPTIONS} - japrontos


def test_an_argument_that_run_does_not_have_is_named() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'limit_bodi'"):
        Application().run(limit_bodi=1)  # type: ignore[call-arg]


def test_workers_are_counted_once() -> None:
    with pytest.raises(TypeError, match="both worker_num and workers"):
        Application().run(worker_num=2, workers=3)


# For every pair of layers that follow each other, and a few that do not: who wins.
LAYERS = ["command line", "run", "environment", "file", "application", "default"]
ORIGINS = {
    "command line": (70, "--timeout-body"),
    "run": (71, "run()"),
    "environment": (72, "ANEL_TIMEOUT_BODY"),
    "file": (73, "pyproject.toml"),
    "application": (74, "application"),
    "default": (60, "default"),
}


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations(LAYERS, 2)])
def test_of_two_layers_the_first_wins(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    there = {first, second}
    seconds = {layer: value for layer, (value, _) in ORIGINS.items()}
    if "file" in there:
        write(folder, f"timeout-body = {seconds['file']}")
    if "environment" in there:
        monkeypatch.setenv("ANEL_TIMEOUT_BODY", str(seconds["environment"]))
    said = {"timeout_body": seconds["run"]} if "run" in there else {}
    own = {"body_timeout_ms": 1000 * seconds["application"]} if "application" in there else {}
    given = {"body_timeout_ms": 1000 * seconds["command line"]} if "command line" in there else {}

    with choices.given(given):
        value, origin = held("body_timeout_ms", own, **said)

    assert (value / 1000, origin) == ORIGINS[first]


def test_the_command_line_goes_first_and_the_default_last(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert held("body_bytes_max") == (16 * 1024**2, "default")
    own = {"body_bytes_max": 1}
    assert held("body_bytes_max", own) == (1, "application")

    write(folder, "limit-body = 2")
    assert held("body_bytes_max", own) == (2, "pyproject.toml")

    monkeypatch.setenv("ANEL_LIMIT_BODY", "3")
    assert held("body_bytes_max", own) == (3, "ANEL_LIMIT_BODY")

    with choices.given({"body_bytes_max": 4}):
        assert held("body_bytes_max", own) == (4, "--limit-body")
    assert held("body_bytes_max", own) == (3, "ANEL_LIMIT_BODY")


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.key)
def test_every_limit_is_read_from_environment_and_file(
    limit: Limit, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = limit.write(limit.minimum)
    write(folder, f"{limit.key} = {text!r}")
    assert held(limit.name) == (limit.minimum, "pyproject.toml")

    monkeypatch.setenv(limit.variable, limit.write(limit.maximum))
    assert held(limit.name) == (limit.maximum, limit.variable)


def test_other_tables_of_the_file_are_nobodys_business(folder: pathlib.Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.other]\nlimit-body = 'x'\n[project]\nname='a'\n")

    assert held("body_bytes_max")[1] == "default"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["limit-body = 'x'"], "limit-body of [tool.anel] in pyproject.toml must be a size"),
        (["limit-bodi = 1"], "[tool.anel] in pyproject.toml has no setting 'limit-bodi'"),
        (["limit-body ="], "cannot read pyproject.toml: "),
    ],
)
def test_a_mistake_in_the_file_is_named(folder: pathlib.Path, lines: list[str], words: str) -> None:
    write(folder, *lines)

    with pytest.raises(ConfigError) as raised:
        held("body_bytes_max")

    assert words in str(raised.value)


def test_a_variable_that_looks_like_a_setting_is_one(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANEL_LIMIT_BODI", "1")

    with pytest.raises(ConfigError, match="there is no setting ANEL_LIMIT_BODI: known are "):
        held("body_bytes_max")


@pytest.mark.parametrize("name", ["ANEL_WORKER", "ANEL_REACTER", "ANEL_PROXY_HEADER"])
def test_a_variable_that_is_nearly_an_options_is_one(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")

    with pytest.raises(ConfigError, match=f"there is no setting {name}: known are {name[:-3]}"):
        options.resolve()


@pytest.mark.parametrize(
    "name",
    ["ANEL_JSON", "ANEL_URING_FLAGS", "ANEL_SOAK_S", "ANEL_PYTHON", "ANEL_SERVICE_HOST"],
)
def test_a_variable_of_something_else_is_nobodys_business(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")

    assert held("port")[1] == "default"


def test_an_empty_variable_is_as_good_as_absent(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANEL_PORT", "")
    assert held("port") == (8080, "default")

    monkeypatch.setenv("PORT", "81")
    assert held("port") == (81, "PORT")

    monkeypatch.setenv("ANEL_PORT", "82")
    assert held("port") == (82, "ANEL_PORT")


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"bodies": 1}, "there is no limit named 'bodies'; known are head_bytes_max, "),
        ({"fields_max": 0}, "limits['fields_max'] must be from 1 to 65535, not 0"),
        ({"fields_max": 1.5}, "limits['fields_max'] must be an int or a str, not 1.5"),
        ({"fields_max": True}, "must be an int or a str, not True"),
        ({"head_timeout_ms": "x"}, "limits['head_timeout_ms'] must be a time such as"),
        ([], "limits must be a dict, not []"),
    ],
)
def test_a_wrong_limit_of_an_application_is_refused_at_once(limits: object, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Application(limits=limits)  # type: ignore[arg-type]

    assert words in str(raised.value)


def test_an_application_gives_numbers_in_the_unit_of_the_name_or_with_a_unit() -> None:
    app = Application(limits={"head_timeout_ms": 500, "body_timeout_ms": "2s"})

    assert app._limits == {"head_timeout_ms": 500, "body_timeout_ms": 2000}


def test_an_idle_timeout_is_given_once() -> None:
    with pytest.raises(ConfigError, match="both give an idle timeout"):
        Application(reaper_settings={"idle_timeout": 1}, limits={"idle_timeout_ms": 1})


def test_a_wrong_option_is_wrong_usage(folder: pathlib.Path) -> None:
    ended = run("run", "app.py", "--limit-body", "x", cwd=folder)

    assert ended.returncode == 2
    assert "Invalid value for '--limit-body': it must be a size such as" in ended.stderr


@pytest.mark.parametrize("command", ["run", "config"])
def test_a_wrong_variable_stops_the_start_with_one_line(folder: pathlib.Path, command: str) -> None:
    (folder / "app.py").write_text("from anel import Application\napp = Application()\n")

    ended = run(command, "app.py", cwd=folder, ANEL_TIMEOUT_BODY="x")

    assert ended.returncode == 3
    assert ended.stderr.splitlines() == [
        "anel: ANEL_TIMEOUT_BODY must be a time such as 10, 10s, 500ms or 2m, not 'x'"
    ]


def test_config_tells_what_holds_and_why(folder: pathlib.Path) -> None:
    (folder / "app.py").write_text(
        "from anel import Application\napp = Application(limits={'fields_max': 7})\n"
    )
    write(folder, "limit-body = '1MiB'")

    ended = run("config", "app.py", "--limit-pipeline", "3", cwd=folder, ANEL_LIMIT_STREAM="5MiB")

    lines = [line.split() for line in ended.stdout.splitlines()]
    assert len(lines) == len(APPLICATION) + len(OPTIONS)
    for line in (
        ["limit-request-fields", "7", "application"],
        ["limit-body", "1MiB", "pyproject.toml"],
        ["limit-pipeline", "3", "--limit-pipeline"],
        ["limit-stream", "5MiB", "ANEL_LIMIT_STREAM"],
        ["timeout-request", "300s", "default"],
    ):
        assert line in lines


def test_config_tells_programs(folder: pathlib.Path) -> None:
    ended = run("config", "--json", cwd=folder)

    report = json.loads(ended.stdout)
    assert report["timeout-header"] == {
        "name": "head_timeout_ms",
        "value": 10_000,
        "origin": "default",
    }


@pytest.mark.parametrize("way", ["application", "variable", "option"])
def test_a_server_has_the_limits_it_was_given(serve: Serve, way: str) -> None:
    own = "limits={'target_bytes_max': 20}" if way == "application" else ""
    source = f"from anel import Application\napp = Application({own})\n"
    options = ["--limit-request-line", "20"] if way == "option" else []
    environment = {"ANEL_LIMIT_REQUEST_LINE": "20"} if way == "variable" else {}

    server = serve(source, *options, **environment)

    assert server.ask(get("/" + "x" * 19)).status == 404
    assert server.ask(get("/" + "x" * 20)).status == 414


def test_a_program_for_japronto_has_the_limits_of_the_command_line(
    serve_japronto: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANEL_LIMIT_REQUEST_LINE", "20")
    server = serve_japronto("""
        from japronto import Application
        app = Application()
        app.run(port=0)
    """)

    assert server.ask(get("/" + "x" * 20)).status == 400


def test_the_page_has_every_limit_as_it_is_declared() -> None:
    page = pathlib.Path(__file__).parents[2] / "src" / "protocol" / "LIMITS.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]

    declared = [
        f"| `{one.key}` | `{one.name}` | {one.write(one.default)} | {one.outcome} | {one.help} |"
        for one in LIMITS
    ]
    assert rows == declared


def test_units_have_an_example_and_factors() -> None:
    assert set(Unit) == set(settings._FACTORS) == set(settings._WRITTEN) == set(settings._EXAMPLES)
