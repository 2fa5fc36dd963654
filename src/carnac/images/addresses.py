"""Host names -> connections to public addresses only.

A page may name any host, also one of the network that carnac runs in, and a name server may answer differently each
time it is asked. So the check sits where the connection is made: names are resolved once, every address is checked,
and those very addresses are connected to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

import httpcore2

from carnac.core.errors import RecordError

# IANA special-purpose registries, kept here because `ipaddress.is_global` differs between Python versions.
REFUSED_IPV4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by carriers; metadata of one cloud
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # metadata of one cloud, inside a public range
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; metadata of one cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
REFUSED_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: holds any IPv4 address
        "3fff::/20",  # documentation
    )
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

MAX_ADDRESSES = 4  # tried for one host


def is_public(address: str) -> bool:
    """Tell whether `address` is a unicast address of the public internet; IPv4 inside IPv6 is looked at as IPv4."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed in NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in REFUSED_IPV4)
    return parsed in GLOBAL_IPV6 and not any(parsed in network for network in REFUSED_IPV6)


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of `host` (a name, or an address in any spelling that the system accepts)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses only, unless `allow_private_addresses`."""

    def __init__(self, *, allow_private_addresses: bool) -> None:
        self._allow_private_addresses = allow_private_addresses
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve `host`, check every address, and connect to the first that answers.

        Raises `RecordError` `refused_address` if any address is not public: no host that is meant for the web has one.
        """
        addresses = await self._checked_addresses(host, port, timeout)
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(
                    address,
                    port,
                    timeout=None if timeout is None else timeout / len(addresses),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def _checked_addresses(self, host: str, port: int, timeout: float | None) -> list[str]:
        try:
            async with asyncio.timeout(timeout):
                addresses = await resolve(host, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"{host}: no answer from the name server") from error
        except OSError as error:
            raise httpcore2.ConnectError(f"{host}: {error}") from error
        except UnicodeError as error:
            raise RecordError("bad_url", f"{host}: {error}") from error
        if not self._allow_private_addresses:
            for address in addresses:
                if not is_public(address):
                    raise RecordError("refused_address", f"{host} is at {address}")
        return addresses[:MAX_ADDRESSES]
