"""anel: an HTTP toolkit for Python on Linux with a completion-based io_uring core."""

from anel import cookies as _cookies  # noqa: F401 - gives requests and responses their attributes
from anel._core import Headers, Request, Response, ResponseHeaders
from anel.application import Application
from anel.exceptions import (
    AnelError,
    BodyError,
    CharsetError,
    ClientDisconnected,
    ConfigError,
    HTTPException,
    JSONError,
    LoadError,
    MethodNotAllowed,
    ReactorUnavailable,
    RouteError,
    RouteNotFoundException,
    SetupError,
    TextError,
)
from anel.files import FileResponse
from anel.forms import File, Files, Form
from anel.redirection import redirect
from anel.routing import Route, Router
from anel.sse import Event, EventStream
from anel.streaming import StreamingResponse
from anel.transport import Transport, TransportSocket

__version__ = "0.1.0"

__all__ = [
    "AnelError",
    "Application",
    "BodyError",
    "CharsetError",
    "ClientDisconnected",
    "ConfigError",
    "Event",
    "EventStream",
    "File",
    "FileResponse",
    "Files",
    "Form",
    "HTTPException",
    "Headers",
    "JSONError",
    "LoadError",
    "MethodNotAllowed",
    "ReactorUnavailable",
    "Request",
    "Response",
    "ResponseHeaders",
    "Route",
    "RouteError",
    "RouteNotFoundException",
    "Router",
    "SetupError",
    "StreamingResponse",
    "TextError",
    "Transport",
    "TransportSocket",
    "__version__",
    "redirect",
]
