"""Routes: what an application registers and what the extension's table is built from.

Owns the registration order, the names of routes and the checks of methods and options. It never
matches a path: that is done in Rust.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, Unpack

from anel import _core
from anel.constants import render
from anel.exceptions import RouteError
from anel.handlers import Kind, arguments, classify, is_async, streams_body, with_arguments
from anel.patterns import Segment, build_url, parse_pattern

Handler: TypeAlias = Callable[..., Any]
# Pattern, methods, what is called, kind, route, constant, whether the body is streamed, its largest
# size: what `_core.Worker` takes, in registration order.
TableEntry: TypeAlias = tuple[
    str, list[str] | None, Handler | None, str, "Route", _core.Response | None, bool, int | None
]

_H = TypeVar("_H", bound=Handler)
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# What the core counts bodies with.
_BODY_BYTES_END = 1 << 64


class RouteOptions(TypedDict, total=False):
    """What a route may be given beside pattern, handler and methods; see `Router.add_route`."""

    name: str | None
    stream: bool | None
    body_bytes_max: int | None


class Route:
    """One registered rule. A request's `route` is the one that matched.

    Attributes:
        pattern: the pattern with every prefix.
        handler: what was registered; None for a constant.
        methods: upper-case methods; empty for every method.
        name: what `url_for` knows it by: the name it was given, else the handler's, else None.
        segments: the pattern's pieces: `("exact", text)` and `("placeholder", name)`.
        types: the type of each placeholder, by name.
        stream: whether the handler is called before the request's body is complete.
        body_bytes_max: largest request body in bytes; None for the worker's limit.
        kind: how the handler is called; "constant" without one.
        target: what is called with the request: the handler, or a function that passes it the
            values of placeholders.
        constant: the response of a constant route.

    """

    __slots__ = (
        "_is_named",
        "_pattern",
        "body_bytes_max",
        "constant",
        "handler",
        "kind",
        "methods",
        "name",
        "pattern",
        "stream",
        "target",
    )

    pattern: str
    handler: Handler | None
    methods: set[str]
    name: str | None
    stream: bool
    body_bytes_max: int | None
    kind: Kind | Literal["constant"]
    target: Handler | None
    constant: _core.Response | None

    def __init__(
        self,
        pattern: str,
        handler: Handler | None,
        methods: set[str],
        constant: _core.Response | None = None,
        **options: Unpack[RouteOptions],
    ) -> None:
        """Checks the pattern, the options and what the handler takes."""
        self._pattern = parse_pattern(pattern)
        self.pattern = pattern
        self.handler = handler
        self.methods = methods
        self.constant = constant
        self._is_named = options.get("name") is not None
        self.name = _route_name(options.get("name"), handler)
        self.body_bytes_max = _body_bytes_max(options.get("body_bytes_max"))
        if handler is None:
            self.kind, self.stream, self.target = "constant", False, None
            return
        self.kind = classify(handler)
        self.stream = _stream(options.get("stream"), handler, self.kind)
        names = arguments(handler, self._pattern.types, pattern)
        self.target = with_arguments(handler, names) if names else handler

    @property
    def segments(self) -> list[Segment]:
        """The pattern's pieces."""
        return self._pattern.segments

    @property
    def types(self) -> dict[str, str]:
        """The types of the placeholders."""
        return self._pattern.types

    @property
    def placeholder_cnt(self) -> int:
        """How many placeholders the pattern has."""
        return len(self._pattern.types)

    def describe(self) -> str:
        """Pattern and methods, for people."""
        return " ".join([self.pattern, *sorted(self.methods)])

    def url_for(self, /, **params: Any) -> str:
        """The percent-encoded path (RFC 3986) that leads here with these parameters.

        Parameters that are no placeholders become the query; a list or tuple stands for several of
        one name. Raises RouteError with the names of those that are missing or do not fit.
        """
        return build_url(self.pattern, self._pattern, params)

    def within(self, prefix: str, name: str | None) -> Route:
        """The same route behind a prefix, its name behind a name and a dot."""
        chosen = self.name if name is None or self.name is None else f"{name}.{self.name}"
        route = Route(
            prefix + self.pattern,
            self.handler,
            self.methods,
            self.constant,
            name=chosen if self._is_named else None,
            stream=self.stream if self.handler is not None else None,
            body_bytes_max=self.body_bytes_max,
        )
        route.name = chosen
        return route

    def __eq__(self, other: object) -> bool:
        """Routes are equal when they match the same requests."""
        if not isinstance(other, Route):
            return NotImplemented
        return self.pattern == other.pattern and self.methods == other.methods

    def __hash__(self) -> int:
        """Follows equality."""
        return hash((self.pattern, frozenset(self.methods)))

    def __repr__(self) -> str:
        """Pattern, methods and identity."""
        return f"<Route {self.describe()} at {id(self):#x}>"


