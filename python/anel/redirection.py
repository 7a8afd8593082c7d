"""Redirects: a `Location` that is safe to send, with a status that browsers follow.

Owns what is encoded in a location and what is refused. Knows nothing of requests: a relative
location is for the client to resolve (RFC 9110 10.2.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

from anel._core import Response

# RFC 9110 15.4: the statuses with a Location that a client follows on its own.
_CODES = (301, 302, 303, 307, 308)

# What RFC 3986 lets stand: reserved characters mean what they say, and so does an encoded octet.
_KEPT = ":/?#[]@!$&'()*+,;=-._~%"
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_AUTHORITY = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*:)?//)([^/?#\\]*)")


def redirect(location: str, code: int = 302, headers: Mapping[str, str] | None = None) -> Response:
    """A response that sends the client elsewhere.

    Args:
        location: a URL or a path. What a URL cannot hold is percent-encoded as UTF-8, a host that
            is not ASCII is written in its IDNA form; what is encoded already stays as it is.
        code: 301, 302, 303, 307 or 308 (RFC 9110 15.4). 303 turns a POST into a GET; 307 and 308
            keep the method.
        headers: further response headers.

    Raises:
        ValueError: an empty location, one with control characters or without meaning as UTF-8 or
            as a host, another code, or a second Location among the headers.

    A location that comes from a request can lead anywhere, `//host` included: check it before.

    """
    if code not in _CODES:
        known = ", ".join(map(str, _CODES))
        raise ValueError(f"the code of a redirect must be one of {known}, not {code!r}")
    fields = {"Location": _encoded(location)}
    for name, value in (headers or {}).items():
        if name.lower() == "location":
            raise ValueError(f"the location is given twice: {location!r} and {value!r}")
        fields[name] = value
    return Response(code=code, headers=fields)


def _encoded(location: str) -> str:
    if not isinstance(location, str) or not location:
        raise ValueError(f"a location must be a non-empty str, not {location!r}")
    if _CONTROL.search(location):
        raise ValueError(f"a location must not have control characters: {location!r}")
    found = _AUTHORITY.match(location)
    if found is not None and not found[2].isascii():
        location = found[1] + _ascii_authority(found[2], location) + location[found.end() :]
    try:
        return quote(_LONE_PERCENT.sub("%25", location), safe=_KEPT)
    except UnicodeEncodeError:
        raise ValueError(f"a location must be valid Unicode: {location!r}") from None


def _ascii_authority(authority: str, location: str) -> str:
    user, at, host = authority.rpartition("@")
    host, colon, port = host.partition(":")
    try:
        return user + at + host.encode("idna").decode() + colon + port
    except UnicodeError:
        raise ValueError(f"the host of a location is no domain name: {location!r}") from None
