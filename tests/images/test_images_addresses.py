from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import pytest

from carnac.core.errors import RecordError
from carnac.images import addresses
from carnac.images.addresses import MAX_ADDRESSES, CheckedAddresses, check_literal, is_public, look_up
from carnac.images.urls import parse_url

NONE: Mapping[str, str] = MappingProxyType({})

PRIVATE = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.7 203.0.113.7 224.0.0.1 239.1.1.1
240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1
64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2002:7f00:1::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1
fe80::1%eth0 fec0::1 ff02::1
""".split()  # noqa: SIM905 - a table is read more easily
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.0.1.1", "223.255.255.1"]
PUBLIC += ["::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700::1111"]


@pytest.mark.parametrize("address", PRIVATE)
def test_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_allowed(address: str) -> None:
    assert is_public(address)


async def addresses_of(host: str, names: Mapping[str, str] = NONE, *, allow_private: bool = False) -> list[str]:
    checked = CheckedAddresses(names, allow_private=allow_private)
    try:
        return [found["host"] for found in await checked.resolve(host, 80)]
    finally:
        await checked.close()


@pytest.mark.parametrize(
    "spelling",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F.0.0.1",
        "0177.0.0.1",
        "0177.0x0.0.1",
        "127.1",
        "127.0.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "127.0.0.1.",
        "127\u30020\u30020\u30021",
        "\uff11\uff12\uff17.0.0.1",
        "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
    ],
)
def test_every_spelling_of_this_machine_is_refused_as_it_is_read(spelling: str) -> None:
    with pytest.raises(RecordError, match="refused_address"):
        check_literal(parse_url(f"http://{spelling}/").host, allow_private=False)
    check_literal(parse_url(f"http://{spelling}/").host, allow_private=True)


@pytest.mark.parametrize("name", ["localhost", "2130706433", "0x7f.1", "0177.0.0.1", "0"])
def test_what_the_system_reads_as_this_machine_is_refused(name: str) -> None:
    """Were a spelling to get past our reading, the check behind the system's would meet it."""
    with pytest.raises(RecordError, match="refused_address"):
        asyncio.run(addresses_of(name))


def test_a_socket_is_made_for_public_addresses_only() -> None:
    checked = CheckedAddresses({}, allow_private=False)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:10.0.0.1")):
        with pytest.raises(RecordError, match="refused_address"):
            checked.socket((family, socket.SOCK_STREAM, 0, "", (address, 80)))
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        checked.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("a-name.example", 80)))
    checked.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 80))).close()
    CheckedAddresses({}, allow_private=True).socket(
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))
    ).close()


def answers(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    async def name_server(*_: Any) -> list[str]:
        return list(found)

    monkeypatch.setattr(addresses, "look_up", name_server)


def test_one_private_address_among_others_refuses_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "8.8.8.8", "10.0.0.1")
    with pytest.raises(RecordError, match=r"mixed.example is at 10\.0\.0\.1"):
        asyncio.run(addresses_of("mixed.example"))
    assert asyncio.run(addresses_of("mixed.example", allow_private=True)) == ["8.8.8.8", "10.0.0.1"]


def test_of_many_addresses_a_few_are_tried_and_all_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    public = [f"8.8.8.{number}" for number in range(9)]
    answers(monkeypatch, *public)
    assert asyncio.run(addresses_of("many.example")) == public[:MAX_ADDRESSES]
    answers(monkeypatch, *public, "::1")
    with pytest.raises(RecordError, match="refused_address"):
        asyncio.run(addresses_of("many.example"))


@pytest.mark.parametrize(
    ("host", "address"),
    [("one.test", "8.8.8.1"), ("www.one.test", "8.8.8.2"), ("a.b.two.test", "8.8.8.3"), ("two.test", "8.8.8.3")],
)
def test_given_addresses_are_found_by_name_or_by_the_longest_ending(host: str, address: str) -> None:
    names = {"one.test": "8.8.8.1", "*.one.test": "8.8.8.2", "*.test": "8.8.8.3"}
    assert asyncio.run(addresses_of(host, names)) == [address]


def test_a_given_address_is_checked_like_any_other() -> None:
    with pytest.raises(RecordError, match=r"inside.test is at 169\.254\.169\.254"):
        asyncio.run(addresses_of("inside.test", {"*.test": "169.254.169.254"}))


def test_each_address_is_listed_once() -> None:
    with ThreadPoolExecutor(1) as threads:
        assert asyncio.run(look_up("127.0.0.1", 80, socket.AF_UNSPEC, threads)) == ["127.0.0.1"]
