"""Routes: what an application registers and what the extension's table is built from.

Owns the registration order and the checks of patterns, methods and handlers. It never matches a
path: that is done in Rust, on the same pattern language (`src/router/pattern.rs`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

from anel.constants import Constant, render
from anel.exceptions import RouteError
from anel.handlers import Kind, classify

Handler: TypeAlias = Callable[..., Any]
Segment: TypeAlias = tuple[Literal["exact", "placeholder"], str]
# Pattern, methods, handler, kind, route, constant, whether the body is streamed, its largest size:
# what `_core.Worker` takes, in registration order.
TableEntry: TypeAlias = tuple[
    str, list[str] | None, Handler | None, str, "Route", Constant | None, bool, int | None
]

_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")


class Route:
    """One registered rule. A request's `route` is the one that matched."""

    __slots__ = ("constant", "handler", "kind", "methods", "pattern", "segments")

    pattern: str
    handler: Handler | None
    methods: set[str]
    segments: list[Segment]
    kind: Kind | Literal["constant"]
    constant: Constant | None

    def __init__(
        self,
        pattern: str,
        handler: Handler | None,
        methods: set[str],
        constant: Constant | None = None,
    ) -> None:
        """Checks the pattern. No methods stands for every method."""
        self.pattern = pattern
        self.handler = handler
        self.methods = methods
        self.segments = parse_pattern(pattern)
        self.constant = constant
        self.kind = "constant" if handler is None else classify(handler)

    @property
    def placeholder_cnt(self) -> int:
        """How many placeholders the pattern has."""
        return sum(kind == "placeholder" for kind, _ in self.segments)

    def describe(self) -> str:
        """Pattern and methods, for people."""
        return " ".join([self.pattern, *sorted(self.methods)])

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
    """The routes of an application. The first registered route that matches a request wins."""

    def __init__(self) -> None:
        """Starts without routes."""
        self._routes: list[Route] = []
        self._frozen = False

    def add_route(
        self,
        pattern: str,
        handler: Handler,
        method: str | None = None,
        methods: Iterable[str] | None = None,
    ) -> Route:
        """Registers a handler for a pattern, for one method, for several, or else for all.

        A pattern is literal text and `{name}` placeholders, each of which takes one non-empty path
        segment or the rest of one. `{{` and `}}` are literal braces. Raises RouteError when
        anything is wrong.
        """
        if not callable(handler):
            raise RouteError(f"handler for {pattern!r} must be callable, not {handler!r}")
        if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
            raise RouteError(f"handler for {pattern!r} must not be a generator: {handler!r}")
        return self._add(Route(pattern, handler, _method_set(method, methods)))

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
    ) -> Route:
        """Registers a response that never changes. It is served without calling Python.

        Answers GET and HEAD unless methods are given. Error handlers, extensions and the request
        log do not see these requests. Raises RouteError when anything is wrong.
        """
        if method is None and methods is None:
            methods = ("GET", "HEAD")
        constant = render(
            text=text, body=body, json=json, code=code, mime_type=mime_type, headers=headers
        )
        return self._add(Route(pattern, None, _method_set(method, methods), constant))

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
                route.handler,
                route.kind,
                route,
                route.constant,
                False,
                None,
            )
            for route in self._routes
        ]

    def thaw(self) -> None:
        """Allows routes again, after the worker has ended."""
        self._frozen = False

    def _add(self, route: Route) -> Route:
        if self._frozen:
            raise RouteError(f"{route.pattern!r} comes too late: the server is already running")
        self._routes.append(route)
        return route


def parse_pattern(pattern: str) -> list[Segment]:
    """Splits a pattern into its literal and placeholder segments, or raises RouteError."""
    if not isinstance(pattern, str):
        raise RouteError(f"pattern must be a str, not {pattern!r}")
    try:
        pattern.encode()
    except UnicodeEncodeError:
        raise RouteError(f"pattern is not valid Unicode: {pattern!r}") from None
    if not pattern:
        raise RouteError(f"a pattern cannot be empty: {pattern!r}")
    segments: list[Segment] = []
    names: set[str] = set()
    literal = ""
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character not in "{}":
            literal += character
            position += 1
        elif pattern.startswith(character * 2, position):
            literal += character
            position += 2
        elif character == "}":
            raise RouteError(f"unbalanced '}}' in pattern {pattern!r}; write '}}}}' for a brace")
        else:
            if literal:
                segments.append(("exact", literal))
                literal = ""
            name, position = _placeholder(pattern, position + 1)
            if name in names:
                raise RouteError(f"two placeholders are named {name!r} in pattern {pattern!r}")
            names.add(name)
            segments.append(("placeholder", name))
    if literal:
        segments.append(("exact", literal))
    return segments


def _placeholder(pattern: str, start: int) -> tuple[str, int]:
    """Reads the placeholder whose name begins at `start`; returns it and the position behind it."""
    end = pattern.find("}", start)
    if end < 0:
        raise RouteError(f"unbalanced '{{' in pattern {pattern!r}; write '{{{{' for a brace")
    name = pattern[start:end]
    if not name:
        raise RouteError(f"a placeholder has no name in pattern {pattern!r}")
    if any(reserved in name for reserved in "{/:"):
        raise RouteError(f"placeholder {name!r} has a '{{', '/' or ':' in pattern {pattern!r}")
    if pattern[end + 1 : end + 2] not in ("", "/"):
        raise RouteError(f"'}}' must be followed by '/' or the end in pattern {pattern!r}")
    return name, end + 1


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
