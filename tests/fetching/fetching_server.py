"""`python fetching_server.py FOLDER [--isolated] [--quick] [--hosts N] [--max-side-px N]`: the web of `fetching_site`.

Writes FOLDER/server.json (its ports) once it listens and FOLDER/requests.log as it goes: `fetching_log` reads it. Ends
with its parent's standard input. With --isolated it first makes a network of its own, of which nothing leads out, and
listens on a public address and on private ones; without, on 127.0.0.1 alone, or with --hosts on so many addresses of
loopback, which anybody reaches without a name. With --quick there is no latency, and all pictures are JPEGs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from fetching_answers import Answer, answer, make_bombs
from fetching_network import make_network
from fetching_pictures import Pictures
from fetching_site import PRIVATE_ADDRESSES, PUBLIC_ADDRESS, loopback_addresses

SLOW_SECONDS = 0.05
FLUSH_SECONDS = 0.05


class Log:
    """Lines of what happens: C connection, B begin of a request, E its end; the second field is a time."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self.connections = count()
        self.requests = count()
        self.seen: set[tuple[str, str]] = set()

    def write(self, *fields: object) -> None:
        """Append a line. The clock is that of all processes of the machine."""
        kind, *others = fields
        self._file.write(f"{kind}\t{time.monotonic():.6f}\t" + "\t".join(map(str, others)) + "\n")

    async def flush_for_ever(self) -> None:
        """Let readers see what is written."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self._file.flush()

    def flush(self) -> None:
        """Let readers see what is written, now."""
        self._file.flush()


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, each answered as `fetching_answers` says."""

    def __init__(self, log: Log, pictures: Pictures, *, quick: bool) -> None:
        self._log, self._pictures, self._quick = log, pictures, quick
        self._number = next(log.connections)
        self._received = b""
        self._request: int | None = None
        self._answer: Answer | None = None
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._address, self._port = transport.get_extra_info("sockname")[:2]
        self._log.write("C", self._number, self._address)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" in self._received and self._request is None:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._begin(head.decode("latin-1"))
        elif len(self._received) > 65536 or self._received[:1] == b"\x16":  # a TLS hello
            self._transport.close()

    def _begin(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        path = first.split(" ")[1]
        host = next((line[5:].strip() for line in lines if line[:5].lower() == "host:"), "").lower()
        name = host.rpartition(":")[0] or host
        self._request = next(self._log.requests)
        self._log.write("B", self._request, self._number, self._address, host, path)
        is_first = (host, path) not in self._log.seen
        self._log.seen.add((host, path))
        made = self._answer = answer(self._pictures, name, path, is_first=is_first, port=self._port)
        if made.way == "whole" and (self._quick or not made.latency):
            self._transport.write(made.raw)
            self._end(is_whole=True)
        else:
            self._task = asyncio.get_running_loop().create_task(self._send(made))

    async def _send(self, made: Answer) -> None:
        await asyncio.sleep(0 if self._quick else made.latency)
        if made.way == "silent":
            await asyncio.sleep(3600)
        elif made.way == "slow":
            for place in range(len(made.raw)):
                self._transport.write(made.raw[place : place + 1])
                await asyncio.sleep(SLOW_SECONDS)
        elif made.way != "drop":
            self._transport.write(made.raw)
        while made.way == "endless":
            await self._may_write.wait()
            self._transport.write(made.raw[-65536:])
            await asyncio.sleep(0)
        self._end(is_whole=made.way != "drop")

    def _end(self, *, is_whole: bool) -> None:
        if self._request is None or self._answer is None:
            return
        self._log.write("E", self._request, self._answer.status, int(is_whole))
        self._request = None
        if not self._answer.keeps:
            self._transport.close()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._may_write.set()
        self._end(is_whole=False)


async def serve(folder: Path, addresses: Sequence[str], pictures: Pictures, *, quick: bool) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    log = Log(folder / "requests.log")
    port = 0
    for address in addresses:
        server = await loop.create_server(
            lambda: Connection(log, pictures, quick=quick), address, port, backlog=4096, reuse_address=True
        )
        port = server.sockets[0].getsockname()[1]
    with socket.socket() as dead:  # bound, so that nobody else takes the port, but deaf
        dead.bind((addresses[0], 0))
        (folder / "server.json.new").write_text(json.dumps({"port": port, "dead_port": dead.getsockname()[1]}))
        (folder / "server.json.new").replace(folder / "server.json")
        flushing = loop.create_task(log.flush_for_ever())
        await loop.run_in_executor(None, sys.stdin.buffer.read)
        flushing.cancel()
    log.flush()


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--isolated", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--hosts", type=int)
    parser.add_argument("--max-side-px", type=int, default=160)
    asked = parser.parse_args()
    addresses = ["127.0.0.1"] if asked.hosts is None else loopback_addresses(asked.hosts)
    if asked.isolated:
        addresses = [PUBLIC_ADDRESS, *PRIVATE_ADDRESSES]
        make_network(addresses)
    make_bombs()
    pictures = Pictures(asked.max_side_px, only_jpeg=asked.quick)
    asyncio.run(serve(asked.folder, addresses, pictures, quick=asked.quick))


if __name__ == "__main__":
    main()
