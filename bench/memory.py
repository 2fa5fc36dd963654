"""Peak memory of a worker by the size of its input, in real processes.

Map stages (crawl, signals, masks, digests by bucket) on one archive of 1x and 10x the pages: wanted <= 1.15 times.
The search for repeats on 1x and 10x the documents, and on one bucket of eight times the documents that it should hold:
wanted <= the cap of DuckDB + 512 MB.
"""

from __future__ import annotations

import dataclasses
import io
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from carnac.core.places import Place
from carnac.curate.settings import RepeatsPass, Rule, RulesPass
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
DIGESTS = Stage(
    name="signals", version=1, schema=pa.schema([("id", pa.string()), ("url_digest", pa.string())]), work=None
)
# Every fifth document has the URL of one of another part.
DIGESTS_OF_PART = """
SELECT md5('{part} ' || row) AS id, sha256(CASE row % 5 WHEN 0 THEN 'all' ELSE '{part}' END || ' ' || row) AS url_digest
FROM range({rows}) AS rows(row)
"""


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
    """Write parts of digests as `signals/` has them."""
    folder.mkdir(parents=True)
    units = [DIGESTS.unit(f"{number:05d}", None, settings={}, inputs=[]) for number in range(num_parts)]
    for unit in units:
        with duckdb.connect() as database, Part(DIGESTS, unit, folder) as part:
            part.write_table(database.sql(DIGESTS_OF_PART.format(part=unit.name, rows=ROWS)).to_arrow_table())
    return manifest_of(DIGESTS, folder, collect_parts(folder, units), {}, {})


def search(folder: Path, signals: Manifest, rows_per_bucket: int) -> tuple[dict[str, float], int]:
    """Search all parts for repeats; return the peaks and how many were found."""
    runner = new_runner()
    limits = repeats.SearchLimits(max_memory_mb=CAP_MB, rows_per_bucket=rows_per_bucket)
    found = repeats.search_repeats(runner, BY_URL, signals, None, folder, limits)
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
            peaks, found = search(Path(scratch) / "repeats", signals, rows_per_bucket)
        assert found == (num_parts - 1) * ROWS // 5, found
        over = f"cap of {CAP_MB} {peaks['repeats'] - CAP_MB:+.0f} MB (wanted <= +512)"
        size = f"{num_parts * ROWS / 1e6:.0f} M documents, buckets of {rows_per_bucket / 1e6:.1f} M"
        print(f"repeats      {peaks['repeats']:6.0f} MB on {size}: {over}; repeat_keys {peaks['repeat_keys']:.0f} MB")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
