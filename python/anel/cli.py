"""The command line: `anel [run] APP`, `anel config` and `anel doctor`.

Owns options, exit codes and how failures look: one readable line, or the traceback of the user's
own code. Exit codes: 0 served and drained, 2 wrong usage, 3 cannot start, 4 cannot listen.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

import anel
from anel import alias, limits, script, settings
from anel.application import REACTORS, Application
from anel.concurrency import worker_count
from anel.exceptions import ConfigError, LoadError, RouteError, SetupError
from anel.failures import EXIT_SETUP, leave, leave_with_traceback
from anel.launch import Launch
from anel.loading import load
from anel.loops import LOOPS, preferring, require
from anel.proxies import PROXY_HEADERS

if TYPE_CHECKING:
    _ParamType = click.ParamType[int]
else:
    # Generic since click 8.4 only.
    _ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])


class _RunByDefault(click.Group):
    """Takes a first word that is no command as the application for `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "--version"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault)
@click.version_option(anel.__version__, prog_name="anel")
def main() -> None:
    """An HTTP toolkit for Python on Linux with an io_uring core.

    `anel APP` is short for `anel run APP`.
    """


class _Value(_ParamType):
    """The value of a setting, as it is spelled."""

    def __init__(self, setting: settings.Setting) -> None:
        self.name = setting.unit.value
        self._setting = setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that is meant."""
        try:
            return self._setting.parse(value, "it")
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _takes_limits(command: F) -> F:
    """Gives a command an option for every limit."""
    for limit in reversed(limits.LIMITS):
        known = f"[env var: {limit.variable}; default: {limit.write(limit.default)}]"
        option = click.option(limit.option, type=_Value(limit), help=f"{limit.help}  {known}")
        command = option(command)
    return command


def _give_limits(parameters: dict[str, Any]) -> None:
    """Takes the limits out of a command's parameters; they hold until it ends."""
    values = {limit.name: parameters.pop(limit.parameter) for limit in limits.LIMITS}
    chosen = {name: value for name, value in values.items() if value is not None}
    click.get_current_context().with_resource(settings.given(chosen))


class _Workers(_ParamType):
    """A number of workers."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that is meant."""
        try:
            return worker_count(value)
        except ConfigError:
            self.fail(f"{value!r} is neither a number of workers nor auto", param, ctx)


class _EndsAtScript(click.Command):
    """Leaves what follows the name of a Japronto program to that program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = "--japronto" not in args
        return super().parse_args(ctx, args)


@main.command(cls=_EndsAtScript)
@click.argument("app")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port; 0 picks one.",
)
@click.option("--uds", metavar="PATH", help="Listen on a Unix socket instead.")
@click.option(
    "--fd",
    type=click.IntRange(0),
    help="Listen on a descriptor that somebody else has opened. Sockets of systemd's are taken as"
    " they come.",
)
@click.option(
    "-w",
    "--workers",
    "--worker-num",
    "worker_num",
    metavar="N|auto",
    type=_Workers(),
    envvar=["ANEL_WORKERS", "WEB_CONCURRENCY"],
    help="Have a master keep so many workers alive; auto is one per processor. Without it, one"
    " process serves by itself.  [env var: ANEL_WORKERS, WEB_CONCURRENCY]",
)
@click.option(
    "--max-requests",
    type=click.IntRange(1),
    help="Replace a worker that has served so many requests.",
)
@click.option(
    "--max-requests-jitter",
    type=click.IntRange(0),
    help="And up to so many more, at random for each.",
)
@click.option("--pidfile", metavar="PATH", help="Has the number of the server's process in it.")
@click.option(
    "--reactor",
    default="auto",
    show_default=True,
    envvar="ANEL_REACTOR",
    show_envvar=True,
    type=click.Choice(REACTORS),
    help="What waits for the network.",
)
@click.option(
    "--loop",
    type=click.Choice(LOOPS),
    help="The event loop that handlers run on; auto is asyncio's on the reactor."
    "  [env var: ANEL_LOOP; default: auto]",
)
@click.option("--user", help="Name or number to run as, once the port is open. Needs root.")
@click.option("--group", help="The same for the group; the user's own by default.")
@click.option(
    "--trusted-proxies",
    help="Addresses and networks of the proxies that are believed, with commas; unix is whoever"
    " connects over a Unix socket."
    "  [env var: ANEL_TRUSTED_PROXIES]",
)
@click.option(
    "--proxy-headers",
    help=f"What they set: {', '.join(PROXY_HEADERS)}."
    "  [env var: ANEL_PROXY_HEADERS; default: x-forwarded-for]",
)
@click.option(
    "--proxy-protocol/--no-proxy-protocol",
    default=None,
    help="Only they connect, and begin with a header of the PROXY protocol."
    "  [env var: ANEL_PROXY_PROTOCOL]",
)
@click.option("--debug", is_flag=True, help="Log requests; show tracebacks in 500 responses.")
@_takes_limits
@click.option(
    "--japronto",
    is_flag=True,
    help="Run a program written for Japronto, unchanged. Goes before APP; what follows APP is the"
    " program's. Its own run() chooses host and port, unless they are given here.",
)
def run(
    app: str,
    arguments: tuple[str, ...],
    japronto: bool,
    **parameters: Any,
) -> None:
    """Serve an application.

    APP is module:attribute, module.attribute, file.py or file.py:attribute.
    """
    _give_limits(parameters)
    loop = parameters["loop"]
    # A loop that the application's module asks for is made while it is loaded.
    click.get_current_context().with_resource(preferring(loop))
    if loop is not None:
        _require(loop)
    if japronto:
        _run_as_japronto(app, arguments)
        return
    if arguments:
        hint = "; --japronto goes before APP" if "--japronto" in arguments else ""
        raise click.UsageError(f"Got unexpected extra arguments ({' '.join(arguments)}){hint}")
    wanted = {field.name: parameters[field.name] for field in dataclasses.fields(Launch)}
    try:
        launch = Launch(**wanted)
        if launch.forks:
            # Every worker loads the application by itself: the next one finds it as it is then.
            launch.fork(lambda: _serve(_load(app), **parameters))
            return
    except ConfigError as error:
        leave(EXIT_SETUP, str(error))
    _serve(_load(app), **parameters)


def _run_as_japronto(app: str, arguments: tuple[str, ...]) -> None:
    context = click.get_current_context()
    not_of_run = {"app", "arguments", "japronto"} | {one.parameter for one in limits.LIMITS}
    given = {
        name: value
        for name, value in context.params.items()
        if name not in not_of_run
        and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    alias.install()
    if not (app.endswith(".py") or os.path.isfile(app)):
        # As Japronto's own command line has it: an attribute of a module.
        if arguments:
            raise click.UsageError(f"Got unexpected extra arguments ({' '.join(arguments)})")
        _serve(_load(app), **given)
        return
    try:
        script.run_script(app, arguments, given)
    except LoadError as error:
        leave(EXIT_SETUP, str(error))
    except Exception as error:
        # A program that has served ends as it would without us.
        leave_with_traceback(1 if script.has_served() else EXIT_SETUP, error)
    if not script.has_served():
        leave(EXIT_SETUP, f"{app!r} has ended without serving: nothing called app.run()")


@main.command()
@click.argument("app", required=False)
@_takes_limits
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(app: str | None, as_json: bool, **parameters: Any) -> None:
    """Tell which limits hold for APP, and where each comes from.

    They come from options, the environment, [tool.anel] in the pyproject.toml of the working
    directory, the application (if APP is given), in this order.
    """
    _give_limits(parameters)
    own = _load(app)._limits if app is not None else {}
    try:
        chosen = limits.resolve(own)
    except ConfigError as error:
        leave(EXIT_SETUP, str(error))
    if as_json:
        report = {
            one.setting.key: {
                "name": one.setting.name,
                "value": one.value,
                "origin": one.origin,
            }
            for one in chosen
        }
        click.echo(json.dumps(report, indent=2))
        return
    for one in chosen:
        written = one.setting.write(one.value)
        click.echo(f"{one.setting.key:<21} {written:<8} {one.origin}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(as_json: bool) -> None:
    """Tell what this machine offers, and which reactor would be used and why."""
    from anel import _core

    report = _core.doctor()
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo("\n".join(_lines(report, "")))


def _require(loop: str) -> None:
    try:
        require(loop)
    except SetupError as error:
        leave(EXIT_SETUP, str(error))


def _serve(application: Application, **settings: Any) -> None:
    try:
        application.run(**settings)
    except (ConfigError, RouteError) as error:
        leave(EXIT_SETUP, str(error))


def _load(spec: str) -> Application:
    try:
        application = load(spec)
    except LoadError as error:
        leave(EXIT_SETUP, str(error))
    except SystemExit as error:
        leave(EXIT_SETUP, f"{spec!r} called exit({error.code!r}) while it was imported")
    except Exception as error:
        leave_with_traceback(EXIT_SETUP, error)
    if not isinstance(application, Application):
        leave(EXIT_SETUP, f"{spec!r} is a {type(application).__name__}, not an anel.Application")
    return application


def _lines(report: Mapping[str, Any], indent: str) -> list[str]:
    lines = []
    for name, value in report.items():
        label = f"{indent}{name.replace('_', ' ')}:"
        if isinstance(value, Mapping):
            lines += [label, *_lines(value, f"{indent}  ")]
        elif isinstance(value, list | tuple):
            lines.append(f"{label} {', '.join(str(one) for one in value) or '-'}")
        elif isinstance(value, bool):
            lines.append(f"{label} {'yes' if value else 'no'}")
        else:
            lines.append(f"{label} {'-' if value is None else value}")
    return lines
