"""The listening sockets.

Owns where a server listens (ports, paths, or descriptors that somebody else opened), the options
of its sockets, and which of them belong to which worker slot. A port has one socket per slot, with
SO_REUSEPORT: the kernel spreads connections over them, and the next worker of a slot finds those
that its predecessor left in the queue. Slots may be added and given up. What cannot be opened twice
is shared by all slots. Knows nothing of workers.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from typing import Any

from anel.exceptions import ConfigError
from anel.settings import Number, Setting, Text, Words
from anel.socket_path import PATH_BYTES_MAX, SocketPath, mode
from anel.steering import deafen, steer

# As many as the kernel allows (it caps this at net.core.somaxconn, 4096 by default since Linux
# 5.4).
BACKLOG = 4096


@dataclasses.dataclass(frozen=True)
class Place:
    """Where to listen: descriptors go before a path, that before host and port.

    The empty host is every IPv4 address, as in `socket`; "::" is every address, IPv4 included.
    Raises ConfigError for what is none of these.
    """

    host: str
    port: int
    path: str | None = None
    descriptors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Checks everything, used or not: a mistake is a mistake."""
        host, port, path = self.host, self.port, self.path
        if not isinstance(host, str):
            raise ConfigError(f"host must be a str, not {host!r}")
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise ConfigError(f"port must be a number from 0 to 65535, not {port!r}")
        if path is not None and (not isinstance(path, str) or not path or "\0" in path):
            raise ConfigError(f"uds must be the path of a socket, not {path!r}")
        if path is not None and len(os.fsencode(path)) > PATH_BYTES_MAX:
            raise ConfigError(f"uds must have {PATH_BYTES_MAX} bytes at most, not {path!r}")
        for number in self.descriptors:
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ConfigError(f"fd must be the number of a descriptor, not {number!r}")

    @classmethod
    def at(cls, text: str) -> Place:
        """`host:port`, `[::1]:port`, `:port`, `unix:path` or `fd:number`. Raises ConfigError."""
        kind, colon, rest = text.partition(":")
        if kind == "unix" and rest:
            return cls("", 0, rest)
        if kind == "fd" and rest.isdecimal() and rest.isascii():
            return cls("", 0, descriptors=(int(rest),))
        host, colon, port = text.rpartition(":")
        is_bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
        if not colon or not port.isdecimal() or not port.isascii() or is_bare_ipv6:
            raise ConfigError(
                f"a place must be host:port, [ipv6]:port, unix:path or fd:number, not {text!r}"
            )
        return cls(host, int(port))

    def __str__(self) -> str:
        """As it is named when it cannot be had."""
        if self.descriptors:
            return " and ".join(f"descriptor {number}" for number in self.descriptors)
        return self.path if self.path is not None else f"{self.host}:{self.port}"


class ListenError(OSError):
    """A place that cannot be had. The number and the words are the kernel's."""

    def __init__(self, place: Place, error: OSError) -> None:
        """Takes what the kernel said of this place."""
        super().__init__(error.errno, error.strerror or str(error))
        self.place = place


@dataclasses.dataclass
class _Opened:
    """The sockets of a place: one per slot, or those that all slots share."""

    place: Place
    is_shared: bool
    sockets: list[socket.socket] = dataclasses.field(default_factory=list)

    def of(self, slot: int) -> list[socket.socket]:
        return self.sockets if self.is_shared else [self.sockets[slot]]

    def add(self, slot: int) -> None:
        """Opens the socket of another slot, the next one, where the last one is."""
        if not self.is_shared:
            assert slot == len(self.sockets)
            last = self.sockets[-1]
            _open_slot(self.sockets, last.family, last.getsockname())

    def give_up(self, slot: int) -> None:
        """Closes this process's descriptor of the last slot."""
        if not self.is_shared and slot < len(self.sockets):
            assert slot == len(self.sockets) - 1
            self.sockets.pop().close()

    def addresses(self) -> list[str]:
        if self.is_shared:
            return [_address(listener, None) for listener in self.sockets]
        return [_address(self.sockets[0], self.place.host)]


