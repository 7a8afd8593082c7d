"""What an operator may choose: how a setting is declared, spelled and found.

Owns the layers and their order: options of the command line go before the environment, that before
the file (`[tool.anel]` in the pyproject.toml of the working directory), that before what the
application says, that before the default. One declaration gives a setting all its names: `key` is
the option without its dashes and the key of the file, and ANEL_KEY is the variable. Refuses to know
what a setting does.

A size is a number of bytes, or has a unit: `64KiB`, `16MiB`, `1GiB`, `1MB`. A time is a number of
seconds, or has a unit: `500ms`, `10s`, `2m`, `1h`. What can be switched off is switched off by
`off`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from anel.exceptions import ConfigError

FILE = "pyproject.toml"


class Unit(enum.Enum):
    """What the number of a setting counts."""

    BYTES = "SIZE"
    MILLISECONDS = "TIME"
    COUNT = "NUMBER"
    BYTES_PER_SECOND = "BYTES/S"


_FACTORS: Mapping[Unit, Mapping[str, int]] = {
    Unit.BYTES: {
        "": 1,
        "b": 1,
        "kib": 1024,
        "mib": 1024**2,
        "gib": 1024**3,
        "kb": 1000,
        "mb": 1000**2,
        "gb": 1000**3,
    },
    Unit.MILLISECONDS: {"": 1000, "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000},
    Unit.COUNT: {"": 1},
    Unit.BYTES_PER_SECOND: {"": 1},
}

# How a value is written, the largest unit that divides it first.
_WRITTEN: Mapping[Unit, tuple[tuple[str, int], ...]] = {
    Unit.BYTES: (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024), ("", 1)),
    Unit.MILLISECONDS: (("s", 1000), ("ms", 1)),
    Unit.COUNT: (("", 1),),
    Unit.BYTES_PER_SECOND: (("", 1),),
}

_EXAMPLES: Mapping[Unit, str] = {
    Unit.BYTES: "a size such as 65536, 64KiB or 16MiB",
    Unit.MILLISECONDS: "a time such as 10, 10s, 500ms or 2m",
    Unit.COUNT: "a whole number",
    Unit.BYTES_PER_SECOND: "a number of bytes per second",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A number that an operator may choose.

    `name` is what an application calls it, with the unit of its value; `key` what everybody else
    does.
    """

    name: str
    key: str
    unit: Unit
    default: int
    minimum: int
    maximum: int
    help: str
    can_be_off: bool = False

    @property
    def option(self) -> str:
        """The option of the command line."""
        return f"--{self.key}"

    @property
    def parameter(self) -> str:
        """What click calls the option's value."""
        return self.key.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"ANEL_{self.parameter.upper()}"

    def parse(self, value: object, place: str) -> int:
        """The number that is meant, from a str or a number. ConfigError names the place."""
        number = self._number(value)
        if number is None:
            off = " or off" if self.can_be_off else ""
            raise ConfigError(f"{place} must be {_EXAMPLES[self.unit]}{off}, not {value!r}")
        return self.check(number, place, value)

    def check(self, number: int, place: str, shown: object) -> int:
        """The same number, if it is in bounds; else ConfigError."""
        is_off = number == 0 and self.can_be_off
        if not (self.minimum <= number <= self.maximum or is_off):
            least, most = self.write(self.minimum), self.write(self.maximum)
            off = ", or off" if self.can_be_off else ""
            raise ConfigError(f"{place} must be from {least} to {most}{off}, not {shown!r}")
        return number

    def write(self, number: int) -> str:
        """A number as it is spelled in options, environment and file."""
        if number == 0 and self.can_be_off:
            return "off"
        for unit, factor in _WRITTEN[self.unit]:
            if number % factor == 0 and (number or factor == 1):
                return f"{number // factor}{unit}"
        raise AssertionError("the last factor is 1")

    def _number(self, value: object) -> int | None:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        text = str(value).strip().lower()
        if text == "off" and self.can_be_off:
            return 0
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]*)", text)
        factor = _FACTORS[self.unit].get(found[2]) if found else None
        if found is None or factor is None:
            return None
        whole, _, fraction = found[1].partition(".")
        # Exact: a float has no room for the largest sizes.
        number = int(whole + fraction) * factor
        number, rest = divmod(number, 10 ** len(fraction))
        return None if rest else number


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The value of a setting, and where it comes from."""

    setting: Setting
    value: int
    origin: str


class _CommandLine:
    """What this process was started with."""

    values: Mapping[str, int] = {}


@contextlib.contextmanager
def given(values: Mapping[str, int]) -> Iterator[None]:
    """Meanwhile these values, by the names of their settings, go before all others."""
    # Of the process and not of a context: a program may call `run()` in any thread.
    before, _CommandLine.values = _CommandLine.values, values
    try:
        yield
    finally:
        _CommandLine.values = before


def resolve(settings: Iterable[Setting], own: Mapping[str, int]) -> list[Chosen]:
    """What holds for each setting. `own` is what the application says, by name.

    Raises ConfigError for what the environment or the file says wrongly, with the place.
    """
    settings = list(settings)
    environment = _from_environment(settings)
    file = _from_file(settings)
    return [_choose(setting, environment, file, own) for setting in settings]


def _choose(
    setting: Setting,
    environment: Mapping[str, int],
    file: Mapping[str, int],
    own: Mapping[str, int],
) -> Chosen:
    layers = (
        (_CommandLine.values, setting.option),
        (environment, setting.variable),
        (file, FILE),
        (own, "application"),
    )
    for values, origin in layers:
        if setting.name in values:
            return Chosen(setting, values[setting.name], origin)
    return Chosen(setting, setting.default, "default")


def _from_environment(settings: list[Setting]) -> dict[str, int]:
    by_variable = {setting.variable: setting for setting in settings}
    # Those that look like one: a knob that is ignored misleads.
    families = tuple({"_".join(name.split("_")[:2]) + "_" for name in by_variable})
    values = {}
    for name, text in os.environ.items():
        setting = by_variable.get(name)
        if setting is not None:
            values[setting.name] = setting.parse(text, name)
        elif name.startswith(families):
            raise ConfigError(f"there is no setting {name}: {_known(by_variable)}")
    return values


def _from_file(settings: list[Setting]) -> dict[str, int]:
    by_key = {setting.key: setting for setting in settings}
    values = {}
    for key, value in _table().items():
        setting = by_key.get(key)
        if setting is None:
            raise ConfigError(f"[tool.anel] in {FILE} has no setting {key!r}: {_known(by_key)}")
        values[setting.name] = setting.parse(value, f"{key} of [tool.anel] in {FILE}")
    return values


def _table() -> Mapping[str, Any]:
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


def _known(names: Iterable[str]) -> str:
    return f"known are {', '.join(sorted(names))}"
