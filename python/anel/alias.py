"""Japronto's names, so that its programs run unchanged.

Owns the `Application` with Japronto's habits where they differ from anel's own, and the modules
that an `import japronto` finds once `install` was called. Nothing is installed on disk: a Japronto
that is installed stays as it is, and is merely not found by this process.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import ModuleType

from anel import application
from anel.exceptions import RouteNotFoundException
from anel.routing import Route, Router

__all__ = ["Application", "RouteNotFoundException", "__version__", "install"]

# Whose contract is followed.
__version__ = "0.1.2"


class Application(application.Application):
    """An application as Japronto's programs know it.

    A request whose path is known but whose method is not is answered 404 like any other that no
    route matches, HEAD and OPTIONS need routes of their own, and what is no HTTP is named on stdout
    and answered in HTTP/1.0. An extension of requests may have the name of an attribute that
    Japronto's requests do not have.
    """

    _automatic_methods = False
    # Not those that read a streamed body: a handler that names them gets a body that streams.
    _replaceable_attributes = frozenset(
        {"body_view", "disconnect_reason", "is_disconnected", "url_for"}
    )

    def protocol_error_handler(self, error: str) -> bytes:
        """Prints what is wrong with a request; returns the whole response to it."""
        print(error, flush=True)
        return super().protocol_error_handler(error)


def install() -> None:
    """Makes `japronto`, `japronto.app` and `japronto.router` importable in this process.

    They win over an installed package of that name. Other modules of it are not found, so that the
    two are never mixed.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "japronto"]:
        del sys.modules[name]
    route = _module("japronto.router.route", Route=Route)
    router = _module(
        "japronto.router",
        Router=Router,
        Route=Route,
        RouteNotFoundException=RouteNotFoundException,
        route=route,
    )
    app = _module("japronto.app", Application=Application)
    _module(
        "japronto",
        Application=Application,
        RouteNotFoundException=RouteNotFoundException,
        __version__=__version__,
        app=app,
        router=router,
    )


def _module(name: str, **contents: object) -> ModuleType:
    # A package without a folder: it has the modules that are put into it, and no others.
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    module = importlib.util.module_from_spec(spec)
    module.__doc__ = "anel under Japronto's name."
    module.__dict__.update(contents)
    sys.modules[name] = module
    return module
