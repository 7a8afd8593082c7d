"""anel: an HTTP toolkit for Python on Linux with a completion-based io_uring core."""

from anel._core import Headers, Request, Response
from anel.application import Application
from anel.exceptions import (
    AnelError,
    BodyError,
    ClientDisconnected,
    ConfigError,
    HTTPException,
    LoadError,
    ReactorUnavailable,
    RouteError,
    RouteNotFoundException,
    SetupError,
)
from anel.routing import Route, Router
from anel.streaming import StreamingResponse
from anel.transport import Transport, TransportSocket

__version__ = "0.1.0"

__all__ = [
    "AnelError",
    "Application",
    "BodyError",
    "ClientDisconnected",
    "ConfigError",
    "HTTPException",
    "Headers",
    "LoadError",
    "ReactorUnavailable",
    "Request",
    "Response",
    "Route",
    "RouteError",
    "RouteNotFoundException",
    "Router",
    "SetupError",
    "StreamingResponse",
    "Transport",
    "TransportSocket",
    "__version__",
]
