"""Who sends a request: the address of the client, behind proxies that are trusted and only those.

``X-Forwarded-For`` is written by whoever likes to. It counts only if the connection comes from one
of ``CELERIAC["TRUSTED_PROXIES"]``, and then from its right end: each proxy adds the address that it
saw, so the last address that isn't a trusted proxy's is the client's, and what stands before it is
the client's own invention.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from django.http import HttpRequest

from celeriac.errors import ConfigurationError

__all__ = ["address", "trusted_networks"]

Network = IPv4Network | IPv6Network

#: In TRUSTED_PROXIES: connections without an address, over a Unix socket.
UNIX = "unix"


def trusted_networks(given: object) -> tuple[frozenset[Network], bool]:
    """TRUSTED_PROXIES as networks, and whether Unix sockets are trusted.

    Raises:
        ConfigurationError: one of them is no address and no network.
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ConfigurationError(
            f"TRUSTED_PROXIES in CELERIAC must be a list of addresses and networks, not {given!r}"
        )
    networks = set()
    unix = False
    for each in given:
        if each == UNIX:
            unix = True
            continue
        try:
            networks.add(ip_network(str(each)))
        except ValueError as error:
            raise ConfigurationError(
                f"TRUSTED_PROXIES in CELERIAC: {error}; write '10.0.0.7', '10.0.0.0/8' or "
                f"'{UNIX}' for connections over a Unix socket"
            ) from None
    return frozenset(networks), unix


@functools.lru_cache(maxsize=1024)
def _is_trusted(text: str, networks: frozenset[Network]) -> bool:
    try:
        found = ip_address(text)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any(found in network or (mapped and mapped in network) for network in networks)


def address(request: HttpRequest, networks: frozenset[Network], unix: bool = False) -> str:
    """The client's address; the connection's own where nothing better can be trusted.

    An IPv6 client has a network of its own: of its address the first 64 bits count.
    """
    peer = str(request.META.get("REMOTE_ADDR") or "")
    if (unix and not peer) or _is_trusted(peer, networks):
        for hop in reversed(str(request.META.get("HTTP_X_FORWARDED_FOR", "")).split(",")):
            hop = hop.strip()
            if not _is_address(hop):
                break
            peer = hop
            if not _is_trusted(hop, networks):
                break
    return _client(peer)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=1024)
def _client(text: str) -> str:
    try:
        found = ip_address(text)
    except ValueError:
        return text
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ip_network((int(found) >> 64 << 64, 64)))
