"""Peak memory of a worker by the size of its input, in real processes.

Map stages (crawl, signals, masks, digests by bucket) on one archive of 1x and 10x the pages: wanted <= 1.15 times.
The search for repeats on 1x and 10x the documents, and on one bucket of eight times the documents that it should hold:
wanted <= the cap of DuckDB + 512 MB; and so for paragraphs, on 1x and 4x the documents.
"""

from __future__ import annotations

import dataclasses
import io
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from carnac.core.places import Place
from carnac.core.seeds import generator
from carnac.curate.repeats.settings import RepeatKind, RepeatsPass
from carnac.curate.settings import Rule, RulesPass
from carnac.engine.manifest import Manifest, PartEntry, collect_parts, manifest_of
from carnac.engine.part import Part
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.engine.unit import Stage, Unit
from carnac.jobs import crawl, curate, repeats

DATA = Path(__file__).parents[1] / "recipes" / "tiny" / "data"
COPIES = 6  # of the tiny recipe's 198 pages in one archive at 1x: more than the 1,000 rows that a part holds
ROWS = 500_000  # of a part of digests, and of a bucket
CAP_MB = 200
BY_URL = RepeatsPass(name="repeats", kind="repeats", by=("url",))
BLOCKS = RulesPass(name="blocks", kind="rules", rules=(Rule(on="text", signal="num_words", min=3),))
SIGNALS = pa.schema(
    [
        ("id", pa.string()),
        ("failed", pa.string()),
        ("block_kind", pa.list_(pa.int8())),
        ("url_digest", pa.uint64()),
        ("block_text_digest", pa.list_(pa.uint64())),
        ("url", pa.string()),  # of `documents`: one table stands for both
    ]
)
Numbers = npt.NDArray[Any]
DIGESTS = Stage(name="signals", version=1, schema=SIGNALS, work=None)
PARAGRAPHS = 43  # a document, as in OBELICS
PAGES = 25_000  # of a part of paragraphs


@dataclasses.dataclass(frozen=True)
class Measured:
    """The work of a stage, after which the peak of its process is noted in the ledger: a unit has its own process."""

    work: Callable[[Unit, Part], None]

    def __call__(self, unit: Unit, part: Part) -> None:
        """Do the work; then read the most memory that this process ever held, in kB."""
        self.work(unit, part)
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        part.count("peak_kb", int(line.split()[1]))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeasuringRunner(Runner):
    """Does every stage as any run does, and keeps the highest peak of its workers, in MB."""

    peaks: dict[str, float] = dataclasses.field(default_factory=dict)

    def do(self, stage: Stage, units: Sequence[Unit], folder: Place) -> tuple[PartEntry, ...]:
        """Do the units and look up their peaks."""
        assert stage.work is not None
        entries = Runner.do(self, dataclasses.replace(stage, work=Measured(stage.work)), units, folder)
        self.peaks[stage.name] = max(entry.counts["peak_kb"] for entry in entries) / 1024
        return entries


def new_runner() -> MeasuringRunner:
    """Return a runner of two workers that says nothing."""
    modules = ("carnac.jobs.crawl", "carnac.jobs.curate")
    return MeasuringRunner(reporter=TerminalReporter(io.StringIO()), workers=2, preload=modules)


def map_stages(folder: Path, copies: int) -> dict[str, float]:
    """Crawl one archive of so many copies of the tiny recipe's, measure and judge; return the peaks."""
    runner = new_runner()
    with (folder / "pages.warc.gz").open("wb") as archive:
        for _ in range(copies):
            for part in sorted(DATA.glob("*.warc.gz")):
                archive.write(part.read_bytes())
    documents = folder / "documents"
    crawl.run(crawl.CrawlRecipe(job="crawl", warcs=(str(folder / "pages.warc.gz"),), output=documents), runner)
    output = folder / "curated"
    curate.run(curate.CurateRecipe(job="curate", documents=documents, output=output, passes=(BLOCKS, BY_URL)), runner)
    return runner.peaks


def write_digests(folder: Path, num_parts: int) -> Manifest:
    """Write parts of URL digests as `signals/` has them: every fifth document has the URL of one of another part."""

    def rows(number: int, first: int, last: int) -> pa.Table:
        urls = np.arange(first, last) + np.where(np.arange(first, last) % 5, number << 32, 0)
        return _table(number, first, last, urls, np.zeros((last - first, 1)))

    return _written(folder, num_parts, ROWS, rows)