class Router:
    """Routes in the order of registration. The first one that matches a request wins.

    An application has one; others are made for `include`. `prefix` is put in front of each pattern
    that is registered here. It begins with "/", does not end with one, and may have placeholders.
    """

    def __init__(self, *, prefix: str = "") -> None:
        """Starts without routes; raises RouteError for a bad prefix."""
        self._prefix = _checked_prefix(prefix)
        self._routes: list[Route] = []
        self._given_names: dict[str, Route] = {}
        # By name and pattern: handlers may be called alike, and only `url_for` minds.
        self._handler_names: dict[str, dict[str, Route]] = {}
        self._frozen = False
        self._included = False

    def add_route(
        self,
        pattern: str,
        handler: Handler,
        method: str | None = None,
        methods: Iterable[str] | None = None,
        *,
        name: str | None = None,
        stream: bool | None = None,
        body_bytes_max: int | None = None,
    ) -> Route:
        """Registers a handler for a pattern, for one method, for several, or else for all.

        A pattern is literal text and placeholders: `{name}` takes one non-empty path segment or the
        rest of one, `{name:int}`, `float`, `uuid` and `str` what fits, `{name:path}` the non-empty
        rest of the path. `{{` and `}}` are literal braces. The handler gets the request, and as
        keywords those placeholders that it has parameters for.

        Args:
            pattern: what the percent-decoded path has to match.
            handler: a function or coroutine function of the request.
            method: the method it answers.
            methods: the methods it answers.
            name: what `url_for` knows the route by; the handler's `__name__` if omitted.
            stream: whether the handler is called before the request's body is complete. If omitted,
                whether it is a coroutine function that itself uses `stream`, `save` or `read` of
                the request.
            body_bytes_max: largest request body in bytes; the worker's limit if omitted.

        Raises:
            RouteError: anything of that is wrong, or the router takes no more routes.

        """
        if not callable(handler):
            raise RouteError(f"handler for {pattern!r} must be callable, not {handler!r}")
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise RouteError(f"handler for {pattern!r} must not be a generator: {handler!r}")
        route = Route(
            self._full(pattern),
            handler,
            _method_set(method, methods),
            name=name,
            stream=stream,
            body_bytes_max=body_bytes_max,
        )
        self._add([route])
        return route

    def route(
        self,
        pattern: str,
        method: str | None = None,
        methods: Iterable[str] | None = None,
        **options: Unpack[RouteOptions],
    ) -> Callable[[_H], _H]:
        """Registers the decorated handler, which stays what it is; see `add_route`."""

        def register(handler: _H) -> _H:
            self.add_route(pattern, handler, method, methods, **options)
            return handler

        return register

    def get(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[_H], _H]:
        """Registers the decorated handler for GET; see `add_route`."""
        return self.route(pattern, "GET", **options)

    def post(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[_H], _H]:
        """Registers the decorated handler for POST; see `add_route`."""
        return self.route(pattern, "POST", **options)

    def put(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[_H], _H]:
        """Registers the decorated handler for PUT; see `add_route`."""
        return self.route(pattern, "PUT", **options)

    def patch(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[_H], _H]:
        """Registers the decorated handler for PATCH; see `add_route`."""
        return self.route(pattern, "PATCH", **options)

    def delete(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[_H], _H]:
        """Registers the decorated handler for DELETE; see `add_route`."""
        return self.route(pattern, "DELETE", **options)

    def head(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[_H], _H]:
        """Registers the decorated handler for HEAD; see `add_route`."""
        return self.route(pattern, "HEAD", **options)

    def options(self, pattern: str, **options: Unpack[RouteOptions]) -> Callable[[_H], _H]:
        """Registers the decorated handler for OPTIONS; see `add_route`."""
        return self.route(pattern, "OPTIONS", **options)

    def add_constant(
        self,
        pattern: str,
        *,
        text: str | None = None,
        body: bytes | None = None,
        json: Any = None,
        code: int = 200,
        mime_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
        methods: Iterable[str] | None = None,
        name: str | None = None,
    ) -> Route:
        """Registers a response that never changes. It is served without calling Python.

        The response is that of `Response` with the same arguments. Answers GET and HEAD unless
        methods are given. Error handlers, extensions and the request log do not see these requests.
        Raises RouteError when anything is wrong.
        """
        if method is None and methods is None:
            methods = ("GET", "HEAD")
        constant = render(
            text=text, body=body, json=json, code=code, mime_type=mime_type, headers=headers
        )
        chosen = _method_set(method, methods)
        route = Route(self._full(pattern), None, chosen, constant, name=name)
        self._add([route])
        return route

    def include(self, router: Router, prefix: str = "", *, name: str | None = None) -> None:
        """Registers all routes of another router here, in their order, behind a prefix.

        The prefix begins with "/", does not end with one, and may have placeholders. With `name`,
        their names begin with it and a dot. The other router takes no routes from then on, so that
        none can be lost; it may be included again. Raises RouteError, and then includes nothing,
        when a joined pattern is wrong or a name is taken.
        """
        if not isinstance(router, Router):
            raise RouteError(f"only a Router can be included, not {router!r}")
        if router is self:
            raise RouteError("a router cannot include itself")
        if name is not None and (not isinstance(name, str) or not name):
            raise RouteError(f"name must be a non-empty str, not {name!r}")
        prefix = self._prefix + _checked_prefix(prefix)
        routes = []
        for route in router:
            if prefix and not route.pattern.startswith("/"):
                raise RouteError(
                    f"pattern {route.pattern!r} must begin with '/' to follow prefix {prefix!r}"
                )
            routes.append(route.within(prefix, name))
        self._add(routes)
        router._included = True

    def url_for(self, name: str, /, **params: Any) -> str:
        """The percent-encoded path of the route with this name; see `Route.url_for`.

        Raises RouteError for an unknown name, and for one that routes of several patterns have.
        """
        route = self._given_names.get(name)
        if route is not None:
            return route.url_for(**params)
        by_pattern = self._handler_names.get(name, {})
        if not by_pattern:
            known = ", ".join(sorted({*self._given_names, *self._handler_names})) or "none"
            raise RouteError(f"no route is named {name!r}; there are: {known}")
        if len(by_pattern) > 1:
            raise RouteError(
                f"several routes are named {name!r}: {', '.join(by_pattern)}; give them name="
            )
        (route,) = by_pattern.values()
        return route.url_for(**params)

    def __iter__(self) -> Iterator[Route]:
        """The routes in registration order."""
        return iter(self._routes)

    def __len__(self) -> int:
        """How many routes are registered."""
        return len(self._routes)

    def freeze(self) -> list[TableEntry]:
        """Returns what a worker's table is built from; routes can no longer be added."""
        self._frozen = True
        return [
            (
                route.pattern,
                sorted(route.methods) or None,
                route.target,
                route.kind,
                route,
                route.constant,
                route.stream,
                route.body_bytes_max,
            )
            for route in self._routes
        ]

    def thaw(self) -> None:
        """Allows routes again, after the worker has ended."""
        self._frozen = False

    def _full(self, pattern: str) -> str:
        """The pattern behind the router's own prefix; "" is the prefix itself."""
        if not self._prefix:
            return pattern
        if not isinstance(pattern, str) or (pattern and not pattern.startswith("/")):
            raise RouteError(
                f"pattern {pattern!r} must begin with '/' to follow prefix {self._prefix!r}"
            )
        return self._prefix + pattern

    def _add(self, routes: list[Route]) -> None:
        for route in routes:
            if self._frozen:
                raise RouteError(f"{route.pattern!r} comes too late: the server is already running")
            if self._included:
                raise RouteError(f"{route.pattern!r} comes too late: its router was included")
            known = self._given_names.get(route.name) if route.name is not None else None
            if route._is_named and known is not None and known.pattern != route.pattern:
                raise RouteError(
                    f"two routes are named {route.name!r}: {known.pattern!r} and {route.pattern!r}"
                )
        for route in routes:
            if route.name is None:
                continue
            if route._is_named:
                self._given_names.setdefault(route.name, route)
            else:
                self._handler_names.setdefault(route.name, {}).setdefault(route.pattern, route)
        self._routes += routes


