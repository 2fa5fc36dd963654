"""A network of one machine without a cable, with any addresses that one likes: none of its packets can leave it.

In it the fetcher's own rules hold, unloosened: its public web is public, its private addresses are private and have
listeners. `python fetching_network.py PROCESS COMMAND ...` runs a command in the network of a process.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # unshare(2)


class NoNetwork(Exception):  # noqa: N818 -- says why, nothing is wrong
    """A network of its own cannot be made here."""


def make_network(addresses: Sequence[str]) -> None:
    """Move this process into a new network that has these addresses. Raises NoNetwork where that is not allowed."""
    if os.geteuid() == 0:
        _call("unshare", CLONE_NEWNET)
    else:
        user, group = os.geteuid(), os.getegid()
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _ip("link", "set", "lo", "up")
    for address in addresses:
        if not address.startswith("127."):
            _ip("address", "add", f"{address}/32", "dev", "lo")


def can_make_network() -> bool:
    """Say whether a network of its own can be made here."""
    return subprocess.run([sys.executable, __file__, "try"], capture_output=True, check=False).returncode == 0


def inside(process: int, command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` in the network of `process`."""
    return [sys.executable, __file__, str(process), *command]


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoNetwork(f"ip {' '.join(words)}: {error}") from error


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise NoNetwork(f"{name}: {os.strerror(ctypes.get_errno())}")


def _join(process: int) -> None:
    for kind in ("user", "net"):
        theirs, ours = (Path(f"/proc/{who}/ns/{kind}") for who in (process, "self"))
        if theirs.readlink() == ours.readlink():
            continue
        handle = os.open(theirs, os.O_RDONLY)
        _call("setns", handle, 0)
        os.close(handle)


def main() -> None:
    """Become the command, in the other's network."""
    if sys.argv[1] == "try":
        make_network(["198.41.0.9"])
        return
    _join(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 -- given by the tests


if __name__ == "__main__":
    main()
