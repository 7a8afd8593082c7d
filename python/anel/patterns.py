"""The pattern language in Python: reading a pattern, and making a path of it again.

Owns the checks of patterns and the way from parameters to a percent-encoded path. It never matches
a path: that is done in Rust, on the same language (`src/router/pattern.rs`). Knows nothing of
routes and handlers.
"""

from __future__ import annotations

import decimal
import math
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import quote

from anel.exceptions import RouteError

Segment: TypeAlias = tuple[Literal["exact", "placeholder"], str]

TYPES = ("str", "int", "float", "uuid", "path")

# What a number or UUID looks like in a path. The longest int is the one that the table takes
# (`src/router/placeholder.rs` has the reason).
_INT = re.compile(r"-?[0-9]{1,640}\Z")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?\Z")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\Z")
# RFC 3986 3.3: what a path segment may have beside letters, digits and "-._~".
_PCHAR = "!$&'()*+,;=:@"


class Pattern(NamedTuple):
    """A pattern that was read.

    Attributes:
        segments: its pieces, as Japronto's routes have them.
        types: the type of each placeholder, by name and in order; "str" where none is given.

    """

    segments: list[Segment]
    types: dict[str, str]


def parse_pattern(pattern: str) -> Pattern:
    """Reads a pattern, or raises RouteError.

    It is literal text and placeholders: `{name}` takes one non-empty path segment, or the rest of
    one, so it must be followed by "/" or the end. `{name:type}` takes only what fits:

    - `str`: the same as without a type;
    - `int`: digits, with an optional minus, at most 640 of them;
    - `float`: digits with an optional minus and an optional fraction, finite;
    - `uuid`: hexadecimal digits of either case in groups of 8-4-4-4-12;
    - `path`: the rest of the path, "/" included, at least one character; it must be the end of the
      pattern.

    `{{` and `}}` are literal braces.
    """
    if not isinstance(pattern, str):
        raise RouteError(f"pattern must be a str, not {pattern!r}")
    try:
        pattern.encode()
    except UnicodeEncodeError:
        raise RouteError(f"pattern is not valid Unicode: {pattern!r}") from None
    if not pattern:
        raise RouteError(f"a pattern cannot be empty: {pattern!r}")
    segments: list[Segment] = []
    types: dict[str, str] = {}
    literal = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character not in "{}":
            literal += character
            position += 1
        elif pattern.startswith(character * 2, position):
            literal += character
            position += 2
        elif character == "}":
            raise RouteError(f"unbalanced '}}' in pattern {pattern!r}; write '}}}}' for a brace")
        else:
            if literal:
                segments.append(("exact", literal))
                literal = ""
            name, kind, position = _placeholder(pattern, position + 1)
            if name in types:
                raise RouteError(f"two placeholders are named {name!r} in pattern {pattern!r}")
            types[name] = kind
            segments.append(("placeholder", name))
    if literal:
        segments.append(("exact", literal))
    return Pattern(segments, types)


def _placeholder(pattern: str, start: int) -> tuple[str, str, int]:
    """Reads the placeholder that begins at `start`: its name, its type, the position behind it."""
    end = pattern.find("}", start)
    if end < 0:
        raise RouteError(f"unbalanced '{{' in pattern {pattern!r}; write '{{{{' for a brace")
    name, colon, kind = pattern[start:end].partition(":")
    if not name:
        raise RouteError(f"a placeholder has no name in pattern {pattern!r}")
    if any(reserved in name for reserved in "{/"):
        raise RouteError(f"placeholder {name!r} has a '{{' or '/' in pattern {pattern!r}")
    if not colon:
        kind = "str"
    if kind not in TYPES:
        known = ", ".join(TYPES)
        raise RouteError(
            f"placeholder {name!r} has the unknown type {kind!r} in pattern {pattern!r}; "
            f"there are {known}"
        )
    if kind == "path" and end + 1 < len(pattern):
        raise RouteError(f"'{{{name}:path}}' must be the end of pattern {pattern!r}")
    if pattern[end + 1 : end + 2] not in ("", "/"):
        raise RouteError(f"'}}' must be followed by '/' or the end in pattern {pattern!r}")
    return name, kind, end + 1


def build_url(text: str, pattern: Pattern, params: Mapping[str, Any]) -> str:
    """The percent-encoded path that the pattern matches with these parameters.

    Parameters that are no placeholders become the query, a list or tuple as several. Raises
    RouteError with the parameter's name when one is missing or does not fit.
    """
    missing = [name for name in pattern.types if name not in params]
    if missing:
        raise RouteError(f"url_for needs {', '.join(map(repr, missing))} for {text!r}")
    path = ""
    for kind, piece in pattern.segments:
        if kind == "exact":
            path += quote(piece, safe="/" + _PCHAR)
        else:
            path += _encoded(text, piece, pattern.types[piece], params[piece])
    if not path.startswith("/"):
        raise RouteError(f"{text!r} is no path of a request: {path!r} does not begin with '/'")
    if any(segment in (".", "..") for segment in path.split("/")):
        # Clients take such segments out before they ask, encoded or not (RFC 3986 5.2.4).
        raise RouteError(f"{text!r} would become {path!r}, whose dot segments clients remove")
    if path.startswith("//"):
        # What follows would be a host name where the result is used as a link (RFC 3986 4.2).
        path = "/%2F" + path[2:]
    query = _query(text, ((name, params[name]) for name in params if name not in pattern.types))
    return f"{path}?{query}" if query else path


def _encoded(pattern: str, name: str, kind: str, value: object) -> str:
    text = _text(value, kind)
    if text is None or not _fits(kind, text):
        raise RouteError(f"{name}={value!r} is no {kind} that {pattern!r} takes")
    try:
        return quote(text, safe="/" + _PCHAR if kind == "path" else _PCHAR)
    except UnicodeEncodeError:
        raise RouteError(f"{name}={value!r} for {pattern!r} is not valid Unicode") from None


def _fits(kind: str, text: str) -> bool:
    match kind:
        case "int":
            return _INT.match(text) is not None
        case "float":
            return _FLOAT.match(text) is not None and math.isfinite(float(text))
        case "uuid":
            return _UUID.match(text) is not None
        case "path":
            return bool(text)
        case _:
            return bool(text) and "/" not in text


def _text(value: object, kind: str) -> str | None:
    """The text of a parameter; None when it is of a type that has none here."""
    if isinstance(value, str):
        # The characters themselves: an enumeration's own `__str__` gives its name.
        return str.__str__(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        try:
            return int.__repr__(value)
        except ValueError:
            # More digits than the interpreter writes.
            return None
    if isinstance(value, float) and math.isfinite(value):
        text = float.__repr__(value)
        return format(decimal.Decimal(text), "f") if kind == "float" else text
    return None


def _query(pattern: str, params: Iterable[tuple[str, Any]]) -> str:
    pairs = []
    for name, given in params:
        for value in given if isinstance(given, list | tuple) else (given,):
            text = _text(value, "query")
            if text is None:
                raise RouteError(
                    f"{name}={value!r} cannot be in the query of {pattern!r}: "
                    "give str, int, float, UUID or a list of them"
                )
            try:
                pairs.append(f"{quote(name, safe='')}={quote(text, safe='')}")
            except UnicodeEncodeError:
                raise RouteError(f"{name}={value!r} is not valid Unicode") from None
    return "&".join(pairs)
