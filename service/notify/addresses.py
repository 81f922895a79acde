"""Which network addresses a request that leaves this machine may go to."""

from __future__ import annotations

import ipaddress

_CARRIERS = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""NAT64 and the old "IPv4-compatible" addresses: the last 32 bits are an IPv4 address."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet.

    Loopback, private, link-local (where clouds answer with credentials), carrier-grade NAT,
    multicast, reserved and unspecified addresses are not, nor are IPv6 addresses that carry such
    an IPv4 address inside them.

    Raises
    ------
    ValueError
        If it is not an IP address.

    Examples
    --------
    >>> [is_public(a) for a in ("93.184.216.34", "10.0.0.1", "::ffff:127.0.0.1", "fe80::1")]
    [True, False, False, False]
    """
    ip = ipaddress.ip_address(address)
    return all(a.is_global and not a.is_multicast for a in (ip, *_carried(ip)))


def _carried(ip: IPAddress) -> list[IPAddress]:
    """IPv4 addresses that a gateway would take an IPv6 address to."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    carried: list[IPAddress | None] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if any(ip in network for network in _CARRIERS):
        carried.append(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF))
    return [a for a in carried if a is not None]
