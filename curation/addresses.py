"""Which internet addresses a stranger's URL may make this machine talk to.

A URL list is written by strangers, and a worker sits inside somebody's network: `http://169.254.169.254/` in a
list is a request for that network's credentials. So only addresses that are public in IANA's special-purpose
registries (RFC 6890 and its updates) are reached. The tables are spelled out here rather than taken from
`ipaddress.is_global`, whose answers changed between Python 3.10 and 3.13. For IPv6 only the allocated 2000::/3 is
public, and an address that carries an IPv4 address inside (mapped, NAT64, 6to4) is judged by the inner one: behind
NAT64 every IPv4-only host looks like that, so refusing them all would refuse half of the web.
"""

from __future__ import annotations

import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_REFUSED_V4: Final = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # "this" network; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; holds Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host agent, inside a public block
        "169.254.0.0/16",  # link-local; holds the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; holds Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_PUBLIC_V6: Final = IPv6Network("2000::/3")
_REFUSED_V6: Final = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
#: Blocks whose addresses carry an IPv4 address, and how many bits to its right.
_CARRIERS: Final = (
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("2002::/16"), 80),  # 6to4
)

_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_NUMERIC: Final = re.compile(r"[0-9a-fx.]+")


def is_public(ip: str) -> bool:
    """Whether `ip`, an IPv4 or IPv6 address in its usual notation, may be reached on behalf of a stranger's URL.

    Raises ValueError for what is no address.
    """
    address = ip_address(ip)
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _REFUSED_V4)
    inner = _carried(address)
    if inner is not None:
        return is_public(str(inner))
    return address in _PUBLIC_V6 and not any(address in block for block in _REFUSED_V6)


def _carried(address: IPv6Address) -> IPv4Address | None:
    for block, shift in _CARRIERS:
        if address in block:
            return IPv4Address((int(address) >> shift) & 0xFFFFFFFF)
    return None


def literal_address(host: str) -> str | None:
    """The address that `host` names without a resolver, in its usual notation, or None where it takes DNS.

    Takes every form that the C library takes: `127.0.0.1`, `127.1`, `0x7f.1`, `0177.0.0.1`, `2130706433`, IPv6
    with or without brackets and zone, digits of other scripts; and `localhost` with the names below it (RFC 6761).
    """
    name = _plain(host)
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return "127.0.0.1"
    bare = name.removeprefix("[").removesuffix("]").partition("%")[0]
    if ":" in bare:
        return _ipv6(bare)
    return _ipv4(bare)


def _plain(host: str) -> str:
    """`host` as a resolver would see it: lower case, ASCII, without the root's dot."""
    try:
        ascii_host = host.encode("idna").decode("ascii")
    except UnicodeError:  # an empty or overlong label: no resolver takes it either
        ascii_host = host
    return ascii_host.lower().removesuffix(".")


def _ipv6(text: str) -> str | None:
    try:
        return str(IPv6Address(text))
    except ValueError:
        return None


def _ipv4(text: str) -> str | None:
    if not _NUMERIC.fullmatch(text):  # inet_aton alone would also take "127.0.0.1 and more"
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        return None


def is_private_host(host: str) -> bool:
    """Whether a URL's host can be refused without DNS: localhost, or a literal address that is not public."""
    address = literal_address(host)
    return address is not None and not is_public(address)
