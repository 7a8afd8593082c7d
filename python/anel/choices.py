"""Which value of a setting holds, and who chose it.

Owns the layers and their order: the command line goes before the arguments of `run()`, those before
the environment, that before the file (`[tool.anel]` in the pyproject.toml of the working
directory), that before what the application says of itself, that before the default. Whoever runs a
server may have to overrule whoever wrote it. Refuses to know what a setting does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import enum
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from anel.exceptions import ConfigError
from anel.settings import Setting

FILE = "pyproject.toml"
DEFAULT = "default"

# What is this similar to the name of a setting was meant for it. Arbitrary: one wrong letter in
# four.
_SIMILAR = 0.8


_OF_A_SERVICE = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_[0-9]+_(TCP|UDP|SCTP)")


class Layer(enum.IntEnum):
    """Where a value comes from; the smaller goes first."""

    COMMAND_LINE = enum.auto()
    RUN = enum.auto()
    ENVIRONMENT = enum.auto()
    FILE = enum.auto()
    APPLICATION = enum.auto()
    DEFAULT = enum.auto()


class Starter(enum.Enum):
    """Who calls `run()`: a program, or the command that serves an application."""

    PROGRAM = enum.auto()
    COMMAND = enum.auto()


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The value of a setting, and where it comes from; `origin` is that for people."""

    setting: Setting
    value: Any
    layer: Layer
    origin: str


class Choices:
    """What holds for every setting. `choices[name]` is a value."""

    def __init__(self, chosen: Iterable[Chosen]) -> None:
        """Takes one for each setting."""
        self._by_name = {one.setting.name: one for one in chosen}

    def __getitem__(self, name: str) -> Any:
        """The value of the setting with this name; KeyError for none."""
        return self._by_name[name].value

    def __iter__(self) -> Iterator[Chosen]:
        """All of them, in the order of their declarations."""
        return iter(self._by_name.values())

    def of(self, name: str) -> Chosen:
        """The value of the setting with this name, and where it comes from; KeyError for none."""
        return self._by_name[name]

    def without(self, names: Iterable[str]) -> Choices:
        """The same, but for these settings nobody has chosen anything."""
        left = {}
        for name in names:
            setting = self.of(name).setting
            left[name] = Chosen(setting, setting.default, Layer.DEFAULT, DEFAULT)
        return Choices((self._by_name | left).values())

    def arguments(self, made: type[Any]) -> dict[str, Any]:
        """What a dataclass takes whose fields are called as settings are."""
        return {field.name: self[field.name] for field in dataclasses.fields(made)}


class _CommandLine:
    """What this process was started with."""

    # Value and origin, by name.
    values: Mapping[str, tuple[Any, str | None]] = {}
    starter = Starter.PROGRAM


@contextlib.contextmanager
def given(
    values: Mapping[str, Any], starter: Starter = Starter.PROGRAM, origin: str | None = None
) -> Iterator[None]:
    """Meanwhile these values, by the names of their settings, go before all others.

    Within another `given` they go before its values. The origin is each setting's option, unless
    it is given.
    """
    # Of the process and not of a context: a program may call `run()` in any thread.
    before = _CommandLine.values, _CommandLine.starter
    _CommandLine.values = {**before[0], **{name: (values[name], origin) for name in values}}
    _CommandLine.starter = starter
    try:
        yield
    finally:
        _CommandLine.values, _CommandLine.starter = before


def resolve(
    settings: Sequence[Setting], said: Mapping[str, Any], own: Mapping[str, Any]
) -> Choices:
    """What holds for each setting.

    `said` are the arguments of `run()`, `own` is what the application says, both by name. Raises
    ConfigError for what the environment or the file says wrongly, with the place.
    """
    environment = _from_environment(settings)
    file = _from_file(settings)
    return Choices(_choose(setting, said, environment, file, own) for setting in settings)


def _choose(
    setting: Setting,
    said: Mapping[str, Any],
    environment: Mapping[str, Chosen],
    file: Mapping[str, Any],
    own: Mapping[str, Any],
) -> Chosen:
    name = setting.name
    if name in _CommandLine.values:
        value, origin = _CommandLine.values[name]
        return Chosen(setting, value, Layer.COMMAND_LINE, origin or setting.option)
    if name in said:
        return Chosen(setting, said[name], Layer.RUN, "run()")
    if name in environment:
        return environment[name]
    if name in file:
        return Chosen(setting, file[name], Layer.FILE, FILE)
    if name in own:
        return Chosen(setting, own[name], Layer.APPLICATION, "application")
    is_programs = _CommandLine.starter is Starter.PROGRAM and setting.default_of_run is not None
    value = setting.default_of_run if is_programs else setting.default
    return Chosen(setting, value, Layer.DEFAULT, DEFAULT)


def _from_environment(settings: Sequence[Setting]) -> dict[str, Chosen]:
    """What the variables say; an empty one is as good as absent."""
    chosen = {}
    for setting in settings:
        for variable in setting.variables:
            text = os.environ.get(variable)
            if text and not _is_of_a_service(variable, text):
                value = setting.parse(text, variable)
                chosen[setting.name] = Chosen(setting, value, Layer.ENVIRONMENT, variable)
                break
    _refuse_unknown_variables([setting.variable for setting in settings])
    return chosen


def _refuse_unknown_variables(known: list[str]) -> None:
    """Those that look like one of ours: a knob that is ignored misleads."""
    families = tuple({"_".join(name.split("_")[:2]) + "_" for name in known if name.count("_") > 1})
    for name in os.environ:
        is_foreign = not name.startswith("ANEL_") or _is_of_a_service(name, os.environ[name])
        if not is_foreign and name not in known:
            similar = difflib.get_close_matches(name, known, 1, _SIMILAR)
            if similar or name.startswith(families):
                raise ConfigError(f"there is no setting {name}{_suggestion(name, known)}")


def _is_of_a_service(variable: str, text: str) -> bool:
    """Whether Kubernetes has set it, for a service that is called anel, or anel-something."""
    is_url = variable.endswith("_PORT") and text.startswith(("tcp://", "udp://", "sctp://"))
    return is_url or _OF_A_SERVICE.search(variable) is not None


def _from_file(settings: Sequence[Setting]) -> dict[str, Any]:
    by_key = {setting.key: setting for setting in settings}
    values = {}
    for key, value in _table().items():
        setting = by_key.get(key)
        if setting is None:
            raise ConfigError(
                f"[tool.anel] in {FILE} has no setting {key!r}{_suggestion(key, by_key)}"
            )
        values[setting.name] = setting.parse(value, f"{key} of [tool.anel] in {FILE}")
    return values


def _table() -> Mapping[str, Any]:
    """`[tool.anel]` of the file; empty when there is none. Raises ConfigError."""
    try:
        with open(FILE, "rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read {FILE}: {error}") from None
    tool = content.get("tool", {})
    table = tool.get("anel", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise ConfigError(f"tool.anel in {FILE} must be a table, not {table!r}")
    return table


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    return f": known are {', '.join(difflib.get_close_matches(name, names, 5, 0.6) or names)}"
