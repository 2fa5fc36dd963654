from __future__ import annotations

import asyncio

import httpcore2
import pytest

from carnac.core.errors import RecordError
from carnac.images import addresses
from carnac.images.addresses import CheckedNetwork, is_public, resolve

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


@pytest.mark.parametrize(
    "spelling",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "::1", "::ffff:127.0.0.1"],
)
def test_every_spelling_of_this_machine_is_refused(spelling: str) -> None:
    """The check is behind the system's own reading of the name, so it cannot be fooled by a spelling."""
    with pytest.raises(RecordError) as caught:
        asyncio.run(CheckedNetwork(allow_private_addresses=False).connect_tcp(spelling, 9))
    assert caught.value.reason == "refused_address"


def test_one_private_address_among_others_refuses_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mixed(host: str, port: int) -> list[str]:
        return ["8.8.8.8", "10.0.0.1"]

    monkeypatch.setattr(addresses, "resolve", mixed)
    with pytest.raises(RecordError, match=r"mixed.example is at 10\.0\.0\.1"):
        asyncio.run(CheckedNetwork(allow_private_addresses=False).connect_tcp("mixed.example", 80))


def test_a_name_that_is_none() -> None:
    with pytest.raises(RecordError, match="bad_url"):
        asyncio.run(CheckedNetwork(allow_private_addresses=False).connect_tcp("a" * 70 + ".example", 80))


def test_no_address_and_a_slow_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(host: str, port: int) -> list[str]:
        return []

    async def never(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    network = CheckedNetwork(allow_private_addresses=False)
    monkeypatch.setattr(addresses, "resolve", nothing)
    with pytest.raises(httpcore2.ConnectError, match="no address"):
        asyncio.run(network.connect_tcp("none.example", 80))
    monkeypatch.setattr(addresses, "resolve", never)
    with pytest.raises(httpcore2.ConnectTimeout, match="name server"):
        asyncio.run(network.connect_tcp("slow.example", 80, timeout=0.05))


def test_resolve_lists_each_address_once() -> None:
    assert asyncio.run(resolve("127.0.0.1", 80)) == ["127.0.0.1"]