def write_paragraphs(folder: Path, num_parts: int) -> Manifest:
    """Write parts of paragraph digests: 15 % of them are one of 200 that stand everywhere."""

    def rows(number: int, first: int, last: int) -> pa.Table:
        draws = generator("bench", number, first)
        digests = draws.integers(0, 2**63, (last - first, PARAGRAPHS))
        is_common = draws.random(digests.shape) < 0.15
        digests[is_common] = draws.integers(0, 200, int(is_common.sum()))
        return _table(number, first, last, np.arange(first, last) + (number << 32), digests)

    return _written(folder, num_parts, PAGES, rows)


def _table(number: int, first: int, last: int, urls: Numbers, digests: Numbers) -> pa.Table:
    starts = pa.array(np.arange(0, digests.size + 1, digests.shape[1]), pa.int32())
    columns = [
        pa.array([f"{number:04x}{row:028x}" for row in range(first, last)]),
        pa.nulls(last - first, pa.string()),
        pa.ListArray.from_arrays(starts, pa.array(np.zeros(digests.size, np.int8))),
        pa.array(urls.astype(np.uint64)),
        pa.ListArray.from_arrays(starts, pa.array(digests.ravel().astype(np.uint64))),
        pa.array([f"http://host-{row % 50}.example/{row}" for row in range(first, last)]),
    ]
    return pa.table(columns, schema=SIGNALS)


def _written(folder: Path, num_parts: int, num_rows: int, rows: Callable[[int, int, int], pa.Table]) -> Manifest:
    folder.mkdir(parents=True)
    units = [DIGESTS.unit(f"{number:05d}", None, settings={}, inputs=[]) for number in range(num_parts)]
    for number, unit in enumerate(units):
        with Part(DIGESTS, unit, folder) as part:
            for first in range(0, num_rows, 5000):
                part.write_table(rows(number, first, min(first + 5000, num_rows)))
    return manifest_of(DIGESTS, folder, collect_parts(folder, units), {}, {})


def search(folder: Path, signals: Manifest, kind: RepeatKind, rows_per_bucket: int) -> tuple[dict[str, float], int]:
    """Search all parts for repeats; return the peaks and how many were found."""
    runner = new_runner()
    limits = repeats.SearchLimits(max_memory_mb=CAP_MB, rows_per_bucket=rows_per_bucket)
    sources = repeats.RepeatSources(documents=signals, signals=signals, images=None, last=None)
    step = RepeatsPass(name="repeats", kind="repeats", by=(kind,))
    found = repeats.search_repeats(runner, step, sources, folder, limits)
    return runner.peaks, found.rows


def main() -> None:
    """Run the benchmark."""
    print(f"{platform.machine()}, Python {platform.python_version()}; peak memory of the worker that held most")
    with tempfile.TemporaryDirectory() as scratch:
        small, large = (map_stages(_made(Path(scratch) / f"maps-{n}"), n * COPIES) for n in (1, 10))
    for stage in ("documents", "signals", "masks", "repeat_keys"):
        ratio = f"{large[stage] / small[stage]:5.2f} x (wanted <= 1.15)"
        print(f"{stage:12} {small[stage]:6.0f} MB on {198 * COPIES:,} pages, {large[stage]:6.0f} MB on 10x: {ratio}")
    for num_parts, rows_per_bucket in ((2, ROWS), (20, ROWS), (8, 8 * ROWS)):
        with tempfile.TemporaryDirectory() as scratch:
            signals = write_digests(Path(scratch) / "signals", num_parts)
            peaks, found = search(Path(scratch) / "repeats", signals, "url", rows_per_bucket)
        assert found == (num_parts - 1) * ROWS // 5, found
        print(_told(peaks, f"{num_parts * ROWS / 1e6:.0f} M documents, buckets of {rows_per_bucket / 1e6:.1f} M"))
    for num_parts in (4, 16):
        with tempfile.TemporaryDirectory() as scratch:
            signals = write_paragraphs(Path(scratch) / "signals", num_parts)
            peaks, found = search(Path(scratch) / "repeats", signals, "paragraph", 1_000_000)
        blocks = num_parts * PAGES * PARAGRAPHS
        assert 0.1 < found / blocks < 0.16, found
        print(_told(peaks, f"{blocks / 1e6:.1f} M paragraphs of {num_parts * PAGES / 1e6:.1f} M documents"))


def _told(peaks: dict[str, float], size: str) -> str:
    over = f"cap of {CAP_MB} {peaks['repeats'] - CAP_MB:+.0f} MB (wanted <= +512)"
    return f"repeats      {peaks['repeats']:6.0f} MB on {size}: {over}; repeat_keys {peaks['repeat_keys']:.0f} MB"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
