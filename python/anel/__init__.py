"""anel: an HTTP toolkit for Python on Linux with a completion-based io_uring core."""

from anel._core import Headers, Request, Response
from anel.application import Application
from anel.exceptions import (
    AnelError,
    ClientDisconnected,
    ConfigError,
    HTTPException,
    LoadError,
    MethodNotAllowed,
    ReactorUnavailable,
    RouteError,
    RouteNotFoundException,
    SetupError,
)
from anel.redirection import redirect
from anel.routing import Route, Router

__version__ = "0.1.0"

__all__ = [
    "AnelError",
    "Application",
    "ClientDisconnected",
    "ConfigError",
    "HTTPException",
    "Headers",
    "LoadError",
    "MethodNotAllowed",
    "ReactorUnavailable",
    "Request",
    "Response",
    "Route",
    "RouteError",
    "RouteNotFoundException",
    "Router",
    "SetupError",
    "__version__",
    "redirect",
]
