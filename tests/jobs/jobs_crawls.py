"""Crawls for tests: pages as warcio stores them, laid out as Common Crawl lays them out, and a crawl job run here."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from carnac.engine.child import do_unit
from carnac.engine.guard import Done
from carnac.engine.ledger import read_ledger
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit
from carnac.jobs import crawl
from carnac.recipe.settings import Limits

CRAWL = "CC-MAIN-2026-30"
LISTING = f"/crawl-data/{CRAWL}/warc.paths.gz"
WORDS = "The old mill stands by the river, and in the evening people walk along the water to look at its wheel."


def page(url: str) -> bytes:
    """Return a page that is like no other."""
    return f"<html><head><title>{url}</title></head><body><p>{WORDS} This is {url}.</p></body></html>".encode()


def write_warc(urls: Sequence[str]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Return a `.warc.gz` with a request and a response per URL, and where each response lies: (offset, length)."""
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=True)

    def write(url: str, kind: str, head: StatusAndHeaders, body: bytes) -> None:
        record = writer.create_warc_record(url, kind, payload=io.BytesIO(body), http_headers=head)
        writer.write_record(record)
        record.raw_stream.close()  # a temporary file of warcio's

    places = {}
    for url in urls:
        write(url, "request", StatusAndHeaders("GET / HTTP/1.1", [("Host", "a.example")], is_http_request=True), b"")
        start = out.tell()
        headers = [("Content-Type", "text/html; charset=utf-8")]
        write(url, "response", StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1"), page(url))
        places[url] = (start, out.tell() - start)
    return out.getvalue(), places


@dataclass
class CommonCrawl:
    """A crawl: `files` by path, records by URL as (path, offset, length)."""

    num_archives: int = 6
    num_pages: int = 4
    files: dict[str, bytes] = field(default_factory=dict)
    records: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in range(self.num_archives):
            path = f"crawl-data/{CRAWL}/segments/17{number % 2}/warc/{CRAWL}-{number:05}.warc.gz"
            urls = [f"https://a.example/{number}/{page}" for page in range(self.num_pages)]
            self.files[f"/{path}"], places = write_warc(urls)
            self.records |= {url: (path, *place) for url, place in places.items()}
        listing = "".join(f"{path[1:]}\n" for path in self.files)
        self.files[LISTING] = gzip.compress(listing.encode())

    def write(self, root: Path) -> None:
        """Write it below a folder."""
        for path, content in self.files.items():
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (root / path[1:]).write_bytes(content)


CRAWLED = CommonCrawl()


@dataclass
class CrawlHere:
    """Runs crawls in this process; `done` holds the units of the last one that were not done before."""

    output: Path
    done: list[str] = field(default_factory=list)

    def __call__(self, **settings: Any) -> list[dict[str, Any]]:
        """Run a crawl; return its rows."""
        self.done.clear()
        fields = {"job": "crawl", "output": str(self.output), **settings}
        recipe = crawl.CrawlRecipe.model_validate_json(json.dumps(fields))
        crawl.run(recipe, Runner(reporter=TerminalReporter(io.StringIO())))
        return [row for part in self.manifest["parts"] for row in pq.read_table(self.output / part["file"]).to_pylist()]

    @property
    def manifest(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.output / "manifest.json").read_bytes())
        return content

    @property
    def lost(self) -> dict[str, str]:
        """Return the reason of each lost record, by its name."""
        lost: dict[str, str] = {}
        for part in self.manifest["parts"]:
            lost |= {record.record: record.reason for record in read_ledger(self.output / part["file"]).quarantine}
        return lost

    def run_units(
        self, stage: Stage, units: Sequence[Unit], folder: Path, workers: int, limits: Limits, preload: Sequence[str]
    ) -> Iterator[Done]:
        """Stand where `engine.local.run_units` does: a process per unit of a dozen small crawls takes a minute."""
        for unit in units:
            self.done.append(unit.name)
            yield Done(unit=do_unit(stage, unit, folder))
