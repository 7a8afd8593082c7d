"""The command line: `anel [run] APP`, `anel config` and `anel doctor`.

Owns options, exit codes and how failures look: one readable line, or the traceback of the user's
own code. Exit codes: 0 served and drained, 2 wrong usage, 3 cannot start, 4 cannot listen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

import anel
from anel import alias, choices, options, script
from anel.application import Application
from anel.choices import Choices, Starter
from anel.exceptions import ConfigError, LoadError, RouteError, SetupError
from anel.failures import EXIT_SETUP, leave, leave_with_traceback
from anel.launch import Launch
from anel.loading import load
from anel.loops import LoopChoice, require
from anel.settings import Setting, Switch

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
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

    def __init__(self, setting: Setting) -> None:
        self.name = setting.metavar
        self._setting = setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value that is meant, in a tuple: it may be None, which is nothing for click."""
        try:
            return (self._setting.parse(value, "it"),)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _takes_options(command: F) -> F:
    """Gives a command everything that can be chosen."""
    for setting in reversed(options.OPTIONS):
        for option in reversed(_options(setting)):
            command = option(command)
    return command


def _options(setting: Setting) -> list[Callable[[F], F]]:
    known = [f"env var: {', '.join(setting.variables)}"]
    default = setting.write(setting.default)
    if default != "-":
        known.append(f"default: {default}")
    help_text = f"{setting.help}  [{'; '.join(known)}]"
    if isinstance(setting, Switch):
        both = f"{setting.option}/--no-{setting.key}"
        return [click.option(both, setting.name, default=None, help=help_text)]
    names = (*setting.flags, setting.option, *setting.hidden, setting.name)
    kind = _Value(setting)
    made = [click.option(*names, type=kind, metavar=setting.metavar, help=help_text)]
    if setting.negation is not None:
        flag = (f"--no-{setting.key}", setting.name)
        help_text = f"The same as {setting.option} {setting.negation}."
        made.append(click.option(*flag, type=kind, flag_value=setting.negation, help=help_text))
    return made


def _give(parameters: Mapping[str, Any], starter: Starter) -> None:
    """What is on the command line goes before all others, until the command ends."""
    given = {
        option.name: value[0] if isinstance(value, tuple) else value
        for option in options.OPTIONS
        if (value := parameters[option.name]) is not None
    }
    click.get_current_context().with_resource(choices.given(given, starter))


class _EndsAtScript(click.Command):
    """Leaves what follows the name of a Japronto program to that program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = "--japronto" not in args
        return super().parse_args(ctx, args)


@main.command(cls=_EndsAtScript)
@click.argument("app")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="")
@_takes_options
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
    _give(parameters, Starter.PROGRAM if japronto else Starter.COMMAND)
    if japronto:
        _run_as_japronto(app, arguments)
        return
    if arguments:
        hint = "; --japronto goes before APP" if "--japronto" in arguments else ""
        raise click.UsageError(f"Got unexpected extra arguments ({' '.join(arguments)}){hint}")
    chosen = _resolve()
    _require(chosen["loop"])
    try:
        launch = Launch(**chosen.arguments(Launch))
        if launch.forks:
            # Every worker loads the application by itself: the next one finds it as it is then.
            launch.fork(lambda: _serve(_load(app)))
            return
    except ConfigError as error:
        leave(EXIT_SETUP, str(error))
    _serve(_load(app))


def _resolve(own: Mapping[str, Any] | None = None) -> Choices:
    try:
        return options.resolve(own=own)
    except ConfigError as error:
        leave(EXIT_SETUP, str(error))


def _run_as_japronto(app: str, arguments: tuple[str, ...]) -> None:
    alias.install()
    if not (app.endswith(".py") or os.path.isfile(app)):
        # As Japronto's own command line has it: an attribute of a module.
        if arguments:
            raise click.UsageError(f"Got unexpected extra arguments ({' '.join(arguments)})")
        _serve(_load(app))
        return
    try:
        script.run_script(app, arguments)
    except LoadError as error:
        leave(EXIT_SETUP, str(error))
    except Exception as error:
        # A program that has served ends as it would without us.
        leave_with_traceback(1 if script.has_served() else EXIT_SETUP, error)
    if not script.has_served():
        leave(EXIT_SETUP, f"{app!r} has ended without serving: nothing called app.run()")


@main.command()
@click.argument("app", required=False)
@_takes_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(app: str | None, as_json: bool, **parameters: Any) -> None:
    """Tell what holds for APP, and where each value comes from.

    It comes from options, the environment, [tool.anel] in the pyproject.toml of the working
    directory, the application (if APP is given), in this order.
    """
    _give(parameters, Starter.COMMAND)
    chosen = _resolve(_load(app)._own if app is not None else None)
    if as_json:
        report = {
            one.setting.key: {
                "name": one.setting.name,
                "value": one.value,
                "origin": one.origin,
            }
            for one in chosen
        }
        click.echo(json.dumps(report, indent=2, default=str))
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


def _require(loop: LoopChoice) -> None:
    try:
        require(loop)
    except SetupError as error:
        leave(EXIT_SETUP, str(error))


def _serve(application: Application) -> None:
    try:
        application.run()
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
