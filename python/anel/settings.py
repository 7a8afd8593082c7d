"""How a setting is declared and spelled.

One declaration gives a setting all its names: `key` is the option without its dashes and the key of
the file, `variable` (ANEL_KEY) that of the environment, `parameter` the keyword of `run()`. Its
class is the kind of its value: what is read, refused and written. Refuses to know what a setting
does, and which one was chosen (`choices`).

A size is a number of bytes, or has a unit: `64KiB`, `16MiB`, `1GiB`, `1MB`. A time is a number of
seconds, or has a unit: `500ms`, `10s`, `2m`, `1h`. What can be switched off is switched off by
`off`.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from anel.exceptions import ConfigError


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What an operator may choose. None as the default: nothing is chosen.

    `name` is what the code that heeds it says; an application's `limits` are called so, too.
    `flags` are further forms of the option, such as `-w`; `hidden` are forms that the help does not
    show; what `is_argument` has none, and stands for itself. `negation` is the value that the
    option `--no-KEY` stands for, where there is one. `foreign` are variables that others made
    customary. `default_of_run` is the default of a program that calls `run()` by itself, where it
    is another one.
    """

    name: str
    key: str
    help: str
    group: str
    default: Any = None
    default_of_run: Any = None
    flags: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    negation: str | None = None
    foreign: tuple[str, ...] = ()
    # What a value must be, where the kind cannot tell it as well.
    wanted: str = ""
    is_argument: bool = False

    @property
    def option(self) -> str:
        """The option of the command line."""
        return self.metavar if self.is_argument else f"--{self.key}"

    @property
    def parameter(self) -> str:
        """The keyword of `run()`."""
        return self.key.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"ANEL_{self.parameter.upper()}"

    @property
    def variables(self) -> tuple[str, ...]:
        """All environment variables, the one that goes first at first."""
        return (self.variable, *self.foreign)

    @property
    def metavar(self) -> str:
        """What stands for a value in the help."""
        raise NotImplementedError

    def parse(self, value: object, place: str) -> Any:
        """The value that is meant, from a str or a value of TOML. ConfigError names the place."""
        raise NotImplementedError

    def take(self, value: object, place: str) -> Any:
        """The same for the value that a program gives."""
        return self.parse(value, place)

    def write(self, value: Any) -> str:
        """A value as it is spelled in options, environment and file; `-` for none."""
        return "-" if value is None else str(value)

    def refusal(self, value: object, place: str) -> ConfigError:
        """What says what the value must be."""
        return ConfigError(f"{place} must be {self._wanted()}, not {value!r}")

    def _wanted(self) -> str:
        return self.wanted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Number(Setting):
    """A number with a unit. `off` is the value where it is switched off."""

    unit: Unit = Unit.COUNT
    minimum: int
    maximum: int
    can_be_off: bool = False
    off: int | None = 0

    @property
    def metavar(self) -> str:
        """SIZE, TIME or the like."""
        return self.unit.value

    def parse(self, value: object, place: str) -> int | None:
        """The number that is meant, in the unit of the name."""
        if value == "off" and self.can_be_off:
            return self.off
        number = self._number(value)
        if number is None:
            raise self.refusal(value, place)
        return self.check(number, place, value)

    def take(self, value: object, place: str) -> int | None:
        """A count of a program's is an int; a size or a time may be a str."""
        if self.unit is Unit.COUNT and value != "off" and not isinstance(value, int):
            raise self.refusal(value, place)
        return self.parse(value, place)

    def check(self, number: int, place: str, shown: object) -> int | None:
        """The same number, if it is in bounds; else ConfigError."""
        if number == 0 and self.can_be_off and self.off == 0:
            return self.off
        if not self.minimum <= number <= self.maximum:
            if self.wanted:
                raise self.refusal(shown, place)
            least, most = self.write(self.minimum), self.write(self.maximum)
            off = ", or off" if self.can_be_off else ""
            raise ConfigError(f"{place} must be from {least} to {most}{off}, not {shown!r}")
        return number

    def write(self, value: int | None) -> str:
        """The number with its unit, or `off`."""
        if self.can_be_off and value == self.off:
            return "off"
        if value is None:
            return "-"
        for unit, factor in _WRITTEN[self.unit]:
            if value % factor == 0 and (value or factor == 1):
                return f"{value // factor}{unit}"
        raise AssertionError("the last factor is 1")

    def _wanted(self) -> str:
        off = " or off" if self.can_be_off and not self.wanted else ""
        return f"{self.wanted or _EXAMPLES[self.unit]}{off}"

    def _number(self, value: object) -> int | None:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        text = str(value).strip().lower()
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)", text)
        factor = _FACTORS[self.unit].get(found[2]) if found else None
        if found is None or factor is None:
            return None
        whole, _, fraction = found[1].partition(".")
        # Exact: a float has no room for the largest sizes.
        number = int(whole + fraction) * factor
        number, rest = divmod(number, 10 ** len(fraction))
        return None if rest else number


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountOrAuto(Setting):
    """A number of what the machine may be asked for: then it is "auto"."""

    minimum: int
    maximum: int

    @property
    def metavar(self) -> str:
        """The two forms."""
        return "N|auto"

    def parse(self, value: object, place: str) -> int | str:
        """The number, or "auto"."""
        if value == "auto":
            return "auto"
        is_number = isinstance(value, int) and not isinstance(value, bool)
        is_digits = isinstance(value, str) and value.isascii() and value.isdecimal()
        number = int(str(value)) if is_number or is_digits else None
        if number is None or not self.minimum <= number <= self.maximum:
            raise self.refusal(value, place)
        return number

    def _wanted(self) -> str:
        return f'"auto" or a number from {self.minimum} to {self.maximum}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Setting):
    """A word; with `may_be_number` a number is as good. `kind` stands for it in the help."""

    kind: str = "TEXT"
    # Raises ConfigError, which says what the word must be, or does wrongly, after its place.
    check: Callable[[str], object] | None = None
    may_be_number: bool = False
    may_be_empty: bool = False

    @property
    def metavar(self) -> str:
        """PATH or the like."""
        return self.kind

    def parse(self, value: object, place: str) -> str | int:
        """The text, unchanged."""
        if isinstance(value, str) and (value or self.may_be_empty) and "\0" not in value:
            if self.check is not None:
                try:
                    self.check(value)
                except ConfigError as error:
                    raise ConfigError(f"{place} {error}") from None
            return value
        if isinstance(value, int) and not isinstance(value, bool) and self.may_be_number:
            return value
        raise self.refusal(value, place)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice(Setting):
    """One of some names; `kind` stands for them in the help where they are long."""

    names: Sequence[str]
    kind: str = ""

    @property
    def metavar(self) -> str:
        """The names, or what they are."""
        return self.kind or "|".join(self.names)

    def parse(self, value: object, place: str) -> str:
        """The name, unchanged."""
        if isinstance(value, str) and value in self.names:
            return value
        raise self.refusal(value, place)

    def _wanted(self) -> str:
        return f"one of {', '.join(self.names)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Switch(Setting):
    """Something that is on or off."""

    wanted: str = "0 or 1"

    @property
    def metavar(self) -> str:
        """Nothing: the option has no value."""
        return ""

    def parse(self, value: object, place: str) -> bool:
        """Whether it is on."""
        known = _SWITCHED.get(value.strip().lower()) if isinstance(value, str) else value
        if not isinstance(known, bool):
            raise self.refusal(value, place)
        return known

    def take(self, value: object, place: str) -> bool:
        """A program says it in Python's words."""
        if value not in (True, False):
            raise ConfigError(f"{place} must be True, False or None, not {value!r}")
        return bool(value)

    def write(self, value: bool | None) -> str:
        """`on` or `off`."""
        return "on" if value else "off"


_SWITCHED = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words(Setting):
    """Some words, with commas between them. `check` raises ConfigError for wrong ones.

    What is `repeatable` may be given several times on the command line: the words add up.
    """

    check: Callable[[Sequence[str]], object] = len
    kind: str = "WORD,..."
    repeatable: bool = False

    @property
    def metavar(self) -> str:
        """What they are."""
        return self.kind

    def parse(self, value: object, place: str) -> tuple[str, ...]:
        """The words, without spaces around them."""
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, Iterable) or isinstance(words, bytes):
            raise ConfigError(f"{place} must be a str or an iterable of str, not {value!r}")
        listed = list(words)
        if not all(isinstance(word, str) for word in listed):
            raise ConfigError(f"{place} must hold str, not {value!r}")
        found = tuple(word.strip() for word in listed if word.strip())
        try:
            self.check(found)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        return found

    def write(self, value: Sequence[str] | None) -> str:
        """The words with commas."""
        return ",".join(value or ()) or "-"
