"""The command line: `anel [run] APP` and `anel doctor`.

Owns options, exit codes and how failures look: one readable line, or the traceback of the user's
own code. Exit codes: 0 served and drained, 2 wrong usage, 3 cannot start, 4 cannot listen.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import click

import anel
from anel.application import EXIT_SETUP, REACTORS, Application
from anel.exceptions import ConfigError, LoadError, RouteError, SetupError
from anel.loading import load
from anel.loops import LOOPS, preferring, require

_NOT_THE_USERS = (
    "<frozen importlib",
    os.path.dirname(anel.__file__) + os.sep,
    os.path.dirname(importlib.__file__) + os.sep,
)


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


@main.command()
@click.argument("app")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port; 0 picks one.",
)
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
@click.option("--debug", is_flag=True, help="Log requests; show tracebacks in 500 responses.")
def run(app: str, host: str, port: int, reactor: str, loop: str | None, debug: bool) -> None:
    """Serve an application.

    APP is module:attribute, module.attribute, file.py or file.py:attribute.
    """
    # A loop that the application's module asks for is made while it is loaded.
    click.get_current_context().with_resource(preferring(loop))
    if loop is not None:
        _require(loop)
    application = _load(app)
    try:
        application.run(host, port, reactor=reactor, loop=loop, debug=debug)
    except (ConfigError, RouteError) as error:
        _fail(str(error))


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
        _fail(str(error))


def _load(spec: str) -> Application:
    try:
        application = load(spec)
    except LoadError as error:
        _fail(str(error))
    except SystemExit as error:
        _fail(f"{spec!r} called exit({error.code!r}) while it was imported")
    except Exception as error:
        _fail_in_user_code(error)
    if not isinstance(application, Application):
        _fail(f"{spec!r} is a {type(application).__name__}, not an anel.Application")
    return application


def _fail(reason: str) -> NoReturn:
    click.echo(f"anel: {reason}", err=True)
    sys.exit(EXIT_SETUP)


def _fail_in_user_code(error: Exception) -> NoReturn:
    shown = traceback.TracebackException.from_exception(error)
    _keep_users_frames(shown)
    click.echo("".join(shown.format()), err=True, nl=False)
    sys.exit(EXIT_SETUP)


def _keep_users_frames(shown: traceback.TracebackException) -> None:
    """Drops the frames of anel and of the import system, which the user did not write."""
    kept = [frame for frame in shown.stack if not frame.filename.startswith(_NOT_THE_USERS)]
    shown.stack = traceback.StackSummary.from_list(kept)
    for chained in (shown.__cause__, shown.__context__):
        if chained is not None:
            _keep_users_frames(chained)


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
