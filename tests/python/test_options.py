"""Every option: that it is read in every way, and that a test shows what it does.

Owns the table of those tests. What an option does is the business of the test that is named there,
and of `test_limits` for limits.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import pathlib
import sys
from typing import Any

import pytest
from anel import ConfigError, choices, options
from anel.cli import main
from anel.limits import Limit
from anel.options import APPLICATION, OPTIONS
from anel.settings import Choice, Number, Setting, Switch
from click.testing import CliRunner
from conftest import Client, Serve, get, start_server

# The test that shows on a running server what an option does; of APP, what is found for it.
SHOWN = {
    "APP": "test_cli.test_an_application_is_named_in_every_documented_form",
    "--factory": "test_loading.test_the_option_calls_the_factory",
    "--app-dir": "test_loading.test_an_application_is_looked_for_in_a_folder",
    "--bind": "test_places.test_several_places_are_listened_on",
    "--host": "test_places.test_ipv6_is_listened_on",
    "--port": "test_privileges.test_the_port_is_opened_before_root_is_given_up",
    "--uds": "test_places.test_a_unix_socket_is_listened_on_and_removed_at_the_end",
    "--fd": "test_places.test_a_descriptor_that_somebody_has_opened_is_listened_on",
    "--workers": "test_workers.test_workers_share_the_port_and_a_master_that_serves_nobody",
    "--max-requests": "test_workers."
    "test_workers_are_replaced_after_so_many_requests_and_none_is_lost",
    "--max-requests-jitter": "test_workers."
    "test_workers_are_replaced_after_so_many_requests_and_none_is_lost",
    "--uds-mode": "test_places.test_the_operator_says_who_may_connect_to_a_path",
    "--timeout-graceful": "test_heartbeat.test_open_requests_have_as_long_as_the_operator_says",
    "--shutdown-delay": "test_heartbeat.test_a_server_goes_on_serving_for_the_delay",
    "--timeout-heartbeat": "test_heartbeat."
    "test_a_worker_that_is_stuck_is_shown_and_replaced_while_the_other_serves",
    "--affinity": "test_heartbeat.test_workers_run_on_the_processors_of_the_list_in_turn",
    "--scheduling": "test_scheduling.test_a_worker_keeps_its_policy_when_the_operator_says_so",
    "--control": "test_control.test_a_control_socket_needs_no_number_of_workers",
    "--umask": "test_places.test_the_umask_holds_for_what_the_server_makes",
    "--pidfile": "test_places.test_the_pid_file_names_the_server_as_long_as_it_lives",
    "--user": "test_privileges.test_numbers_need_no_entry",
    "--group": "test_privileges.test_numbers_need_no_entry",
    "--reload": "test_reload.test_the_package_of_an_application_is_watched_wherever_it_is",
    "--reload-dir": "test_reload.test_a_folder_elsewhere_is_watched_instead",
    "--reload-include": "test_reload.test_other_files_are_watched_when_they_are_named",
    "--reload-delay": "test_reload.test_a_save_counts_once_files_stay_as_they_are_for_the_delay",
    "--reload-exclude": "test_reload.test_what_is_excluded_reloads_nothing",
    "--metrics-bind": "test_options.test_metrics_are_served_at_a_place_of_their_own",
    "--access-log": "test_access_log.test_a_file_is_appended_to",
    "--access-log-format": "test_access_log.test_a_line_of_json_has_every_field_in_its_order",
    "--access-log-sample": "test_access_log.test_a_sample_is_about_as_large_as_it_should_be",
    "--reactor": "test_options.test_the_reactor_is_the_one_that_was_chosen",
    "--loop": "test_guest.test_handlers_run_on_the_loop_that_was_chosen",
    "--debug": "test_proxies.test_the_request_log_names_the_client",
    "--log-level": "test_commands.test_the_log_is_shown_from_a_level_on",
    "--trusted-proxies": "test_proxies.test_only_the_fields_that_were_named_are_believed",
    "--proxy-headers": "test_proxies.test_only_the_fields_that_were_named_are_believed",
    "--proxy-protocol": "test_proxies.test_the_proxy_protocol_on_the_guests_loop",
}


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def every(settings: tuple[Setting, ...]) -> pytest.MarkDecorator:
    """A test for each of them."""
    return pytest.mark.parametrize("option", settings, ids=lambda option: option.key)


@every(tuple(one for one in (*APPLICATION, *OPTIONS) if not isinstance(one, Limit)))
def test_a_test_shows_what_the_option_does(option: Setting) -> None:
    assert option.option in SHOWN, "name the test that shows it"
    module, _, name = SHOWN[option.option].partition(".")

    found = importlib.import_module(module)
    source = inspect.getsource(found)

    assert callable(getattr(found, name))
    # As the command line has it, or `run()`.
    forms = [f"{option.parameter}=", *(f'"{form}"' for form in (option.option, *option.flags))]
    assert option.is_argument or any(form in source for form in forms)


def test_the_table_of_tests_names_no_option_that_is_gone() -> None:
    assert {*SHOWN} <= {one.option for one in (*APPLICATION, *OPTIONS)}


def sample(option: Setting) -> tuple[str, Any, Any]:
    """A value that is no default: as text, as TOML and `run()` have it, and what it means."""
    words = {
        "bind": ":0",
        "trusted_proxies": "::1",
        "proxy_headers": "forwarded",
        "reload_dir": "src",
        "reload_include": "*.html",
        "reload_exclude": "tests",
    }
    if option.name in words:
        word = words[option.name]
        return word, [word], (word,)
    own: dict[str, tuple[str, Any, Any]] = {
        "metrics_bind": (":9090", ":9090", ":9090"),
        "access_log": ("/logs/access", "/logs/access", "/logs/access"),
        "access_log_sample": ("0.5", 0.5, 0.5),
    }
    if option.name in own:
        return own[option.name]
    if isinstance(option, Switch):
        return "1", True, True
    if isinstance(option, Choice):
        return option.names[-1], option.names[-1], option.names[-1]
    if isinstance(option, Number):
        # A number of milliseconds is told in seconds.
        factor = 1000 if option.name.endswith("_ms") else 1
        number = max(2, option.minimum)
        return str(number), number, number * factor
    return "2", 2 if option.name == "worker_num" else "2", 2 if option.name == "worker_num" else "2"


@every(OPTIONS)
def test_an_option_is_read_from_the_environment(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, option: Setting
) -> None:
    text, _, meant = sample(option)
    for variable in option.variables:
        with monkeypatch.context() as patch:
            patch.setenv(variable, text)
            one = options.resolve().of(option.name)
        assert (one.value, one.origin) == (meant, variable)


@every(OPTIONS)
def test_an_option_is_read_from_the_file(folder: pathlib.Path, option: Setting) -> None:
    _, value, meant = sample(option)
    (folder / "pyproject.toml").write_text(f"[tool.anel]\n{option.key} = {json.dumps(value)}\n")

    one = options.resolve().of(option.name)

    assert (one.value, one.origin) == (meant, "pyproject.toml")


@every(OPTIONS)
def test_an_option_is_a_keyword_of_run(folder: pathlib.Path, option: Setting) -> None:
    _, value, meant = sample(option)

    said = options.said_by_run(None, {option.parameter: value})

    assert options.resolve(said)[option.name] == meant


@every(OPTIONS)
def test_every_form_of_an_option_is_one(folder: pathlib.Path, option: Setting) -> None:
    text, _, meant = sample(option)
    for form in (option.option, *option.flags, *option.hidden):
        value = [] if isinstance(option, Switch) else [text]
        report = json.loads(CliRunner().invoke(main, ["config", "--json", form, *value]).stdout)

        found = report[option.key]
        meant_in_json = list(meant) if isinstance(meant, tuple) else meant
        assert (found["value"], found["origin"]) == (meant_in_json, option.option)


@every(OPTIONS)
def test_an_option_is_written_as_it_is_read(option: Setting) -> None:
    text, _, meant = sample(option)

    assert option.parse(option.write(meant), "x") == option.parse(text, "x")


def test_a_switch_may_be_switched_off(folder: pathlib.Path) -> None:
    arguments = ["config", "--json", "--no-proxy-protocol"]

    report = json.loads(CliRunner().invoke(main, arguments).stdout)

    assert report["proxy-protocol"]["value"] is False
    assert report["proxy-protocol"]["origin"] == "--proxy-protocol"


# Where to listen is one choice.


@pytest.mark.parametrize(
    ("strong", "weak", "left"),
    [
        ({"port": 1}, {"uds": "x"}, None),
        ({"host": "::"}, {"bind": (":0",)}, None),
        ({"uds": "x"}, {"fd": 3}, "uds"),
        ({"uds": "x"}, {"bind": (":0",)}, "uds"),
        ({"bind": (":0",)}, {"uds": "x", "fd": 3}, "bind"),
        ({"fd": 3}, {"port": 1}, "fd"),
        ({}, {"uds": "x"}, "uds"),
    ],
)
def test_a_place_goes_before_every_place_of_a_weaker_layer(
    folder: pathlib.Path, strong: dict[str, Any], weak: dict[str, Any], left: str | None
) -> None:
    with choices.given(strong):
        held = options.resolve(said=weak)

    assert [name for name in ("bind", "uds", "fd") if held[name]] == ([left] if left else [])


def test_a_variable_of_the_platform_goes_before_the_place_of_the_file(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "pyproject.toml").write_text("[tool.anel]\nuds = 'socket'\n")
    assert options.resolve()["uds"] == "socket"

    monkeypatch.setenv("PORT", "81")

    held = options.resolve()
    assert (held["uds"], held["port"]) == (None, 81)


PROGRAM = """
from anel import Application

