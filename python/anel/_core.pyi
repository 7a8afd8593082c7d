"""The extension: native request and response types, and the worker that serves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, final, overload

from anel.application import Application
from anel.encoding import Query
from anel.routing import Route, TableEntry

__all__ = [
    "Headers",
    "Request",
    "Response",
    "Worker",
    "allow_response",
    "as_response",
    "doctor",
    "unmatched",
]

_T = TypeVar("_T")

@final
class Headers(dict[str, str]):
    """A request's headers: a dict of Title-Case names; looking a name up ignores case."""

    def __getitem__(self, name: str, /) -> str: ...
    def __contains__(self, name: object, /) -> bool: ...
    @overload
    def get(self, name: str, default: None = None, /) -> str | None: ...
    @overload
    def get(self, name: str, default: str, /) -> str: ...
    @overload
    def get(self, name: str, default: _T, /) -> str | _T: ...
    def getall(self, name: str) -> list[str]: ...
    def get_all(self, name: str) -> list[str]: ...

@final
class Response:
    """A response, checked when it is made."""

    def __new__(
        cls,
        text: str | None = None,
        code: int | None = None,
        body: bytes | bytearray | memoryview | None = None,
        json: Any = None,
        mime_type: str | None = None,
        encoding: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        cookies: Any = None,
        *,
        status: int | None = None,
        status_code: int | None = None,
    ) -> Response: ...
    @property
    def code(self) -> int: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def body(self) -> bytes | None: ...

class _Extended:
    """What `Application.extend_request` adds."""

    def __getattr__(self, name: str, /) -> Any: ...

@final
class Request(_Extended):
    """A request, lazily decoded."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def query_string(self) -> str | None: ...
    @property
    def query(self) -> Query: ...
    @property
    def version(self) -> str: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def match_dict(self) -> dict[str, Any]: ...
    @property
    def body(self) -> bytes | None: ...
    @property
    def text(self) -> str | None: ...
    @property
    def json(self) -> Any: ...
    @property
    def mime_type(self) -> str | None: ...
    @property
    def encoding(self) -> str | None: ...
    @property
    def keep_alive(self) -> bool: ...
    @property
    def remote_addr(self) -> str | None: ...
    @property
    def hostname(self) -> str | None: ...
    @property
    def port(self) -> int | None: ...
    @property
    def route(self) -> Route | None: ...
    @property
    def app(self) -> Application: ...
    @property
    def extra(self) -> dict[str, Any]: ...
    def Response(
        self,
        text: str | None = None,
        code: int | None = None,
        body: bytes | bytearray | memoryview | None = None,
        json: Any = None,
        mime_type: str | None = None,
        encoding: str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        cookies: Any = None,
        *,
        status: int | None = None,
        status_code: int | None = None,
    ) -> Response: ...

@final
class Worker:
    """One ring (or epoll) with its listener, on the thread that made it."""

    def __new__(
        cls,
        app: Application,
        listener_fd: int,
        routes: Sequence[TableEntry],
        *,
        reactor: str,
        limits: Mapping[str, int] | None = None,
        automatic_methods: bool = True,
    ) -> Worker: ...
    @property
    def reactor_name(self) -> str: ...
    @property
    def reactor_notice(self) -> str | None: ...
    def turn(self, timeout: float | None) -> bool: ...
    def watch(self, fd: int) -> None: ...
    def connections(self) -> tuple[int, int]: ...
    def drain(self, deadline_s: float) -> None: ...
    def is_drained(self) -> bool: ...
    def stop(self) -> None: ...
    def counters(self) -> dict[str, int]: ...

def allow_response(request: Request) -> None: ...
def as_response(request: Request, value: Any) -> Response: ...
def unmatched(request: Request) -> Response: ...
def doctor() -> dict[str, Any]: ...
