"""carnac and img2dataset fetch the same URLs of a loopback web, in turns: CPU seconds, memory, and what they kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fetching_run import Server, carnac_command, serving, table, write_documents, write_recipe
from fetching_site import loopback_addresses

HERE = Path(__file__).parent
NUM_HOSTS = 200
MAX_SIDE_PX = 1024
DOCUMENTS_PER_PART = 5000  # the documents of a WARC file have some 40,000 images
CONNECTIONS = 32
TIMEOUT_SECONDS = 10
# As img2dataset asks: no pause between two requests, as many at once to a host as there are connections.
HURRIED = {
    "num_connections": CONNECTIONS,
    "num_connections_per_host": CONNECTIONS,
    "delay_seconds": 0.0,
    "retries": 0,
    "timeout_seconds": float(TIMEOUT_SECONDS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to fetch images: what is `done` to each, by whom, and the settings that say so."""

    name: str
    done: str
    settings: Mapping[str, Any]
    is_ours: bool


# Pairs that do the same work. img2dataset decodes an image only in order to encode it again.
AS_RECEIVED = "stored as received, sha256"
DECODED = "decoded whole"
WAYS = (
    Way(
        name="carnac",
        done=AS_RECEIVED,
        is_ours=True,
        settings={"store": "original", "decode": False},
    ),
    Way(name="img2dataset", done=AS_RECEIVED, is_ours=False, settings={"disable_all_reencoding": True}),
    Way(name="carnac", done=DECODED, is_ours=True, settings={"store": "clean"}),
    Way(name="img2dataset", done=DECODED, is_ours=False, settings={"disable_all_reencoding": False}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run cost: CPU and wall seconds, peaks of memory in MB; and how many images it kept."""

    cpu_seconds: float
    wall_seconds: float
    peak_tree_mb: float
    peak_process_mb: float
    kept: int
    output_mb: float


def quick_server(folder: Path) -> Callable[[], Any]:
    """Return what starts a server without latency, at as many addresses as there are to be hosts."""
    return lambda: serving(folder, "--quick", f"--hosts={NUM_HOSTS}", f"--max-side-px={MAX_SIDE_PX}")


def urls_of(server: Server, number: int) -> list[str]:
    """Return URLs, one host after the other."""
    hosts = loopback_addresses(NUM_HOSTS)
    return [f"http://{hosts[place % NUM_HOSTS]}:{server.port}/good/{place}.jpg" for place in range(number)]


def cost_of(way: Way, server: Server, urls: Sequence[str], folder: Path, peer: Path) -> Cost:
    """Fetch the URLs in a fresh folder, measure it, and remove what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if way.is_ours:
        write_documents(folder / "documents", urls, DOCUMENTS_PER_PART)
        command = carnac_command(write_recipe(folder, server, HURRIED, way.settings), 1)
    else:
        (folder / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
        command = peer_command(peer, folder, way.settings)
    facts = measure(command, folder)
    kept = _kept_by_us(folder) if way.is_ours else _kept_by_peer(folder)
    output_mb = sum(path.stat().st_size for path in folder.glob("images/**/*.tar")) / 1e6
    shutil.rmtree(folder)
    return Cost(
        cpu_seconds=facts["user_seconds"] + facts["system_seconds"],
        wall_seconds=facts["wall_seconds"],
        peak_tree_mb=facts["peak_tree_mb"],
        peak_process_mb=facts["peak_process_mb"],
        kept=kept,
        output_mb=output_mb,
    )


def peer_command(peer: Path, folder: Path, settings: Mapping[str, Any]) -> list[str]:
    """Return the command for img2dataset; what is not said here is as it comes, its sha256 of every image too."""
    said = {
        "url_list": folder / "urls.txt",
        "output_folder": folder / "images",
        "output_format": "webdataset",
        "input_format": "txt",
        "resize_mode": "no",
        "processes_count": 1,
        "thread_count": CONNECTIONS,
        "timeout": TIMEOUT_SECONDS,
        "retries": 0,
        "extract_exif": False,  # carnac keeps none either
        **settings,
    }
    return [str(peer / "bin" / "img2dataset"), *(f"--{name}={value}" for name, value in said.items())]


def measure(command: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run a command in a folder to its end and return what it cost (usage.py)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    with (folder / "run.log").open("wb") as log:
        subprocess.run(
            [sys.executable, str(HERE / "usage.py"), str(folder / "usage.json"), *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    facts: dict[str, Any] = json.loads((folder / "usage.json").read_text())
    assert facts["code"] == 0, (folder / "run.log").read_text()[-3000:]
    return facts


def _kept_by_us(folder: Path) -> int:
    return sum(row["status"] == "kept" for row in table(folder / "images").values())


def _kept_by_peer(folder: Path) -> int:
    kept = 0
    for path in (folder / "images").glob("*.tar"):
        with tarfile.open(path) as tar:
            kept += sum(name.endswith(".jpg") for name in tar.getnames())
    return kept
