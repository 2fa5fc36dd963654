"""A process that writes objects through the engine, for a reader to watch.

python store_writer.py URL COUNT MEGABYTES
"""

from __future__ import annotations

import hashlib
import os
import sys

from carnac.core.places import place_of
from carnac.engine.storage import commit, temporary_path


def sealed(num_bytes: int) -> bytes:
    """Return random bytes that end with the SHA-256 of what goes before."""
    body = os.urandom(num_bytes - 32)
    return body + hashlib.sha256(body).digest()


def is_sealed(content: bytes) -> bool:
    """Say whether `content` is whole."""
    return hashlib.sha256(content[:-32]).digest() == content[-32:]


def main() -> None:
    """Write each object under its own name, twice, and name it on a line of its own once it is committed."""
    folder, count, num_bytes = place_of(sys.argv[1]), int(sys.argv[2]), int(float(sys.argv[3]) * 1e6)
    for number in range(count):
        for _ in range(2):  # the second one replaces the first
            final = folder / f"{number:05d}.bin"
            temporary = temporary_path(final)
            temporary.write_bytes(sealed(num_bytes))
            commit(temporary, final)
        print(final.name, flush=True)


if __name__ == "__main__":
    main()
