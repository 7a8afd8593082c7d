"""Values to the bytes and texts that travel.

Owns the choice of the JSON engine, and dicts that know of repeated names. Knows nothing of
requests and responses.

JSON is written by orjson where that is installed, else by msgspec, else by `json` of the standard
library; `ANEL_JSON` or `use` chooses one. Whichever it is, the document is compact UTF-8, and a
value that `json.dumps` takes gives a document that reads back the same:

- What an engine refuses (large integers, keys that are no str, subclasses, lone surrogates, deep
  nesting) is written by the standard library, which also raises the errors.
- NaN and the infinities, which JSON does not have (RFC 8259 6), are null, as in JavaScript.
  `json.dumps` writes words for them that browsers refuse.
- msgspec, which is not the first choice for that reason, looks at what a dict subclass stores and
  not at its `items`, and names the keys NaN and Infinity "nan" and "inf".

An engine may take more than the standard library does, e.g. dates, UUIDs and dataclasses. A program
that relies on that names its engine with `use`.
"""

from __future__ import annotations

import codecs
import encodings
import encodings.aliases
import functools
import json
import os
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from anel.exceptions import ConfigError

V = TypeVar("V")

# Fastest first. Measured 2026-11-21 on CPython 3.12, orjson 3.13.0, msgspec 0.22.0, in us:
#   27 bytes 0.19 / 0.12; 109 bytes 0.20 / 0.26; 946 bytes 0.79 / 1.4; 141 KiB 135 / 195;
#   a text of 24 KiB 1.0 / 6.1. The standard library takes 2.4, 3.6, 11, 1855 and 57.
ENGINES = ("orjson", "msgspec", "stdlib")

# Codecs from bytes to str that are forms of writing; the first two take quadratic time.
_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "unicode-escape", "utf-7"})


class MultiDict(dict[str, V]):
    """A dict of the last value of each name, for names that may be sent several times.

    `getall` gives every value of a name in the order they were sent. It tells what was sent: a
    change of the dict does not change it.
    """

    __slots__ = ("_pairs",)

    _pairs: list[tuple[str, V]]

    def __init__(self, pairs: list[tuple[str, V]] | None = None) -> None:
        """Takes the names and values in the order they were sent."""
        self._pairs = pairs if pairs is not None else []
        super().__init__(self._pairs)

    def getall(self, name: str) -> list[V]:
        """All values of the name; an empty list when there are none."""
        return [value for known, value in self._pairs if known == name]


class Query(MultiDict[str]):
    """The parameters of a query: a dict of the last value of each name.

    Values are percent-decoded once, after the query was split; parameters without a value are left
    out, as `urllib.parse.parse_qsl` does.
    """

    __slots__ = ()


def parse_query(query: str) -> Query:
    """Reads a query string as it was sent."""
    return Query(parse_qsl(query))


def charset(name: str) -> str | None:
    """The codec of a charset that a peer has named; None when it is not to be used."""
    # Python remembers every spelling it was asked for, known or not: a peer could fill the memory.
    normal = encodings.normalize_encoding(name).lower()
    if normal not in _charsets():
        return None
    try:
        "".encode(normal)  # Not for a codec between bytes and bytes, as "zlib" is.
        known = codecs.lookup(normal).name
    except (LookupError, ValueError):
        return None
    return None if known in _NO_CHARSETS else known


@functools.cache
def _charsets() -> frozenset[str]:
    """The names, normalised, of what the standard library has."""
    modules = pkgutil.iter_modules(encodings.__path__)
    return frozenset(encodings.aliases.aliases).union(module.name for module in modules)


def dumps(value: Any) -> bytes:
    """JSON of a value in UTF-8; TypeError, ValueError or RecursionError when it has none."""
    return _engine(value)


def dumps_ascii(value: Any) -> str:
    """JSON of a value in nothing but ASCII, for charsets that do not have every character."""
    return json.dumps(json.loads(dumps(value)), separators=(",", ":"))


def loads(text: str) -> Any:
    """The value of a JSON text; `json.JSONDecodeError` when it is malformed.

    Always the standard library's: the engines raise errors of their own, refuse what it takes
    (NaN, lone surrogates, integers beyond 64 bits) and read large integers as floats.
    """
    return json.loads(text)


def use(name: str) -> None:
    """Makes "orjson", "msgspec" or "stdlib" write all JSON from now on.

    Raises ConfigError for another name and for an engine that is not installed.
    """
    global _engine, _name
    if name not in ENGINES:
        raise ConfigError(f"the JSON engine must be one of {', '.join(ENGINES)}, not {name!r}")
    try:
        chosen = _MAKERS[name]()
    except ImportError as error:
        raise ConfigError(
            f"the JSON engine {name} cannot be imported ({error}): pip install {name}"
        ) from None
    _engine, _name = chosen, name


def engine() -> str:
    """The name of the engine that writes JSON.

    The first call chooses, as the first document does: what `ANEL_JSON` says, else the fastest that
    is installed. Raises ConfigError when `ANEL_JSON` asks for what is not there.
    """
    if not _name:
        _choose()
    return _name


def _choose() -> None:
    asked = os.environ.get("ANEL_JSON")
    if asked:
        try:
            return use(asked)
        except ConfigError as error:
            raise ConfigError(f"ANEL_JSON={asked}: {error}") from None
    for name in ENGINES:
        try:
            return use(name)
        except ConfigError:
            continue
    raise AssertionError("invariant: the standard library is always there")


def _first(value: Any) -> bytes:
    """Stands where the engine goes until the first document needs one."""
    _choose()
    return _engine(value)


def _orjson() -> Callable[[Any], bytes]:
    import orjson

    encode = orjson.dumps
    # Subclasses go to the standard library: orjson looks at what a dict stores, not at `items`.
    options = orjson.OPT_PASSTHROUGH_SUBCLASS

    def dumps(value: Any) -> bytes:
        try:
            return encode(value, None, options)
        except Exception:
            pass
        # Outside the handler, so that what it raises has no other error as its context.
        return _stdlib_dumps(value)

    return dumps


def _msgspec() -> Callable[[Any], bytes]:
    import msgspec

    encode = msgspec.json.Encoder().encode

    def dumps(value: Any) -> bytes:
        try:
            return encode(value)
        except Exception:
            pass
        return _stdlib_dumps(value)

    return dumps


def _stdlib() -> Callable[[Any], bytes]:
    return _stdlib_dumps


_strict = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_escaping = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _stdlib_dumps(value: Any) -> bytes:
    try:
        return _strict(value).encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8, but JSON can spell it.
        return _escaping(value).encode()
    except ValueError:
        pass
    # NaN or an infinity, or a cycle, for which this raises ValueError again.
    text = json.dumps(value)
    return _stdlib_dumps(json.loads(text, parse_constant=_null))


def _null(_word: str) -> None:
    return None


_MAKERS: dict[str, Callable[[], Callable[[Any], bytes]]] = {
    "orjson": _orjson,
    "msgspec": _msgspec,
    "stdlib": _stdlib,
}
_engine = _first
_name = ""
