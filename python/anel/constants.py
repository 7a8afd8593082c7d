"""The response of a constant route: made once, at registration.

Owns what a constant may not be beside what no response may be. The rules of responses are those of
`Response`, which is what the table is given.
"""

from __future__ import annotations

from typing import Any

from anel import _core
from anel.exceptions import RouteError


def render(*, code: int, **arguments: Any) -> _core.Response:
    """Makes the response; raises RouteError with the offending value in the message."""
    try:
        response = _core.Response(code=code, **arguments)
    except (TypeError, ValueError) as error:
        raise RouteError(f"the constant cannot be sent: {error}") from error
    if response.code < 200:
        raise RouteError(f"code must be that of a final response, 200 to 599, not {code!r}")
    if response.body and response.code in (204, 304):
        raise RouteError(
            f"a {code} response has no body (RFC 9110 6.4.1), got {response.body[:40]!r}"
        )
    return response
