"""The command line: `anel [run] APP` and `anel dev`, which serve, and the commands that tell.

Owns how a server is started from it. Exit codes: 0 served and drained, 2 wrong usage, 3 cannot
start, 4 cannot listen.
"""

from __future__ import annotations

import difflib
import os
from typing import Any

import click

import anel
from anel import alias, choices, ctl, finding, flags, options, reports, script
from anel.application import Application, serve_handlers
from anel.choices import Starter
from anel.exceptions import ConfigError, LoadError, RouteError, SetupError
from anel.failures import EXIT_SETUP, leave, leave_with_traceback
from anel.launch import Launch
from anel.loading import place_of
from anel.loops import require

_EVERYTHING = (*options.APPLICATION, *options.OPTIONS)

# Two letters changed places, or one is missing; arbitrary.
_SIMILAR = 0.8

_EPILOG = (
    "Every option may also be a variable (--limit-body is ANEL_LIMIT_BODY), a key of [tool.anel] in"
    " the pyproject.toml of the working directory (limit-body) or an argument of app.run()"
    " (limit_body). A size is a number of bytes, or has a unit, as in 64KiB or 16MiB; a time one of"
    " seconds, or 500ms, 10s, 2m. `anel config` tells what holds."
)


class _Commands(click.Group):
    """Takes a first word that is no command as the application for `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "--version"):
            self._refuse_slip(args[0], ctx)
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def _refuse_slip(self, word: str, ctx: click.Context) -> None:
        """What is nearly a command and no module in sight was meant to be the command."""
        similar = difflib.get_close_matches(word, self.commands, 1, _SIMILAR)
        if similar and not (os.path.exists(word) or os.path.exists(f"{word}.py")):
            ctx.fail(
                f"There is no command {word!r}, nor such an application. Is it {similar[0]!r}?"
            )

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """In the order in which they were declared: what is typed first comes first."""
        return [*self.commands]


@click.group(cls=_Commands, context_settings={"max_content_width": 100})
@click.version_option(anel.__version__, prog_name="anel")
def main() -> None:
    """An HTTP toolkit for Python on Linux with an io_uring core.

    `anel APP` is short for `anel run APP`. APP is module:attribute, module.attribute, file.py or
    file.py:attribute; with () behind it, what makes the application is called.
    """


class _EndsAtScript(flags.GroupedCommand):
    """Leaves what follows the name of a Japronto program to that program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = not {"--japronto", "--script"}.intersection(args)
        return super().parse_args(ctx, args)


@main.command(cls=_EndsAtScript, epilog=_EPILOG)
@flags.takes(_EVERYTHING)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="")
@click.option(
    "--japronto",
    is_flag=True,
    help="Run a program written for Japronto, unchanged. Goes before APP; what follows APP is the"
    " program's. Its own run() chooses host and port, unless they are given here.",
)
# Japronto's own name for a program that calls run() by itself.
@click.option("--script", "is_script", is_flag=True, hidden=True)
def run(
    arguments: tuple[str, ...],
    japronto: bool,
    is_script: bool,
    **parameters: Any,
) -> None:
    """Serve an application.

    APP is module:attribute, module.attribute, file.py or file.py:attribute. Without it, it is what
    [tool.anel] says, or app, application, api or create_app() of main.py, app.py, api.py, wsgi.py,
    asgi.py or a package app.
    """
    if japronto or is_script:
        flags.give(_EVERYTHING, parameters, Starter.PROGRAM)
        _run_as_japronto(arguments, is_script=is_script)
        return
    if arguments:
        hint = "; --japronto goes before APP" if "--japronto" in arguments else ""
        raise click.UsageError(f"Got unexpected extra arguments ({' '.join(arguments)}){hint}")
    flags.give(_EVERYTHING, parameters, Starter.COMMAND)
    _run()


@main.command(cls=flags.GroupedCommand, epilog=_EPILOG)
@flags.takes(_EVERYTHING)
def dev(**parameters: Any) -> None:
    """Serve an application to its author.

    Like `anel run`, but only on this machine and with one worker, whatever environment and file
    say: it reloads when a file changes, the pages of errors show tracebacks, and requests are
    logged. Options choose otherwise.
    """
    developers = choices.given(options.DEV, Starter.COMMAND, "anel dev")
    click.get_current_context().with_resource(developers)
    flags.give(_EVERYTHING, parameters, Starter.COMMAND)
    _run()


for _command in (ctl.ctl, reports.routes, reports.config, reports.doctor):
    main.add_command(_command)


def _run() -> None:
    chosen = finding.resolve()
    spec = finding.named(chosen)
    try:
        require(chosen["loop"])
        launch = Launch(**chosen.arguments(Launch))
        if launch.forks:
            # Every worker loads the application by itself: the next one finds it as it is then.
            place = place_of(spec, chosen["app_dir"] or "")
            launch.fork(lambda: _serve(finding.application(spec, chosen)), serve_handlers, place)
            return
    except (ConfigError, SetupError) as error:
        leave(EXIT_SETUP, str(error))
    _serve(finding.application(spec, chosen))


def _serve(application: Application) -> None:
    try:
        application.run()
    except (ConfigError, RouteError) as error:
        leave(EXIT_SETUP, str(error))


def _run_as_japronto(arguments: tuple[str, ...], *, is_script: bool) -> None:
    chosen = finding.resolve()
    app: str | None = chosen["app"]
    if app is None:
        raise click.UsageError("Missing argument 'APP': a program or module.attribute.")
    alias.install()
    if not (is_script or app.endswith(".py") or os.path.isfile(app)):
        # As Japronto's own command line has it: an attribute of a module.
        if arguments:
            raise click.UsageError(f"Got unexpected extra arguments ({' '.join(arguments)})")
        _serve(finding.application(app, chosen))
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