app = Application()
app.router.add_route("/", lambda request: ",".join(sorted(app.counters())))
app.run()
"""


@pytest.mark.parametrize("words", [["-m", "anel"], []], ids=["command", "program"])
def test_the_port_of_the_platform_is_listened_on(folder: pathlib.Path, words: list[str]) -> None:
    (folder / "program.py").write_text(PROGRAM)
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [sys.executable, *words, "program.py"], PORT="0")

        assert server.ask(get("/")).status == 200
        assert server.port not in (8000, 8080)


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["alone", "with_a_worker"])
def test_what_the_file_says_holds_for_a_server(folder: pathlib.Path, workers: list[str]) -> None:
    (folder / "program.py").write_text(PROGRAM)
    (folder / "pyproject.toml").write_text(
        "[tool.anel]\napp = 'program.py'\nlimit-request-line = 20\nport = 0\n"
    )
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [sys.executable, "-m", "anel", "run", *workers])

        assert server.ask(get("/" + "x" * 20)).status == 414


def test_a_program_says_options_to_run(folder: pathlib.Path) -> None:
    said = "app.run('127.0.0.1', 0, limit_request_line='20', timeout_keep_alive=0.1)"
    (folder / "program.py").write_text(PROGRAM.replace("app.run()", said))
    with contextlib.ExitStack() as stack:
        server = start_server(stack, [sys.executable, "program.py"])

        assert server.ask(get("/" + "x" * 20)).status == 414
        with server.client() as client:
            assert client.ask(get("/")).status == 200
            assert client.is_ended()


def test_variables_of_a_service_of_kubernetes_are_nobodys_choice(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in ("ANEL", "ANEL_METRICS", "ANEL_LIMIT"):
        monkeypatch.setenv(f"{service}_SERVICE_HOST", "10.0.0.1")
        monkeypatch.setenv(f"{service}_SERVICE_PORT", "80")
        monkeypatch.setenv(f"{service}_SERVICE_PORT_HTTP", "80")
        monkeypatch.setenv(f"{service}_PORT", "tcp://10.0.0.1:80")
        monkeypatch.setenv(f"{service}_PORT_80_TCP", "tcp://10.0.0.1:80")
        monkeypatch.setenv(f"{service}_PORT_80_TCP_ADDR", "10.0.0.1")
    assert options.resolve()["port"] == 8080

    monkeypatch.setenv("ANEL_METRICS_PORT", "9090")

    with pytest.raises(ConfigError, match="there is no setting ANEL_METRICS_PORT"):
        options.resolve()


def test_metrics_are_served_at_a_place_of_their_own(serve: Serve) -> None:
    server = serve(PROGRAM, "--metrics-bind", "127.0.0.1:0")
    found = server.wait_for_line(r"^Metrics at http://127\.0\.0\.1:(\d+)/metrics$")

    with Client(int(found[1])) as client:
        metrics = client.ask(get("/metrics"))

    assert metrics.status == 200
    assert "# TYPE " in metrics.text


@pytest.mark.parametrize("name", ["io_uring", "epoll"])
def test_the_reactor_is_the_one_that_was_chosen(serve: Serve, name: str) -> None:
    server = serve(PROGRAM, "--reactor", name)
    descriptors = pathlib.Path(f"/proc/{server.process.pid}/fd")

    kinds = {path.readlink().name for path in descriptors.iterdir()}

    assert ("anon_inode:[io_uring]" in kinds) == (name == "io_uring")
