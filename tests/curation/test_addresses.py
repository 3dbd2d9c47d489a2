"""Addresses that a stranger's URL must not reach, in every notation the C library takes."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest

from curation.addresses import is_private_host, is_public, literal_address


@pytest.mark.parametrize(
    "ip",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
        *("168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1"),
        *("198.19.0.1", "203.0.113.9", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::808:808", "::127.0.0.1"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1"),
        *("100::1", "5f00::1", "3fff::1", "::ffff:0:127.0.0.1"),
    ],
)
def test_refuses_every_special_purpose_address(ip: str) -> None:
    assert not is_public(ip)


@pytest.mark.parametrize(
    "ip",
    [
        *(
            "8.8.8.8",
            "1.1.1.1",
            "172.15.255.255",
            "172.32.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "223.255.255.255",
        ),
        *("169.253.1.1", "192.0.1.1", "168.63.129.17", "2606:4700::1111", "2a00:1450:4001:81b::200e"),
        *("::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
    ],
)
def test_lets_public_addresses_through(ip: str) -> None:
    assert is_public(ip)


def test_never_more_generous_than_the_standard_library() -> None:
    draw = random.Random(0)
    addresses = [IPv4Address(draw.getrandbits(32)) for _ in range(20_000)]
    assert [str(a) for a in addresses if is_public(str(a)) and not a.is_global] == []


def test_what_is_no_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="example"):
        is_public("example.com")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "127.0.1", "0x7f.0.0.1", "0x7f000001", "0177.0.0.1", "017700000001", "2130706433"),
        *("127.0.0.1.", "localhost", "LOCALHOST.", "pictures.localhost", "１２７.0.0.1", "127。0。0。1"),
    ],
)
def test_every_spelling_of_loopback_is_seen_without_dns(host: str) -> None:
    assert literal_address(host) == "127.0.0.1"
    assert is_private_host(host)


@pytest.mark.parametrize(
    ("host", "address"),
    [("[::1]", "::1"), ("::1", "::1"), ("[fe80::1%25eth0]", "fe80::1"), ("[::ffff:7f00:1]", "::ffff:7f00:1")],
)
def test_ipv6_literals_are_seen_with_and_without_brackets(host: str, address: str) -> None:
    assert literal_address(host) in {address, "::ffff:127.0.0.1"}  # Python 3.13 prints mapped ones with dots
    assert is_private_host(host)


@pytest.mark.parametrize(
    "host",
    ["example.com", "localhost.example.com", "127.0.0.1.example.com", "256.1.1.1", "10.0.0.1 x", "", "a..b"],
)
def test_names_take_dns(host: str) -> None:
    assert literal_address(host) is None
    assert not is_private_host(host)


def test_a_public_literal_is_not_private() -> None:
    assert literal_address("8.8.8.8") == "8.8.8.8"
    assert literal_address("0x08080808") == "8.8.8.8"
    assert not is_private_host("8.8.8.8")
