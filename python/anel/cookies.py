"""Cookies: what a request brings, and the lines with which a response sets them.

Owns `request.cookies`, `response.set_cookie` and `response.delete_cookie`. Values travel
percent-encoded, as JavaScript's encodeURIComponent has it, so any text that is set comes back.
Knows nothing of sessions and signatures.
"""

from __future__ import annotations

import datetime
import re
from email.utils import format_datetime
from http.cookies import CookieError, Morsel
from typing import Literal
from urllib.parse import quote, unquote

from anel import _core
from anel.request import install_attribute

SameSite = Literal["Strict", "Lax", "None"]

# RFC 6265 4.1.1, cookie-octet. The percent sign is left out: it begins what is encoded.
_COOKIE_OCTETS = "!#$&'()*+-./:<=>?@[]^_`{|}~"
# RFC 6265 4.1.1: anything but control characters and the semicolon.
_ATTRIBUTE = re.compile(r"[\x20-\x3a\x3c-\x7e]*\Z")
# http.cookies writes a byte as its octal number, and quotes and backslashes behind a backslash.
_ESCAPED = re.compile(r"\\(?:([0-3][0-7]{2})|(.))")
_EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)


def parse_cookies(header: str) -> dict[str, str]:
    """Reads a Cookie header as browsers write it, whatever is in it: nothing is an error.

    Values lose the quotes and escapes of `http.cookies` and are then percent-decoded as UTF-8. The
    last of several cookies of one name counts; one without `=` has the name "".
    """
    parsed = {}
    for part in _as_utf8(header).split(";"):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = "", name
        name, value = name.strip(), value.strip()
        if name or value:
            parsed[name] = unquote(_unquoted(value))
    return parsed


def cookies(request: _core.Request) -> dict[str, str]:
    """The cookies that the client sent, by name; {} when there are none.

    Values are unquoted and percent-decoded. When a name was sent several times, the last counts.
    """
    memo = request._memo
    known: dict[str, str] | None = memo.get("cookies")
    if known is None:
        known = memo["cookies"] = parse_cookies(request.headers.get("Cookie", ""))
    return known


def set_cookie(
    self: _core.Response,
    name: str,
    value: str,
    *,
    max_age: int | datetime.timedelta | None = None,
    expires: datetime.datetime | None = None,
    path: str | None = "/",
    domain: str | None = None,
    secure: bool = False,
    httponly: bool = True,
    samesite: SameSite | None = "Lax",
    partitioned: bool = False,
) -> None:
    """Sets a cookie, in place of one of the same name, path and domain.

    Args:
        self: The response that carries it.
        name: A token (RFC 6265 4.1.1).
        value: Any text; sent percent-encoded where it has to be.
        max_age: How long the client keeps it, in seconds; 0 removes it. None, without `expires`:
            until the browser is closed.
        expires: When it ends, with its time zone. Of the two, `max_age` counts (RFC 6265 4.1.2.2).
        path: The paths it is sent to, with all below; None for the directory of this request.
        domain: The host it is sent to, with all below; None for this host alone.
        secure: Sent over https only. Off by default, because a cookie with it is lost over http.
        httponly: Hidden from scripts. On by default: what a script cannot read it cannot leak.
        samesite: "Strict", "Lax" or "None": whether other sites' requests carry it. "None" needs
            `secure`. None says nothing, which browsers read in different ways.
        partitioned: Kept apart for each site that embeds ours (CHIPS). Needs `secure`.

    Raises:
        TypeError: The value is no str, or `max_age` no number of seconds.
        ValueError: A name or an attribute that cannot be sent, or that browsers would refuse:
            `samesite="None"` or `partitioned` without `secure`, the prefixes `__Secure-` and
            `__Host-` without what they promise.

    """
    if not isinstance(value, str):
        raise TypeError(f"the value of cookie {name!r} must be a str, not {value!r}")
    cookie: Morsel[str] = Morsel()
    try:
        cookie.set(name, value, quote(value, safe=_COOKIE_OCTETS))
    except CookieError as error:
        raise ValueError(f"cookie {name!r}: {error}") from None
    if max_age is not None:
        cookie["max-age"] = _seconds(max_age)
    if expires is not None:
        cookie["expires"] = _date(expires)
    cookie["path"] = _attribute("path", path)
    cookie["domain"] = _attribute("domain", domain)
    cookie["secure"] = bool(secure)
    cookie["httponly"] = bool(httponly)
    if samesite not in ("Strict", "Lax", "None", None):
        raise ValueError(f"samesite must be 'Strict', 'Lax', 'None' or None, not {samesite!r}")
    cookie["samesite"] = samesite or ""
    _check_promises(cookie)
    if partitioned and not secure:
        raise ValueError(f"cookie {name!r}: partitioned needs secure=True")
    # `Morsel` knows it from Python 3.14 on.
    _replace(self, cookie.OutputString() + ("; Partitioned" if partitioned else ""))


