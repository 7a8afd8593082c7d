"""The connection below a request.

Owns what `request.transport` shows: addresses and socket options. Nothing of it can send, receive
or close; the bytes are the reactor's. When the exchange is over, the descriptor may be another
connection's, so every operation on the socket fails then (OSError, ENOTCONN).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from anel import _core
from anel.request import install_attribute

_T = TypeVar("_T")


class TransportSocket:
    """The options of a connection's socket, as `asyncio.trsock.TransportSocket` has them."""

    __slots__ = ("_request",)

    def __init__(self, request: _core.Request) -> None:
        """Takes the request whose connection it is."""
        self._request = request

    @property
    def family(self) -> int:
        """`socket.AF_INET` or `socket.AF_INET6`."""
        return self._ask(lambda ours: ours.family)

    @property
    def type(self) -> int:
        """`socket.SOCK_STREAM`."""
        return self._ask(lambda ours: ours.type)

    @property
    def proto(self) -> int:
        """`socket.IPPROTO_TCP`."""
        return self._ask(lambda ours: ours.proto)

    def fileno(self) -> int:
        """The number of the descriptor; -1 when the exchange is over. Not to be closed."""
        return _core.socket_number(self._request)

    def getpeername(self) -> Any:
        """The address of who is connected: a proxy's, where there is one."""
        return self._ask(lambda ours: ours.getpeername())

    def getsockname(self) -> Any:
        """Our own address."""
        return self._ask(lambda ours: ours.getsockname())

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> int | bytes:
        """An option's value: an int, or as many bytes as `buflen` says (`socket.getsockopt`)."""
        if buflen:
            return self._ask(lambda ours: ours.getsockopt(level, option, buflen))
        return self._ask(lambda ours: ours.getsockopt(level, option))

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Sets an option (`socket.setsockopt`)."""
        self._ask(lambda ours: ours.setsockopt(level, option, value))

    def _ask(self, question: Callable[[socket.socket], _T]) -> _T:
        with self._duplicate() as ours:
            return question(ours)

    @contextlib.contextmanager
    def _duplicate(self) -> Iterator[socket.socket]:
        # Options belong to the socket, not to the descriptor; a descriptor of our own cannot become
        # somebody else's while we use it.
        descriptor = _core.duplicate_socket(self._request)
        if descriptor is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        with socket.socket(fileno=descriptor) as ours:
            yield ours


class Transport:
    """What asyncio's programs expect of `request.transport`."""

    __slots__ = ("_peername", "_request", "_sockname")

    def __init__(self, request: _core.Request) -> None:
        """Takes the request whose connection it is."""
        self._request = request
        self._peername: tuple[Any, ...] | None = None
        self._sockname: tuple[Any, ...] | None = None

    @property
    def peername(self) -> tuple[Any, ...] | None:
        """The peer's address as `socket` writes it; None when it is not known any more.

        Where connections begin with a header of the PROXY protocol, it is the client that the
        header names. Fields such as X-Forwarded-For change `request.remote_addr` alone.
        """
        if self._peername is None:
            self._peername = _core.peer_address(self._request)
        return self._peername

    @property
    def sockname(self) -> tuple[Any, ...] | None:
        """Our own address; None when the exchange was over before it was asked for first.

        None for a Unix socket, too, which has no address of the internet.
        """
        if self._sockname is None:
            self._sockname = _core.own_address(self._request)
        return self._sockname

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername`, `sockname` or `socket` (a TransportSocket); else the default."""
        if name == "socket":
            return TransportSocket(self._request)
        known = {"peername": self.peername, "sockname": self.sockname}.get(name)
        return default if known is None else known

    def is_closing(self) -> bool:
        """Whether the exchange is over or its connection has ended."""
        return _core.socket_number(self._request) < 0


def transport(self: _core.Request) -> Transport:
    """The connection below this request."""
    memo = self._memo
    if "transport" not in memo:
        memo["transport"] = Transport(self)
    known: Transport = memo["transport"]
    return known


install_attribute("transport", property(transport))
