"""Host names -> sockets to public addresses only.

A page may name any host, also one of the network that carnac runs in, and a name server may answer differently each
time it is asked. So the check sits where a socket is made: names are resolved once, every address is checked, those
very addresses are connected to, and the one that a socket is for is checked once more, wherever it came from.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

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
# A look-up blocks a thread, for 5 to 30 seconds where a name is dead: a few threads would let dead names hold up good
# ones.
MAX_LOOKUPS = 64


@functools.lru_cache(maxsize=4096)
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


def is_address(host: str) -> bool:
    """Tell whether `host`, as `urls` spells it, is an address and no name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def check_address(address: str, host: str, *, allow_private: bool) -> None:
    """Raise `RecordError` `refused_address` unless `address`, that of `host`, may be connected to."""
    if not allow_private and not is_public(address):
        raise RecordError("refused_address", address if address == host else f"{host} is at {address}")


def check_literal(host: str, *, allow_private: bool) -> None:
    """Raise `RecordError` `refused_address` if `host` is an address, no name, and may not be connected to."""
    if is_address(host):
        check_address(host, host, allow_private=allow_private)


async def look_up(host: str, port: int, family: socket.AddressFamily, threads: ThreadPoolExecutor) -> list[str]:
    """Return the addresses of `host` from the system's resolver. Raises OSError."""
    ask = functools.partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    found = await asyncio.get_running_loop().run_in_executor(threads, ask)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedAddresses(AbstractResolver):
    """Knows the addresses of hosts, and makes sockets for public ones only (all, where private ones are allowed).

    `names` maps names to addresses that no name server is asked for, `*.name` all names below one.
    """

    def __init__(self, names: Mapping[str, str], *, allow_private: bool, num_threads: int = MAX_LOOKUPS) -> None:
        self._names = names
        self._allow_private = allow_private
        self._threads = ThreadPoolExecutor(min(num_threads, MAX_LOOKUPS), thread_name_prefix="carnac-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of `host`, all of them checked: no host that is meant for the web has a private one.

        Raises `RecordError` `refused_address`, and OSError (gaierror) where there is none.
        """
        known = self._known(host)
        addresses = [known] if known is not None else await look_up(host, port, family, self._threads)
        for address in addresses:
            check_address(address, host, allow_private=self._allow_private)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=_family(address), proto=0, flags=0)
            for address in addresses[:MAX_ADDRESSES]
        ]

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Return a socket for the address in `info` (as `socket.getaddrinfo` gives it), which is checked."""
        family, kind, protocol, _, address = info
        check_address(address[0], address[0], allow_private=self._allow_private)
        return socket.socket(family=family, type=kind, proto=protocol)

    async def close(self) -> None:
        """Ask for nothing more. A look-up under way cannot be interrupted, and nobody waits for it."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _known(self, host: str) -> str | None:
        """Return the address that the settings give for `host`: of several patterns the longest that fits."""
        if not self._names or host in self._names:
            return self._names.get(host)
        labels = host.split(".")
        patterns = ("*." + ".".join(labels[place:]) for place in range(1, len(labels)))
        return next((self._names[pattern] for pattern in patterns if pattern in self._names), None)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET
