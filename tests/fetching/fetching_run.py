"""Runs of the images job over a web of our own, as a user would start them; processes and servers are real."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import tomli_w
from fetching_log import Seen, read_log
from fetching_network import inside
from fetching_site import DOMAIN, PUBLIC_ADDRESS, Link, Site

from carnac.core.document import Document, Kind, document_id
from carnac.core.schema import document_to_row
from carnac.engine.manifest import collect_parts, manifest_of, write_manifest
from carnac.engine.part import Part
from carnac.jobs.crawl import STAGE

HERE = Path(__file__).parent
IMAGES_PER_DOCUMENT = 8
IMAGE: tuple[Kind, ...] = ("image",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server at work: its process, its ports, and where its log is."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int
    dead_port: int
    is_isolated: bool

    def seen(self) -> Seen:
        """Return what it has seen until now."""
        return read_log(self.folder / "requests.log")

    def start(self, command: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
        """Start a command in `folder` where it reaches this server, in a session of its own; it prints to run.log."""
        asked = inside(self.process.pid, command) if self.is_isolated else list(command)
        with (folder / "run.log").open("wb") as output:
            return subprocess.Popen(
                asked,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """Start a server; `options` are those of fetching_server.py. It ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.json").unlink(missing_ok=True)  # of a server that was there before
    command = [sys.executable, str(HERE / "fetching_server.py"), str(folder), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            while not (folder / "server.json").exists():
                assert process.poll() is None, "the server could not start"
                time.sleep(0.01)
            ports = json.loads((folder / "server.json").read_text())
            yield Server(process=process, folder=folder, is_isolated="--isolated" in options, **ports)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def site_of(server: Server, **size: int) -> Site:
    """Return the web of a server: `num_hosts`, `pictures_per_host`, `num_others`."""
    return Site(port=server.port, dead_port=server.dead_port, is_isolated=server.is_isolated, **size)


def write_documents(folder: Path, urls: Sequence[str], documents_per_part: int = 400) -> None:
    """Write documents that show these URLs, in the order given, as the crawl job writes them; the first one twice."""
    pages = [urls[start : start + IMAGES_PER_DOCUMENT] for start in range(0, len(urls), IMAGES_PER_DOCUMENT)]
    pages.append(urls[:1])
    folder.mkdir(parents=True)
    units = []
    for start in range(0, len(pages), documents_per_part):
        unit = STAGE.unit(f"pages-{start // documents_per_part:05d}", None, settings={}, inputs=[])
        units.append(unit)
        with Part(STAGE, unit, folder) as part:
            for number, images in enumerate(pages[start : start + documents_per_part], start):
                part.write(document_to_row(_document(number, images)))
                part.count("documents")
                part.count("images", len(images))
    write_manifest(manifest_of(STAGE, folder, collect_parts(folder, units), {}, {"pages": ["pages/*.html"]}))


def _document(number: int, images: Sequence[str]) -> Document:
    url = f"https://pages.example/{number}.html"
    return Document(
        id=document_id(url, b""),
        url=url,
        warc_file="pages",
        warc_offset=number,
        fetched_at=None,
        title=f"Page {number}",
        language="en",
        language_score=1.0,
        texts=(f"What is to be seen on page {number}.", *(None for _ in images)),
        images=(None, *images),
        kinds=("paragraph", *IMAGE * len(images)),
        image_nodes=(None, *(None for _ in images)),
    )


def write_recipe(
    folder: Path, server: Server, http: Mapping[str, Any], inspect: Mapping[str, Any] | None = None
) -> Path:
    """Write the recipe of an images job over folder/documents. In an isolated network, nothing is allowed extra."""
    address = PUBLIC_ADDRESS if server.is_isolated else "127.0.0.1"
    reach = {"addresses": {f"*.{DOMAIN}": address}, "allow_private_addresses": not server.is_isolated}
    recipe = {
        "job": "images",
        "documents": "documents",
        "output": "images",
        "fetch": True,
        "inspect": dict(inspect or {}),
        "http": {**reach, **http},
    }
    path = folder / "images.toml"
    path.write_text(tomli_w.dumps(recipe))
    return path


def carnac_command(recipe: Path, workers: int, *arguments: str) -> list[str]:
    """Return the command that runs a recipe."""
    return [sys.executable, "-m", "carnac", "run", str(recipe), f"--workers={workers}", *arguments]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended: `output` is what it printed; `killed_at` the time of a kill, None where it ended by itself."""

    output: str
    code: int
    seconds: float
    killed_at: float | None = None


def run(server: Server, folder: Path, command: Sequence[str], *, after_requests: int | None, limit: float) -> Ended:
    """Run a command to its end, or kill its whole tree once the server has seen so many requests."""
    began = time.monotonic()
    process = server.start(command, folder)
    try:
        killed_at = _watch(server, process, after_requests, began + limit)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    output = (folder / "run.log").read_text(encoding="utf-8", errors="replace")
    return Ended(output=output, code=code, seconds=time.monotonic() - began, killed_at=killed_at)


def _watch(
    server: Server, process: subprocess.Popen[bytes], after_requests: int | None, deadline: float
) -> float | None:
    while process.poll() is None:
        assert time.monotonic() < deadline, "the run does not end"
        if after_requests is not None and _num_begun(server) >= after_requests:
            killed_at = time.monotonic()
            os.killpg(process.pid, signal.SIGKILL)
            return killed_at
        time.sleep(0.02)
    return None


def _num_begun(server: Server) -> int:
    return (server.folder / "requests.log").read_bytes().count(b"\nB\t")


def table(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of an images folder by URL, and assert that each is there once."""
    parts = json.loads((folder / "manifest.json").read_bytes())["parts"]
    rows = [row for part in parts for row in pq.read_table(folder / part["file"]).to_pylist()]
    found = {row["url"]: row for row in rows}
    assert len(found) == len(rows), "a URL has two rows"
    return found


def stored(folder: Path, row: Mapping[str, Any]) -> bytes:
    """Return the bytes that the packs hold for a row, and assert that they are those of its hash."""
    with (folder / "packs" / row["pack"]).open("rb") as pack:
        pack.seek(row["offset"])
        payload: bytes = pack.read(row["length"])
    assert hashlib.sha256(payload).hexdigest() == row["sha256"], row["url"]
    return payload


def wrong_rows(links: Sequence[Link], rows: Mapping[str, Mapping[str, Any]], digests: Mapping[int, str]) -> list[str]:
    """Return what a table says that should not be so, in words. `digests` are those of the pictures, by number."""
    wrong = [f"{url}: nobody asked for it" for url in rows.keys() - {link.url for link in links}]
    for link in links:
        row = rows.get(link.url)
        state = "" if row is None else f"{row['status']}, {row['reason']} ({row['detail']})"
        if row is None:
            wrong.append(f"{link.url}: has no row")
        elif link.picture is None:
            if row["status"] not in ("dropped", "deferred") or row["reason"] not in link.reasons:
                wrong.append(f"{link.url}: {state}; wanted {link.reasons}")
        elif row["status"] != "kept" or row["received_sha256"] != digests[link.picture]:
            wrong.append(f"{link.url}: {state}; wanted picture {link.picture}")
    return wrong
