"""From WARC files to the Parquet rows of `documents/`, by the job's own path in one process, against a bare parse."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser
from turns import in_turns

from carnac.archive.records import read_responses
from carnac.engine.child import do_unit
from carnac.jobs.crawl import STAGE, CrawlTask
from carnac.web.settings import ExtractSettings
from extraction.pages import MAX_PAYLOAD_BYTES, Page


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveCost:
    """Seconds of CPU for all records, medians of the rounds; `ratios` to the bare parse by round."""

    num_pages: int
    parse_seconds: float
    read_seconds: float
    seconds: float
    ratios: list[float]


def measure_archives(archives: Sequence[Path], pages: Sequence[Page], rounds: int) -> ArchiveCost:
    """Time the job on `archives`, whose pages are `pages`, in turns with a bare parse and mere reading."""

    def parse() -> None:
        for page in pages:
            LexborHTMLParser(page.text)

    def read() -> None:
        for archive in archives:
            for _ in read_responses(archive, max_payload_bytes=MAX_PAYLOAD_BYTES):
                pass

    def make_documents() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for number, archive in enumerate(archives):
                task = CrawlTask(warc=archive, settings=ExtractSettings(), limit=None)
                do_unit(STAGE, STAGE.unit(f"{number:05d}", task, settings={}, inputs=[]), Path(folder))

    times = in_turns({"parse": parse, "read": read, "documents": make_documents}, rounds=rounds)
    return ArchiveCost(
        num_pages=len(pages),
        parse_seconds=statistics.median(times["parse"]),
        read_seconds=statistics.median(times["read"]),
        seconds=statistics.median(times["documents"]),
        ratios=[time / base for time, base in zip(times["documents"], times["parse"], strict=True)],
    )
