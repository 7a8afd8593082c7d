"""Which proxies are in front of the server, and what they are believed.

Owns the spelling of networks and fields, and where the choice comes from. Knows nothing of requests
and connections: the extension is handed the result.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
from collections.abc import Iterable
from typing import Literal, TypeAlias

from anel.exceptions import ConfigError, SetupError

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
Trusted: TypeAlias = tuple[str, int] | Literal["unix"]

# Networks, whether Unix sockets, names of fields, and whether the PROXY protocol is spoken: what
# the extension takes.
Named: TypeAlias = tuple[list[tuple[str, int]], bool, list[str], bool]


@dataclasses.dataclass(frozen=True)
class Proxies:
    """A choice; what is None was not chosen."""

    trusted: tuple[Trusted, ...] | None = None
    headers: tuple[str, ...] | None = None
    protocol: bool | None = None

    def or_else(self, other: Proxies) -> Proxies:
        """Fills the gaps of this choice with the other's."""
        return Proxies(
            self.trusted if self.trusted is not None else other.trusted,
            self.headers if self.headers is not None else other.headers,
            self.protocol if self.protocol is not None else other.protocol,
        )

    def named(self) -> Named | None:
        """For the extension; None when there are no proxies. Raises ConfigError."""
        if self.protocol and not self.trusted:
            raise ConfigError(
                "proxy_protocol needs trusted_proxies: without them nobody could connect"
            )
        if not self.trusted:
            return None
        headers = _PROXY_HEADERS_DEFAULT if self.headers is None else self.headers
        networks = [one for one in self.trusted if one != _UNIX]
        return networks, _UNIX in self.trusted, list(headers), bool(self.protocol)


def choice(
    trusted: Names | None = None, headers: Names | None = None, protocol: bool | None = None
) -> Proxies:
    """Reads a choice: iterables, or strings with commas. Raises ConfigError with what is wrong."""
    if protocol not in (None, True, False):
        raise ConfigError(f"proxy_protocol must be True, False or None, not {protocol!r}")
    return Proxies(
        None if trusted is None else tuple(map(_trusted, _words("trusted_proxies", trusted))),
        None if headers is None else _headers(_words("proxy_headers", headers)),
        protocol if protocol is None else bool(protocol),
    )


def from_environment() -> Proxies:
    """ANEL_TRUSTED_PROXIES, ANEL_PROXY_HEADERS and ANEL_PROXY_PROTOCOL (0 or 1). Raises SetupError.

    A variable that is empty is as good as absent.
    """
    protocol = os.environ.get("ANEL_PROXY_PROTOCOL") or None
    if protocol not in (None, "0", "1"):
        raise SetupError(None, f"ANEL_PROXY_PROTOCOL must be 0 or 1, not {protocol!r}")
    try:
        return choice(
            os.environ.get("ANEL_TRUSTED_PROXIES") or None,
            os.environ.get("ANEL_PROXY_HEADERS") or None,
            None if protocol is None else protocol == "1",
        )
    except ConfigError as error:
        raise SetupError(None, f"in the environment, {error}") from None


def _words(name: str, value: Names) -> list[str]:
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, Iterable) or isinstance(words, bytes):
        raise ConfigError(f"{name} must be a str or an iterable of str, not {value!r}")
    listed = list(words)
    if not all(isinstance(word, str) for word in listed):
        raise ConfigError(f"{name} must hold str, not {value!r}")
    return [word.strip() for word in listed if word.strip()]


def _trusted(text: str) -> Trusted:
    if text.lower() == _UNIX:
        return _UNIX
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(f"trusted_proxies: {error}{_hint(text)}") from None
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


def _headers(names: list[str]) -> tuple[str, ...]:
    chosen = tuple(name.lower() for name in names)
    for name in chosen:
        if name not in PROXY_HEADERS:
            known = ", ".join(PROXY_HEADERS)
            raise ConfigError(f"proxy_headers must be of {known}, not {name!r}")
    if "forwarded" in chosen and len(set(chosen)) > 1:
        raise ConfigError(
            f"proxy_headers has forwarded beside {', '.join(set(chosen) - {'forwarded'})}: a proxy"
            " that writes one hands on what the client wrote into the other"
        )
    return chosen
