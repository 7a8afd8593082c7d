"""Which proxies are in front of the server, and what they are believed.

Owns the spelling of networks and fields. Knows nothing of requests and connections: the extension
is handed the result.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TypeAlias

from anel.exceptions import ConfigError

# What a proxy may say of the client. The first and the last exclude each other: a proxy that writes
# one of them hands on what the client wrote into the other.
PROXY_HEADERS = ("x-forwarded-for", "x-forwarded-host", "forwarded")

# What nearly every proxy writes. The others are passed on unchanged by proxies that do not know of
# them, so they are believed only where somebody says that they may be.
PROXY_HEADERS_DEFAULT = ("x-forwarded-for",)

Names: TypeAlias = str | Iterable[str]

# Networks as address and prefix, names of fields, and whether the PROXY protocol is spoken: what
# the extension takes.
Named: TypeAlias = tuple[list[tuple[str, int]], list[str], bool]


def networks(words: Iterable[str]) -> list[tuple[str, int]]:
    """Addresses and networks, as address and prefix. Raises ConfigError for what is none."""
    return [_network(word) for word in words]


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
    believed = networks(trusted or ())
    if protocol and not believed:
        raise ConfigError("proxy_protocol needs trusted_proxies: without them nobody could connect")
    return (believed, fields(headers), bool(protocol)) if believed else None


def _network(text: str) -> tuple[str, int]:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        hint = "; 0.0.0.0/0 and ::/0 are everybody" if text == "*" else ""
        raise ConfigError(f"{error}{hint}") from None
    first = network.network_address
    mapped = first.ipv4_mapped if isinstance(first, ipaddress.IPv6Address) else None
    if mapped is not None and network.prefixlen >= 96:
        # The peers are looked at as IPv4.
        return str(mapped), network.prefixlen - 96
    return str(first), network.prefixlen
