"""The router's verbs on the application: `@app.get("/")` for `@app.router.get("/")`.

Owns nothing but the delegation; what each verb does and raises is said in `routing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, Unpack

from anel.routing import Handler, Route, RouteOptions, Router

H = TypeVar("H", bound=Handler)


class RouteShortcuts:
    """Registers routes on the router that it has."""

    _router: Router

    def add_route(
        self,
        pattern: str,
        handler: Handler,
        method: str | None = None,
        methods: Iterable[str] | None = None,
        **options: Unpack[RouteOptions],
    ) -> Route:
        """Registers a handler; see `Router.add_route`."""
        return self._router.add_route(pattern, handler, method, methods, **options)

    def route(
        self,
        pattern: str,
        method: str | None = None,
        methods: Iterable[str] | None = None,
        **options: Unpack[RouteOptions],
    ) -> Callable[[H], H]:
        """Registers the decorated handler; see `Router.add_route`."""
        return self._router.route(pattern, method, methods, **options)

    def get(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Registers the decorated handler for GET; see `Router.add_route`."""
        return self._router.get(pattern, **options)

    def post(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Registers the decorated handler for POST; see `Router.add_route`."""
        return self._router.post(pattern, **options)

    def put(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Registers the decorated handler for PUT; see `Router.add_route`."""
        return self._router.put(pattern, **options)

    def patch(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Registers the decorated handler for PATCH; see `Router.add_route`."""
        return self._router.patch(pattern, **options)

    def delete(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Registers the decorated handler for DELETE; see `Router.add_route`."""
        return self._router.delete(pattern, **options)

    def head(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Registers the decorated handler for HEAD; see `Router.add_route`."""
        return self._router.head(pattern, **options)

    def options(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[H], H]:
        """Registers the decorated handler for OPTIONS; see `Router.add_route`."""
        return self._router.options(pattern, **options)

    def include(self, router: Router, prefix: str = "", *, name: str | None = None) -> None:
        """Registers all routes of another router; see `Router.include`."""
        self._router.include(router, prefix, name=name)

    def url_for(self, name: str, /, **params: Any) -> str:
        """The path of the route with this name; see `Router.url_for`."""
        return self._router.url_for(name, **params)