class Listeners:
    """The listening sockets of a server, by worker slot. The one who opened them closes them."""

    def __init__(
        self, places: Sequence[Place], slots: int | None = None, path_mode: int | None = None
    ) -> None:
        """Binds and listens; ListenError when the kernel refuses.

        Without `slots` the sockets are for one process alone; without `path_mode` the umask says
        who may connect to a path.
        """
        # How many slots new connections go to; None for all of them.
        self._steered: int | None = None
        self._path_mode = path_mode
        self._paths: list[SocketPath] = []
        self._opened: list[_Opened] = []
        try:
            for place in places:
                self._open(place, slots)
        except BaseException:
            self.close()
            raise

    def of(self, slot: int) -> list[socket.socket]:
        """Those that the worker of a slot accepts from."""
        return [listener for opened in self._opened for listener in opened.of(slot)]

    def are_shared(self) -> bool:
        """Whether all slots accept from the same sockets."""
        return all(opened.is_shared for opened in self._opened)

    def add(self, slot: int) -> None:
        """Opens the sockets of another slot, the next one. ListenError when the kernel refuses.

        It shares a port with the user alone who opened it first.
        """
        for opened in self._opened:
            try:
                opened.add(slot)
            except OSError as error:
                self.give_up(slot)
                raise ListenError(opened.place, error) from None

    def give_up(self, slot: int) -> None:
        """Closes this process's descriptors of the last slot; who is in its queue is a worker's."""
        for opened in self._opened:
            opened.give_up(slot)

    def steer(self, slots: int) -> bool:
        """Has new connections go to the first so many slots alone, as soon as there are more.

        Returns whether they do. Who is on the way to another slot still arrives there.
        """
        if self._steered == slots:
            return True
        steered = [steer(one.sockets[0], slots) for one in self._opened if not one.is_shared]
        self._steered = slots if all(steered) else None
        return all(steered)

    def keep(self, slot: int | None) -> None:
        """Closes those of other slots. For a worker: nobody else would accept from them.

        Without a slot all are closed, and paths stay: they are the parent's.
        """
        for opened in self._opened:
            if opened.is_shared:
                shut(opened.sockets if slot is None else ())
                continue
            for number, listener in enumerate(opened.sockets):
                if number != slot:
                    listener.close()

    def addresses(self) -> str:
        """Where they listen, as URLs: the hosts as they were given, the ports as bound."""
        return ", ".join(address for opened in self._opened for address in opened.addresses())

    def refuse_more(self) -> None:
        """Has the kernel queue nobody else, as far as it can, for the time until they are closed.

        Who is in a queue when that happens is reset. What is shared is left alone: it may be
        somebody else's, and another server's soon.
        """
        for opened in self._opened:
            for listener in () if opened.is_shared else opened.sockets:
                if listener.fileno() >= 0:
                    deafen(listener)
                    listener.listen(0)

    def close(self) -> None:
        """Closes all of them. A path of ours is free again, unless it is somebody else's now."""
        for opened in self._opened:
            shut(opened.sockets)
        for path in self._paths:
            path.remove()
        self._paths = []

    def give_to(self, uid: int, gid: int) -> None:
        """Makes the paths another user's, who may then remove them. OSError if that may not be."""
        for path in self._paths:
            path.give_to(uid, gid)

    def _open(self, place: Place, slots: int | None) -> None:
        is_shared = bool(place.descriptors) or place.path is not None
        opened = _Opened(place, is_shared)
        self._opened.append(opened)
        try:
            if place.path is not None and not place.descriptors:
                opened.sockets.append(self._open_path(place.path))
            elif is_shared:
                for number in place.descriptors:
                    opened.sockets.append(_adopt(number))
            else:
                _open_port(opened.sockets, place.host, place.port, slots)
        except OSError as error:
            raise ListenError(place, error) from None

    def _open_path(self, path: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        try:
            self._paths.append(SocketPath(listener, path, self._path_mode))
            _listen(listener)
        except BaseException:
            listener.close()
            raise
        return listener


def _open_port(sockets: list[socket.socket], host: str, port: int, slots: int | None) -> None:
    """Appends a socket for each slot; those there are when it fails are there to be closed."""
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    family = _family(host)
    if slots is None:
        listener = _new(family)
        sockets.append(listener)
        listener.bind((host, port))
        _listen(listener)
        return
    if port != 0:
        # With SO_REUSEPORT a second server would get the port, too, and half the connections.
        with _new(family) as probe:
            probe.bind((host, port))
    _open_slot(sockets, family, (host, port))
    for _ in range(1, slots):
        _open_slot(sockets, family, sockets[0].getsockname())


def _open_slot(sockets: list[socket.socket], family: int, address: Any) -> None:
    listener = _new(family)
    try:
        # Also where there is one slot: it may get company.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        _listen(listener)
    except BaseException:
        listener.close()
        raise
    sockets.append(listener)


def _family(host: str) -> socket.AddressFamily:
    """IPv4, unless only IPv6 will do."""
    if ":" in host:
        return socket.AF_INET6
    if host == "":
        return socket.AF_INET
    found = {entry[0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    return socket.AF_INET if socket.AF_INET in found else socket.AF_INET6


def _new(family: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    # A restarted server binds although old connections are in TIME_WAIT.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit it on Linux. A turn's answers leave in one send, so waiting for
    # more (Nagle's algorithm) only delays them.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if family == socket.AF_INET6:
        # "::" has one meaning on every machine, whatever net.ipv6.bindv6only says.
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return listener


def _listen(listener: socket.socket) -> None:
    listener.listen(BACKLOG)
    listener.setblocking(False)


def _adopt(number: int) -> socket.socket:
    """A socket that somebody else opened; OSError when it is not one to accept from."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    listener = socket.socket(fileno=number)
    try:
        # Programs that handlers start have no use for it.
        listener.set_inheritable(False)
        if listener.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        if listener.family != socket.AF_UNIX:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # For one that is bound but does not listen yet; to the others it gives our backlog.
        _listen(listener)
    except BaseException:
        listener.close()
        raise
    return listener


def _address(listener: socket.socket, host: str | None) -> str:
    if listener.family == socket.AF_UNIX:
        path = listener.getsockname()
        return f"unix:{path if isinstance(path, str) else '@' + os.fsdecode(path[1:])}"
    bound_host, port = listener.getsockname()[:2]
    shown = host or bound_host
    bracketed = ":" in shown and not shown.startswith("[")
    return f"http://[{shown}]:{port}" if bracketed else f"http://{shown}:{port}"


def take_queued(listener: socket.socket) -> Iterator[socket.socket]:
    """Accepts those who are in the queue, and no more than fit into it."""
    for _ in range(BACKLOG if listener.fileno() >= 0 else 0):
        try:
            yield listener.accept()[0]
        except OSError:
            # Mostly because nobody is left (EAGAIN).
            return


def shut(listeners: Sequence[socket.socket]) -> None:
    """Closes this process's descriptors of some listening sockets."""
    for listener in listeners:
        listener.close()


_GROUP = "Where to listen"

# The kernel's own bound (fs.nr_open) is below it.
_DESCRIPTOR_MAX = 2**31 - 1

OPTIONS: tuple[Setting, ...] = (
    Words(
        name="bind",
        key="bind",
        flags=("-b",),
        group=_GROUP,
        help="Place to listen on: HOST:PORT, [IPV6]:PORT, unix:PATH or fd:NUMBER; may be given"
        " several times, and goes before the others here.",
        check=lambda words: [Place.at(word) for word in words],
        kind="PLACE",
        repeatable=True,
        default=(),
    ),
    Text(
        name="host",
        key="host",
        flags=("-H",),
        group=_GROUP,
        help="Address to listen on.",
        kind="ADDRESS",
        default="127.0.0.1",
        # Japronto's, as is its port.
        default_of_run="0.0.0.0",
        may_be_empty=True,
        wanted="a str",
    ),
    Number(
        name="port",
        key="port",
        flags=("-p",),
        group=_GROUP,
        help="Port; 0 picks one.",
        foreign=("PORT",),
        default=8000,
        default_of_run=8080,
        minimum=0,
        maximum=65535,
        wanted="a number from 0 to 65535",
    ),
    Text(
        name="uds",
        key="uds",
        group=_GROUP,
        help="Listen on a Unix socket instead.",
        kind="PATH",
        wanted="the path of a socket",
    ),
    Text(
        name="uds_mode",
        key="uds-mode",
        group=_GROUP,
        help="Who may connect to Unix sockets, as an octal number such as 660; default: whom the"
        " umask leaves.",
        check=mode,
        kind="OCTAL",
        wanted="an octal number",
    ),
    Number(
        name="fd",
        key="fd",
        group=_GROUP,
        help="Listen on a descriptor that somebody else has opened. Sockets of systemd's are taken"
        " as they come.",
        minimum=0,
        maximum=_DESCRIPTOR_MAX,
        wanted="the number of a descriptor",
    ),
)
