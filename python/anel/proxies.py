"""Which proxies are in front of the server, and what they are believed.

Owns the spelling of networks and fields. Knows nothing of requests and connections: the extension
is handed the result.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Literal, TypeAlias

from anel.exceptions import ConfigError
from anel.settings import Setting, Switch, Words

# What a proxy may say of the client. The first and the last exclude each other: a proxy that writes
# one of them hands on what the client wrote into the other.
PROXY_HEADERS = ("x-forwarded-for", "x-forwarded-host", "forwarded")

# What nearly every proxy writes. The others are passed on unchanged by proxies that do not know of
# them, so they are believed only where somebody says that they may be.
_PROXY_HEADERS_DEFAULT = ("x-forwarded-for",)

# The word for everybody who connects over a Unix socket: such a peer has no address.
_UNIX: Literal["unix"] = "unix"

Names: TypeAlias = str | Iterable[str]

# A network as address and prefix, or the word above.
Proxy: TypeAlias = tuple[str, int] | Literal["unix"]

# Networks, whether Unix sockets, names of fields, and whether the PROXY protocol is spoken: what
# the extension takes.
Named: TypeAlias = tuple[list[tuple[str, int]], bool, list[str], bool]


def believed(words: Iterable[str]) -> list[Proxy]:
    """Addresses, networks and `unix`. Raises ConfigError for what is none of these."""
    return [_proxy(word) for word in words]


def fields(words: Iterable[str]) -> list[str]:
    """Names of fields in lower case. Raises ConfigError for those that are not read."""
    chosen = [word.lower() for word in words]
    for name in chosen:
        if name not in PROXY_HEADERS:
            raise ConfigError(f"known are {', '.join(PROXY_HEADERS)}, not {name!r}")
    if "forwarded" in chosen and len(set(chosen)) > 1:
        raise ConfigError(
            f"forwarded is there beside {', '.join(set(chosen) - {'forwarded'})}: a proxy"
            " that writes one hands on what the client wrote into the other"
        )
    return chosen


def named(
    trusted: Iterable[str] | None, headers: Iterable[str], protocol: bool | None
) -> Named | None:
    """For the extension; None when there are no proxies. Raises ConfigError."""
    known = believed(trusted or ())
    if protocol and not known:
        raise ConfigError("proxy_protocol needs trusted_proxies: without them nobody could connect")
    networks = [one for one in known if one != _UNIX]
    return (networks, _UNIX in known, fields(headers), bool(protocol)) if known else None


def _proxy(text: str) -> Proxy:
    if text.lower() == _UNIX:
        return _UNIX
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"{error}{_hint(text)}") from None
    first = network.network_address
    mapped = first.ipv4_mapped if isinstance(first, ipaddress.IPv6Address) else None
    if mapped is not None and network.prefixlen >= 96:
        # The peers are looked at as IPv4.
        return str(mapped), network.prefixlen - 96
    return str(first), network.prefixlen


def _hint(text: str) -> str:
    if text == "*":
        return "; 0.0.0.0/0 and ::/0 are everybody with an address, unix is everybody without"
    if text.lower().startswith("unix") or text.startswith(("/", "@")):
        return "; unix, without a path, is everybody who connects over a Unix socket"
    return ""


_GROUP = "Proxies in front"

OPTIONS: tuple[Setting, ...] = (
    Words(
        name="trusted_proxies",
        key="trusted-proxies",
        group=_GROUP,
        help="Addresses and networks of the proxies that are believed, with commas; unix is"
        " whoever connects over a Unix socket.",
        check=believed,
        kind="NETWORK,...",
        default=(),
    ),
    Words(
        name="proxy_headers",
        key="proxy-headers",
        group=_GROUP,
        help=f"What they set: {', '.join(PROXY_HEADERS)}.",
        check=fields,
        kind="FIELD,...",
        default=_PROXY_HEADERS_DEFAULT,
    ),
    Switch(
        name="proxy_protocol",
        key="proxy-protocol",
        group=_GROUP,
        help="Only they connect, and begin with a header of the PROXY protocol.",
        default=False,
    ),
)
