"""The response of a constant route: checked and rendered once, at registration.

Owns the rules for its content type, headers and body. Knows nothing of routes, requests or the wire
format of a response head, which is the extension's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from anel.encoding import dumps
from anel.exceptions import RouteError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# RFC 9110 5.5: visible characters, spaces and tabs; bytes above 0x7f go out as latin-1.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
# The worker writes these itself; a second one could be read as another framing (RFC 9112 6.3).
_FRAMING = frozenset({"connection", "content-length", "transfer-encoding"})


class Constant(NamedTuple):
    """A response without its framing, as the extension takes it."""

    status: int
    content_type: str | None
    field_lines: bytes
    body: bytes


def render(
    *,
    text: str | None = None,
    body: bytes | None = None,
    json: Any = None,
    code: int = 200,
    mime_type: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Constant:
    """Renders a response; raises RouteError with the offending value in the message."""
    if sum(part is not None for part in (text, body, json)) > 1:
        raise RouteError("text, body and json exclude each other")
    if isinstance(code, bool) or not isinstance(code, int) or not 200 <= code <= 599:
        raise RouteError(f"code must be an int from 200 to 599, not {code!r}")
    payload, default_type = _payload(text, body, json)
    if payload and code in (204, 304):
        raise RouteError(f"a {code} response has no body (RFC 9110 6.4.1), got {payload[:40]!r}")
    content_type = None
    if default_type is not None:
        content_type = _content_type(default_type if mime_type is None else mime_type)
    return Constant(code, content_type, _field_lines(headers or {}), payload)


def _payload(text: str | None, body: bytes | None, json: Any) -> tuple[bytes, str | None]:
    if text is not None:
        if not isinstance(text, str):
            raise RouteError(f"text must be a str, not {text!r}")
        try:
            return text.encode(), "text/plain"
        except UnicodeEncodeError:
            raise RouteError(f"text is not valid Unicode: {text!r}") from None
    if body is not None:
        if not isinstance(body, bytes | bytearray | memoryview):
            raise RouteError(f"body must be bytes, not {body!r}")
        return bytes(body), "application/octet-stream"
    if json is not None:
        try:
            return dumps(json), "application/json"
        except (TypeError, ValueError) as error:
            raise RouteError(f"json cannot be serialised: {error}") from error
    return b"", None


def _content_type(mime_type: object) -> str:
    if not isinstance(mime_type, str) or not mime_type or not _FIELD_VALUE.match(mime_type):
        raise RouteError(f"mime_type must be a header value, not {mime_type!r}")
    if mime_type.startswith("text/") or mime_type.endswith("/json"):
        return f"{mime_type}; charset=utf-8"
    return mime_type


def _field_lines(headers: Mapping[str, str]) -> bytes:
    lines = []
    for name, value in headers.items():
        if not isinstance(name, str) or not _TOKEN.match(name):
            raise RouteError(f"a header name must be a token (RFC 9110 5.6.2), not {name!r}")
        if not isinstance(value, str) or not _FIELD_VALUE.match(value):
            raise RouteError(f"header {name} has a value that cannot be sent: {value!r}")
        if name.lower() in _FRAMING:
            raise RouteError(f"header {name} is set by the worker, remove {value!r}")
        if name.lower() == "content-type":
            raise RouteError(f"header {name} is given as mime_type={value!r}")
        lines.append(f"{name}: {value.strip()}\r\n")
    return "".join(lines).encode("latin-1")