def _checked_prefix(prefix: object) -> str:
    if not isinstance(prefix, str):
        raise RouteError(f"prefix must be a str, not {prefix!r}")
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise RouteError(f"prefix must begin with '/' and not end with it: {prefix!r}")
    if prefix:
        parse_pattern(prefix)
    return prefix


def _route_name(given: str | None, handler: Handler | None) -> str | None:
    if given is not None:
        if not isinstance(given, str) or not given:
            raise RouteError(f"name must be a non-empty str, not {given!r}")
        return given
    function: Any = handler
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None)
    # A lambda has a name that is none.
    return name if isinstance(name, str) and name.isidentifier() else None


def _stream(given: bool | None, handler: Handler, kind: Kind) -> bool:
    if given not in (None, True, False):
        raise RouteError(f"stream must be True, False or None, not {given!r}")
    if given is None:
        return streams_body(handler)
    if given and kind == "sync" and not is_async(handler):
        raise RouteError(f"stream=True needs a coroutine function, not {handler!r}")
    return bool(given)


def _body_bytes_max(given: int | None) -> int | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < _BODY_BYTES_END:
        raise RouteError(f"body_bytes_max must be a number of bytes, not {given!r}")
    return given


def _method_set(method: str | None, methods: Iterable[str] | None) -> set[str]:
    if method is not None and methods is not None:
        raise RouteError(f"give method={method!r} or methods={methods!r}, not both")
    if method is None and methods is None:
        return set()
    if isinstance(methods, str | bytes):
        raise RouteError(f"methods must be several strings, not {methods!r}; use method=")
    if methods is None:
        chosen: list[Any] = [method]
    else:
        try:
            chosen = list(methods)
        except TypeError:
            raise RouteError(f"methods must be several strings, not {methods!r}") from None
    if not chosen:
        raise RouteError(f"methods is empty: {methods!r}; leave it out to match every method")
    for one in chosen:
        if not isinstance(one, str) or not _METHOD.match(one):
            raise RouteError(f"a method must be a token (RFC 9110 9.1), not {one!r}")
    return {one.upper() for one in chosen}
