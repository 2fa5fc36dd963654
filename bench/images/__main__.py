"""`scripts/bench images acceptance | peers | memory`: the images job over a loopback web of our own.

acceptance   20,000 good pictures on 200 hosts and all that goes wrong on the web, killed on the way and taken up again
peers        images per CPU second beside img2dataset, on the same URLs, in turns; --peer names its virtual environment
memory       peak memory at 10,000 and at 100,000 URLs
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from turns import machine

from images.beside import compare, grow
from images.large import accept_large


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(prog="images", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("which", choices=("acceptance", "peers", "memory"))
    parser.add_argument("--peer", type=Path, help="virtual environment in which img2dataset is installed")
    parser.add_argument("--urls", type=int, default=20_000, help="peers: URLs of a round")
    parser.add_argument("--rounds", type=int, default=3, help="peers: rounds in turns")
    parser.add_argument("--folder", type=Path, help="folder to work in, kept afterwards")
    asked = parser.parse_args()
    if asked.which == "peers" and asked.peer is None:
        parser.error("peers: say with --peer where img2dataset is installed (python -m venv, pip install img2dataset)")
    print(f"{time.strftime('%Y-%m-%d')}, {machine()}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (asked.folder or Path(scratch)) / asked.which
        if asked.which == "acceptance":
            accept_large(folder)
        elif asked.which == "peers":
            compare(folder, asked.peer, asked.urls, asked.rounds)
        else:
            grow(folder)


if __name__ == "__main__":
    main()
