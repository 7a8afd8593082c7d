"""Every exception that anel raises on purpose, as a class.

Owns names, their bases and what they carry. Knows nothing of the rest of the package: the extension
imports these classes once, so this module imports nothing of ours.
"""

from __future__ import annotations

import errno as errno_names
import http
import json
from collections.abc import Iterable, Mapping


class AnelError(Exception):
    """Base of all exceptions that anel raises on purpose."""


class ConfigError(AnelError, ValueError):
    """A choice of the operator or of the application's author is wrong or not available."""


class RouteError(AnelError, ValueError):
    """A route is wrong: its pattern, handler or methods. Raised at registration."""


class LoadError(AnelError):
    """The application named on the command line cannot be found. The message is one line."""


class SetupError(AnelError, OSError):
    """A worker cannot start: the kernel refuses something that it needs.

    Attributes:
        errno: the kernel's error number, or None when no call failed.
        reason: what does not work, in the operator's words.
        hint: what to do about it, or None.

    """

    reason: str
    hint: str | None

    def __init__(self, errno: int | None, reason: str, hint: str | None = None) -> None:
        """Takes the kernel's error number, the reason and the advice."""
        super().__init__(errno, reason)
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        """One line: reason, error name, advice."""
        text = self.reason
        if self.errno is not None:
            text += f" ({errno_names.errorcode.get(self.errno, self.errno)})"
        return text if self.hint is None else f"{text}; {self.hint}"


class ReactorUnavailable(SetupError):
    """The reactor that was asked for does not work on this machine, or not in this container."""


class ClientDisconnected(AnelError, ConnectionError):
    """The client went away before its answer could be given."""


class HTTPException(AnelError):
    """Ends a handler with an error response.

    Attributes:
        status: the response's status code, 400 to 599.
        detail: the response's text; the status's standard phrase when not given.
        headers: further response headers.

    """

    status: int
    detail: str
    headers: Mapping[str, str] | None

    def __init__(
        self, status: int, detail: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Takes the status and, optionally, the text and headers of the response."""
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise ValueError(f"status must be an int from 400 to 599, not {status!r}")
        if detail is None:
            try:
                detail = http.HTTPStatus(status).phrase
            except ValueError:
                detail = f"Error {status}"
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = headers

    def __str__(self) -> str:
        """Status and text."""
        return f"{self.status} {self.detail}"


class BodyError(HTTPException):
    """The streamed body of a request will never be complete.

    The client broke a rule of HTTP (400), sent too much (413), was too slow (408), or stopped in
    the middle (400, `incomplete_body`). `detail` is the token that `protocol_error_handler` would
    get.
    """


class JSONError(HTTPException, json.JSONDecodeError):
    """The body of a request is no JSON: 400, unless the handler catches it.

    It has the attributes of `json.JSONDecodeError`.
    """

    def __init__(self, msg: str, doc: str, pos: int) -> None:
        """Takes what is wrong, the text and the place in it."""
        json.JSONDecodeError.__init__(self, msg, doc, pos)
        self.status, self.headers = 400, None
        self.detail = f"the body is no JSON: {self.args[0]}"


class TextError(HTTPException, UnicodeDecodeError):
    """The body of a request is no text in its charset: 400, unless the handler catches it.

    It has the attributes of `UnicodeDecodeError`.
    """

    def __init__(self, encoding: str, body: bytes, start: int, end: int, reason: str) -> None:
        """Takes the charset, the body, the place in it and what is wrong there."""
        UnicodeDecodeError.__init__(self, encoding, body, start, end, reason)
        self.status, self.headers = 400, None
        self.detail = f"the body is not {encoding}: {reason} at byte {start}"


class CharsetError(HTTPException, LookupError):
    """The charset that Content-Type names is not known: 400, unless the handler catches it."""

    def __init__(self, charset: str) -> None:
        """Takes the name that was sent."""
        LookupError.__init__(self, charset)
        self.status, self.headers = 400, None
        self.detail = f"the charset of the body is not known: {charset}"


class RouteNotFoundException(AnelError):
    """No route matches the request. The name is Japronto's; error handlers can catch it."""


class MethodNotAllowed(RouteNotFoundException):
    """A route matches the path of the request, but none takes its method (RFC 9110 15.5.6).

    Attributes:
        allowed: the methods that are answered for this path, in order.

    """

    allowed: list[str]

    def __init__(self, allowed: Iterable[str]) -> None:
        """Takes the methods of the Allow header."""
        self.allowed = sorted(allowed)
        super().__init__(self.allowed)

    def __str__(self) -> str:
        """The methods that would do."""
        return f"the path takes {', '.join(self.allowed)}"
