"""Options as the command line has them: how they are read and how the help shows them.

Owns what click is told of a setting. Knows no setting by name: whatever is in the table of options
gets its flags from here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from anel import choices
from anel.choices import Starter
from anel.exceptions import ConfigError
from anel.settings import Setting, Switch, Words

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    # Generic since click 8.4 only.
    _ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

# Where options of click's own are, such as --help, and those of one command.
_OTHERS = "Options"


@dataclasses.dataclass(frozen=True)
class _Meant:
    """A value that may be None, which is nothing to click."""

    value: Any


class _Value(_ParamType):
    """The value of a setting, as it is spelled."""

    def __init__(self, setting: Setting) -> None:
        self.name = setting.metavar
        self._setting = setting

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """What is meant."""
        try:
            return _Meant(self._setting.parse(value, "it"))
        except ConfigError as error:
            self.fail(str(error).removeprefix("it: "), param, ctx)


class _Flag(click.Option):
    """An option that knows its setting."""

    def __init__(self, *arguments: Any, setting: Setting, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.setting = setting


class GroupedCommand(click.Command):
    """A command whose help has its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the command's own options, then the groups in the order of the table."""
        groups: dict[str, list[tuple[str, str]]] = {_OTHERS: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or not isinstance(parameter, click.Option):
                continue
            forms, told = record
            group = _OTHERS
            if isinstance(parameter, _Flag):
                group = parameter.setting.group
                for hidden in parameter.setting.hidden:
                    forms = forms.replace(f", {hidden}", "")
            groups.setdefault(group, []).append((forms, told))
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def takes(settings: Iterable[Setting]) -> Callable[[F], F]:
    """Gives a command an option for each setting."""

    def decorate(command: F) -> F:
        for setting in reversed([*settings]):
            for option in reversed(_options(setting)):
                command = option(command)
        return command

    return decorate


def give(settings: Iterable[Setting], parameters: Mapping[str, Any], starter: Starter) -> None:
    """What the command line says goes before all others, until the command ends.

    `parameters` are what click has called the command with.
    """
    given: dict[str, Any] = {}
    for setting in settings:
        found = parameters[setting.name]
        if isinstance(found, _Meant):
            given[setting.name] = found.value
        elif isinstance(found, tuple) and found:
            given[setting.name] = tuple(word for meant in found for word in meant.value)
        elif isinstance(found, bool):
            given[setting.name] = found
    click.get_current_context().with_resource(choices.given(given, starter))


def _options(setting: Setting) -> list[Callable[[F], F]]:
    if setting.is_argument:
        return [click.argument(setting.name, required=False, type=_Value(setting))]
    is_switch = isinstance(setting, Switch)
    named: dict[str, Any] = {"default": None}
    names = (*setting.flags, setting.option, *setting.hidden)
    if is_switch:
        names = (*setting.flags, f"{setting.option}/--no-{setting.key}", *setting.hidden)
    else:
        named = {
            "type": _Value(setting),
            "metavar": setting.metavar,
            "multiple": isinstance(setting, Words) and setting.repeatable,
        }
    made = [
        click.option(*names, setting.name, cls=_Flag, setting=setting, help=_help(setting), **named)
    ]
    if setting.negation is not None:
        opposite = click.option(
            f"--no-{setting.key}",
            setting.name,
            cls=_Flag,
            setting=setting,
            type=_Value(setting),
            flag_value=setting.negation,
            help=f"The same as {setting.option} {setting.negation}.",
        )
        made.append(opposite)
    return made


def _help(setting: Setting) -> str:
    known = [f"also {', '.join(setting.foreign)}"] if setting.foreign else []
    default = setting.write(setting.default)
    if default != "-" and not (isinstance(setting, Switch) and not setting.default):
        known.append(f"default: {default}")
    return f"{setting.help}  [{'; '.join(known)}]" if known else setting.help
