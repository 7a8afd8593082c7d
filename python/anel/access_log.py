"""The access log: where it goes, in which form, and how much of it.

Owns the kinds of its options and what the worker is told of them. Lines are made and written by the
worker's own thread (`src/python/log_writer.rs`). What is in a line, when it is made and what is
lost is told in `src/python/ACCESS_LOG.md`. Knows nothing of requests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from typing import TypeAlias

from anel.choices import Choices
from anel.exceptions import SetupError
from anel.settings import Choice, Setting

FORMATS = ("text", "json")

# In the place of a path.
STDOUT = "-"

# In the place of a path, too: as for what is on or off and no more.
_ON = (STDOUT, "on", "true", "1")
_OFF = ("off", "false", "0")

# What the worker takes: a path (None is standard output), a format and a rate.
Wanted: TypeAlias = tuple[str | None, str, float]

# An application may have changed it by the time it calls `run()`.
_DIRECTORY_AT_START = ""
with contextlib.suppress(OSError):
    _DIRECTORY_AT_START = os.getcwd()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogPath(Setting):
    """Where a log goes: the path of a file, `-` for standard output, or None for nowhere.

    A path is relative to the working directory at the start of the process.
    """

    negation: str | None = "off"

    @property
    def metavar(self) -> str:
        """The two forms."""
        return "PATH|-"

    def parse(self, value: object, place: str) -> str | None:
        """An absolute path, `-` or None."""
        if value is False or value in _OFF:
            return None
        if value is True or value in _ON:
            return STDOUT
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.refusal(value, place)
        return os.path.normpath(os.path.join(_DIRECTORY_AT_START, value))

    def take(self, value: object, place: str) -> str | None:
        """A program may say it with a `pathlib.Path`, True or False."""
        return self.parse(os.fspath(value) if isinstance(value, os.PathLike) else value, place)

    def write(self, value: str | None) -> str:
        """The path, `-` or `off`."""
        return "off" if value is None else value

    def _wanted(self) -> str:
        return "the path of a file, - for stdout, or off"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share(Setting):
    """A number from 0 to 1."""

    @property
    def metavar(self) -> str:
        """What it is a share of all as."""
        return "RATE"

    def parse(self, value: object, place: str) -> float:
        """The number."""
        share = -1.0
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            with contextlib.suppress(ValueError):
                share = float(value)
        # A NaN is in no interval.
        if not 0 <= share <= 1:
            raise self.refusal(value, place)
        return share

    def _wanted(self) -> str:
        return "a number from 0 to 1"


def wanted(choices: Choices) -> Wanted | None:
    """What the worker is to log. Raises SetupError when there is no standard output for it."""
    path = choices["access_log"]
    if path is None:
        return None
    if path == STDOUT and sys.__stdout__ is None:
        # Its number may be that of any other file by now.
        raise SetupError(None, "cannot log to stdout: it is closed", "name a file instead")
    return (
        None if path == STDOUT else path,
        choices["access_log_format"],
        choices["access_log_sample"],
    )


OPTIONS: tuple[Setting, ...] = (
    LogPath(
        name="access_log",
        key="access-log",
        group="Logs",
        help="Log every request to a file that is appended to, or to stdout.",
    ),
    Choice(
        name="access_log_format",
        key="access-log-format",
        group="Logs",
        help="The combined log format with the duration behind it, or a JSON object a line.",
        names=FORMATS,
        default="text",
    ),
    Share(
        name="access_log_sample",
        key="access-log-sample",
        group="Logs",
        help="Log this share of the requests, chosen at random; and all that fail with 5xx.",
        default=1.0,
    ),
)