def delete_cookie(
    self: _core.Response,
    name: str,
    path: str | None = "/",
    domain: str | None = None,
    *,
    partitioned: bool = False,
) -> None:
    """Tells the client to remove a cookie. All arguments must be those it was set with.

    Raises ValueError as `set_cookie` does.
    """
    # Browsers take no such cookie without it, not even one that has ended.
    secure = partitioned or name.lower().startswith(("__secure-", "__host-"))
    set_cookie(
        self,
        name,
        "",
        max_age=0,
        expires=_EPOCH,
        path=path,
        domain=domain,
        secure=secure,
        partitioned=partitioned,
    )


def _replace(response: _core.Response, line: str) -> None:
    headers = response.headers
    others = headers.getall("Set-Cookie")
    kept = [other for other in others if _identity(other) != _identity(line)]
    if len(kept) < len(others):
        # RFC 6265 4.1.1: not two of one name in one response.
        del headers["Set-Cookie"]
        for other in kept:
            headers.add("Set-Cookie", other)
    headers.add("Set-Cookie", line)


def _identity(line: str) -> tuple[str, str, str, bool]:
    """What tells cookies apart: name, domain, path (RFC 6265 5.3, step 11), partition (CHIPS)."""
    pair, *attributes = line.split(";")
    said = {}
    for attribute in attributes:
        name, _, value = attribute.partition("=")
        said[name.strip().lower()] = value.strip()
    name = pair.partition("=")[0].strip()
    return name, said.get("domain", "").lower(), said.get("path", ""), "partitioned" in said


def _check_promises(cookie: Morsel[str]) -> None:
    """Refuses what browsers drop without a word (RFC 6265bis 4.1.3 and 5.7)."""
    name = cookie.key
    if cookie["samesite"] == "None" and not cookie["secure"]:
        raise ValueError(f"cookie {name!r}: samesite='None' needs secure=True")
    if name.lower().startswith(("__secure-", "__host-")) and not cookie["secure"]:
        raise ValueError(f"cookie {name!r}: this prefix needs secure=True")
    if name.lower().startswith("__host-") and (cookie["path"] != "/" or cookie["domain"]):
        raise ValueError(f"cookie {name!r}: this prefix needs path='/' and no domain")


def _attribute(name: str, value: str | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not _ATTRIBUTE.match(value):
        raise ValueError(f"{name} must be ASCII without control characters and ';', not {value!r}")
    return value


def _seconds(max_age: int | datetime.timedelta) -> int:
    if isinstance(max_age, datetime.timedelta):
        return int(max_age.total_seconds())
    if isinstance(max_age, bool) or not isinstance(max_age, int):
        raise TypeError(f"max_age must be seconds as an int, or a timedelta, not {max_age!r}")
    return max_age


def _date(expires: datetime.datetime) -> str:
    if not isinstance(expires, datetime.datetime) or expires.tzinfo is None:
        raise ValueError(f"expires must be a datetime with a time zone, not {expires!r}")
    return format_datetime(expires.astimezone(datetime.UTC), usegmt=True)


def _unquoted(value: str) -> str:
    if len(value) < 2 or not value.startswith('"') or not value.endswith('"'):
        return value
    return _ESCAPED.sub(lambda found: found[2] or chr(int(found[1], 8)), value[1:-1])


def _as_utf8(header: str) -> str:
    # Headers are read as Latin-1; a script that sets a cookie makes UTF-8 of it.
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header


install_attribute("cookies", property(cookies))
for _method in (set_cookie, delete_cookie):
    setattr(_core.Response, _method.__name__, _method)
