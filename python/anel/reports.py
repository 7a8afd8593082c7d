"""The commands that tell and serve nobody: `anel routes`, `anel config` and `anel doctor`.

Owns what they print, for people and as JSON.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from anel import _core, finding, flags, loops, options, privileges, proxies
from anel.choices import Choices, Starter
from anel.exceptions import AnelError
from anel.failures import EXIT_SETUP, leave
from anel.launch import Launch
from anel.routing import Handler, Route

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(cls=flags.GroupedCommand)
@flags.takes(options.APPLICATION)
@_as_json
def routes(as_json: bool, **parameters: Any) -> None:
    """List the routes of APP in the order in which they are tried.

    Method, pattern, handler, kind (sync, async or constant) and name of each.
    """
    flags.give(options.APPLICATION, parameters, Starter.COMMAND)
    chosen = finding.resolve()
    found = [
        _described(route) for route in finding.application(finding.named(chosen), chosen).router
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = [
        (
            ",".join(row["methods"]) or "*",
            row["pattern"],
            row["handler"] or "-",
            row["kind"],
            row["name"] or "-",
        )
        for row in found
    ]
    click.echo("\n".join(_columns([("METHOD", "PATTERN", "HANDLER", "KIND", "NAME"), *rows])))


def _described(route: Route) -> dict[str, Any]:
    kinds = {"sync": "sync", "constant": "constant"}
    return {
        "methods": sorted(route.methods),
        "pattern": route.pattern,
        "handler": None if route.handler is None else _qualified_name(route.handler),
        "kind": kinds.get(route.kind, "async"),
        "name": route.name,
        "stream": route.stream,
        "body_bytes_max": route.body_bytes_max,
    }


def _qualified_name(handler: Handler) -> str:
    """Module and name of a function, or of the class of what is called otherwise."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"


@click.command(cls=flags.GroupedCommand)
@flags.takes((*options.APPLICATION, *options.OPTIONS))
@click.option(
    "--check/--print",
    "is_check",
    default=False,
    help="Load the application, too, and print ok or what is wrong.  [default: print]",
)
@_as_json
def config(is_check: bool, as_json: bool, **parameters: Any) -> None:
    """Tell what holds for APP, and where each value comes from.

    It comes from options, the environment, [tool.anel] in the pyproject.toml of the working
    directory, the application (if APP is given), in this order. What a program says when it calls
    run() by itself is not known here: it goes behind options, before the others.
    """
    flags.give((*options.APPLICATION, *options.OPTIONS), parameters, Starter.COMMAND)
    chosen = finding.resolve()
    if is_check or chosen["app"] is not None:
        application = finding.application(finding.named(chosen), chosen)
        chosen = finding.resolve(application._own)
    if is_check:
        _check(chosen)
        click.echo(json.dumps({"ok": True}) if as_json else "ok")
    elif as_json:
        report = {
            one.setting.key: {"name": one.setting.name, "value": one.value, "origin": one.origin}
            for one in chosen
        }
        click.echo(json.dumps(report, indent=2, default=repr))
    else:
        rows = [(one.setting.key, one.setting.write(one.value), one.origin) for one in chosen]
        click.echo("\n".join(_columns(rows)))


def _check(chosen: Choices) -> None:
    """Everything that can be known without listening and without becoming anybody."""
    try:
        Launch(**chosen.arguments(Launch))
        privileges.identity(chosen["user"], chosen["group"])
        proxies.named(chosen["trusted_proxies"], chosen["proxy_headers"], chosen["proxy_protocol"])
        loops.require(chosen["loop"])
    except AnelError as error:
        leave(EXIT_SETUP, str(error))


@click.command()
@_as_json
def doctor(as_json: bool) -> None:
    """Tell what this machine offers, and which reactor would be used and why."""
    report = _core.doctor()
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report, "")))


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


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which every column is as wide as its widest word."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
