"""The application that a command is about.

Owns the way from what was chosen to a loaded application, and how it looks when there is none: one
readable line, or the traceback of the user's own code. Knows nothing of serving.
"""

from __future__ import annotations

from typing import NoReturn

import click

from anel import options
from anel.application import Application
from anel.choices import Choices
from anel.exceptions import ConfigError, LoadError
from anel.failures import EXIT_SETUP, leave, leave_with_traceback
from anel.loading import discover, load, made_by
from anel.telling import complain


def resolve(own: dict[str, object] | None = None) -> Choices:
    """What holds; `own` is what the application says. A mistake ends the process with one line."""
    try:
        return options.resolve(own=own)
    except ConfigError as error:
        leave(EXIT_SETUP, str(error))


def named(chosen: Choices) -> str:
    """What names the application: what was chosen, or what is found and told. UsageError."""
    spec: str | None = chosen["app"]
    if spec is None:
        spec = discover(chosen["app_dir"] or "")
        if spec is None:
            raise click.UsageError(
                "Found no application: name one, as in `anel main:app`, or say"
                ' `app = "main:app"` in [tool.anel] of pyproject.toml.'
            )
        complain(f"anel: found {spec}")
    return made_by(spec) if chosen["factory"] else spec


def application(spec: str, chosen: Choices) -> Application:
    """Loads it. What cannot be had ends the process with exit code 3."""
    try:
        found = load(spec, chosen["app_dir"] or "")
    except LoadError as error:
        leave(EXIT_SETUP, str(error))
    except SystemExit as error:
        leave(EXIT_SETUP, f"{spec!r} called exit({error.code!r}) while it was imported")
    except Exception as error:
        leave_with_traceback(EXIT_SETUP, error)
    if not isinstance(found, Application):
        _refuse(spec, found)
    return found


def _refuse(spec: str, found: object) -> NoReturn:
    hint = "; --factory calls it" if callable(found) and not isinstance(found, type) else ""
    leave(EXIT_SETUP, f"{spec!r} is a {type(found).__name__}, not an anel.Application{hint}")
